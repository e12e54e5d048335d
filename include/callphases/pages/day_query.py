"""What a reader asks of a day's calls: a filter, an order and a page, as parameters of the page's address."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from typing import Self
from urllib.parse import urlencode

OWN = "own."
"""What the names of parameters for a pipeline's own columns begin with, and such columns in ``sort``."""
LENGTH, SHARE = "length.", "share."
"""What ``sort`` begins with to sort by a phase's length, or by its share of the call; the phase's name follows."""
STARTED = "started"
ORDERS = (STARTED, "name", "duration", "status", "phases", "cost")
LONGEST_TEXT = 200
"""Characters of a value; the rest is cut off."""
MOST_PAGE = 1_000_000

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
_CLOCK = re.compile(r"(?:([0-9]{1,3}):)?([0-9]{1,6}):([0-5]?[0-9](?:\.[0-9]{1,6})?)")


def is_askable(value: str) -> bool:
    """Whether a form can ask for a value: parameters are stripped and cut, and forms write line breaks as CR LF."""
    return value == value.strip() and len(value) <= LONGEST_TEXT and not set(value) & {"\r", "\n"}


@dataclass(frozen=True)
class Query:
    """A filter, an order and a page. Each part that is None or empty lets every call through.

    Attributes:
        status, failure_class: the columns of these names.
        phase: calls that have a phase of this name.
        min_s, max_s: of the call, both included.
        own: names of the pipeline's own columns, and the values that they are to have, as text.
        text: what the call is searched for, in upper or lower case.
        sort: one of ``ORDERS``; or ``OWN``, ``LENGTH`` or ``SHARE`` and a name.
        page: from 1 on.
        day: of a run that has several; empty for its first.
    """

    status: str | None = None
    failure_class: str | None = None
    phase: str | None = None
    min_s: float | None = None
    max_s: float | None = None
    own: tuple[tuple[str, str], ...] = ()
    text: str = ""
    sort: str = STARTED
    descending: bool = False
    page: int = 1
    day: str = ""

    @classmethod
    def parse(cls, parameters: Iterable[tuple[str, str]], own_columns: Collection[str]) -> tuple[Self, list[str]]:
        """The query in parameters of an address, and a sentence about each that is not understood and left out.

        Of parameters of one name the first that is not empty counts. Others' are none of ours, and ignored.
        """
        given: dict[str, str] = {}
        for name, value in parameters:
            if value.strip() and name not in given:
                given[name] = value.strip()[:LONGEST_TEXT]
        mistakes: list[str] = []
        own = []
        for name, value in given.items():
            if name.startswith(OWN):
                if name.removeprefix(OWN) in own_columns:
                    own.append((name.removeprefix(OWN), value))
                else:
                    mistakes.append(
                        f"The pipeline has no column {name.removeprefix(OWN)}: calls are not filtered by it."
                    )
        query = cls(
            status=given.get("status"),
            failure_class=given.get("class"),
            phase=given.get("phase"),
            min_s=_length("min", given, mistakes),
            max_s=_length("max", given, mistakes),
            own=tuple(sorted(own)),
            text=given.get("q", ""),
            sort=_order(given.get("sort", STARTED), own_columns, mistakes),
            descending=given.get("desc") == "1",
            page=_page(given.get("page", "1"), mistakes),
            day=given["day"] if _DAY.fullmatch(given.get("day", "")) else "",
        )
        return query, mistakes

    def parameters(self) -> list[tuple[str, str]]:
        """The inverse of ``parse``; what is as it is by default is left out."""
        found = [("day", self.day), ("status", self.status), ("class", self.failure_class), ("phase", self.phase)]
        found += [("min", _written(self.min_s)), ("max", _written(self.max_s))]
        found += [(OWN + name, value) for name, value in self.own]
        found += [("q", self.text), ("sort", "" if self.sort == STARTED else self.sort)]
        found += [("desc", "1" if self.descending else ""), ("page", "" if self.page == 1 else str(self.page))]
        return [(name, value) for name, value in found if value]

    def address(self, **changes: object) -> str:
        """``?…`` of the query with some of its attributes changed, from the first page on unless that is changed."""
        return "?" + urlencode(replace(self, **{"page": 1, **changes}).parameters())  # type: ignore[arg-type]

    def only(self, **filters: object) -> str:
        """``?…`` of the same day with these attributes, and otherwise as it is by default."""
        return type(self)(day=self.day).address(**filters)

    def sorted_by(self, sort: str) -> str:
        """``?…`` of the query in another order; of the same order, the other way round."""
        return self.address(sort=sort, descending=sort == self.sort and not self.descending)

    @property
    def is_filter(self) -> bool:
        """Whether it may leave calls out."""
        return replace(self, sort=STARTED, descending=False, page=1, day="") != type(self)()

    def own_value(self, column: str) -> str:
        """What an own column is to be; empty if any value will do."""
        return dict(self.own).get(column, "")


def _length(name: str, given: dict[str, str], mistakes: list[str]) -> float | None:
    text = given.get(name)
    if text is None:
        return None
    if _SECONDS.fullmatch(text):
        return float(text)
    if found := _CLOCK.fullmatch(text):
        return round(int(found[1] or 0) * 3600 + int(found[2]) * 60 + float(found[3]), 6)
    mistakes.append(f"{text!r} is no length of a call: expected seconds, such as 90, or minutes and seconds, as 1:30.")
    return None


def _written(length_s: float | None) -> str | None:
    return None if length_s is None else f"{length_s:.6f}".rstrip("0").rstrip(".")


def _order(text: str, own_columns: Collection[str], mistakes: list[str]) -> str:
    is_own = text.startswith(OWN) and text.removeprefix(OWN) in own_columns
    is_phase = text.startswith((LENGTH, SHARE)) and text.partition(".")[2]
    if text in ORDERS or is_own or is_phase:
        return text
    mistakes.append(f"Calls can't be sorted by {text!r}: they are in the order of their start.")
    return STARTED


def _page(text: str, mistakes: list[str]) -> int:
    if re.fullmatch("[0-9]{1,7}", text) and 1 <= int(text) <= MOST_PAGE:
        return int(text)
    mistakes.append(f"{text!r} is no number of a page: this is the first.")
    return 1


def length_text(length_s: float | None) -> str:
    """A length as a reader writes it: ``1:30``, or seconds where they are not whole; empty for none."""
    if length_s is None:
        return ""
    if length_s % 1:
        return _written(length_s) or ""
    minutes, seconds = divmod(int(length_s), 60)
    return f"{minutes}:{seconds:02d}"
