"""``callphases score``: its sources, output and exit codes; the figures are tested in scoring/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from callphases.tables.schema import CALLS, PHASES, object_name
from commands import Run, labelled_call, parquet, predicted_rows
from doubles import DAY, KEY, Store, Web, phases_answer


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
