"""State areas and tables of the previous version: runs continue from them and pay for nothing twice."""

from __future__ import annotations

import datetime as dt
import io
import json
import math
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import ipc

from callphases.day_run import DayRun
from callphases.errors import DayHeld
from callphases.pipeline import Pipeline, load
from callphases.replay import Replay
from callphases.segmentation.gateway import Gateway
from callphases.tables.publishing import Published
from callphases.tables.schema import SCHEMA_VERSION, SCHEMAS
from callphases.transcription.assemblyai import AssemblyAI
from doubles import KEY, Answer, Clock, Request, Speech, Store, Web, answer, chat_answer
from servers import remove, s3_client

pytestmark = pytest.mark.integration

PREVIOUS = Path(__file__).parents[1] / "fixtures" / "previous_version"
RECORDINGS, WAREHOUSE = "previous-recordings", "previous-warehouse"
FINISHED, INTERRUPTED, DELETED = (dt.date(2024, 5, day) for day in (12, 13, 14))
"""Days of the pipeline ``support``."""
ARCHIVED = dt.date(2024, 5, 13)
"""The day of the pipeline ``archive`` that was run."""
DEAD_RUN = "scheduled__2024-05-13T00:00:00+00:00"
HOUR_S = 3600.0

OF_EVERY_CALL = "Thank you for calling."
"""The first words of a call with the transcript of the test's speech service."""
QUESTION_TOKENS = 300

DT, RUN, DIGITS = r"dt=2024-05-1[2-4]", r"[A-Za-z0-9_.+-]+-[0-9a-f]{8}", r"[0-9a-f]{32}"
PLACES = {
    "leases": rf"\w+/state/ledger/{DT}/lease\.json",
    "logs": rf"\w+/state/ledger/{DT}/{RUN}/(list|publish|chunk-\d{{4}})\.jsonl",
    "days": rf"\w+/state/runs/{DT}/{RUN}/day\.json",
    "chunks": rf"\w+/state/runs/{DT}/{RUN}/chunk-\d{{4}}\.jsonl",
    "parts": rf"\w+/state/runs/{DT}/{RUN}/rows/(chunk|rest)-\d{{4}}\.arrow",
    "summaries": r"\w+/state/summaries/\d{4}-\d\d\.json",
    "slots": rf"\w+/state/runs/{DT}/{RUN}/slots\.json",
    "transcripts": rf"\w+/state/transcripts/{DT}/{DIGITS}\.json",
    "captions": rf"\w+/state/transcripts/{DT}/{DIGITS}\.vtt",
    "cues": rf"\w+/state/transcripts/{DT}/cues-{DIGITS}\.jsonl",
    "jobs": r"\w+/state/limits/jobs\.json",
    "limits": r"\w+/state/limits/llm-[0-9a-f]{16}\.json",
    "index": r"archive/state/index/[0-9a-f]{16}/(index|lease)\.json",
    "indexed days": r"archive/state/index/[0-9a-f]{16}/2024-05-1[34]-[0-9a-f]{16}\.jsonl\.gz",
    "calls": rf"\w+/tables/calls/{DT}/calls\.parquet",
    "phases": rf"\w+/tables/phases/{DT}/phases\.parquet",
}


