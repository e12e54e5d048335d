"""The command ``callphases score``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from callphases.tables.schema import PHASES, object_name
from commands import Run, runner
from doubles import DAY, KEY, Store, Web, phases_answer
from servers import running

CUES = [
    {"cue": 1, "speaker": "agent", "start_s": 0.5, "end_s": 3.0, "text": "Thank you for calling."},
    {"cue": 2, "speaker": "caller", "start_s": 4.0, "end_s": 9.0, "text": "My invoice is wrong."},
]
SAMPLES = Path(__file__).parents[3] / "include" / "samples" / "truth"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs ``callphases score …`` and returns its exit code, output and errors."""
    monkeypatch.setenv("CALLPHASES_LLM_KEY", KEY)
    return runner(monkeypatch, capsys, "score")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return calls(tmp_path / "truth", "a", [("Introduction", 1), ("Complaint", 2)])


def calls(folder: Path, call_id: str, phases: list[tuple[str, int]], **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    parts = [{"name": name, "start_cue": cue} for name, cue in phases]
    document = {"call_id": call_id, "duration_s": 10.0, "cues": CUES, "phases": parts, **more}
    (folder / f"{call_id}.json").write_text(json.dumps(document))
    return folder


def day(*phases: tuple[str, float, float], name: str = "a") -> bytes:
    rows = [
        dict.fromkeys(PHASES.names)
        | {"call_id": "f00d", "recording_uri": f"s3://recordings/x/{name}.mp3", "phase_name": phase}
        | {"start_s": start_s, "end_s": end_s}
        for phase, start_s, end_s in phases
    ]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=PHASES), sink)
    return bytes(sink.getvalue())


def table(folder: Path, *phases: tuple[str, float, float], name: str = "a") -> Path:
    path = folder / "tables" / object_name("phases", DAY)
    path.parent.mkdir(parents=True)
    path.write_bytes(day(*phases, name=name))
    return folder / "tables"


def test_score_of_a_published_day_in_a_folder(run: Run, truth: Path, tmp_path: Path) -> None:
    tables = table(tmp_path, ("Introduction", 0, 5), ("Complaint", 5, 10))
    code, out, _ = run(truth, "--tables", tables, "--date", DAY, "--json", tmp_path / "x" / "s.json",
                       "--png", tmp_path / "s.png")  # fmt: skip
    assert code == 0
    assert any(line.split()[:4] == ["a", "10.0", "s", "0.900"] for line in out.splitlines())
    assert "Worst call: a" in out
    assert json.loads((tmp_path / "x" / "s.json").read_text())["mean"]["accuracy"]["mean"] == pytest.approx(0.9)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    assert run(truth, "--tables", tables)[0] == 0  # all days that are there


@pytest.mark.integration
def test_score_of_a_published_day_in_s3(run: Run, truth: Path, s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ENDPOINT_URL", s3.url), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", KEY)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3.tables.put(object_name("phases", DAY), day(("Introduction", 0, 4), ("Complaint", 4, 10)))
    for date in ([], ["--date", DAY]):
        code, out, _ = run(truth, "--tables", s3.tables.uri.rstrip("/"), *date, "--json", "-")
        assert code == 0
        assert json.loads(out)["mean"]["accuracy"]["mean"] == pytest.approx(1.0)


def test_unpublished_call_counts_as_wrong_unless_only_matched(run: Run, truth: Path, tmp_path: Path) -> None:
    calls(truth, "b", [("Introduction", 1)])
    tables = table(tmp_path, ("Introduction", 0, 4), ("Complaint", 4, 10))
    found = json.loads(run(truth, "--tables", tables, "--json", "-")[1])
    assert (found["calls_missing"], found["mean"]["accuracy"]["mean"]) == (1, 0.5)
    found = json.loads(run(truth, "--tables", tables, "--only-matched", "--json", "-")[1])
    assert (found["calls_left_out"], found["mean"]["accuracy"]["mean"]) == (1, 1.0)


def test_score_of_predicted_phases_in_files(run: Run, truth: Path, tmp_path: Path) -> None:
    guess = calls(tmp_path / "guess", "a", [("Introduction", 1)])
    calls(guess, "of-no-call", [("Introduction", 1)])
    code, out, _ = run(truth / "a.json", "--phases", guess)
    assert code == 0
    assert "accuracy 0.400" in out
    assert "1 call is predicted but not labelled." in out


@pytest.mark.parametrize(("least", "code"), [(0.4, 0), (0.401, 1), (1.0, 1)])
def test_accuracy_below_fail_under_exits_with_1(run: Run, truth: Path, tmp_path: Path, least: float, code: int) -> None:
    guess = calls(tmp_path / "guess", "a", [("Introduction", 1)])
    ended, _, err = run(truth, "--phases", guess, "--fail-under", least)
    assert ended == code
    assert ("is less than" in err) == bool(code)


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_score_of_a_language_model(run: Run, truth: Path, web: Web, end: str) -> None:
    web.answers = [phases_answer(("Introduction", 1), ("Complaint", 2))]
    code, out, _ = run(truth, "--model", "claude-sonnet-4-6", "--url", web.url + end, "--json", "-")
    assert code == 0
    found = json.loads(out)
    assert found["mean"]["accuracy"]["mean"] == pytest.approx(1.0)
    assert found["spent"] == {
        "input_tokens": 100, "output_tokens": 20, "usd": pytest.approx(0.0006), "models": ["claude-sonnet-4-6"],
    }  # fmt: skip
    (request,) = web.requests
    assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", f"Bearer {KEY}")


@pytest.mark.integration
def test_score_of_the_local_model_on_the_samples(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(tmp_path, "--engine", "scripted") as box:
        monkeypatch.setenv("CALLPHASES_LLM_KEY", box.key)
        code, out, _ = run(SAMPLES, "--model", "local", "--url", box.url, "--json", "-", "--fail-under", "0.95")
    found = json.loads(out)
    assert (code, found["calls_scored"], found["calls_labelled_without_phases"]) == (0, 12, 1)


def test_score_of_a_model_without_a_key_is_refused(run: Run, truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CALLPHASES_LLM_KEY")
    code, _, err = run(truth, "--model", "m", "--url", "http://127.0.0.1:1")
    assert code == 1
    assert "Set CALLPHASES_LLM_KEY" in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--tables", "x", "--model", "m"],
        ["--phases", "x", "--date", "2026-11-20"],
        ["--tables", "x", "--url", "http://127.0.0.1"],
        ["--tables", "x", "--pipeline", "p.yaml"],
        ["--phases", "x", "--fail-under", "90"],
        ["--tables", "x", "--date", "yesterday"],
    ],
)
def test_incompatible_options_exit_with_2(run: Run, truth: Path, arguments: list[str]) -> None:
    code, _, err = run(truth, *arguments)
    assert code == 2
    assert "Error" in err


def test_invalid_file_is_a_one_line_error(run: Run, truth: Path, tmp_path: Path) -> None:
    (truth / "b.json").write_text("{")
    code, _, err = run(truth, "--phases", truth)
    assert (code, err) == (1, f"error: {truth / 'b.json'}: expected JSON in UTF-8\n")
    code, _, err = run(tmp_path / "nowhere", "--phases", truth)
    assert (code, len(err.splitlines())) == (1, 1)


def test_missing_extra_error_says_what_to_install(run: Run, truth: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk.metrics.segmentation", None)
    code, _, err = run(truth, "--phases", truth)
    assert (code, err) == (1, "error: Scoring needs nltk: pip install 'callphases[score]'.\n")
