"""Columns that the keys of recordings have values for."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from callphases.pipeline import RESERVED_COLUMNS

ENOUGH = 0.8
"""The share of keys that must have a value."""
_WORDS = (
    "account", "agent", "brand", "campaign", "client", "company", "country", "customer", "department", "dept", "desk",
    "extension", "line", "location", "office", "operator", "org", "organization", "queue", "region", "rep", "site",
    "skill", "team", "tenant", "user",
)  # fmt: skip
_OF_TIME = re.compile(
    r"(?i)y{1,4}|year|mm?|month|dd?|day|dt|ds|date|hh?|hr|hour|min|minute|ss?|sec|second|time|ts|timestamp"
)
_DIRECTIONS = frozenset(("in", "out", "inbound", "outbound", "incoming", "outgoing", "internal"))


def columns_of(keys: Sequence[str], prefix: str) -> dict[str, str]:
    """``key_pattern`` by column: of folders and parts of names such as queue=sales, agent-7 or inbound.

    Values that all keys share are of no use where ``prefix`` has them.
    """
    values: dict[tuple[str, str], dict[int, str]] = defaultdict(dict)
    for number, key in enumerate(keys):
        for name, sign, value in re.findall(r"(?:^|/)([A-Za-z][A-Za-z0-9_-]*?)(=)([^/]+)(?=/)", key):
            values[name, sign].setdefault(number, value)
        for name, sign, value in re.findall(rf"(?i)(?:^|/)({'|'.join(_WORDS)})([-_])([^/]+)(?=/)", key):
            values[name, sign].setdefault(number, value)
        for name, sign, value in re.findall(
            rf"(?i)[/_;,&+-]({'|'.join(_WORDS)})([-=])([^/_;,&.=-]+)(?=[_;,&.-][^/]*$)", f"/{key}"
        ):
            values[name, f"{sign} in a name"].setdefault(number, value)
    found: dict[str, str] = {}
    for (name, sign), of_keys in values.items():
        column = _column(name)
        if len(of_keys) < ENOUGH * len(keys) or _OF_TIME.fullmatch(name) or column in found:
            continue
        if len(set(of_keys.values())) == 1 and f"{name}{sign[0]}{next(iter(of_keys.values()))}" in prefix:
            continue
        if sign.endswith("in a name"):
            found[column] = rf"(?:^|[/_;,&+-]){named(name)}{sign[0]}(?P<{column}>[^/_;,&.=-]+)"
        else:
            found[column] = rf"(?:^|/){named(name)}{sign}(?P<{column}>[^/]+)/"
    if "direction" not in found and (directions := _direction(keys)):
        found["direction"] = directions
    return found


def folder_column(values: set[str]) -> tuple[str, str]:
    """The name of a column of these folders, and a pattern for what they begin with, which is not a part of its value.

    For agent-7 and agent-12 that is ``agent``, for inbound and outbound ``direction``, for any other names ``tenant``.
    """
    found = {re.fullmatch(rf"(?i)({'|'.join(_WORDS)}|[a-z][a-z0-9_]*(?==))([=_-])(.+)", value) for value in values}
    words = {(one[1], one[2]) for one in found if one is not None}
    if None not in found and len(words) == 1:
        word, sign = words.pop()
        return _column(word), f"{named(word)}{sign}"
    return ("direction" if {value.lower() for value in values} <= _DIRECTIONS else "tenant"), ""


def named(text: str) -> str:
    """A regular expression for a text, which stays as readable as it can be."""
    return re.sub(r"([.^$*+?{}\[\]\\|()])", r"\\\1", text)


def _column(name: str) -> str:
    column = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")[:56]
    return f"key_{column}" if column in RESERVED_COLUMNS or not column[:1].isalpha() else column


def _direction(keys: Sequence[str]) -> str | None:
    """A pattern for a folder such as inbound, which all keys have and which is not the same in all."""
    words: Counter[str] = Counter()
    for key in keys:
        found = [folder for folder in key.split("/")[:-1] if folder.lower() in _DIRECTIONS]
        if len(found) != 1:
            return None
        words[found[0]] += 1
    return rf"/(?P<direction>{'|'.join(sorted(words))})/" if len(words) > 1 else None