@dataclass
class Previous:
    """The objects of the previous version, and runs of this one on them."""

    s3: Store
    speech: Speech
    models: Web
    written: dict[str, bytes] = field(default_factory=dict, repr=False)
    """The objects of state areas and tables."""

    def __post_init__(self) -> None:
        self.s3.recordings, self.s3.warehouse = RECORDINGS, WAREHOUSE
        for bucket in (RECORDINGS, WAREHOUSE):
            self.s3.client.create_bucket(Bucket=bucket)
        folder = PREVIOUS / WAREHOUSE
        for path in sorted(folder.rglob("*.*")):
            if path.is_file():
                self.written[path.relative_to(folder).as_posix()] = path.read_bytes()
        for key, body in self.written.items():
            self.s3.client.put_object(Bucket=WAREHOUSE, Key=key, Body=body)
        for key, said in json.loads((PREVIOUS / "recordings.json").read_text()).items():
            tags = urllib.parse.urlencode(said["tags"])
            self.s3.client.put_object(
                Bucket=RECORDINGS, Key=key, Body=key.encode(), Metadata=said["metadata"], Tagging=tags
            )
        provider = json.loads((PREVIOUS / "provider.json").read_text())
        self.speech.taken, self.speech.jobs, self.speech.endings = (
            provider[name] for name in ("taken", "jobs", "endings")
        )
        self.models.respond = divided

    def day_run(self, name: str = "support", **sections: Any) -> DayRun:
        pipeline = Pipeline.model_validate(load(PREVIOUS / f"{name}.yaml").model_dump() | sections)
        return DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))

    def run(self, day: dt.date, name: str = "support", replay: str | None = None, **sections: Any) -> Published:
        """A whole run of this version, one task after the other."""
        day_run = self.day_run(name, **sections)
        listed = day_run.begin(day, "run-now", Replay.of(replay))
        return self.finish(day_run, listed.chunks, listed.day)

    def finish(self, day_run: DayRun, chunks: list[str], day: str) -> Published:
        """The tasks of a run that has listed its day."""
        for uri in chunks:
            assert day_run.transcribe(day_run.load(uri), math.inf) is None
            day_run.segment(day_run.load(uri))
        return day_run.end(day_run.load_day(day))

    def rows(self, day: dt.date, name: str = "support", table: str = "calls") -> list[dict[str, Any]]:
        """A day of a table as it is now."""
        return rows_of(self.s3.bytes_of(f"{name}/tables/{table}/dt={day}/{table}.parquet"))

    def rows_before(self, day: dt.date, name: str = "support", table: str = "calls") -> list[dict[str, Any]]:
        """A day of a table as the previous version published it, with what this one adds to such rows."""
        added = {"schema_version": SCHEMA_VERSION} | ({"warnings": None} if table == "calls" else {})
        before = rows_of(self.written[f"{name}/tables/{table}/dt={day}/{table}.parquet"])
        own = [column for column in before[0] if column not in SCHEMAS[table].names]
        return [{column: (row | added)[column] for column in [*SCHEMAS[table].names, *own]} for row in before]

    def under_way(self, kind: str) -> list[str]:
        """The URIs of the lists of the interrupted run."""
        place = re.compile(rf"support/state/runs/dt={INTERRUPTED}/{RUN}/{kind}")
        return [f"s3://{WAREHOUSE}/{key}" for key in self.written if place.fullmatch(key)]

    @property
    def submitted(self) -> list[str]:
        """The names of the recordings that were submitted."""
        return sorted(name_of(document["audio_url"]) for document in self.speech.submitted)

    @property
    def asked(self) -> list[str]:
        """The first words of the calls that a model was asked about."""
        questions = [request.json["messages"] for request in self.models.requests if request.json["messages"]]
        return sorted(call["cues"][0]["text"] for messages in questions for call in calls_of(messages))

    @property
    def described(self) -> list[str]:
        """The names of the recordings whose metadata the store was asked for."""
        return sorted(name_of(key) for operation, key in self.s3.asked if operation == "HeadObject")

    @property
    def deletions(self) -> list[str]:
        return [request.path for request in self.speech.web.requests if request.method == "DELETE"]


@pytest.fixture
def previous(s3: Store, speech: Speech, models: Web) -> Iterator[Previous]:
    yield Previous(s3, speech, models)
    for bucket in (RECORDINGS, WAREHOUSE):
        remove(s3_client(s3.url), bucket)


def calls_of(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """The calls that a question is about."""
    return json.loads(messages[-1]["content"])["calls"]


def divided(request: Request) -> Answer:
    """The gateway's answer: every call has an introduction and, from its second cue on, a complaint."""
    if not request.json["messages"]:
        return answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)
    calls = [
        {
            "call": call["call"],
            "phases": [
                {"name": name, "start_cue": cue["cue"], "summary": f"{name}."}
                for name, cue in zip(("Introduction", "Complaint"), call["cues"], strict=False)
            ],
        }
        for call in calls_of(request.json["messages"])
    ]
    return chat_answer({"calls": calls}, tokens=(QUESTION_TOKENS * len(calls), 40 * len(calls)))


def rows_of(body: bytes) -> list[dict[str, Any]]:
    return pq.read_table(io.BytesIO(body)).to_pylist()


def name_of(url: str) -> str:
    """The name of a recording: ``refund`` in ``…/090512-3-refund.mp3?…``."""
    return url.partition("?")[0].rpartition("-")[2].removesuffix(".mp3")


def named(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name_of(row["recording_uri"]): row for row in rows}


def statuses(rows: list[dict[str, Any]]) -> dict[str, str]:
    """The status of each recording, or the class of its failure."""
    return {name: row["failure_class"] or row["status"] for name, row in named(rows).items()}


# A day that was finished


