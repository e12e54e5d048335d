"""Documents beside recordings: what their names are, and where a value is in them.

A name is made of the recording's key and of what a pattern finds in it. A path is a subset of JSONPath (RFC 9535):
names and indexes, such as ``$.Agent.Username`` or ``$.users[0]['e-mail']``; the ``$`` may be left out.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable
from typing import Any

OF_KEY = ("key", "stem", "folder", "name")
"""Placeholders of names that every key has; see ``name_of``."""
ANY = "*"
_STEP = re.compile(r"\.([^.\[\]'\"\s]+)|\[(-?\d+)\]|\['([^']+)'\]|\[\"([^\"]+)\"\]")


def check_name(template: str, groups: Iterable[str]) -> None:
    """Check a template of names; ``groups`` are placeholders besides ``OF_KEY``.

    Raises:
        ValueError: says what is expected.
    """
    known = {*OF_KEY, *groups}
    try:
        fields = [field for field in string.Formatter().parse(template) if field[1] is not None]
    except ValueError:
        fields = [("", "", "", None)]
    if any(name not in known or spec or conversion for _, name, spec, conversion in fields):
        placeholders = ", ".join(f"{{{name}}}" for name in OF_KEY)
        raise ValueError(f"expected only the placeholders {placeholders} and groups of id_pattern")
    if not fields:
        raise ValueError("expected a placeholder, such as {stem}.json: each recording has a document of its own")
    if template.count(ANY) > 1:
        raise ValueError(f"expected at most one {ANY}")


def name_of(template: str, key: str, id_pattern: str | None) -> str | None:
    """The name of a recording's document; None if ``id_pattern`` does not match its key.

    ``{key}`` is the recording's key, ``{stem}`` the key without its suffix, ``{folder}`` its folders with a slash at
    their end, and ``{name}`` the rest of the stem.
    """
    folder, _, file = key.rpartition("/")
    folder = f"{folder}/" if "/" in key else ""
    name = file.rpartition(".")[0] or file
    groups: dict[str, Any] = {}
    if id_pattern is not None:
        match = re.search(id_pattern, key)
        if match is None or None in match.groupdict().values():
            return None
        groups = match.groupdict()
    return template.format(**{**groups, "key": key, "stem": folder + name, "folder": folder, "name": name})


def steps(path: str) -> list[str | int]:
    """The names and indexes of a path.

    Raises:
        ValueError: it is no path.
    """
    rest = path if path.startswith(("$", "[")) else f"$.{path}"
    found: list[str | int] = []
    at = 1 if rest.startswith("$") else 0
    while at < len(rest):
        match = _STEP.match(rest, at)
        if match is None:
            raise ValueError("expected a path of names and indexes, such as $.Agent.Username or $.users[0].id")
        name, index, *quoted = match.groups()
        found.append(int(index) if index is not None else name or quoted[0] or quoted[1])
        at = match.end()
    if not found:
        raise ValueError("expected a path with a name, such as $.Agent.Username")
    return found


def pick(document: Any, path: str) -> Any:
    """The value at a path; None if there is none."""
    for step in steps(path):
        try:
            if isinstance(step, int) != isinstance(document, list):
                return None
            document = document[step]
        except (KeyError, IndexError, TypeError):
            return None
    return document


def as_text(value: Any) -> str | None:
    """A value of JSON, CSV or Parquet as text: a text itself, others as JSON writes them, 17.0 as 17; None if null."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # an integer of a column that has nulls, in pandas
    if isinstance(value, bool | int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return str(value.isoformat() if hasattr(value, "isoformat") else value)
