"""``callphases sql``: definitions that are filled in, and questions."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from commands import Run
from doubles import pipeline


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "support.yaml"
    ours = pipeline(recordings={"columns": {"agent": {"metadata": "agent"}}})
    path.write_text(yaml.safe_dump(ours.model_dump(mode="json", exclude_unset=True)))
    return path


def test_definition_has_the_pipelines_tables_and_columns(run: Run, file: Path) -> None:
    code, out, err = run("sql", file, "--engine", "athena", "--set", "database=support")
    assert code == 0
    assert "LOCATION 's3://warehouse/tables/calls/'" in out
    assert "CREATE EXTERNAL TABLE IF NOT EXISTS support.calls (" in out
    assert out.count("    agent string\n)\nPARTITIONED BY") == 2
    assert "Still to be filled in, with --set NAME=VALUE: {first_day}." in err
    code, out, err = run("sql", file, "--engine", "duckdb")
    assert (code, err) == (0, "")


def test_definition_without_a_pipeline_is_the_file_that_is_shipped(run: Run) -> None:
    code, out, err = run("sql", "--engine", "athena")
    assert (code, "{tables}calls/" in out) == (0, True)
    assert "(tables: by naming a pipeline file)" in err


def test_questions_are_listed_and_printed(run: Run) -> None:
    code, out, _ = run("sql", "--engine", "bigquery", "--questions")
    assert (code, len(out.splitlines())) == (0, 10)
    assert out.startswith("01_time_to_first_move: How long")
    code, out, _ = run("sql", "--engine", "redshift", "--question", "2")
    assert code == 0
    assert out.startswith("-- ")
    code, everything, _ = run("sql", "--engine", "redshift", "--question", "all")
    assert out.strip() in everything
    assert "AS DOUBLE)" not in everything


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "Give --engine: athena, bigquery"),
        (["--engine", "oracle"], 1, "There is no definition for 'oracle'; there are: athena"),
        (["--engine", "duckdb", "--set", "database=x"], 1, "duckdb has no placeholder database; it has tables."),
        (["--engine", "duckdb", "--set", "x"], 2, "expected NAME=VALUE"),
        (["--engine", "duckdb", "--question", "42"], 2, "there is no 42"),
    ],
)
def test_mistakes_are_named(run: Run, options: list[str], code: int, words: str) -> None:
    found, out, err = run("sql", *options)
    assert (found, out) == (code, "")
    assert words in " ".join(err.replace("│", " ").split())