def test_rerun_of_a_finished_day_retries_only_what_may_pass(previous: Previous) -> None:
    before = statuses(previous.rows_before(FINISHED))
    assert before == {
        "refund": "completed",
        "password": "completed",
        "silence": "no_speech",
        "noise": "bad_audio",
        "outage": "provider_error",
        "parcel": "answer_invalid",
        "late": "budget",
    }
    assert previous.run(FINISHED).unfinished == 0
    assert previous.submitted == ["late", "outage"]
    assert previous.asked == ["Hello, parcel desk.", OF_EVERY_CALL, OF_EVERY_CALL]
    assert previous.described == ["late"]
    done = dict.fromkeys(("outage", "parcel", "late"), "completed")
    assert statuses(previous.rows(FINISHED)) == before | done


@pytest.mark.parametrize("table", ["calls", "phases"])
def test_rows_of_completed_calls_keep_every_column(previous: Previous, table: str) -> None:
    previous.run(FINISHED)
    done = {"refund", "password", "silence", "noise"}
    before, now = (
        [row for row in rows if name_of(row["recording_uri"]) in done]
        for rows in (previous.rows_before(FINISHED, table=table), previous.rows(FINISHED, table=table))
    )
    assert {name_of(row["recording_uri"]) for row in now} == (done if table == "calls" else {"refund", "password"})
    assert [list(row) for row in now] == [list(row) for row in before]
    assert now == before


def test_replay_of_a_class_without_failures_keeps_every_row(previous: Previous) -> None:
    published = previous.run(FINISHED, replay="auth")
    assert (previous.submitted, previous.asked, previous.described) == ([], [], [])
    assert (published.listed, published.unfinished) == (7, 0)
    for table in ("calls", "phases"):
        assert previous.rows(FINISHED, table=table) == previous.rows_before(FINISHED, table=table)


def test_invalid_answer_is_requested_again_and_its_cost_added(previous: Previous) -> None:
    before = named(previous.rows_before(FINISHED))["parcel"]
    previous.run(FINISHED)
    now = named(previous.rows(FINISHED))["parcel"]
    same = ["transcript_id", "transcript_uri", "speech_model", "speech_usd", "line", "agent", "crm_id"]
    assert [now[name] for name in same] == [before[name] for name in same]
    # It shares the question with others, by their lengths.
    assert now["llm_input_tokens"] == pytest.approx(before["llm_input_tokens"] + QUESTION_TOKENS, rel=0.01)
    assert now["llm_usd"] > before["llm_usd"] > 0


# A day that was interrupted


def test_run_does_not_begin_while_the_previous_versions_lease_is_valid(previous: Previous) -> None:
    with pytest.raises(DayHeld, match="scheduled__2024-05-13"):
        previous.run(INTERRUPTED)
    assert previous.submitted == []


def test_next_run_completes_an_interrupted_day_and_pays_only_for_the_rest(previous: Previous, clock: Clock) -> None:
    clock.now += HOUR_S
    published = previous.run(INTERRUPTED)
    assert (published.listed, published.unfinished) == (6, 0)
    check_interrupted_day(previous, {})
    runs = {name: row["run_id"] for name, row in named(previous.rows(INTERRUPTED)).items()}
    assert {name for name, run_id in runs.items() if run_id == DEAD_RUN} == {"answered"}


def test_interrupted_run_continues_and_pays_only_for_the_rest(previous: Previous) -> None:
    chunks, (day,) = previous.under_way(r"chunk-\d{4}\.jsonl"), previous.under_way(r"day\.json")
    assert len(chunks) == 6
    assert previous.finish(previous.day_run(), chunks, day).unfinished == 0
    check_interrupted_day(previous, {"moved": "request_refused"})  # which is for the next run
    assert {row["run_id"] for row in previous.rows(INTERRUPTED)} == {DEAD_RUN}
    previous.run(INTERRUPTED)
    check_interrupted_day(previous, {})


