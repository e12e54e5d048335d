"""Files of labelled and predicted calls: starts and ends of phases, and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from callphases.errors import ConfigurationError
from callphases.scoring.labelled import read_labelled, read_predicted, stem
from callphases.scoring.metrics import Span

CUES = [
    {"cue": 1, "speaker": "agent", "start_s": 0.6, "end_s": 3.0, "text": "Thank you for calling."},
    {"cue": 2, "speaker": "caller", "start_s": 3.5, "end_s": 7.25, "text": "My secret invoice is wrong."},
    {"cue": 3, "speaker": "agent", "start_s": 7.0, "end_s": 9.0, "text": "I can help with that."},
]
PHASES = [{"name": "Introduction", "start_cue": 1}, {"name": "Complaint", "start_cue": 2}]
Put = Callable[..., Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Writes a call's file and returns its path."""

    def put(name: str = "a.json", **changes: Any) -> Path:
        path = tmp_path / "calls" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        document = {"call_id": path.stem, "cues": CUES, "phases": PHASES} | changes
        path.write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
        return path

    return put


def test_labelled_phases_cover_the_call(put: Put) -> None:
    (call,) = read_labelled([put(duration_s=10.0, recording="2026/a.mp3")])
    assert call.phases == (Span("Introduction", 0.0, 3.5), Span("Complaint", 3.5, 10.0))
    assert (call.call_id, call.recording, call.end_s) == ("a", "2026/a.mp3", 10.0)
    assert [(cue.number, cue.speaker) for cue in call.cues] == [(1, "agent"), (2, "caller"), (3, "agent")]


def test_call_without_duration_ends_with_its_latest_cue(put: Put) -> None:
    assert read_labelled([put(cues=[*CUES[:2], {**CUES[2], "end_s": 7.1}])])[0].end_s == 7.25


def test_labelled_phases_may_start_at_seconds(put: Put) -> None:
    phases = [{"name": "Introduction", "start_s": 0.6, "end_s": 3.0}, {"name": "Complaint", "start_s": 3.5, "end_s": 8}]
    (call,) = read_labelled([put(phases=phases, cues=None)])
    assert call.phases == (Span("Introduction", 0.0, 3.5), Span("Complaint", 3.5, 8.0))


def test_adjacent_equal_phases_are_merged_and_empty_ones_dropped(put: Put) -> None:
    cues = [*CUES[:2], {**CUES[2], "start_s": 3.5}]
    phases = [("A", 1), ("B", 2), ("A", 3)]
    (call,) = read_labelled([put(cues=cues, phases=[{"name": name, "start_cue": cue} for name, cue in phases])])
    assert call.phases == (Span("A", 0.0, 9.0),)


def test_labelled_call_may_have_no_phases(put: Put) -> None:
    (call,) = read_labelled([put(cues=[], phases=[], duration_s=6.0)])
    assert (call.phases, call.cues) == ((), ())


def test_cues_are_numbered_by_start(put: Put) -> None:
    (call,) = read_labelled([put(cues=CUES[::-1])])
    assert [(cue.number, cue.start_s) for cue in call.cues] == [(1, 0.6), (2, 3.5), (3, 7.0)]
    assert call.phases[1].start_s == 3.5


def test_folders_are_read_recursively(put: Put) -> None:
    folder = put("a.json").parent
    put("deep/er/b.json")
    (folder / "README.md").write_text("# Not a call")
    assert [call.call_id for call in read_labelled([folder])] == ["a", "b"]


