"""Tests of the two distributions: what their wheels contain, and what the command line imports."""

from __future__ import annotations

import ast
import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import callphases
from callphases.tables.schema import CALLS, PHASES, object_name
from servers import s3_client

ROOT = Path(__file__).parents[1]
INCLUDE = ROOT / "include"
SOURCES = {"callphases": ROOT, "speechbox": INCLUDE / "speechbox"}
DAY = dt.date(2026, 11, 20)

RESTRICTED = """
import importlib.abc, json, sys

refused = set(json.loads(sys.argv.pop(1)))

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
from callphases.cli import main
main()
"""
"""Runs the command line in an interpreter that cannot import the refused modules."""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    for source in SOURCES.values():
        command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
        subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    return {name: next(folder.glob(f"{name}-*.whl")) for name in SOURCES}


def contents(wheel: Path) -> set[str]:
    """The files of a wheel without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


@pytest.mark.parametrize("name", SOURCES)
def test_wheel_contains_its_own_package_and_no_other_file(wheels: dict[str, Path], name: str) -> None:
    modules = {str(path.relative_to(INCLUDE)) for path in (INCLUDE / name).rglob("*.py")}
    resources = {"speechbox/resources/phases.npz", "speechbox/resources/phases.yaml"} if name == "speechbox" else set()
    if name == "callphases":
        shipped = [path for folder in ("pipelines", "sql") for path in (INCLUDE / folder).rglob("*") if path.is_file()]
        resources = {f"callphases/{path.relative_to(INCLUDE)}" for path in shipped}
        pages = [path for suffix in ("html", "css", "js") for path in (INCLUDE / name / "pages").rglob(f"*.{suffix}")]
        resources |= {str(path.relative_to(INCLUDE)) for path in pages}
    assert contents(wheels[name]) == modules | resources | {f"{name}/py.typed"}


@pytest.mark.parametrize("name", SOURCES)
def test_wheel_contains_the_license_and_its_command(wheels: dict[str, Path], name: str) -> None:
    with zipfile.ZipFile(wheels[name]) as archive:
        files = {file.split(".dist-info/")[1]: file for file in archive.namelist() if ".dist-info/" in file}
        assert archive.read(files["licenses/LICENSE"]) == (ROOT / "LICENSE").read_bytes()
        assert f"{name} = {name}." in archive.read(files["entry_points.txt"]).decode()


def test_wheel_has_the_version_of_the_package(wheels: dict[str, Path]) -> None:
    assert wheels["callphases"].name.split("-")[1] == callphases.__version__


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name.partition(".")[0] for name in names}
    return found


@pytest.mark.parametrize(("name", "other"), [("callphases", "speechbox"), ("speechbox", "callphases")])
def test_package_never_imports_the_other_one(name: str, other: str) -> None:
    for path in (INCLUDE / name).rglob("*.py"):
        assert other not in imported(path), path


def own_imports(path: Path) -> set[str]:
    """What a module imports, without what Airflow's API server is made of in the pages, which run in it."""
    of_server = {"anyio", "fastapi", "sqlalchemy", "starlette"} if path.parent.name == "pages" else set()
    return imported(path) - of_server