def check_interrupted_day(previous: Previous, failed: dict[str, str]) -> None:
    """Check that only what was never sent was submitted, and that all the others were adopted or collected."""
    assert previous.submitted == ["waiting"]
    desks = [f"Hello, {name} desk." for name in ("sent", "submitted", "transcribed")]
    others = [OF_EVERY_CALL] * (2 - len(failed))
    assert previous.asked == [*desks, *others], "each that has no answer, and once"
    calls, phases = previous.rows(INTERRUPTED), previous.rows(INTERRUPTED, table="phases")
    names = ["answered", "transcribed", "moved", "submitted", "sent", "waiting"]
    assert statuses(calls) == dict.fromkeys(names, "completed") | failed
    assert len(phases) == 2 * (6 - len(failed))
    assert {name: row["transcript_id"] for name, row in named(calls).items()} == {
        name_of(job["audio_url"]): one
        for one, job in previous.speech.jobs.items()
        if f"/{INTERRUPTED:%Y/%m/%d}/" in job["audio_url"]
    }
    own = {name: (row["line"], row["agent"], row["crm_id"]) for name, row in named(calls).items()}
    assert own == {
        "answered": (3, "Agent A", None),
        "transcribed": (3, "Agent T", "C-transcribed"),
        "moved": (5, "Agent M", None),
        "submitted": (5, "Agent S", "C-submitted"),
        "sent": (7, "Agent S", None),
        "waiting": (7, "Agent W", "C-waiting"),
    }
    (part,) = (body for key, body in previous.written.items() if key.endswith(".arrow"))
    (answered,) = ipc.open_file(pa.py_buffer(part)).read_all().to_pylist()
    now = named(calls)["answered"]
    written = answered | {"warnings": None, "schema_version": SCHEMA_VERSION}
    assert now == {name: written[name] for name in now}, "as the interrupted run wrote it"


# A day whose transcripts were deleted at the provider


def test_deleted_transcripts_are_not_paid_for_or_deleted_again(previous: Previous) -> None:
    jobs = dict(previous.speech.jobs)
    published = previous.run(DELETED, privacy={"delete_after": True})
    assert (previous.submitted, previous.asked, previous.described, previous.deletions) == ([], [], [], [])
    assert previous.speech.jobs == jobs
    assert (published.listed, published.unfinished, published.run_speech_usd, published.run_llm_usd) == (4, 0, 0, 0)
    for table in ("calls", "phases"):
        assert previous.rows(DELETED, table=table) == previous.rows_before(DELETED, table=table)


# An archive without dates in its prefix


def test_rerun_of_an_archives_day_pays_nothing(previous: Previous) -> None:
    published = previous.run(ARCHIVED, "archive")
    assert (previous.submitted, previous.asked) == ([], [])
    assert (published.listed, published.unfinished, published.run_speech_usd, published.run_llm_usd) == (2, 0, 0, 0)
    for table in ("calls", "phases"):
        assert previous.rows(ARCHIVED, "archive", table) == previous.rows_before(ARCHIVED, "archive", table)
    index = [key for key in sorted(previous.written) if "/index/" in key]
    assert previous.s3.keys("archive/state/index/") == index, "with the same names"


# Late days


def test_only_the_interrupted_day_is_late(previous: Previous) -> None:
    assert list(previous.day_run().late_days(dt.date(2024, 5, 15))) == [INTERRUPTED]


def test_late_days_of_an_archive_follow_from_its_index_and_its_tables(previous: Previous) -> None:
    next_day = ARCHIVED + dt.timedelta(1)
    assert list(previous.day_run("archive").late_days(next_day)) == []
    table = f"archive/tables/calls/dt={ARCHIVED}/calls.parquet"
    previous.s3.client.delete_object(Bucket=WAREHOUSE, Key=table)
    assert list(previous.day_run("archive").late_days(next_day)) == [ARCHIVED]
    assert previous.s3.listed.count("archive/") == 0


# Names of objects


def test_objects_are_named_as_by_the_previous_version(previous: Previous, clock: Clock) -> None:
    clock.now += HOUR_S
    for day in (FINISHED, INTERRUPTED):
        previous.run(day)
    previous.run(DELETED, privacy={"delete_after": True})
    previous.run(ARCHIVED, "archive")
    listed = previous.s3.keys()
    now = {key: previous.s3.bytes_of(key) for key in listed}
    assert [key for key in now if place_of(key) is None] == []
    assert set(previous.written) - set(now) == set(), "nothing was deleted"
    added = {place_of(key) for key in set(now) - set(previous.written)}
    replaced = {place_of(key) for key, body in previous.written.items() if now[key] != body}
    made = {"logs", "days", "chunks", "parts", "jobs", "summaries", "transcripts", "captions", "cues"}
    assert added == made | {"calls", "phases"}, "these of the interrupted day"
    assert replaced == {"leases", "limits", "index", "calls", "phases"}, "all other objects are written once"


def place_of(key: str) -> str | None:
    return next((name for name, place in PLACES.items() if re.fullmatch(place, key)), None)
