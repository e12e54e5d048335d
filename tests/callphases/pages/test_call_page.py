"""The page of a call: what it shows of the tables and of the transcript, to whom."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.cues import Cue, cues_of_words, to_vtt
from callphases.pages.call_page import OTHER_VERSION, Audio, CallPage, Heard, Silence, call_page, page_of_call
from callphases.pages.links import Links
from callphases.pages.pipelines import Stores
from callphases.pages.rendering import render
from callphases.segmentation.talk import talk_statistics
from callphases.segmentation.timeline import Label, call_end_s, timeline
from callphases.state import layout
from callphases.tables.schema import SCHEMA_VERSION, SCHEMAS, object_name, schema_of
from callphases.tables.talk_columns import speaker_columns, talk_columns
from doubles import DAY, NOON, Store

Row = dict[str, Any]

ID = "0123456789abcdef"
WORDS = [
    {"text": "Thank", "start": 500, "end": 900, "speaker": "A"},
    {"text": "you.", "start": 900, "end": 2000, "speaker": "A"},
    {"text": "My", "start": 1500, "end": 2500, "speaker": "B"},
    {"text": "invoice.", "start": 2500, "end": 5000, "speaker": "B"},
    {"text": "Goodbye!", "start": 9000, "end": 9500, "speaker": "A"},
]


def document(words: list[Row] = WORDS, **more: Any) -> Row:
    return {"id": "t-1", "text": " ".join(str(word["text"]) for word in words), "words": words, **more}


def rows_of(cues: list[Cue], labels: list[Label], audio_s: float, **changes: Any) -> tuple[Row, list[Row]]:
    """The rows that the tables have of a call with these cues."""
    end_s = call_end_s(audio_s, cues)
    phases = timeline(cues, labels, end_s)
    talk = talk_statistics(cues, phases, end_s)
    call = row(
        "calls",
        **speaker_columns(talk.call),
        **talk_columns(talk.call, end_s),
        **{"duration_s": end_s, "phase_count": len(phases), **changes},
    )
    of_phases = [
        row(
            "phases",
            phase_index=index,
            phase_name=phase.name,
            start_s=phase.start_s,
            end_s=phase.end_s,
            duration_s=phase.end_s - phase.start_s,
            share_of_call=(phase.end_s - phase.start_s) / end_s if end_s else 1.0,
            start_cue=phase.start_cue,
            end_cue=phase.end_cue,
            word_count=phase.word_count,
            summary=phase.summary,
            **talk_columns(of_phase, phase.end_s - phase.start_s),
        )
        for index, (phase, of_phase) in enumerate(zip(phases, talk.phases, strict=True))
    ]
    return call, of_phases


def row(table: str, **values: Any) -> Row:
    empty = dict.fromkeys(SCHEMAS[table].names)
    usual = {
        "call_id": ID,
        "recording_uri": "s3://recordings/calls/a.mp3",
        "call_started_at": NOON,
        "run_id": "scheduled__1",
    }
    also = {"status": "completed", "recording_etag": "e1", "recording_bytes": 1000, "processed_at": NOON}
    return {**empty, **usual, **{name: value for name, value in also.items() if name in empty}, **values}


def put_table(
    s3: Store, table: str, rows: list[Row], *, group_rows: int = 500, schema: pa.Schema | None = None
) -> None:
    body = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema or SCHEMAS[table]), body, row_group_size=group_rows)
    s3.tables.put(object_name(table, DAY), body.getvalue())


def put_transcript(s3: Store, transcript: Row, captions: str | None = None, key: str = "k") -> str:
    name = layout.transcript(DAY, key)
    uri = s3.state.put(name, json.dumps(transcript).encode())
    vtt = captions if captions is not None else to_vtt(cues_of_words(transcript) or [])
    s3.state.put(layout.captions(name), vtt.encode())
    return uri


def publish(s3: Store, labels: list[Label], transcript: Row | None = None, audio_s: float = 10, **changes: Any) -> None:
    """Publish a call that was divided into phases."""
    transcript = transcript or document()
    uri = put_transcript(s3, transcript)
    cues = cues_of_words(transcript)
    assert cues
    call, phases = rows_of(cues, labels, audio_s, **{"transcript_uri": uri, **changes})
    put_table(s3, "calls", [call])
    put_table(s3, "phases", phases)


def page(s3: Store, call_id: str = ID, pipeline: Row | None = None, **rights: bool) -> CallPage | None:
    stores = Stores(s3.pipeline(**(pipeline or {})), s3.client)
    return call_page(stores, DAY, call_id, **{"may_read": True, "may_listen": True, "may_replay": True, **rights})


def shown(s3: Store, **more: Any) -> CallPage:
    found = page(s3, **more)
    assert found is not None
    return found


TWO = [Label("Introduction", 1, "They greet."), Label("Complaint", 2, "A wrong invoice.")]


@pytest.mark.integration
def test_cues_are_beside_their_phases(s3: Store) -> None:
    publish(s3, TWO)
    found = shown(s3)
    assert [(one.name, one.start_s, one.end_s, one.summary) for one in found.phases] == [
        ("Introduction", 0.0, 1.5, "They greet."),
        ("Complaint", 1.5, 10.0, "A wrong invoice."),
    ]
    assert [[(cue.number, cue.speaker, cue.text) for cue in one.cues] for one in found.phases] == [
        [(1, "A", "Thank you.")],
        [(2, "B", "My invoice."), (3, "A", "Goodbye!")],
    ]
    assert found.transcript_note is None
    assert found.unphased == []


@pytest.mark.integration
def test_call_of_another_day_or_none_has_no_page(s3: Store) -> None:
    assert page(s3) is None
    publish(s3, TWO)
    assert page(s3, "fedcba9876543210") is None
    assert page(s3, "") is None
    assert page(s3, "\u202e") is None
    assert page(s3) is not None


@pytest.mark.integration
def test_talk_over_time_has_lanes_silences_and_interruptions(s3: Store) -> None:
    publish(s3, TWO)
    found = shown(s3)
    talk = found.talk
    assert talk is not None
    assert [(lane.label, lane.talk_s) for lane in talk.lanes] == [("Speaker A", 2.0), ("Speaker B", 3.5)]
    assert [lane.path for lane in talk.lanes] == ["M100 0h300v10h-300zM1800 0h100v10h-100z", "M300 0h700v10h-700z"]
    assert talk.silences == [Silence(5.0, 9.0)]
    assert [(one.cue, one.start_s, one.label) for one in talk.interruptions] == [(2, 1.5, "Speaker B")]
    assert found.row["interruption_count"] == 1


@pytest.mark.integration
def test_lanes_are_channels_where_the_service_heard_each_alone(s3: Store) -> None:
    words = [{**word, "speaker": {"A": "1", "B": "2A"}[word["speaker"]], "channel": "x"} for word in WORDS]
    publish(s3, TWO, document(words, multichannel=True, audio_channels=2))
    talk = shown(s3).talk
    assert talk is not None
    assert [lane.label for lane in talk.lanes] == ["Channel 1", "Channel 2"]


@pytest.mark.integration
def test_many_speakers_share_the_last_lane(s3: Store) -> None:
    words = [{"text": "Hm.", "start": 1000 * n, "end": 1000 * n + 500 + n, "speaker": f"S{n}"} for n in range(20)]
    publish(s3, [Label("Introduction", 1, "")], document(words), audio_s=20)
    talk = shown(s3).talk
    assert talk is not None
    assert [lane.label for lane in talk.lanes] == [*(f"Speaker S{n}" for n in range(13, 20)), "Others"]
    assert sum(lane.talk_s for lane in talk.lanes) == pytest.approx(sum(0.5 + n / 1000 for n in range(20)))


@pytest.mark.integration
def test_who_may_not_read_sees_strips_times_and_numbers(s3: Store) -> None:
    words = [{**word, "speaker": f"Jane {word['speaker']}"} for word in WORDS]
    publish(s3, TWO, document(words), warnings="heard: Thank you")
    found = shown(s3, may_read=False)
    assert [one.name for one in found.phases] == ["Introduction", "Complaint"]
    assert [lane.label for lane in found.talk.lanes] == ["Speaker 1", "Speaker 2"] if found.talk else False
    assert found.row["interruption_count"] == 1
    for secret in ("Thank", "invoice", "greet", "Jane A"):
        assert secret not in repr([found.phases, found.unphased, found.talk, found.row["warnings"]])


@pytest.mark.integration
def test_failed_call_says_what_to_do(s3: Store) -> None:
    uri = put_transcript(s3, document())
    failed = {"status": "failed", "failure_class": "answer_invalid", "failure_message": "No timeline: Thank you."}
    put_table(s3, "calls", [row("calls", transcript_uri=uri, **failed)])
    found = shown(s3)
    assert found.failure is not None
    assert found.failure.message == "No timeline: Thank you."
    assert found.failure.remedy == "name another model in segmentation.models, or define fewer phases"
    assert found.failure.command == f"callphases replay support.yaml --date 2026-11-20 --call {ID}"
    assert found.failure.task_id == "calls.segment"
    assert [cue.text for cue in found.unphased] == ["Thank you.", "My invoice.", "Goodbye!"]
    assert found.may_replay
    assert not shown(s3, may_replay=False).may_replay
    unread = shown(s3, may_read=False)
    assert unread.failure is not None
    assert (unread.failure.message, unread.row["failure_message"], unread.unphased) == (None, None, [])


@pytest.mark.integration
def test_call_that_did_not_fail_can_not_be_replayed(s3: Store) -> None:
    publish(s3, TWO)
    assert not shown(s3).may_replay
    assert shown(s3).failure is None


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"status": "no_speech"}, "Nobody speaks"),
        ({"status": "failed", "failure_class": "bad_audio"}, "There is no transcript"),
        ({"transcript_uri": "s3://elsewhere/state/transcripts/k.json"}, "outside of the pipeline's output.state"),
        ({"transcript_uri": "s3://{warehouse}/state/transcripts/dt=2026-11-20/gone.json"}, "no longer there"),
    ],
)
def test_missing_transcript_is_explained(s3: Store, changes: Row, note: str) -> None:
    changes = {name: value.replace("{warehouse}", s3.warehouse) for name, value in changes.items()}
    put_table(s3, "calls", [row("calls", **changes)])
    found = shown(s3)
    assert note in (found.transcript_note or "")
    assert found.talk is None


@pytest.mark.integration
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"5", b'{"words": 5}', b"\xff\xfe", b"[" * 100_000, b'{"text": "a", "words": [{"text": 1}]}'],
)
def test_damaged_transcript_is_explained(s3: Store, body: bytes) -> None:
    name = layout.transcript(DAY, "k")
    uri = s3.state.put(name, body)
    s3.state.put(layout.captions(name), b"no captions")
    put_table(s3, "calls", [row("calls", transcript_uri=uri)])
    assert "can't be read" in (shown(s3).transcript_note or "")


@pytest.mark.integration
def test_captions_gone_alone_is_a_transcript_gone(s3: Store) -> None:
    publish(s3, TWO)
    s3.state.delete(layout.captions(layout.transcript(DAY, "k")))
    found = shown(s3)
    assert "no longer there" in (found.transcript_note or "")
    assert [one.name for one in found.phases] == ["Introduction", "Complaint"]


@pytest.mark.integration
def test_cues_of_an_earlier_version_are_read_from_its_captions(s3: Store) -> None:
    transcript = document()
    earlier = [Cue(1, 0.5, 5.0, "A", "Thank you. My invoice."), Cue(2, 9.0, 9.5, "A", "Goodbye!")]
    uri = put_transcript(s3, transcript, to_vtt(earlier))
    call, phases = rows_of(earlier, [Label("Introduction", 1, ""), Label("Goodbye", 2, "")], 10, transcript_uri=uri)
    put_table(s3, "calls", [call])
    put_table(s3, "phases", phases)
    found = shown(s3)
    assert [[cue.text for cue in one.cues] for one in found.phases] == [["Thank you. My invoice."], ["Goodbye!"]]
    assert found.transcript_note is None


@pytest.mark.integration
def test_other_cues_than_the_phases_were_made_of_are_put_by_time(s3: Store) -> None:
    publish(s3, TWO)
    put_transcript(s3, document([*WORDS, {"text": "Bye!", "start": 9600, "end": 9900, "speaker": "B"}]))
    found = shown(s3)
    assert "by their times" in (found.transcript_note or "")
    assert [[cue.number for cue in one.cues] for one in found.phases] == [[1], [2, 3, 4]]


@pytest.mark.integration
def test_times_of_day_are_in_the_pipelines_zone(s3: Store) -> None:
    publish(s3, TWO)
    found = shown(s3, pipeline={"timezone": "Asia/Kolkata"})
    assert found.started_at is not None
    assert found.started_at.isoformat() == "2026-11-20T17:30:00+05:30"


@pytest.mark.integration
def test_own_columns_are_text(s3: Store) -> None:
    changes: Row = {
        "recordings": {
            "columns": {
                "queue": {"metadata": "x"},
                "score": {"metadata": "x", "type": "double"},
                "vip": {"metadata": "x", "type": "boolean"},
                "picked": {"metadata": "x", "type": "timestamp"},
                "none": {"metadata": "x", "type": "int64"},
            }
        },
        "timezone": "Europe/Berlin",
    }
    own = {"queue": "<b>", "score": 0.5, "vip": True, "picked": NOON, "none": None}
    put_table(s3, "calls", [row("calls", **own)], schema=schema_of("calls", s3.pipeline(**changes)))
    expected = {"queue": "<b>", "score": "0.5", "vip": "yes", "picked": "2026-11-20 13:00:00", "none": ""}
    assert shown(s3, pipeline=changes).own == expected


@pytest.mark.integration
def test_run_of_the_command_line_is_not_linked(s3: Store) -> None:
    put_table(s3, "calls", [row("calls", run_id="replay__2026-11-21T08:00:00")])
    assert not shown(s3).in_airflow
    put_table(s3, "calls", [row("calls", run_id="manual__2026-11-21T08:00:00+00:00")])
    assert shown(s3).in_airflow


@pytest.mark.integration
def test_rows_of_the_first_version_have_a_page(s3: Store) -> None:
    publish(s3, TWO)
    for table in SCHEMAS:
        old = pq.read_table(io.BytesIO(s3.bytes_of(f"tables/{object_name(table, DAY)}")))
        body = io.BytesIO()
        pq.write_table(old.select(old.column_names[: old.column_names.index("processed_at") + 1]), body)
        s3.tables.put(object_name(table, DAY), body.getvalue())
    found = shown(s3)
    assert found.row["interruption_count"] is None
    assert found.talk is not None
    assert len(found.talk.interruptions) == 1
    assert SCHEMA_VERSION >= 2


words_of_calls = st.lists(
    st.tuples(
        st.integers(0, 60_000), st.integers(0, 4000), st.sampled_from("AB"), st.sampled_from(["so", "yes.", "no,"])
    ),
    min_size=1,
    max_size=40,
)


@given(words_of_calls, st.lists(st.integers(1, 40), max_size=5), st.sampled_from([0, 3, 30, 70]))
def test_every_cue_is_in_the_phase_that_the_table_says(words: list[Any], starts: list[int], audio_s: float) -> None:
    cues = cues_of_words(
        document([{"text": t, "start": at, "end": at + ms, "speaker": who} for at, ms, who, t in words])
    )
    assert cues
    firsts = sorted({min(one, len(cues)) for one in starts} | {1})
    call, phases = rows_of(cues, [Label(f"P{n % 3}", first, "") for n, first in enumerate(firsts)], audio_s)
    found = page_of_call(
        DAY,
        call,
        phases,
        Heard(cues),
        dt.UTC,
        [],
        audio=Audio(False),
        command="",
        may_read=True,
        may_replay=False,  # type: ignore[arg-type]
    )
    assert [[cue.number for cue in one.cues] for one in found.phases] == [
        list(range(one["start_cue"], one["end_cue"] + 1)) for one in phases
    ]
    assert sorted(cue.number for one in found.phases for cue in one.cues) == list(range(1, len(cues) + 1))
    assert found.talk is not None
    assert len(found.talk.interruptions) == call["interruption_count"]
    assert [sum(cue.interrupts for cue in one.cues) for one in found.phases] == [
        one["interruption_count"] for one in phases
    ]
    talk_s = {lane.label: lane.talk_s for lane in found.talk.lanes}
    for number in (1, 2):
        if call[f"speaker_{number}"]:
            assert talk_s[f"Speaker {call[f'speaker_{number}']}"] == pytest.approx(call[f"speaker_{number}_talk_s"])
    assert sum(one.duration_s for one in found.talk.silences) <= call["silence_s"] + 1e-6


def rendered(page: CallPage, **more: Any) -> str:
    usual = {"links": Links("/af"), "dag_id": "call_phases_support", "token": "tok", "replaying": None, "origin": None}
    return render("call", page=page, **{**usual, **more}).html


HOSTILE = '</script><script>alert(1)</script><img src=x onerror=alert(2)>" onclick="alert(3)\' {{ 7*7 }} \u202e'


@pytest.mark.integration
def test_whatever_was_said_is_text(s3: Store) -> None:
    words = [{**word, "text": f"{word['text']}{HOSTILE}", "speaker": f"{word['speaker']}{HOSTILE}"} for word in WORDS]
    uri = f"s3://{s3.recordings}/calls/{HOSTILE}.mp3"
    labels = [Label(HOSTILE, 1, HOSTILE)]
    publish(s3, labels, document(words), recording_uri=uri, run_id=HOSTILE, speech_model=HOSTILE, warnings=HOSTILE)
    html = rendered(shown(s3))
    assert "<script>alert" not in html
    assert "<img" not in html
    assert html.count("<script>") == html.count("</script>") == 1
    assert "alert(3)' {{ 7*7 }}" in html.replace("&#39;", "'")
    tags = re.findall(r"<[a-z][^>]*>", html.partition("<body>")[2].partition("<script>")[0])
    assert not [tag for tag in tags if re.search(r"\s(on\w+|style)=", re.sub(r'"[^"]*"', '""', tag))]


@pytest.mark.integration
def test_cues_and_phases_say_where_they_start(s3: Store) -> None:
    s3.put("calls/a.mp3")
    publish(s3, TWO, recording_uri=f"s3://{s3.recordings}/calls/a.mp3")
    html = rendered(shown(s3))
    assert re.findall(r'data-cue="(\d+)" data-start="([\d.]+)"', html) == [("1", "0.5"), ("2", "1.5"), ("3", "9.0")]
    assert re.findall(r'data-phase="(\d+)" data-start="([\d.]+)"', html) == [("0", "0.0"), ("1", "1.5")]
    assert (
        f'<audio id="player" controls preload="none" src="/af/callphases/audio/call_phases_support/{DAY}/{ID}">' in html
    )
    assert "/af/dags/call_phases_support/runs/scheduled__1/tasks/calls.segment/mapped" in html


@pytest.mark.integration
def test_page_without_the_right_to_read_has_nothing_that_was_said(s3: Store) -> None:
    publish(s3, TWO)
    html = rendered(shown(s3, may_read=False)).partition("<script>")[0]
    assert "data-cue" not in html
    assert "data-phase" in html
    assert not [said for said in ("Thank", "invoice", "They greet") if said in html]


@pytest.mark.integration
def test_failed_call_has_forms_for_who_may_replay(s3: Store) -> None:
    put_table(s3, "calls", [row("calls", status="failed", failure_class="bad_audio", failure_message="No audio.")])
    html = rendered(shown(s3))
    assert html.count('<button name="replay"') == 1
    assert html.count('<form method="post" action="/af/callphases/dags/call_phases_support/replay">') == 2
    fields = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', html)
    day_and_token = [("day", str(DAY)), ("token", "tok")]
    assert sorted(fields) == sorted([*day_and_token * 2, ("call", ID), ("class", "bad_audio")])
    assert "<form" not in rendered(shown(s3, may_replay=False))


@pytest.mark.integration
def test_page_needs_no_airflow(s3: Store) -> None:
    publish(s3, TWO)
    html = rendered(shown(s3, may_listen=False), links=None)
    assert "My invoice." in html
    assert "/af" not in html


@pytest.mark.integration
def test_missing_recording_is_explained_in_place_of_a_player(s3: Store) -> None:
    publish(s3, TWO, recording_uri=f"s3://{s3.recordings}/calls/a.mp3")
    assert "no longer in the bucket" in (shown(s3).audio.note or "")
    assert "<audio" not in rendered(shown(s3))
    recording = s3.put("calls/a.mp3")
    assert shown(s3).audio == Audio(True, OTHER_VERSION)
    publish(s3, TWO, recording_uri=recording.uri, recording_etag=recording.etag)
    assert shown(s3).audio == Audio(True)
    assert shown(s3, may_listen=False).audio == Audio(False)
    assert "pages.audio: off" in (shown(s3, pipeline={"pages": {"audio": "off"}}).audio.note or "")
    s3.put("calls/a.mp3", b"")
    assert "empty" in (shown(s3).audio.note or "")
    publish(s3, TWO, recording_uri="s3://elsewhere/calls/a.mp3")
    assert "not the pipeline's" in (shown(s3).audio.note or "")
