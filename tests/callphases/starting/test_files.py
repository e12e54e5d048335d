"""The text of pipeline files: whatever a key has in it, the file is read as it was meant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from callphases.errors import ConfigurationError
from callphases.starting.files import DAG, checked, pipeline_text, write

NASTY = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)


@example(prefix="\xa0", pattern="\u3000", comment="")
@given(prefix=NASTY, pattern=NASTY, comment=NASTY)
def test_text_is_read_back(prefix: str, pattern: str, comment: str) -> None:
    settings = {
        "pipeline": "x",
        "timezone": "UTC",
        "recordings": {
            "prefix": prefix,
            "call_time": {"key_pattern": pattern, "format": "epoch"},
            "suffixes": [".mp3", prefix],
            "columns": {"agent": {"key_pattern": pattern}},
        },
    }
    line = " ".join("".join(sign for sign in comment if sign.isprintable()).split())
    assert yaml.safe_load(pipeline_text(settings, line)) == settings


def test_invalid_settings_are_named_with_the_file() -> None:
    with pytest.raises(ConfigurationError, match=r"^x\.yaml: .*recordings: missing"):
        checked("pipeline: x\n", "x")


def test_dag_file_compiles() -> None:
    compile(DAG, "call_phases.py", "exec")
    assert "call_phases_dags(__file__)" in DAG


def test_identical_file_may_be_there(tmp_path: Path) -> None:
    files = {tmp_path / "a" / "x.yaml": "pipeline: x\n", tmp_path / "call_phases.py": DAG}
    write(files, force=False)
    write(files, force=False)
    (tmp_path / "call_phases.py").write_text("")
    with pytest.raises(ConfigurationError, match=r"call_phases\.py: there already"):
        write(files, force=False)
    write(files, force=True)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["call_phases.py", "x.yaml"]
