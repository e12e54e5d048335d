"""What the doctor reports: one finding for each thing that it checks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    """The mark that a finding is printed with."""

    GOOD = "✓"
    UNSURE = "–"
    BAD = "✗"


@dataclass(frozen=True)
class Finding:
    """What was checked, its health, and the details: how to fix it if it is bad."""

    health: Health
    what: str
    detail: str
