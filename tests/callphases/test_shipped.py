"""Files that come with the package."""

from __future__ import annotations

import pytest

from callphases.shipped import shipped


def test_folders_are_found() -> None:
    assert (shipped("sql") / "duckdb" / "tables.sql").is_file()
    assert any(one.name.endswith(".yaml") for one in shipped("pipelines").iterdir())


def test_missing_folder_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="without its folder nothing"):
        shipped("nothing")
