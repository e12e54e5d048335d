"""Buckets as vendors document them, run for a day with ``recordings.layout`` alone."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any

import pytest

from callphases.date_prefixes import of_day
from callphases.day_run import DayRun
from callphases.pipeline import Pipeline
from callphases.planning.survey import _days_with_prefixes
from callphases.segmentation.gateway import Gateway
from callphases.state.bucket import RecordingBucket
from callphases.tables.reading import read_rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.vendor_layouts import LAYOUTS
from doubles import DAY, KEY, NOON, Speech, Store, Web, phases_answer


def of_layout(s3: Store, layout: str, **recordings: Any) -> Pipeline:
    return Pipeline.model_validate(
        {
            "pipeline": "support",
            "recordings": {"bucket": s3.recordings, "layout": layout, **recordings},
            "output": {"tables": s3.tables.uri, "state": s3.state.uri},
            "limits": {"llm_requests_per_minute": 6000, "ramp": False},
            "segmentation": {"calls_per_question": 1},
        }
    )


class Runs:
    """Runs of days of a layout's pipeline."""

    def __init__(self, s3: Store, speech: Speech, models: Web) -> None:
        self.s3, self.speech, self.models = s3, speech, models
        models.respond = lambda request: phases_answer(("Introduction", 1), ("Complaint", 2))

    def run(self, pipeline: Pipeline, day: dt.date = DAY) -> list[dict[str, Any]]:
        """The day's rows of ``calls``, by key, after a run."""
        night = DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))
        listed = night.begin(day, f"run-{uuid.uuid4().hex[:6]}")
        for uri in listed.chunks:
            chunk = night.load(uri)
            assert night.transcribe(chunk, 60) is None
            night.segment(chunk)
        night.end(night.load_day(listed.day))
        return sorted(read_rows(self.s3.tables, "calls", day), key=lambda row: str(row["recording_uri"]))


@pytest.fixture
def runs(s3: Store, speech: Speech, models: Web) -> Runs:
    return Runs(s3, speech, models)


def utc(hour: int, minute: int = 0, day: dt.date = DAY) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(hour, minute), dt.UTC)


@pytest.mark.integration
def test_amazon_connect_runs_with_its_layout_alone(runs: Runs, s3: Store) -> None:
    contacts = [str(uuid.UUID(int=number)) for number in (7, 8, 9)]
    for contact, instance, name in zip(
        contacts, ("acme", "acme", "acme-eu"), ("20261120T09:05", "20261120T23:59", "20261120T10:00"), strict=True
    ):
        s3.put(f"connect/{instance}/CallRecordings/2026/11/20/{contact}_{name}_UTC.wav", contact.encode())
    s3.put(f"connect/acme/CallRecordings/2026/11/21/{contacts[0]}_20261121T00:00_UTC.wav")
    s3.put(f"connect/acme/ChatTranscripts/2026/11/20/{contacts[0]}_20261120T09:05_UTC.json")
    # https://docs.aws.amazon.com/connect/latest/adminguide/example-contact-lens-output-locations.html
    s3.put(f"Analysis/Voice/2026/11/20/{contacts[0]}_analysis_2026-11-20T09:05:11Z.json", b"{}")
    s3.put(f"Analysis/Voice/Redacted/2026/11/20/{contacts[0]}_call_recording_redacted_2026-11-20T09:05:11Z.wav")
    pipeline = of_layout(s3, "amazon_connect")
    rows = runs.run(pipeline)
    assert [row["status"] for row in rows] == ["completed"] * 3
    assert [row["contact_id"] for row in rows] == [contacts[2], *contacts[:2]]  # acme-eu/ comes before acme/
    assert [row["call_started_at"] for row in rows] == [utc(10), utc(9, 5), utc(23, 59)]
    assert pipeline.recordings.channels == {1: "customer", 2: "agent"}
    assert len(runs.run(pipeline)) == 3
    assert len(runs.speech.submitted) == 3


def genesys(s3: Store, day: str, hour: int, name: str, **metadata: Any) -> str:
    """An exported recording with its metadata, as the integration names them; returns the conversation's ID."""
    organization, conversation = uuid.UUID(int=1), str(uuid.uuid4())
    key = f"{organization}/{day}/hour={hour}/conversation_id={conversation}/{name}"
    s3.put(key, conversation.encode())
    s3.put(f"{key}_metadata.json", json.dumps({"mediaType": "Call", "provider": "Edge", **metadata}).encode())
    return conversation


