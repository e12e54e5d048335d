"""The command line: output, exit codes, and one-line errors."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from callphases.cli import main
from callphases.errors import BadAudio, DownloadRefused
from callphases.recordings import Recording
from callphases.segmentation.segmenter import prompt_version
from callphases.state.bucket import Page, RecordingBucket
from callphases.state.events import Answered, Intended, Transcribed, failed
from callphases.state.keys import RecordingKeys, transcript_key
from callphases.tables.reading import read_rows
from callphases.tables.schema import CALLS, PHASES, object_name
from doubles import DAY, KEY, NOON, Clock, Speech, Store, Web, answer, phases_answer

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``callphases …`` and returns its exit code, output and errors."""
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it caches the credentials of the previous test

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["callphases", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def aws(s3: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The buckets, configured in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return s3


def parquet(schema: Any, *rows: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    empty = dict.fromkeys(schema.names)
    pq.write_table(pa.Table.from_pylist([empty | row for row in rows], schema=schema), buffer)
    return buffer.getvalue()


def call(name: str, **changes: Any) -> dict[str, Any]:
    row = {"call_id": name, "recording_uri": f"s3://recordings/calls/{name}", "call_started_at": NOON}
    return {**row, "status": "completed", "duration_s": 75.0, **changes}


def phase(name: str, index: int, phase_name: str, start_s: float, end_s: float, summary: str = "") -> dict[str, Any]:
    return {
        "call_id": name,
        "phase_index": index,
        "phase_name": phase_name,
        "start_s": start_s,
        "end_s": end_s,
        "duration_s": end_s - start_s,
        "summary": summary or f"{phase_name} happens.",
    }


@pytest.fixture
def copy(tmp_path: Path) -> Callable[..., Path]:
    """Writes a day to a local folder, as a copy of ``output.tables``."""

    def copy(calls: list[dict[str, Any]], phases: list[dict[str, Any]], day: dt.date = DAY) -> Path:
        for table, schema, rows in (("calls", CALLS, calls), ("phases", PHASES, phases)):
            path = tmp_path / "tables" / object_name(table, day)
            path.parent.mkdir(parents=True)
            path.write_bytes(parquet(schema, *rows))
        return tmp_path / "tables"

    return copy


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


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("s3://", "s3://: expected s3://bucket/prefix/ for the argument TABLES"),
        ("s3:///call_phases/", "s3:///call_phases/: expected s3://bucket/prefix/"),
        ("s3:/warehouse/x", "did you mean s3://warehouse/x?"),
        ("S3://warehouse/x", "did you mean s3://warehouse/x?"),
        ("s3a://warehouse/x", "did you mean s3://warehouse/x?"),
        ("s3:warehouse", "did you mean s3://warehouse?"),
        ("gs://warehouse/x", "gs://warehouse/x: expected s3://bucket/prefix/"),
        ("https://warehouse.s3.amazonaws.com/x", "expected s3://bucket/prefix/"),
        ("s3//warehouse/x", "did you mean s3://warehouse/x?"),
        ("s3/warehouse", "s3/warehouse doesn't exist: there is no such folder."),
        ("nowhere/tables", "nowhere/tables doesn't exist: there is no such folder."),
        ("nowhere.yaml", "nowhere.yaml: can't be read: No such file or directory"),
    ],
)
def test_tables_that_are_nowhere_are_reported(run: Run, tmp_path: Path, place: str, words: str) -> None:
    code, out, err = run("show", place, "--date", "2026-11-20")
    assert code == 1
    assert words in out + err
    code, out, err = run("score", labelled_call(tmp_path / "truth"), "--tables", place)
    assert (code, out) == (1, "")
    assert words.replace("the argument TABLES", "--tables") in err


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


FORMULAS = [
    '=HYPERLINK("http://x")', "+49 1", "-2", "@SUM(A1)", "\t=1", "\n=1", " =1", '"=1"', "＝1", "＋1", "－1", "＠A",
]  # fmt: skip


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


@pytest.fixture
def pipeline_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = tmp_path / "support.yaml"
    aws: Store = request.getfixturevalue("aws")
    pipeline = aws.pipeline(phases=[{"name": "Hello"}], limits={"ramp": False})
    path.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    return path


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


def transcribe(aws: Store, recordings: list[Recording]) -> None:
    """Let the ledger say that these are done, with the settings of ``pipeline_file``."""
    ours = aws.pipeline()
    keys = RecordingKeys(ours)
    for one in recordings:
        key = keys.transcript(one)
        aws.knows(
            Intended(key=key, recording=one.key, **keys.intended(one)),
            Transcribed(key=key, recording=one.key, status="completed", transcript_id="t-1", audio_s=6.0),
            Answered(
                key=keys.answer(key), recording=one.key, duration_s=6.0, phases=[], prompt_version=prompt_version(ours)
            ),
        )


@pytest.mark.integration
def test_plan_counts_what_a_run_would_do(run: Run, aws: Store, pipeline_file: Path) -> None:
    recordings = [aws.put(f"calls/2026-11-20/{name}.mp3", b"x" * 1_500_000) for name in "abc"]
    key = transcript_key(recordings[0], aws.pipeline().transcription)
    aws.knows(failed(key, BadAudio("Transcoding failed."), recordings[0].key))
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20", "--date", "2026-11-21")
    assert code == 0
    assert out.splitlines()[:2] == [
        "2026-11-20: 3 recordings, 2 to do (3.0 MB), 1 done before",
        "2026-11-21: 0 recordings, 0 to do (0.0 MB), 0 done before",
    ]
    assert "– call times: recordings.call_time is last_modified" in out


@pytest.mark.integration
def test_plan_says_which_changed_setting_calls_are_paid_for_again(run: Run, aws: Store, pipeline_file: Path) -> None:
    done = [aws.put(f"calls/2026-11-20/{name}.mp3") for name in ("a", "b")]
    aws.put("calls/2026-11-20/new.mp3")
    transcribe(aws, done)

    def planned(**settings: Any) -> list[str]:
        pipeline = aws.pipeline(**settings)
        pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
        code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20")
        assert code == 0
        return [line for line in out.splitlines() if line.startswith("2026-11-20: ")]

    nothing_new = ["2026-11-20: 3 recordings, 1 to do (0.0 MB), 2 done before"]
    options = {"speech_models": ["universal-2"], "speaker_labels": True}
    assert planned() == planned(transcription=options) == nothing_new
    counts, said = planned(transcription={**options, "language_code": "de", "speaker_labels": False})
    assert counts.startswith("2026-11-20: 3 recordings, 3 to do")
    assert said == (
        "2026-11-20: of those to do, 2 were transcribed before and are paid for again, because "
        "transcription.language_code and transcription.speaker_labels changed."
    )
    _, said = planned(transcription={**options, "upgrade": True})
    assert "2 were transcribed before and are paid for again, because transcription.upgrade is true" in said
    _, said = planned(phases=[{"name": "All of it"}])
    assert said.endswith("for 2 that are transcribed, the model is asked again, because phases changed.")
    _, said = planned(segmentation={"models": ["another"]})
    assert said.endswith("because segmentation.models changed.")
    aws.put("calls/2026-11-20/a.mp3", b"RIFF, and other audio")
    (counts,) = planned()
    assert counts.startswith("2026-11-20: 3 recordings, 2 to do"), "a replaced recording is no changed setting"


@pytest.mark.integration
def test_plan_does_not_guess_which_option_an_older_ledger_had(run: Run, aws: Store, pipeline_file: Path) -> None:
    done = aws.put("calls/2026-11-20/a.mp3")
    key = transcript_key(done, {"speaker_labels": False})
    aws.knows(Transcribed(key=key, recording=done.key, status="no_speech", transcript_id="t-1"))
    _, out, _ = run("plan", pipeline_file, "--date", "2026-11-20")
    assert (
        "1 were transcribed before and are paid for again, because options of transcription, or the recordings" in out
    )


@pytest.mark.integration
def test_plan_says_why_nothing_is_listed(run: Run, aws: Store, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    where = f"s3://{aws.recordings}/calls/"
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-21", "--date", "2026-11-20")
    assert code == 0, "a day may have no calls"
    assert f"– 2026-11-21: No recording of this day is below {where}2026-11-21/. {where} has 2026-11-20/." in out
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20", "--date", "2063-01-01")
    assert code == 1
    assert "✗ 2063-01-01: This day is in the future (in UTC)." in out
    pipeline = aws.pipeline(recordings={"prefix": "recordings/{date:%Y/%m/%d}/"})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    code, out, _ = run("plan", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    where = f"s3://{aws.recordings}/"
    why = f"{where}recordings/ doesn't exist: no object is below it. Check recordings.prefix. {where} has calls/."
    assert f"✗ 2026-11-20: {why}" in out


@pytest.mark.integration
@pytest.mark.parametrize(("day", "code", "words"), [("2026-11-19", 0, ""), ("2063-01-01", 1, "in the future")])
def test_plan_of_an_archive_says_only_that_a_day_is_to_come(
    run: Run, aws: Store, pipeline_file: Path, day: str, code: int, words: str
) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    pipeline = aws.pipeline(recordings={"prefix": "calls/", "call_time": rule})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    aws.put("calls/20261120.mp3")
    found, out, _ = run("plan", pipeline_file, "--date", "2026-11-20", "--date", day)
    assert found == code
    assert f"{day}: 0 recordings" in out
    assert [line for line in out.splitlines() if f" {day}: " in line and words in line] == out.splitlines()[3:]


@pytest.mark.integration
def test_plan_writes_nothing(run: Run, aws: Store, pipeline_file: Path) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    run("plan", pipeline_file, "--date", "2026-11-20")
    assert aws.keys() == []


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prefixes that the command lists in the bucket of recordings."""
    prefixes: list[str] = []
    pages = RecordingBucket.pages

    def counted(bucket: RecordingBucket, prefix: str) -> Iterator[Page]:
        prefixes.append(prefix)
        return pages(bucket, prefix)

    monkeypatch.setattr(RecordingBucket, "pages", counted)
    return prefixes


@pytest.mark.integration
def test_plan_lists_an_archive_once_for_all_days(run: Run, aws: Store, pipeline_file: Path, listed: list[str]) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    pipeline = aws.pipeline(recordings={"prefix": "calls/", "call_time": rule}, timezone="Asia/Tokyo")
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    for name in ("20261119", "20261120-a", "20261120-b", "other-20261120"):
        aws.put(f"calls/{name}.mp3", b"x" * 500_000)
    done = aws.put("calls/20261119-done.mp3")
    key = transcript_key(done, aws.pipeline().transcription)
    aws.knows(failed(key, BadAudio("Transcoding failed."), done.key), day=DAY - dt.timedelta(days=1))
    code, out, _ = run("plan", pipeline_file, *[f"--date=2026-11-{day}" for day in (20, 19, 18, 20)])
    assert code == 0
    assert out.splitlines() == [
        "2026-11-20: 3 recordings, 3 to do (1.5 MB), 0 done before",
        "2026-11-19: 2 recordings, 1 to do (0.5 MB), 1 done before",
        "2026-11-18: 0 recordings, 0 to do (0.0 MB), 0 done before",
        "2026-11-20: 3 recordings, 3 to do (1.5 MB), 0 done before",
        "✓ call times: calls/20261120-a.mp3: 2026-11-20 00:00:00+09:00, day 2026-11-20",
        "✓ call times: calls/20261120-b.mp3: 2026-11-20 00:00:00+09:00, day 2026-11-20",
        "✓ call times: calls/other-20261120.mp3: 2026-11-20 00:00:00+09:00, day 2026-11-20",
    ]
    assert listed == ["calls/"]
    assert aws.keys("state/index/") == []


@pytest.mark.integration
def test_plan_lists_the_prefix_of_a_month_once_for_its_days(
    run: Run, aws: Store, pipeline_file: Path, listed: list[str]
) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    pipeline = aws.pipeline(recordings={"prefix": "calls/{date:%Y-%m}/", "call_time": rule})
    pipeline_file.write_text(yaml.safe_dump(pipeline.model_dump(mode="json", exclude_unset=True)))
    for name in ("11/20241119", "11/20241120", "11/20230101", "12/20241202", "11/voicemail"):
        aws.put(f"calls/2024-{name}.mp3")
    code, out, errors = run("plan", pipeline_file, *[f"--date=2024-{day}" for day in ("11-19", "11-20", "12-02")])
    assert code == 0
    assert [line.partition(" recordings")[0] for line in out.splitlines()[:3]] == [
        "2024-11-19: 1",
        "2024-11-20: 1",
        "2024-12-02: 1",
    ]
    assert "1 keys do not match recordings.call_time.key_pattern or its format: 'calls/2024-11/voicemail.mp3'" in out
    assert "2 recordings are on no day" in out
    assert "'calls/2024-11/20230101.mp3', 'calls/2024-11/voicemail.mp3'" in out
    assert errors == "", "nothing is said twice"
    assert listed == ["calls/2024-11/", "calls/2024-12/"]


# replay


@pytest.fixture
def services(speech: Speech, models: Web, monkeypatch: pytest.MonkeyPatch) -> Speech:
    """The speech service and the gateway, configured in the environment."""
    good = phases_answer(("Hello", 1))
    models.respond = lambda request: (
        good if request.body and request.json["messages"] else answer({"error": "no messages"}, 400)
    )
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", KEY)
    monkeypatch.setenv("ASSEMBLYAI_BASE_URL", speech.web.url)
    monkeypatch.setenv("LLM_GATEWAY_URL", models.url)
    return speech


def bad_day(aws: Store) -> None:
    """Recordings: one failed permanently, one failed temporarily, one done, and one new."""
    for name, failure in (("broken", BadAudio("No audio.")), ("far", DownloadRefused("No way."))):
        recording = aws.put(f"calls/2026-11-20/{name}.mp3")
        aws.knows(failed(transcript_key(recording, aws.pipeline().transcription), failure, recording.key))
    silent = aws.put("calls/2026-11-20/silent.mp3")
    key = transcript_key(silent, aws.pipeline().transcription)
    aws.knows(Transcribed(key=key, recording=silent.key, status="no_speech", transcript_id="t", audio_s=3.0))
    aws.put("calls/2026-11-20/new.mp3")


def statuses(aws: Store) -> dict[str, str]:
    return {
        row["recording_uri"].rsplit("/", 1)[-1]: row["failure_class"] or row["status"]
        for row in read_rows(aws.tables, "calls", DAY)
    }


@pytest.mark.integration
def test_replay_retries_failed_calls_and_publishes_the_day(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    code, out, err = run("replay", pipeline_file, "--date", "2026-11-20")
    assert statuses(aws) == {
        "broken.mp3": "completed",
        "far.mp3": "completed",
        "silent.mp3": "no_speech",
        "new.mp3": "unfinished",
    }
    assert len(services.submitted) == 2
    assert out.splitlines()[-1] == "2026-11-20: 2 completed, 1 failed, 1 no_speech (1 unfinished)"
    assert (code, err) == (1, ""), "no run has started on new.mp3"


@pytest.mark.integration
def test_replay_of_a_failure_class_leaves_other_failures_alone(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    aws.client.delete_object(Bucket=aws.recordings, Key="calls/2026-11-20/new.mp3")
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20", "--class", "bad_audio", "--class", "too_short")
    assert (code, len(services.submitted)) == (0, 1)
    assert statuses(aws) == {"broken.mp3": "completed", "far.mp3": "download_refused", "silent.mp3": "no_speech"}
    assert "2026-11-20: 1 calls, part 1 of 1" in out


@pytest.mark.integration
def test_replay_of_a_day_without_failures_pays_nothing(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20")
    assert (code, out.splitlines()) == (0, ["2026-11-20: no calls"])
    assert services.web.requests == []


@pytest.mark.integration
def test_replay_accepts_several_days(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20", "--date", "2026-11-19")
    assert (code, out.splitlines()) == (0, ["2026-11-20: no calls", "2026-11-19: no calls"])


@pytest.mark.integration
def test_replay_reports_calls_that_fail_again(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    bad_day(aws)
    aws.client.delete_object(Bucket=aws.recordings, Key="calls/2026-11-20/new.mp3")
    services.status, services.ending = "error", {"error": "Transcoding failed."}
    code, out, _ = run("replay", pipeline_file, "--date", "2026-11-20")
    assert code == 0, "all was done, and failed"
    assert "2026-11-20: 2 failed, 1 no_speech (2 bad_audio)" in out


@pytest.mark.integration
def test_replay_waits_for_a_run_that_has_the_day(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, clock: Clock
) -> None:
    bad_day(aws)
    other = aws.lease("night")
    other.take()
    clock.asleep = lambda seconds: other.release()
    run("replay", pipeline_file, "--date", "2026-11-20")
    assert statuses(aws)["broken.mp3"] == "completed"
    assert clock.slept[0] > 0


@pytest.mark.integration
def test_stopped_replay_publishes_the_day_and_releases_its_lease(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    no_money = answer({"error": "Your current account balance is negative."}, 400)
    services.refuse = lambda request: no_money if request.method == "POST" else None
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert "No requests are sent until the account is topped up" in err
    assert statuses(aws)["broken.mp3"] == "balance"
    assert aws.lease("next").take() > 1


@pytest.mark.integration
def test_replay_of_an_unknown_failure_class_is_a_one_line_error(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20", "--class", "bad_audoi")
    assert code == 1
    assert err.startswith("error: replay: there is no failure class bad_audoi; expected")
    assert err.count("\n") == 1


@pytest.mark.integration
def test_replay_with_a_wrong_key_is_a_one_line_error(
    run: Run, aws: Store, services: Speech, pipeline_file: Path
) -> None:
    bad_day(aws)
    services.refuse = lambda request: answer({"error": "Authentication error, API token missing/invalid"}, 401)
    code, _, err = run("replay", pipeline_file, "--date", "2026-11-20")
    assert code == 1
    assert err.startswith(f"error: The speech service at {services.web.url} does not accept the key")
    assert KEY not in err


@pytest.mark.integration
def test_replay_defaults_to_the_only_pipeline_in_the_folder(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(pipeline_file.parent))
    code, out, _ = run("replay", "--date", "2026-11-20")
    assert (code, out.splitlines()) == (0, ["2026-11-20: no calls"])
    (pipeline_file.parent / "other.yaml").write_text(
        pipeline_file.read_text().replace("pipeline: support", "pipeline: b")
    )
    code, _, err = run("replay", "--date", "2026-11-20")
    assert code == 1
    assert "Name a pipeline file; there are: other.yaml, support.yaml." in err


# doctor


@pytest.mark.integration
def test_doctor_prints_a_line_per_check_and_exits_with_0(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without arguments the files of this folder are checked.
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(pipeline_file.parent))
    missing = answer({"error": "audio_url is required"}, 400)
    services.refuse = lambda request: missing if request.method == "POST" else None
    code, out, err = run("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "✓ pipeline support: Its file is valid."
    assert lines[1] == f"✓ speech service: {services.web.url} answers and accepts the key."
    assert all(line.startswith(("✓ ", "– ")) for line in lines)
    assert "– table phases: No day is published yet." in lines
    assert aws.keys() == []


@pytest.mark.integration
def test_doctor_exits_with_1_if_any_finding_is_bad(run: Run, aws: Store, services: Speech, pipeline_file: Path) -> None:
    aws.tables.put("calls/a [red].txt", b"")
    wrong = pipeline_file.with_name("wrong.yaml")
    wrong.write_text("pipeline: [x")
    services.refuse = lambda request: answer({"error": "Authentication error, API token missing/invalid"}, 401)
    code, out, _ = run("doctor", pipeline_file, wrong)
    assert code == 1
    bad = [line.partition(": ")[0] for line in out.splitlines() if line.startswith("✗")]
    assert bad == ["✗ pipeline file", "✗ speech service", f"✗ {aws.tables.uri}"]
    assert "a [red].txt" in out
    assert KEY not in out


@pytest.mark.integration
def test_doctor_checks_the_store_without_an_api_key(
    run: Run, aws: Store, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("callphases.airflow", "callphases.airflow.hook"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, _ = run("doctor", pipeline_file)
    assert code == 1
    assert "✗ connection assemblyai: Set ASSEMBLYAI_API_KEY, or install Airflow" in out
    assert f"✓ {aws.state.uri}: " in out


@pytest.mark.integration
@pytest.mark.parametrize(("tables", "is_mixed"), [("/", True), ("/inside/", True), ("-other/", False)])
def test_doctor_reports_pipelines_that_share_their_tables(
    run: Run, aws: Store, services: Speech, pipeline_file: Path, tables: str, is_mixed: bool
) -> None:
    document = yaml.safe_load(pipeline_file.read_text())
    name, document["pipeline"] = document["pipeline"], "other"
    document["output"]["tables"] = document["output"]["tables"].rstrip("/") + tables
    (other := pipeline_file.with_name("other.yaml")).write_text(yaml.safe_dump(document))
    _, out, _ = run("doctor", pipeline_file, other)
    assert (f"✗ pipeline other: {name} publishes below" in out) is is_mixed


def test_doctor_reports_a_folder_without_pipeline_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CALLPHASES_PIPELINES", str(tmp_path))
    code, out, _ = run("doctor")
    assert code == 1
    assert "has no pipeline file" in out


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("pipeline: [support", "expected YAML"),
        ("pipeline: support", "recordings: missing"),
        ("recordings: {call_time: {key_pattern: '[a-z]+[/b]', format: x}}", "(it is '[a-z]+[/b]')"),
    ],
)
def test_invalid_pipeline_file_is_a_one_line_error(run: Run, tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "support.yaml"
    path.write_text(content)
    code, out, err = run("plan", path, "--date", "2026-11-20")
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {path}: ")
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.integration
def test_missing_bucket_is_a_one_line_error(run: Run, aws: Store) -> None:
    code, _, err = run("show", "s3://nowhere/tables/", "--date", "2026-11-20")
    assert code == 1
    assert err.startswith("error: There is no bucket 'nowhere': check the argument TABLES.")
    assert err.count("\n") == 1


def test_unreachable_store_is_a_one_line_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    code, _, err = run("show", "s3://warehouse/tables/", "--date", "2026-11-20")
    assert code == 1
    assert err.startswith("error: S3 can't be reached for bucket 'warehouse'")
    assert KEY not in err


def test_missing_credentials_are_a_one_line_error(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    code, _, err = run("show", "s3://warehouse/tables/", "--date", "2026-11-20")
    assert code == 1
    assert "NoCredentialsError" in err
    assert err.count("\n") == 1


def test_missing_aws_profile_is_a_one_line_error(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    code, _, err = run("show", "s3://warehouse/tables/", "--date", "2026-11-20")
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "plan"])
def test_invalid_date_is_a_usage_error(run: Run, command: str) -> None:
    code, _, err = run(command, "x", "--date", "yesterday")
    assert code == 2
    assert "yesterday" in err


def test_help_lists_all_commands_in_a_fresh_process() -> None:
    command = [sys.executable, "-c", "from callphases.cli import main; main()", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert all(command in done.stdout for command in ("plan", "replay", "show", "doctor", "score"))


# score


def labelled_call(folder: Path, name: str = "a") -> Path:
    cues = [
        {"cue": 1, "speaker": "agent", "start_s": 0.5, "end_s": 9, "text": "Thank you for calling."},
        {"cue": 2, "speaker": "caller", "start_s": 10, "end_s": 100, "text": "It is broken."},
    ]
    phases = [{"name": "Introduction", "start_cue": 1}, {"name": "Complaint", "start_cue": 2}]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"call_id": name, "cues": cues, "phases": phases}))
    return folder


def predicted_rows(name: str, edge_s: float) -> list[dict[str, Any]]:
    shared = {"call_id": f"id of {name}", "recording_uri": f"s3://recordings/calls/{name}.mp3"}
    return [
        {**shared, "phase_index": 0, "phase_name": "Introduction", "start_s": 0.0, "end_s": edge_s},
        {**shared, "phase_index": 1, "phase_name": "Complaint", "start_s": edge_s, "end_s": 100.4},
    ]


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_score_reads_published_days_from_a_folder_or_s3(run: Run, aws: Store, tmp_path: Path, place: str) -> None:
    truth = labelled_call(tmp_path / "truth")
    body = {"phases": parquet(PHASES, *predicted_rows("a", 20)), "calls": parquet(CALLS, *predicted_rows("a", 20)[:0])}
    for table, content in body.items():
        path = tmp_path / "tables" / object_name(table, DAY)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        aws.tables.put(object_name(table, DAY), content)
    tables = aws.tables.uri if place == "s3" else tmp_path / "tables"
    code, out, _ = run("score", truth, "--tables", tables, "--date", DAY, "--json", "-")
    told = json.loads(out)
    assert code == 0
    assert told["mean"]["accuracy"]["mean"] == pytest.approx(0.9)
    assert told["calls"][0]["call_id"] == "a"
    png = tmp_path / "out" / "a.png"
    code, out, _ = run("score", truth, "--tables", tables, "--png", png, "--fail-under", "0.95")
    assert code == 1
    assert "Worst call: a" in out
    assert png.read_bytes().startswith(b"\x89PNG")


def test_score_reads_the_tables_of_a_pipeline_file(run: Run, aws: Store, pipeline_file: Path, tmp_path: Path) -> None:
    truth = labelled_call(tmp_path / "truth")
    aws.tables.put(object_name("phases", DAY), parquet(PHASES, *predicted_rows("a", 20)))
    aws.tables.put(object_name("calls", DAY), parquet(CALLS))
    days = ["--date", "2026-11-20", "--date", "2026-11-19"]
    code, out, err = run("score", truth, "--tables", pipeline_file, *days, "--json", "-")
    assert (code, json.loads(out)["calls"][0]["call_id"]) == (0, "a")
    assert "2026-11-19 doesn't exist (not run)" in err
    code, out, err = run("score", truth, "--tables", pipeline_file, "--date", "2063-01-01")
    assert (code, out) == (1, "")
    assert f"error: {pipeline_file}: 2063-01-01 is in the future. Published: 2026-11-20." in err


def test_score_without_any_call_in_common_is_an_error(run: Run, tmp_path: Path) -> None:
    truth, others = labelled_call(tmp_path / "truth", "a"), labelled_call(tmp_path / "others", "b")
    code, out, err = run("score", truth, "--phases", others)
    assert (code, out) == (1, "")
    assert "None of the 1 labelled calls is among the 1 predicted ones" in err
    assert "The first are 'a' and 'b'." in err


@pytest.mark.parametrize("mean", ["nan", "1_0", "2"])
def test_score_refuses_a_minimum_that_is_no_share(run: Run, tmp_path: Path, mean: str) -> None:
    truth = labelled_call(tmp_path / "truth")
    assert run("score", truth, "--phases", truth, "--fail-under", mean)[0] != 0


def test_score_asks_a_model_with_the_labelled_calls_own_cues(
    run: Run, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = labelled_call(tmp_path / "truth")
    web.respond = lambda _: phases_answer(("Introduction", 1), ("Complaint", 2))
    monkeypatch.setenv("CALLPHASES_LLM_KEY", KEY)
    code, out, _ = run("score", truth, "--model", "claude-sonnet-4-6", "--url", f"{web.url}/v1")
    assert code == 0
    assert "accuracy 1.000" in out
    assert "$0.0" in out, "what it cost"
    assert web.requests[0].json["model"] == "claude-sonnet-4-6"
    monkeypatch.delenv("CALLPHASES_LLM_KEY")
    code, _, err = run("score", truth, "--model", "m", "--url", web.url)
    assert (code, "CALLPHASES_LLM_KEY" in err) == (1, True)


def test_score_requires_exactly_one_source_of_predictions(run: Run, tmp_path: Path) -> None:
    truth = labelled_call(tmp_path / "truth")
    assert run("score", truth)[0] == 2
    assert run("score", truth, "--model", "m", "--phases", truth)[0] == 2
    code, _, err = run("score", tmp_path / "nowhere", "--phases", truth)
    assert (code, "nowhere" in err) == (1, True)
    assert run("score", truth, "--phases", truth, "--fail-under", "1")[0] == 0
