"""Tests of the lists of versions: callphases changes none of the packages that Airflow's installation pins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

FOLDER = Path(__file__).parent
LISTS = sorted(FOLDER.glob("*.txt"))


def pins(path: Path) -> set[tuple[str, str]]:
    """Name and version of each package, for the markers of this Python."""
    lines = re.findall(r"^[a-zA-Z][^\\\n]*", path.read_text(encoding="utf-8"), re.MULTILINE)
    found = [Requirement(line) for line in lines]
    return {(one.name, str(one.specifier)) for one in found if one.marker is None or one.marker.evaluate()}


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_installation_keeps_the_versions_that_airflow_pins(path: Path) -> None:
    airflows, all_of_it = pins(path), pins(path.with_suffix(".lock"))
    assert ("apache-airflow-core", f"=={dict(airflows)['apache-airflow'].strip('=')}") in airflows
    ours = dict(all_of_it)
    assert {name: ours[name] for name, _ in airflows if name in ours and (name, ours[name]) not in airflows} == {}
    assert {"pyarrow", "tinytag", "apache-airflow-providers-amazon", "apache-airflow-providers-celery"} <= set(ours)


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_list_names_no_index_and_its_environment_has_hashes(path: Path) -> None:
    lock = path.with_suffix(".lock").read_text(encoding="utf-8")
    assert "://" not in path.read_text(encoding="utf-8") + lock
    packages = re.findall(r"^[a-zA-Z].*$", lock, re.MULTILINE)
    assert [one for one in packages if not one.endswith(" \\")] == [], "each is followed by its hashes"
