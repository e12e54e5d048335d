"""Finding published calls, and printing them as strips, CSV and JSON."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from callphases.errors import ConfigurationError
from callphases.inspection import showing
from callphases.inspection.strips import COLORS
from callphases.tables.reading import published_days
from callphases.tables.schema import PHASES, SCHEMAS, object_name
from doubles import DAY, NOON

NEXT = DAY + dt.timedelta(days=1)


def call(name: str, *phases: tuple[str, float, float], **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(SCHEMAS["calls"].names) | {
        "call_id": f"id-{name}",
        "recording_uri": f"s3://recordings/calls/{name}",
        "call_started_at": NOON,
        "status": "completed",
    }
    parts = [
        dict.fromkeys(PHASES.names)
        | {"call_id": f"id-{name}", "phase_index": index, "phase_name": of, "start_s": start_s, "end_s": end_s}
        for index, (of, start_s, end_s) in enumerate(phases)
    ]
    return {"dt": DAY, **row, **changes, "phases": parts}


def put(folder: Path, day: dt.date, *calls: dict[str, Any]) -> None:
    phases = [phase for one in calls for phase in reversed(one["phases"])]
    for table, rows in (("calls", list(calls)), ("phases", phases)):
        path = folder / object_name(table, day)
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[table]), path)


def as_text(lines: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width, color_system="truecolor", force_terminal=True)
    for line in lines:
        console.print(line, soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_calls_are_sorted_by_day_and_start_with_their_phases_in_order(tmp_path: Path) -> None:
    put(tmp_path, NEXT, call("c.mp3"))
    late = call("a.mp3", call_started_at=NOON + dt.timedelta(hours=1))
    put(tmp_path, DAY, late, call("b.mp3", ("Hello", 0, 2), ("Bye", 2, 4)))
    found = showing.calls_of_days(tmp_path, [NEXT, DAY, NEXT])
    assert [(one["dt"], one["call_id"]) for one in found] == [(DAY, "id-b.mp3"), (DAY, "id-a.mp3"), (NEXT, "id-c.mp3")]
    assert [phase["phase_name"] for phase in found[0]["phases"]] == ["Hello", "Bye"]


@pytest.mark.parametrize("wanted", ["id-a.mp3", "s3://recordings/calls/a.mp3", "a.mp3", "calls/a.mp3"])
def test_call_is_found_by_id_uri_or_end_of_key(tmp_path: Path, wanted: str) -> None:
    put(tmp_path, DAY, call("a.mp3"), call("aa.mp3"))
    assert [one["call_id"] for one in showing.find_calls(tmp_path, wanted)] == ["id-a.mp3"]


def test_latest_day_of_a_call_is_found_unless_days_are_given(tmp_path: Path) -> None:
    put(tmp_path, DAY, call("a.mp3"))
    put(tmp_path, NEXT, call("a.mp3"))
    assert [one["dt"] for one in showing.find_calls(tmp_path, "a.mp3")] == [NEXT]
    assert [one["dt"] for one in showing.find_calls(tmp_path, "a.mp3", [DAY])] == [DAY]
    assert showing.find_calls(tmp_path, "b.mp3") == []


def test_published_days_ignore_foreign_objects(tmp_path: Path) -> None:
    put(tmp_path, NEXT, call("a.mp3"))
    put(tmp_path, DAY, call("a.mp3"))
    for name in ("calls/dt=yesterday/calls.parquet", "calls/dt=2026-11-22/other.parquet", "calls/dt=2026-02-30"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert published_days(tmp_path) == [DAY, NEXT]
    assert published_days(tmp_path, "phases") == [DAY, NEXT]


def test_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    put(tmp_path, DAY, call("a.mp3"))
    (tmp_path / object_name("calls", DAY)).write_bytes(b"not Parquet")
    with pytest.raises(ConfigurationError, match="2026-11-20 can't be read as tables"):
        showing.calls_of_days(tmp_path, [DAY])


def test_strips_share_a_time_axis_in_letters_or_colors() -> None:
    calls = [call("a.mp3", ("Hello", 0, 30), ("Bye", 30, 60)), call("b.mp3", ("Hello", 0, 30)), call("c.mp3")]
    legend, first, second = as_text(showing.strips(calls, 57, colored=False)).splitlines()
    assert legend == "H Hello   B Bye"
    assert first == f"a.mp3  {'H' * 20}{'B' * 20}  1:00.0"
    assert second == f"b.mp3  {'H' * 20}  0:30.0"
    painted = as_text(showing.strips(calls, 57, colored=True))
    for color in COLORS[:2]:
        red, green, blue = (int(color[place : place + 2], 16) for place in (1, 3, 5))
        assert f"48;2;{red};{green};{blue}m" in painted
    assert "HH" not in painted


def test_phase_names_with_the_same_initial_get_distinct_letters() -> None:
    calls = [call("a.mp3", ("Complaint", 0, 1), ("Closing", 1, 2), ("Cc", 2, 3))]
    assert as_text(showing.strips(calls, 60, colored=False)).splitlines()[0] == "C Complaint   L Closing   c Cc"


def test_call_without_phases_has_no_strip() -> None:
    assert list(showing.strips([call("a.mp3", status="failed")], 80, colored=True)) == []


@given(st.lists(st.floats(0.01, 4000), min_size=1, max_size=30), st.integers(40, 200))
def test_strip_length_is_proportional_to_the_call(lengths: list[float], width: int) -> None:
    edges = [0.0]
    for length in lengths:
        edges.append(edges[-1] + length)
    phases = [("Hello", start_s, end_s) for start_s, end_s in pairwise(edges)]
    _, strip = as_text(showing.strips([call("a", *phases)], width, colored=False), width).splitlines()
    assert strip.split()[1] == "H" * (width - 13)


def test_warning_is_a_line_of_its_own_in_the_table() -> None:
    calls = [
        call("a.mp3", ("Introduction", 0, 5), warnings="decoded 7.9 s\x1b[2J of 8.1 s stated"),
        call("b.mp3", status="no_speech", warnings="Low volume."),
        call("c.mp3", ("Introduction", 0, 5)),
    ]
    lines = [line.split() for line in as_text([showing.table(calls)], 160).splitlines() if "warning" in line]
    assert [" ".join(words) for words in lines] == ["warning decoded 7.9 s [2J of 8.1 s stated", "warning Low volume."]


def test_terminal_control_characters_are_not_printed() -> None:
    calls = [call("a\x1b[2J.mp3", ("He\x1b]0;x\x07", 0, 9), status="failed", failure_message="\x1b[31mred")]
    console = Console(file=io.StringIO(), width=120)
    console.print(showing.table(calls))
    shown = console.file.getvalue() + as_text(showing.strips(calls, 80, colored=False))  # type: ignore[attr-defined]
    assert "\x1b" not in shown
    assert "\x07" not in shown


def test_csv_has_a_line_per_phase_and_per_call_without_phases() -> None:
    start_s = 0.1 + 0.2
    good = call('a, "b"\n😀.mp3', ("Hello", start_s, 1e-7), ("Bye", 2, 3))
    bad = call(
        "c.mp3", status="failed", failure_class="bad_audio", failure_message="No.", transcript_id="t", confidence=0.9
    )
    file = io.StringIO()
    showing.write_csv([good, bad], file)
    lines = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert [line["recording_uri"] for line in lines] == [good["recording_uri"]] * 2 + [bad["recording_uri"]]
    assert (float(lines[0]["start_s"]), float(lines[0]["end_s"])) == (start_s, 1e-7)
    assert (lines[0]["dt"], lines[0]["call_started_at"]) == ("2026-11-20", "2026-11-20T12:00:00+00:00")
    assert (lines[2]["status"], lines[2]["failure_class"], lines[2]["phase_name"]) == ("failed", "bad_audio", "")
    assert (lines[2]["transcript_id"], lines[2]["confidence"]) == ("t", "")
    assert set(lines[0]) == {*showing.CALL_COLUMNS, *PHASES.names}


def test_csv_has_a_pipelines_own_columns_last() -> None:
    one, other = call("a.mp3", ("Hello", 0, 1), agent="7"), call("b.mp3", status="no_speech", queue="sales")
    one["phases"][0]["agent"] = "7"
    file = io.StringIO()
    showing.write_csv([one, other], file)
    lines = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert list(lines[0])[-2:] == ["agent", "queue"]
    assert [(line["agent"], line["queue"]) for line in lines] == [("7", ""), ("", "sales")]


def test_csv_guards_every_column_of_text_and_no_other() -> None:
    bad = "=1+1"
    texts = {name: [field.name for field in SCHEMAS[name] if field.type == pa.string()] for name in SCHEMAS}
    one = call("a.mp3", (bad, -1.5, 2.0), **dict.fromkeys(texts["calls"], bad), agent=bad, balance=-7)
    one["phases"][0].update({**dict.fromkeys(texts["phases"], bad), "agent": bad, "balance": -7})
    for raw, expected in ((False, f"'{bad}"), (True, bad)):
        file = io.StringIO()
        showing.write_csv([one], file, raw=raw)
        [line] = csv.DictReader(io.StringIO(file.getvalue()))
        written = {name for name, value in line.items() if value == expected}
        assert written == {"agent", *(name for of_table in texts.values() for name in of_table)} & set(line)
        assert (line["start_s"], line["balance"], line["dt"]) == ("-1.5", "-7", "2026-11-20")
    file = io.StringIO()
    showing.write_json([one], file)
    assert json.loads(file.getvalue())["agent"] == bad


def test_json_has_a_line_per_call_with_its_phases() -> None:
    good = call("a\n😀.mp3", ("Hello", 0.1 + 0.2, 1e-7))
    file = io.StringIO()
    showing.write_json([good, call("c.mp3", status="no_speech")], file)
    first, second = (json.loads(line) for line in file.getvalue().splitlines())
    assert "😀" in file.getvalue()
    assert (first["dt"], first["call_started_at"]) == ("2026-11-20", "2026-11-20T12:00:00+00:00")
    assert first["phases"][0]["start_s"] == 0.1 + 0.2
    assert set(first["phases"][0]) == set(PHASES.names)
    assert second["phases"] == []
