"""The boundaries between packages: a forbidden import fails `make check`, and each fact has one owner."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import callphases
from callphases.state import events

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "include" / "callphases"
KINDS = {kind for kind in events._TYPES if kind not in ("failed", "stopped")}
"""Kinds of events, but for two words that also stand in the tables and in leases."""


def linted(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--config",
        str(ROOT / "pyproject.toml"),
        "--no-cache",
    ]
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def include(tmp_path: Path) -> Path:
    for package in ("callphases", "speechbox"):
        shutil.copytree(ROOT / "include" / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("callphases/state/ledger.py", "from airflow.sdk import DAG"),
        ("callphases/listing/late.py", "from callphases.tables import reading"),
        ("callphases/transcription/pacing.py", "import botocore"),
        ("callphases/progress.py", "from callphases.day_run import DayRun"),
        ("callphases/segmentation/gateway.py", "import speechbox"),
        ("speechbox/api.py", "import callphases"),
    ],
)
def test_forbidden_import_fails_the_check(include: Path, module: str, line: str) -> None:
    path = include / module
    path.write_text(f"{path.read_text()}\n\ndef _forbidden() -> None:\n    {line}\n")
    done = linted(include)
    assert (done.returncode, "BROKEN" in done.stdout) == (1, True), done.stdout + done.stderr


def test_the_code_as_it_is_passes_the_check(include: Path) -> None:
    done = linted(include)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_check_runs_the_linter_of_imports() -> None:
    recipe = re.search(r"^check:.*?(?=^\S)", (ROOT / "Makefile").read_text(), re.MULTILINE | re.DOTALL)
    assert recipe is not None
    assert "lint-imports" in recipe[0]


def strings(path: Path) -> Iterator[str]:
    """The string literals of a module, without docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.value


def modules(*, but: str) -> list[Path]:
    return [path for path in sorted(CORE.rglob("*.py")) if path != CORE / but]


def test_kinds_of_events_are_named_in_their_own_module_alone() -> None:
    found = {path: KINDS.intersection(strings(path)) for path in modules(but="state/events.py")}
    assert not {str(path): kinds for path, kinds in found.items() if kinds}


def test_names_of_state_objects_are_formatted_in_layout_alone() -> None:
    name = re.compile(r"^(ledger|runs|transcripts|limits|index)/|(chunk|rest)-|day\.json|lease\.json|\.vtt$")
    found = {path: [text for text in strings(path) if name.search(text)] for path in modules(but="state/layout.py")}
    assert not {str(path): texts for path, texts in found.items() if texts}


def test_package_exports_its_version_alone() -> None:
    assert callphases.__all__ == ["__version__"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", callphases.__version__)