def test_core_declares_every_package_that_it_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = [*project["dependencies"], *extras["audio"], *extras["pictures"], *extras["score"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines} | {
        "botocore",
        "markupsafe",
    }  # boto3's and Jinja's own
    core = INCLUDE / "callphases"
    used = {name for path in core.rglob("*.py") if path.parent.name != "airflow" for name in own_imports(path)}
    used -= {"airflow", "callphases", "mypy_boto3_s3", *sys.stdlib_module_names}
    distributions = packages_distributions()
    assert {"boto3", "pyarrow", "urllib3"} <= used
    assert {name for name in used if declared.isdisjoint(map(canonicalize_name, distributions[name]))} == set()


def test_lock_names_no_index_and_has_the_dependencies_of_both() -> None:
    locked = {canonicalize_name(name) for name, _ in pins("requirements.lock")}
    for source in SOURCES.values():
        file = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
        project = file["project"]
        groups = [
            project["dependencies"],
            *project.get("optional-dependencies", {}).values(),
            *file.get("dependency-groups", {}).values(),
        ]
        assert {canonicalize_name(Requirement(line).name) for group in groups for line in group} <= locked


def pins(lock: str) -> dict[tuple[str, str], set[str]]:
    """The hashes of each package and version of a lock file."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    assert "://" not in text
    entries = re.findall(r"^([\w.-]+)==(\S+)(.*\n(?: +--hash.*\n)*)", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\w", text, re.MULTILINE))
    return {(name, version): set(re.findall(r"--hash=(sha256:\w+)", rest)) for name, version, rest in entries}


def test_demo_lock_is_a_part_of_the_lock_without_what_is_left_out() -> None:
    demo, full = pins("requirements-demo.lock"), pins("requirements.lock")
    assert all(hashes and hashes == full.get(pin) for pin, hashes in demo.items()), "run make lock"
    names = {name for name, _ in demo}
    assert {"apache-airflow", "faster-whisper", "hatchling", "matplotlib", "moto", "pyarrow"} <= names
    lines = (ROOT / "demo" / "left-out.txt").read_text(encoding="utf-8").splitlines()
    left_out = {line.partition("#")[0].strip() for line in lines} - {""}
    assert left_out.isdisjoint(names)
    assert left_out <= {name for name, _ in full}, "nothing requires it any more"


def test_oldest_dependencies_are_locked_at_their_lower_bounds() -> None:
    lowest = pins("requirements-lowest.lock")
    assert all(lowest.values()), "each has a hash"
    locked = {canonicalize_name(name): Version(version) for name, version in lowest}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for line in [*project["dependencies"], *project["optional-dependencies"]["score"]]:
        requirement = Requirement(line)
        bounds = [Version(one.version) for one in requirement.specifier if one.operator == ">="]
        assert bounds == [locked[canonicalize_name(requirement.name)]], f"{line} in pyproject.toml: run make lock"


def not_required() -> list[str]:
    """The installed top-level modules that belong to no dependency of callphases without extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: set[str] = set()
    pending = [Requirement(line) for line in project["dependencies"]]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            pending += map(Requirement, requires(name) or [])
        except PackageNotFoundError:
            continue
    installed = packages_distributions().items()
    others = [module for module, names in installed if found.isdisjoint(map(canonicalize_name, names))]
    assert {"airflow", "duckdb", "matplotlib", "moto", "pandas"} <= set(others)
    return [module for module in [*others, "speechbox"] if module != "callphases"]


@pytest.fixture(scope="session")
def unpacked(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheels["callphases"]) as archive:
        archive.extractall(folder)
    return folder


def run(unpacked: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the wheel's command line with nothing but its own dependencies to import."""
    return subprocess.run(
        [sys.executable, "-c", RESTRICTED, json.dumps(not_required()), *arguments],
        env={**os.environ, "PYTHONPATH": str(unpacked), "COLUMNS": "120", **environment},
        cwd=unpacked, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_version_option_prints_the_version(unpacked: Path) -> None:
    done = run(unpacked, "--version")
    assert (done.returncode, done.stdout) == (0, f"callphases {callphases.__version__}\n"), done.stderr


@pytest.mark.parametrize("command", [[], ["plan"], ["show"], ["doctor"], ["replay"], ["score"]])
def test_help_option_works_without_extras(unpacked: Path, command: list[str]) -> None:
    done = run(unpacked, *command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def parquet(schema: Any, *rows: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    empty = dict.fromkeys(schema.names)
    pq.write_table(pa.Table.from_pylist([empty | row for row in rows], schema=schema), buffer)
    return buffer.getvalue()


@pytest.mark.integration
def test_plan_and_show_work_without_extras(unpacked: Path, s3_url: str, tmp_path: Path) -> None:
    recordings, warehouse = "bare-recordings", "bare-warehouse"
    s3 = s3_client(s3_url)
    for bucket in (recordings, warehouse):
        s3.create_bucket(Bucket=bucket)
    for name in "abc":
        s3.put_object(Bucket=recordings, Key=f"calls/{DAY}/{name}.mp3", Body=b"x" * 1000)
    at = dt.datetime.combine(DAY, dt.time(12), dt.UTC)
    call = {"call_id": "1", "call_started_at": at}
    uri = f"s3://{recordings}/calls/{DAY}/a.mp3"
    calls = parquet(CALLS, call | {"recording_uri": uri, "status": "completed", "duration_s": 75.0})
    phase = {"phase_index": 0, "phase_name": "Complaint", "start_s": 0.0, "end_s": 75.0, "summary": "A late parcel."}
    for table, content in (("calls", calls), ("phases", parquet(PHASES, call | phase))):
        s3.put_object(Bucket=warehouse, Key=f"tables/{object_name(table, DAY)}", Body=content)
    pipeline = {
        "pipeline": "bare",
        "recordings": {"bucket": recordings, "prefix": "calls/{date:%Y-%m-%d}/"},
        "output": {"tables": f"s3://{warehouse}/tables/", "state": f"s3://{warehouse}/state/"},
    }
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(pipeline))
    environment = {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }

    planned = run(unpacked, "plan", str(path), "--date", str(DAY), **environment)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.startswith(f"{DAY}: 3 recordings, 3 to do (0.0 MB), 0 done before\n")

    shown = run(unpacked, "show", str(path), "--date", str(DAY), **environment)
    assert shown.returncode == 0, shown.stderr
    assert "A late parcel." in shown.stdout

    drawn = run(unpacked, "show", str(path), "--date", str(DAY), "--png", str(tmp_path / "day.png"), **environment)
    assert drawn.returncode == 1
    assert "pip install 'callphases[pictures]'" in drawn.stderr