@pytest.mark.integration
def test_genesys_cloud_runs_with_its_layout_alone(runs: Runs, s3: Store) -> None:
    recording = str(uuid.uuid4())
    day = "year=2026/month=11/day=20"
    first = genesys(s3, day, 9, f"{recording}.opus", userIds=["agent-1", "agent-2"])
    second = genesys(s3, day, 14, f"{uuid.uuid4()}.wav", userIds=[])
    genesys(s3, day, 15, f"{uuid.uuid4()}.webm", mediaType="Screen")
    genesys(s3, "year=2026/month=11/day=2", 0, f"{uuid.uuid4()}.opus")
    rows = sorted(runs.run(of_layout(s3, "genesys_cloud")), key=lambda row: str(row["call_started_at"]))
    assert [row["conversation_id"] for row in rows] == [first, second]
    assert [row["call_started_at"] for row in rows] == [utc(9), utc(14)]
    assert [row["user_id"] for row in rows] == ["agent-1", None]
    assert rows[0]["recording_id"] == recording


@pytest.mark.integration
@pytest.mark.parametrize("day", ["year=2026/month=3/day=5", "year=2026/month=03/day=05"])
def test_genesys_cloud_months_and_days_may_have_a_zero(runs: Runs, s3: Store, day: str) -> None:
    conversation = genesys(s3, day, 7, f"{uuid.uuid4()}.opus")
    s3.put("tables/calls/dt=2026-03-05/calls.parquet")
    [row] = runs.run(of_layout(s3, "genesys_cloud"), dt.date(2026, 3, 5))
    assert row["conversation_id"] == conversation
    assert row["call_started_at"] == utc(7, day=dt.date(2026, 3, 5))


@pytest.mark.integration
@pytest.mark.parametrize("path", ["", "voice-recordings/"])
def test_twilio_runs_with_its_layout_alone(runs: Runs, s3: Store, path: str) -> None:
    account, recordings = f"AC{'0a' * 16}", [f"RE{number:032x}" for number in (1, 2, 3)]
    for number, one in enumerate(recordings):
        key = f"{path}{account}/{one}"
        s3.put(key, one.encode())
        s3.written[key] = NOON + dt.timedelta(hours=8 * number)
    for other in ("notes.txt", f"{path}{account}/readme", "tables/calls/dt=2026-11-20/calls.parquet"):
        s3.put(other)
    rows = runs.run(of_layout(s3, "twilio"))
    assert [row["recording_sid"] for row in rows] == recordings[:2]
    assert {row["account_sid"] for row in rows} == {account}
    assert [row["call_started_at"] for row in rows] == [NOON, NOON + dt.timedelta(hours=8)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_file_sets_replaces_what_the_layout_sets(layout: str, s3: Store) -> None:
    ours = of_layout(s3, layout, columns={"queue": {"tag": "queue"}}, prefix="mine/{date}/", channels={1: "agent"})
    assert list(ours.recordings.columns) == ["queue"]
    assert ours.recordings.channels == {1: "agent"}
    assert ours.recordings.prefix == "mine/{date}/"
    assert ours.recordings.suffixes == LAYOUTS[layout]["suffixes"]


@pytest.mark.parametrize(("layout", "is_daily"), [("amazon_connect", True), ("genesys_cloud", True), ("twilio", False)])
def test_layouts_with_a_date_are_listed_day_by_day(layout: str, is_daily: bool, s3: Store) -> None:
    ours = of_layout(s3, layout)
    assert ours.recordings.is_daily == is_daily
    assert len({of_day(ours.recordings.prefix, DAY + dt.timedelta(days=n)) for n in range(9)}) == (9 if is_daily else 1)


@pytest.mark.integration
@pytest.mark.parametrize("layout", ["amazon_connect", "genesys_cloud"])
def test_days_of_a_layout_are_found_for_a_plan_of_all(s3: Store, layout: str) -> None:
    for key in (
        "connect/acme/CallRecordings/2026/03/05/c_20260305T09:00_UTC.wav",
        "connect/other/CallRecordings/2026/11/20/c_20261120T09:00_UTC.wav",
        "org/year=2026/month=3/day=5/hour=9/conversation_id=c/r.opus",
        "org/year=2026/month=11/day=20/hour=9/conversation_id=c/r.opus",
    ):
        s3.put(key)
    found = _days_with_prefixes(of_layout(s3, layout), RecordingBucket(s3.client, s3.recordings))
    assert found == [dt.date(2026, 3, 5), DAY]