def test_call_id_defaults_to_the_file_name(put: Put) -> None:
    assert [call.call_id for call in read_labelled([put("x.y.json", call_id=None)])] == ["x.y"]
    assert [call.call_id for call in read_labelled([put("z.json", call_id=17)])] == ["17"]


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"phases": [{"name": "A", "start_cue": 7}]}, "phases.0.start_cue: there is no cue 7"),
        ({"phases": [{"name": "A"}]}, "phases.0: expected start_cue or start_s"),
        ({"phases": [{"name": "", "start_cue": 1}]}, "phases.0.name: "),
        ({"phases": [{"start_cue": 1}]}, "phases.0.name: Field required"),
        ({"phases": None}, "phases: Field required"),
        (
            {"phases": [{"name": "A", "start_cue": 3}, {"name": "B", "start_cue": 2}]},
            "phases.1: starts at 3.5 s, before phase 0 at 7 s",
        ),
        ({"phases": PHASES, "duration_s": 3.0}, "phases.1: starts at 3.5 s, but the call ends at 3"),
        ({"duration_s": 0}, "duration_s: "),
        ({"cues": [{**CUES[0], "start_s": float("nan")}]}, "cues.0.start_s: "),
        ({"cues": [{**CUES[0], "start_s": -1}]}, "cues.0.start_s: "),
        ({"cues": [CUES[0], CUES[0]]}, "cues: expected each number once"),
        ({"cues": [{**CUES[1], "end_s": "secret"}]}, "cues.0.end_s: "),
        ({"cues": [{**CUES[1], "end_s": "1_0"}]}, "cues.0.end_s: Value error, expected a number"),
        ({"cues": [{**CUES[1], "cue": "٣"}]}, "cues.0.cue: Value error, expected a number"),
        ({"cues": [{**CUES[1], "cue": True}]}, "cues.0.cue: Value error, expected a number"),
        ({"phases": [{"name": "A", "start_cue": " 1"}]}, "phases.0.start_cue: Value error, expected a number"),
        ({"duration_s": "12"}, "duration_s: Value error, expected a number"),
        ({"cues": [], "phases": [{"name": "A", "start_s": 0}]}, "duration_s: missing"),
    ],
)
def test_invalid_file_error_names_the_field_without_its_content(put: Put, changes: dict[str, Any], what: str) -> None:
    path = put(**changes)
    with pytest.raises(ConfigurationError) as error:
        read_labelled([path])
    assert str(error.value).startswith(f"{path}: {what}")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"words"', "\xff", "[" * 100_000])
def test_file_that_is_not_a_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"a\.json: expected "):
        read_labelled([path])


def test_missing_file_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere: can't be read: No such file"):
        read_labelled([tmp_path / "nowhere"])
    with pytest.raises(ConfigurationError, match=r"there is no \*\.json below"):
        read_labelled([tmp_path])


def test_duplicate_call_id_is_refused(put: Put) -> None:
    with pytest.raises(ConfigurationError, match=r"b\.json: call_id 'a' is also that of .*a\.json;"):
        read_labelled([put("a.json"), put("b.json", call_id="a")])


def test_predicted_phases_end_at_their_end_or_the_next_start(put: Put) -> None:
    phases = [{"name": "A", "start_s": 1, "end_s": 3}, {"name": "B", "start_s": 4}, {"name": "C", "start_s": 6}]
    (call,) = read_predicted([put(phases=phases, recording="x/y.mp3")])
    assert call.phases == (Span("A", 1, 3), Span("B", 4, 6), Span("C", 6, 9))
    assert (call.call_id, call.recording, call.end_s) == ("a", "x/y.mp3", 9.0)


def test_predicted_phases_may_start_at_cues(put: Put) -> None:
    (call,) = read_predicted([put("b.json", duration_s=12)])
    assert call.phases == (Span("Introduction", 0.0, 3.5), Span("Complaint", 3.5, 12.0))
    assert (call.recording, call.end_s) == ("b.json", 12.0)


def test_prediction_without_phases_says_why(put: Put) -> None:
    (call,) = read_predicted([put(phases=[])])
    assert (call.phases, call.why) == ((), "its file has no phases")


@pytest.mark.parametrize("recording", ["a.b.mp3", "2026/11/a.b.wav", "s3://bucket/x/a.b.json", "a.b.m4a"])
def test_stem_is_the_file_name_without_folder_and_suffix(recording: str) -> None:
    assert stem(recording) == "a.b"
