"""Measures listing and publishing at sizes that no benchmarked night reaches.

Each step runs in its own process, ``python -m benchmarks.bulk``, so that its peak memory can be measured; the process
reads its task from standard input. The steps call the same functions as the tasks ``list`` and ``publish``.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import sys
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.bench import Bench
from benchmarks.bound import Service
from benchmarks.figures import Figure, at_most
from benchmarks.processes import Broken, Used, measured, peak_mb
from benchmarks.services import DAY, KEY, RECORDINGS, WAREHOUSE, s3_client

MODULE = "benchmarks.bulk"
DATED = "bulk/{date:%Y-%m-%d}/"
PHASES_A_CALL = 4
CALLS_A_PART = 2500
TURNS = 5
YEAR = 365
FIRST_OF_YEAR = DAY - dt.timedelta(days=YEAR)  # an index of future days would not be reused


def listing(bench: Bench) -> list[Figure]:
    """List a day of a million recordings, once in the day's own folder and once in a flat archive."""
    keys = bench.scaled(1_000_000)
    figures: list[Figure] = []
    for name, pattern, prefix in (("dated", "%Y-%m-%d/", "{date:%Y-%m-%d}/"), ("flat", "%Y%m%dT%H%M%S-", "")):
        with bench.services(Service()) as services:
            services.fill("many/", keys, pattern, spacing_s=86_000 / keys)
            services.reset()
            used = _step(bench, "begin", prefix=f"many/{prefix}", days=1, first=DAY.isoformat())
            lists = services.s3_requests()["LIST"].get("audio", 0)
        figures += [
            Figure(f"{name}: keys listed", used.said["listed"]),
            Figure(f"{name}: LIST requests", lists, target=at_most(math.ceil(keys / 1000))),
            Figure(f"{name}: peak memory", used.peak_mb, "MB", at_most(300)),
            Figure(f"{name}: time", used.said["took_s"], "s", note="the whole task `list`, including manifests"),
        ]
    return figures


def archive(bench: Bench) -> list[Figure]:
    """List a year of a flat archive day by day, as a backfill does."""
    keys = bench.scaled(100_000)
    with bench.services(Service()) as services:
        services.fill("archive/", keys, "%Y%m%dT%H%M%S-", YEAR * 86_400 / keys, FIRST_OF_YEAR)
        services.reset()
        used = _step(bench, "begin", prefix="archive/", days=YEAR, first=FIRST_OF_YEAR.isoformat())
        lists = services.s3_requests()["LIST"].get("audio", 0)
    return [
        Figure("keys listed", used.said["listed"], note=f"in {YEAR} days"),
        Figure("LIST requests of recordings", lists, target=at_most(math.ceil(keys / 1000))),
        Figure("peak memory", used.peak_mb, "MB"),
        Figure("time a day", used.said["took_s"] / YEAR, "s"),
    ]


