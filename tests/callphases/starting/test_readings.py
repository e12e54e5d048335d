"""Ways to read dates and times in one key."""

from __future__ import annotations

import datetime as dt

import pytest

from callphases.starting.readings import months, readings

LATEST = dt.datetime(2026, 12, 31)


@pytest.mark.parametrize(
    ("key", "format", "read"),
    [
        ("a/2026/11/20/x.mp3", "%Y/%m/%d", "2026-11-20 00:00:00"),
        ("year=2026/month=1/day=5/hour=9/x", "%Y/month=%m/day=%d/hour=%H", "2026-01-05 09:00:00"),
        ("a_20261120T09:14_UTC.wav", "%Y%m%dT%H:%M", "2026-11-20 09:14:00"),
        ("20-Nov-2026/09h14m05s.wav", "%d-%b-%Y/%Hh%Mm%S", "2026-11-20 09:14:05"),
        ("2026-11-20 09.14.05 PM.wav", "%Y-%m-%d %I.%M.%S %p", "2026-11-20 21:14:05"),
        ("2026-11-20 12.00.00 am.wav", "%Y-%m-%d %I.%M.%S %p", "2026-11-20 00:00:00"),
        ("c/2026-11-20T09%3A14%3A05.wav", "%Y-%m-%dT%H%%3A%M%%3A%S", "2026-11-20 09:14:05"),
        ("c/20261120091405123.wav", "%Y%m%d%H%M%S%f", "2026-11-20 09:14:05"),
        ("c/261120_091405.wav", "%y%m%d_%H%M%S", "2026-11-20 09:14:05"),
        ("c/2026/324/x.wav", "%Y/%j", "2026-11-20 00:00:00"),
        ("c/1763629445.17.wav", "epoch", "2025-11-20 09:04:05"),
        ("c/1763629445123-x.wav", "epoch", "2025-11-20 09:04:05.123000"),
    ],
)
def test_date_is_among_the_readings(key: str, format: str, read: str) -> None:
    found = {one.format: one for one in readings(key, LATEST)}
    assert str(found[format].moment) == read


@pytest.mark.parametrize("key", ["2026-13-40", "a/20270101.wav", "19000101", "2026/366/x", "2026-02-30", "99999999999"])
def test_what_is_no_date_of_a_call_is_not_read(key: str) -> None:
    assert not [one for one in readings(key, LATEST) if one.parts[0].directive == "%Y"]


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("T091405Z", "UTC"),
        ("T091405_UTC", "UTC"),
        ("T091405.123Z", "UTC"),
        ("T091405+0100", "+0100"),
        ("T091405", None),
    ],
)
def test_zone_in_a_key_is_noticed(text: str, zone: str | None) -> None:
    found = [one for one in readings(f"c/20261120{text}.wav", LATEST) if one.precision == 3]
    assert zone in {one.zone for one in found}


def test_both_orders_of_day_and_month_are_read() -> None:
    formats = {one.format for one in readings("05/06/2026/x.wav", LATEST)}
    assert {"%d/%m/%Y", "%m/%d/%Y"} <= formats


def test_months_are_read_in_folders_alone() -> None:
    assert [one.format for one in months("2026-11/2026-10_x.wav", LATEST)] == ["%Y-%m", "%Y"]
