"""Names of documents beside recordings, and paths to values in them."""

from __future__ import annotations

import datetime as dt
import decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.sidecars import as_text, check_name, name_of, pick, steps

CONNECT = r"CallRecordings/(?P<day>\d{4}/\d\d/\d\d)/(?P<id>[^/_]+)_"


@pytest.mark.parametrize(
    ("template", "key", "pattern", "name"),
    [
        ("{stem}.json", "calls/2026/a.b.wav", None, "calls/2026/a.b.json"),
        ("{key}_metadata.json", "calls/a.opus", None, "calls/a.opus_metadata.json"),
        ("{folder}meta/{name}.json", "calls/a.wav", None, "calls/meta/a.json"),
        ("{folder}{name}.json", "a", None, "a.json"),
        ("{stem}.json", "v1.2/RE1", None, "v1.2/RE1.json"),
        ("{stem}.json", "calls/.hidden", None, "calls/.hidden.json"),
        ("meta/{rest}.json", "rec/2026/a.wav", r"^rec/(?P<rest>.*)\.wav$", "meta/2026/a.json"),
        ("meta/{rest}.json", "other/a.wav", r"^rec/(?P<rest>.*)\.wav$", None),
        (
            "Analysis/Voice/{day}/{id}_analysis_*.json",
            "connect/acme/CallRecordings/2026/11/20/c1_20261120T09:05_UTC.wav",
            CONNECT,
            "Analysis/Voice/2026/11/20/c1_analysis_*.json",
        ),
        ("{stem}.json", "calls/{key}.wav", None, "calls/{key}.json"),
    ],
)
def test_name_is_made_of_the_key(template: str, key: str, pattern: str | None, name: str | None) -> None:
    assert name_of(template, key, pattern) == name


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("meta.json", "each recording has a document of its own"),
        ("{stam}.json", "expected only the placeholders {key}, {stem}, {folder}, {name}"),
        ("{stem:>9}.json", "expected only the placeholders"),
        ("{stem!r}.json", "expected only the placeholders"),
        ("{stem.upper}.json", "expected only the placeholders"),
        ("{stem", "expected only the placeholders"),
        ("{}.json", "expected only the placeholders"),
        ("{stem}*/*.json", "at most one *"),
    ],
)
def test_name_that_can_not_be_meant_is_refused(template: str, told: str) -> None:
    with pytest.raises(ValueError, match=r".") as error:
        check_name(template, [])
    assert told in str(error.value)
    check_name("{id}.json", ["id"])


DOCUMENT = {"Agent": {"Username": "jo", "e-mail": "x", "a.b": 1, "": 0}, "users": [{"id": 7}, {"id": 8}], "0": "zero"}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$.Agent.Username", "jo"),
        ("Agent.Username", "jo"),
        ("$['Agent'][\"e-mail\"]", "x"),
        ("Agent.e-mail", "x"),
        ("$.Agent['a.b']", 1),
        ("$.users[0].id", 7),
        ("users[-1].id", 8),
        ("$.users[2].id", None),
        ("$.users.id", None),
        ("$.Agent[0]", None),
        ("$.Agent.Username.x", None),
        ("$.0", "zero"),
        ("$.none", None),
        ("$.users", [{"id": 7}, {"id": 8}]),
    ],
)
def test_path_picks_a_value(path: str, value: Any) -> None:
    assert pick(DOCUMENT, path) == value


@pytest.mark.parametrize(
    "path", ["", "$", "$..id", "$.users[*]", "$.users[?(@.id)]", "$.a.", "$a", "a b", "$.u[0", "[]"]
)
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="expected a path"):
        steps(path)


@given(st.lists(st.integers(-9, 9) | st.from_regex(r"[\w-]+", fullmatch=True), min_size=1))
def test_path_of_names_and_indexes_is_read_back(parts: list[str | int]) -> None:
    path = "$" + "".join(f"[{part}]" if isinstance(part, int) else f"['{part}']" for part in parts)
    assert steps(path) == parts


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("jo", "jo"),
        (17, "17"),
        (17.0, "17"),
        (1.5, "1.5"),
        (True, "true"),
        (None, None),
        ([1, "ü"], '[1,"ü"]'),
        (b"x", "x"),
        (decimal.Decimal("1.50"), "1.50"),
        (dt.datetime(2026, 11, 20, 8, tzinfo=dt.UTC), "2026-11-20T08:00:00+00:00"),
        (dt.date(2026, 11, 20), "2026-11-20"),
    ],
)
def test_value_becomes_text(value: Any, text: str | None) -> None:
    assert as_text(value) == text