def publish(bench: Bench) -> list[Figure]:
    """Publish a million rows of phases, and write the same tables with pyarrow and boto3 alone."""
    calls = bench.scaled(1_000_000 // PHASES_A_CALL)
    with bench.services(Service()) as services:
        _step(bench, "parts", calls=calls)
        parts = services.s3_requests().get("PUT", {}).get("runs", 0)
        # Alternate, so that other load on the machine affects both.
        turns = [(_step(bench, "publish", calls=calls), _step(bench, "bare", calls=calls)) for _ in range(TURNS)]
    ours_s, bare_s = (median(used.said["took_s"] for used in side) for side in zip(*turns, strict=True))
    ours_mb, bare_mb = (max(used.peak_mb for used in side) for side in zip(*turns, strict=True))
    return [
        Figure("rows of phases", turns[0][0].said["phases"], note=f"from {parts} parts"),
        Figure("time to publish", ours_s, "s", note=f"median of {TURNS}"),
        Figure("time of pyarrow alone", bare_s, "s", note="both tables written from memory and uploaded"),
        Figure("over pyarrow alone", ours_s / bare_s, target=at_most(1.5)),
        Figure("peak memory", ours_mb, "MB", note=f"pyarrow alone: {bare_mb:.0f} MB"),
    ]


def publish_calls(bench: Bench, calls: int) -> None:
    """Publish the day ``DAY`` of the pipeline ``bulk_document()``; the services must be running."""
    _step(bench, "parts", calls=calls)
    _step(bench, "publish", calls=calls)


def _step(bench: Bench, step: str, **more: Any) -> Used:
    task = {"step": step, "s3_url": bench.ports.s3_url, "speech_url": bench.ports.speech_url, **more}
    return measured(MODULE, task, bench.folder / "logs" / f"bulk-{step}.log")


def bulk_document(prefix: str = DATED) -> dict[str, Any]:
    """Content of the file of the pipeline that all steps are of."""
    time_in_key = {"key_pattern": r"(?P<time>\d{8}T\d{6})-", "format": "%Y%m%dT%H%M%S"}
    recordings: dict[str, Any] = {"bucket": RECORDINGS, "prefix": prefix}
    if prefix and "{" not in prefix:
        recordings |= {"call_time": time_in_key}
    output = {"tables": f"s3://{WAREHOUSE}/tables/bulk/", "state": f"s3://{WAREHOUSE}/state/bulk/"}
    # Each `list` queries the gateway for its models, and the default limit would delay a year of them by minutes.
    limits = {"llm_requests_per_minute": 60_000}
    return {"pipeline": "bulk", "recordings": recordings, "output": output, "limits": limits}


def _pipeline(prefix: str) -> Any:
    from callphases.pipeline import Pipeline

    return Pipeline.model_validate(bulk_document(prefix))


def _begin(task: dict[str, Any]) -> dict[str, Any]:
    """Run what the task ``list`` does, for a number of days."""
    from callphases.day_run import DayRun
    from callphases.segmentation.gateway import Gateway
    from callphases.transcription.assemblyai import AssemblyAI

    speech, gateway = AssemblyAI(KEY, task["speech_url"]), Gateway(KEY, task["speech_url"])
    night = DayRun(_pipeline(task["prefix"]), s3_client(task["s3_url"]), speech, gateway)
    first = dt.date.fromisoformat(task["first"])
    began = time.monotonic()
    chunks = [
        chunk
        for number in range(task["days"])
        for chunk in night.begin(first + dt.timedelta(days=number), f"bench-{number}").chunks
    ]
    took_s = time.monotonic() - began
    return {"took_s": took_s, "listed": sum(len(night.load(chunk).recordings) for chunk in chunks)}


def _calls(count: int) -> Iterator[tuple[Any, Any]]:
    """Yield recordings with the ledger entries that each has after a run."""
    from callphases.recordings import Recording
    from callphases.state import layout
    from callphases.state.events import Answered, ModelUsage, Transcribed
    from callphases.state.keys import RecordingKeys
    from callphases.state.ledger import LedgerView

    pipeline = _pipeline(DATED)
    keys = RecordingKeys(pipeline)
    for number in range(count):
        at = dt.datetime.combine(DAY, dt.time(), dt.UTC) + dt.timedelta(seconds=number * 86_000 / count)
        key = f"bulk/{DAY}/{number:07}.wav"
        recording = Recording(RECORDINGS, key, f"{number:032x}", 1_000_000 + number, at)
        speech = keys.transcript(recording)
        shared: Any = {"recording": key, "at": at, "fencing_token": 1, "run_id": "bench"}
        heard = Transcribed(
            **shared,
            key=speech,
            status="completed",
            transcript_id=f"{number:08x}-0000-0000-0000-000000000000",
            transcript_uri=f"s3://{WAREHOUSE}/state/bulk/{layout.transcript(DAY, speech)}",
            audio_s=300.0 + number % 60,
            language="en",
            speech_model="assemblyai-stt-3-7",
            speech_usd=0.0125,
        )
        phases: list[dict[str, Any]] = [
            {
                "name": name,
                "start_s": 75.0 * index,
                "end_s": 75.0 * (index + 1) + (number % 60 if index == PHASES_A_CALL - 1 else 0.0),
                "start_cue": 6 * index + 1,
                "end_cue": 6 * index + 6,
                "word_count": 180 + (number + index) % 40,
                "summary": f"The caller of number {number} and the agent speak about matter {(number * 7) % 9973}.",
                "talk": _talk(number * PHASES_A_CALL + index, 75.0),
            }
            for index, name in enumerate(("Introduction", "Complaint", "Resolution", "Goodbye"))
        ]
        said = Answered(
            **shared,
            key=keys.answer(speech),
            duration_s=phases[-1]["end_s"],
            phases=phases,
            talk={"speakers": ["A", "B"] if number % 2 else ["B", "A"]} | _talk(number, 300.0),
            prompt_version="bench",
            usage=ModelUsage(
                llm_model="claude-sonnet-4-6", llm_input_tokens=900, llm_output_tokens=200, llm_usd=0.0057
            ),
        )
        yield recording, LedgerView([heard, said])


def _talk(number: int, length_s: float) -> dict[str, Any]:
    """Return talk figures of a call or phase; seconds have milliseconds and rarely repeat, as in real calls."""
    first_s = round(length_s * (0.3 + number * 7919 % 20_011 / 100_000), 3)
    second_s = round(length_s * (0.2 + number * 104_729 % 20_021 / 100_000), 3)
    return {
        "spoken_s": round(first_s + second_s, 3),
        "talk_s": [first_s, second_s],
        "turn_count": 2 + number % 11,
        "interruption_count": number % 3,
        "words_per_minute": round(120 + number % 601 / 10, 1),
        "confidence": round(0.85 + number * 31 % 1_499 / 10_000, 4),
    }


def _day(calls: int) -> Any:
    from callphases.state.manifests import DayList

    return DayList(
        day=DAY,
        run_id="bench",
        run_token="bench",  # noqa: S106 - the name of a run
        fencing_token=1,
        listed_at=dt.datetime.combine(DAY, dt.time(), dt.UTC),
        listed=calls,
        chunks=math.ceil(calls / CALLS_A_PART),
        rest=0,
        replay=False,
    )


def _folders(task: dict[str, Any]) -> tuple[Any, Any, Any]:
    from callphases.state.storage import ObjectPrefix

    s3, pipeline = s3_client(task["s3_url"]), _pipeline(DATED)
    tables = ObjectPrefix(s3, pipeline.output.tables, "output.tables")
    return pipeline, tables, ObjectPrefix(s3, pipeline.output.state, "output.state")


def _parts(task: dict[str, Any]) -> dict[str, Any]:
    """Write the parts that a run's chunks leave for ``publish``."""
    from callphases.state import layout
    from callphases.tables.parts import PartWriter

    pipeline, _, state = _folders(task)
    day = _day(task["calls"])
    writer = PartWriter(state, pipeline, day, DAY)
    part = 0
    for recording, known in _calls(task["calls"]):
        writer.add(recording, known)
        if len(writer) == CALLS_A_PART:
            writer.write(layout.part_name(layout.CHUNK, part))
            part += 1
    if len(writer):
        writer.write(layout.part_name(layout.CHUNK, part))
    return {}


def _publish(task: dict[str, Any]) -> dict[str, Any]:
    """Run what the task ``publish`` does."""
    from callphases.tables.publishing import publish as publish_day
    from callphases.tables.schema import SCHEMAS, object_name

    pipeline, tables, state = _folders(task)
    for table in SCHEMAS:  # as on a day's first run; this also gets the slow first S3 request out of the way
        tables.delete(object_name(table, DAY))
    began = time.monotonic()
    published = publish_day(tables, state, pipeline, _day(task["calls"]), _none_missing)
    return {"took_s": time.monotonic() - began, "phases": published.phases}


def _none_missing(part: str) -> Iterator[Any]:
    raise Broken(f"The part {part} is missing.")


def _bare(task: dict[str, Any]) -> dict[str, Any]:
    """Write the published tables again, from memory."""
    import pyarrow.parquet as pq

    s3 = s3_client(task["s3_url"])
    found = s3.list_objects_v2(Bucket=WAREHOUSE, Prefix="tables/bulk/").get("Contents", [])
    tables = {
        item["Key"]: pq.read_table(
            io.BytesIO(s3.get_object(Bucket=WAREHOUSE, Key=item["Key"])["Body"].read()), partitioning=None
        )
        for item in found
    }
    began = time.monotonic()
    for key, table in tables.items():
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        s3.put_object(Bucket=WAREHOUSE, Key=f"bare/{key}", Body=buffer.getvalue())
    return {"took_s": time.monotonic() - began}


STEPS = {"begin": _begin, "parts": _parts, "publish": _publish, "bare": _bare}

if __name__ == "__main__":
    given = json.load(sys.stdin)
    said = STEPS[given["step"]](given)
    sys.stdout.write(json.dumps(said | {"peak_mb": peak_mb()}) + "\n")
