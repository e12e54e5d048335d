"""``callphases show``: tables, CSV, JSON, pictures."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from callphases.tables.schema import CALLS, PHASES, object_name
from commands import Run, call, parquet, phase
from doubles import DAY, NOON, Store

FORMULAS = [
    '=HYPERLINK("http://x")', "+49 1", "-2", "@SUM(A1)", "\t=1", "\n=1", " =1", '"=1"', "＝1", "＋1", "－1", "＠A",
]  # fmt: skip


def test_show_prints_each_phase_with_its_times(run: Run, copy: Callable[..., Path]) -> None:
    phases = [phase("a.mp3", 1, "Complaint", 59.96, 75.0), phase("a.mp3", 0, "Introduction", 0, 59.96)]
    code, out, _ = run("show", copy([call("a.mp3")], phases), "--date", "2026-11-20")
    assert code == 0
    lines = [line.split() for line in out.splitlines() if "happens" in line]
    assert lines == [
        ["a.mp3", "11-20", "12:00", "Introduction", "0:00.0", "1:00.0", "Introduction", "happens."],
        ["Complaint", "1:00.0", "1:15.0", "Complaint", "happens."],
    ]


def test_show_prints_the_status_of_calls_without_phases(run: Run, copy: Callable[..., Path]) -> None:
    calls = [
        call("late.mp3", status="no_speech", call_started_at=NOON + dt.timedelta(hours=1)),
        call("early.mp3", status="failed", failure_class="bad_audio", failure_message="Transcoding failed."),
    ]
    _, out, _ = run("show", copy(calls, []), "--date", "2026-11-20")
    lines = [line.split() for line in out.splitlines() if ".mp3" in line]
    assert lines == [
        ["early.mp3", "11-20", "12:00", "bad_audio", "Transcoding", "failed."],
        ["late.mp3", "11-20", "13:00", "no_speech"],
    ]


@pytest.mark.parametrize("words", ["[unclear] and [/b]", "[red]alarm[/red]", ":smile: [link=http://x]y"])
def test_show_prints_markup_in_summaries_literally(run: Run, copy: Callable[..., Path], words: str) -> None:
    folder = copy([call("[a].mp3")], [phase("[a].mp3", 0, "Other", 0, 75, words)])
    code, out, _ = run("show", folder, "--date", "2026-11-20")
    assert code == 0
    assert words in out
    assert "[a].mp3" in out


def test_show_accepts_several_days(run: Run, copy: Callable[..., Path]) -> None:
    tomorrow = dt.timedelta(days=1)
    copy([call("b.mp3", call_started_at=NOON + tomorrow)], [phase("b.mp3", 0, "Other", 0, 75)], DAY + tomorrow)
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Other", 0, 75)])
    _, out, _ = run("show", folder, "--date", "2026-11-21", "--date", "2026-11-20")
    assert out.index("a.mp3") < out.index("b.mp3")


def test_show_writes_a_png(run: Run, copy: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Other", 0, 75)])
    code, out, _ = run("show", folder, "--date", "2026-11-20", "--png", tmp_path / "day.png")
    assert code == 0
    assert f"Written: {tmp_path / 'day.png'}" in out.replace("\n", "")
    assert (tmp_path / "day.png").read_bytes().startswith(b"\x89PNG")


def test_show_fails_for_an_unpublished_day(run: Run, copy: Callable[..., Path]) -> None:
    folder = copy([call("a.mp3")], [])
    code, out, _ = run("show", folder, "--date", "2026-11-19")
    assert code == 1
    assert "2026-11-19 doesn't exist (not run, or without calls). Published: 2026-11-20." in out.replace("\n", " ")


def test_show_says_which_of_several_days_it_lacks(run: Run, copy: Callable[..., Path]) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Other", 0, 75)])
    code, out, err = run("show", folder, "--date", "2026-11-20", "--date", "2026-11-19")
    assert code == 0
    assert "a.mp3" in out
    assert "2026-11-19 doesn't exist (not run, or without calls). Published: 2026-11-20." in err


@pytest.mark.parametrize("form", ["csv", "json"])
def test_show_csv_and_json_output_contains_only_data(
    run: Run, copy: Callable[..., Path], tmp_path: Path, form: str
) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Other", 0, 75)])
    code, out, err = run("show", folder, "--date", "2026-11-20", "--format", form, "--png", tmp_path / "day.png")
    assert code == 0
    if form == "json":
        assert json.loads(out)["phases"][0]["end_s"] == 75
    else:
        assert [line["end_s"] for line in csv.DictReader(io.StringIO(out))] == ["75.0"]
    assert f"Written: {tmp_path / 'day.png'}" in err.replace("\n", "")
    path = tmp_path / "new" / f"day.{form}"
    code, nothing, err = run("show", folder, "--date", "2026-11-20", "--format", form, "--output", path)
    assert (code, nothing) == (0, "")
    assert path.read_text() == out
    code, nothing, err = run("show", folder, "--date", "2026-11-19", "--format", form)
    assert (code, nothing) == (1, "")
    assert "2026-11-19 doesn't exist" in err.replace("\n", " ")


def test_show_says_what_does_not_exist(run: Run, copy: Callable[..., Path], tmp_path: Path) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Other", 0, 75)])
    code, out, _ = run("show", folder / "nowhere", "--date", "2026-11-20")
    assert code == 1
    assert "nowhere doesn't exist: there is no such folder" in out
    (tmp_path / "empty").mkdir()
    code, out, _ = run("show", tmp_path / "empty", "--call", "a.mp3")
    assert code == 1
    assert "holds no published day" in out
    code, out, _ = run("show", folder, "--date", "2999-01-01")
    assert code == 1
    assert "2999-01-01 is in the future. Published: 2026-11-20." in out.replace("\n", " ")


@pytest.mark.parametrize("text", FORMULAS)
def test_csv_cells_are_no_formulas_unless_raw(run: Run, copy: Callable[..., Path], text: str) -> None:
    folder = copy([call("a.mp3", failure_message=text)], [phase("a.mp3", 0, "Other", 0, 75, text)])
    arguments = ("show", folder, "--date", "2026-11-20", "--format", "csv")
    for raw, expected in ((False, f"'{text}"), (True, text)):
        code, out, _ = run(*arguments, *(["--raw"] if raw else []))
        assert code == 0
        [line] = csv.DictReader(io.StringIO(out, newline=""))
        assert line["summary"] == line["failure_message"] == expected
        assert line["end_s"] == "75.0"
        assert line["recording_uri"].startswith("s3://")


@pytest.mark.parametrize("text", ["Thanks", "1 - 2", "a=b", "(=1)", "…"])
def test_other_csv_cells_stay_as_they_are(run: Run, copy: Callable[..., Path], text: str) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Other", 0, 75, text)])
    _, out, _ = run("show", folder, "--date", "2026-11-20", "--format", "csv")
    [line] = csv.DictReader(io.StringIO(out))
    assert line["summary"] == text


def test_raw_is_for_csv(run: Run, copy: Callable[..., Path]) -> None:
    code, _, err = run("show", copy([call("a.mp3")], []), "--date", "2026-11-20", "--raw")
    assert code == 2
    assert "--raw is for --format csv" in err


def test_show_call_prints_its_whole_summary(run: Run, copy: Callable[..., Path]) -> None:
    long = "Words that go on and on. " * 20 + "The end."
    folder = copy([call("a.mp3"), call("b.mp3")], [phase("a.mp3", 0, "Other", 0, 75, long)])
    code, out, _ = run("show", folder, "--call", "a.mp3")
    assert code == 0
    assert "The end." in " ".join(out.split())
    assert "b.mp3" not in out
    code, out, _ = run("show", folder, "--call", "c.mp3")
    assert code == 1
    assert "has no call c.mp3." in out


def test_show_draws_letters_without_color_support(run: Run, copy: Callable[..., Path]) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Goodbye", 0, 75)])
    _, out, _ = run("show", folder, "--date", "2026-11-20")
    assert "GGGGGGGG" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("terminal", [{"FORCE_COLOR": "1"}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}])
def test_show_honors_no_color(copy: Callable[..., Path], terminal: dict[str, str]) -> None:
    folder = copy([call("a.mp3")], [phase("a.mp3", 0, "Goodbye", 0, 75)])
    command = [sys.executable, "-c", "from callphases.cli import main; main()", "show", str(folder)]
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    environment |= {"TERM": "xterm-256color", "PYTHONPATH": os.pathsep.join(sys.path), **terminal}
    done = subprocess.run(
        [*command, "--date", "2026-11-20"], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    is_colored = "NO_COLOR" not in terminal
    assert ("48;5;" in done.stdout) == is_colored
    assert ("GGGGGGGG" in done.stdout) != is_colored


@pytest.mark.parametrize(
    ("options", "words"),
    [([], "Give --date or --call."), (["--date", "2026-11-20", "--output", "x"], "--output is for")],
)
def test_show_rejects_incompatible_options(run: Run, options: list[str], words: str) -> None:
    code, _, err = run("show", "x", *options)
    assert code == 2
    assert words in err


@pytest.mark.integration
@pytest.mark.parametrize("slash", ["", "/"])
def test_show_reads_a_bucket(run: Run, aws: Store, slash: str) -> None:
    aws.tables.put(object_name("calls", DAY), parquet(CALLS, call("a.mp3")))
    aws.tables.put(object_name("phases", DAY), parquet(PHASES, phase("a.mp3", 0, "Goodbye", 0, 75)))
    code, out, _ = run("show", f"s3://{aws.warehouse}/tables{slash}", "--date", "2026-11-20")
    assert code == 0
    assert "Goodbye happens." in out


@pytest.mark.integration
def test_show_accepts_a_pipeline_file(run: Run, aws: Store, pipeline_file: Path) -> None:
    aws.tables.put(object_name("calls", DAY), parquet(CALLS, call("a.mp3")))
    aws.tables.put(object_name("phases", DAY), parquet(PHASES, phase("a.mp3", 0, "Goodbye", 0, 75)))
    code, out, _ = run("show", pipeline_file, "--call", "a.mp3")
    assert code == 0
    assert "Goodbye happens." in out


@pytest.mark.integration
def test_show_of_a_mistyped_prefix_says_that_it_does_not_exist(run: Run, aws: Store, pipeline_file: Path) -> None:
    aws.tables.put(object_name("calls", DAY), parquet(CALLS, call("a.mp3")))
    wrong = aws.tables.uri.replace("tables", "tablez")
    for options in (["--date", "2026-11-20"], ["--call", "a.mp3"]):
        code, out, _ = run("show", wrong, *options)
        assert code == 1
        assert out == f"{wrong} doesn't exist: no object is below it. Did you mean {aws.tables.uri}?\n"
    code, out, _ = run("show", pipeline_file, "--date", "2026-11-19")
    assert (code, out) == (1, f"{pipeline_file}: 2026-11-19 doesn't exist (not run). Published: 2026-11-20.\n")
