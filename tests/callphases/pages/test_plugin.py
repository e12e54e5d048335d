"""Tests of the file in the plugins folder, beside the plugin of the installed package."""

from __future__ import annotations

import importlib.metadata
import runpy
from pathlib import Path

import pytest

from callphases.pages.plugin import CallphasesPages

FILE = Path(__file__).parents[3] / "plugins" / "callphases_pages.py"


@pytest.mark.parametrize("is_installed", [True, False])
def test_file_registers_the_pages_unless_the_package_does(is_installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def entry_points(**named: str) -> list[str]:
        asked.append(named)
        return ["an entry point"] if is_installed else []

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    plugins = [value for value in runpy.run_path(str(FILE)).values() if value is CallphasesPages]
    assert plugins == ([] if is_installed else [CallphasesPages])
    assert asked == [{"group": "airflow.plugins", "name": CallphasesPages.name}]
