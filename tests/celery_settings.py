"""Reads the settings of ``deploy/celery.env`` for processes that tests start."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).parents[1] / "deploy" / "celery.env"


def celery_settings() -> dict[str, str]:
    """The value of each variable."""
    lines = FILE.read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}
