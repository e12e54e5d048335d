"""What is said where nothing was found: in tables, in copies of them, and in the bucket of recordings."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest

from callphases.errors import ConfigurationError
from callphases.inspection import absence
from callphases.inspection.findings import Finding, Health
from callphases.pipeline import Pipeline
from callphases.state import layout
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix
from callphases.tables.schema import object_name
from doubles import DAY, Store, pipeline

TO_COME = dt.datetime.now(dt.UTC).date() + dt.timedelta(days=2)


def publish(tables: ObjectPrefix | Path, *days: dt.date) -> None:
    for day in days:
        if isinstance(tables, ObjectPrefix):
            tables.put(object_name("calls", day), b"")
        else:
            path = tables / object_name("calls", day)
            path.parent.mkdir(parents=True)
            path.touch()


def days_from(first: int, *others: int) -> list[dt.date]:
    return [DAY.replace(day=number) for number in (first, *others)]


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.integration)])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectPrefix | Path:
    """An empty place for tables: a folder, or a bucket."""
    if request.param == "folder":
        return tmp_path
    store: Store = request.getfixturevalue("s3")
    return ObjectPrefix(store.client, f"s3://{store.warehouse}/", "TABLES")


def below(root: ObjectPrefix | Path, name: str) -> ObjectPrefix | Path:
    return root / name if isinstance(root, Path) else ObjectPrefix(root.client, f"{root.uri}{name}/", root.setting)


def said(tables: ObjectPrefix | Path, days: Sequence[dt.date] = (DAY,), call: str | None = None) -> str:
    return absence.no_calls("HERE", tables, None, days, call)


def text(place: ObjectPrefix | Path) -> str:
    return place.uri if isinstance(place, ObjectPrefix) else str(place)


# --- tables


@pytest.mark.parametrize("typo", ["call_phasez/support", "call_phases/suport", "cal_phases/support"])
def test_mistyped_place_does_not_exist_and_a_similar_one_is_named(root: ObjectPrefix | Path, typo: str) -> None:
    publish(right := below(root, "call_phases/support"), DAY)
    wrong = below(root, typo)
    assert said(wrong).startswith(f"{text(wrong)} doesn't exist: ")
    assert said(wrong).endswith(f" Did you mean {text(right)}?")


def test_place_like_no_other_does_not_exist_and_the_others_are_named(root: ObjectPrefix | Path) -> None:
    for name in "abcdefg":
        publish(below(root, f"{name}/x"), DAY)
    wrong = below(root, "telephony/2026")
    assert said(wrong).startswith(f"{text(wrong)} doesn't exist: ")
    assert said(wrong).endswith(f" {text(root)} has a/, b/, c/, d/, e/ and 2 more.")


def test_similar_place_that_lacks_the_rest_is_not_suggested(root: ObjectPrefix | Path) -> None:
    publish(below(root, "call_phases/support"), DAY)
    assert "Did you mean" not in said(below(root, "call_phasez/telesales"))


@pytest.mark.parametrize("given", ["tables/calls", f"tables/calls/dt={DAY}", "."])
def test_place_beside_the_tables_holds_no_day_and_theirs_is_named(root: ObjectPrefix | Path, given: str) -> None:
    publish(right := below(root, "tables"), DAY)
    wrong = root if given == "." else below(root, given)
    assert said(wrong).startswith(f"{text(wrong)} holds no published day: ")
    assert said(wrong).endswith(f" Did you mean {text(right)}?")


def test_place_with_other_things_holds_no_day(root: ObjectPrefix | Path) -> None:
    other = below(root, "notes")
    if isinstance(other, ObjectPrefix):
        other.put("todo.txt", b"")
    else:
        other.mkdir()
        (other / "todo.txt").touch()
    assert said(other).startswith(f"{text(other)} holds no published day: ")
    assert said(other).endswith(" It has todo.txt.")


def test_empty_folder_exists(tmp_path: Path) -> None:
    assert said(tmp_path) == f"{tmp_path} holds no published day: no calls/dt=…/calls.parquet is below it."


def test_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "calls.parquet").touch()
    assert f"{tmp_path / 'calls.parquet'} is a file: expected" in said(tmp_path / "calls.parquet")


@pytest.mark.integration
def test_rights_that_end_at_the_prefix_are_enough(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = ObjectPrefix.folders

    def denied(place: ObjectPrefix) -> list[str]:
        if place.uri != s3.tables.uri:
            raise ConfigurationError("S3 refuses access")
        return folders(place)

    monkeypatch.setattr(ObjectPrefix, "folders", denied)
    assert said(s3.tables) == f"{s3.tables.uri} doesn't exist: no object is below it."


# --- days


def test_unpublished_day_is_told_with_those_around_it(root: ObjectPrefix | Path) -> None:
    publish(root, *days_from(2, 4, 5, 9))
    known = "Published: 2026-11-02 to 2026-11-09 (4 days)"
    between = f"{known}, before and after it 2026-11-05 and 2026-11-09."
    assert said(root, days_from(7)) == f"HERE: 2026-11-07 doesn't exist (not run, or without calls). {between}"
    assert said(root, days_from(10)) == f"HERE: 2026-11-10 doesn't exist (not run, or without calls). {known}."


def test_each_of_several_days_has_its_reason(root: ObjectPrefix | Path) -> None:
    publish(root, DAY)
    reasons = "2026-11-03 doesn't exist (not run, or without calls), 2026-11-20 has no calls"
    days = [TO_COME, DAY, *days_from(3, 3)]
    assert said(root, days) == f"HERE: {reasons}, {TO_COME} is in the future. Published: 2026-11-20."


def test_call_is_missed_on_published_days(root: ObjectPrefix | Path) -> None:
    publish(root, *days_from(19, 20))
    known = "Published: 2026-11-19 to 2026-11-20 (2 days)."
    assert said(root, [], "a.mp3") == f"HERE has no call a.mp3. {known}"
    assert said(root, [DAY], "a.mp3") == f"HERE has no call a.mp3 on 2026-11-20. {known}"
    assert said(root, days_from(1), "a.mp3").startswith("HERE: 2026-11-01 doesn't exist (not run")


@pytest.mark.integration
def test_pipeline_knows_whether_a_day_without_rows_was_run(s3: Store) -> None:
    ours = s3.pipeline()
    publish(s3.tables, DAY)
    s3.state.put(layout.lease(DAY.replace(day=15)), b"{}")
    found = absence.no_calls("support.yaml", s3.tables, ours, days_from(15, 16))
    assert "2026-11-15 doesn't exist (run, but without calls), 2026-11-16 doesn't exist (not run)." in found


@pytest.mark.integration
def test_pipeline_without_published_days_names_the_setting(s3: Store) -> None:
    found = absence.no_calls("support.yaml", s3.tables, s3.pipeline(), [DAY])
    assert found.startswith(f"{s3.tables.uri} doesn't exist: no object is below it.")
    assert found.endswith(" Check output.tables in the pipeline file, or run a day first.")


@pytest.mark.parametrize(
    ("zone", "is_to_come"), [("Pacific/Kiritimati", False), ("Pacific/Pago_Pago", True), (None, False)]
)
def test_day_is_to_come_until_it_has_begun_in_the_zone(zone: str | None, is_to_come: bool) -> None:
    ours = None if zone is None else pipeline(timezone=zone)
    today_in_kiritimati = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=14)).date()
    assert absence.is_to_come(today_in_kiritimati, ours) is is_to_come
    assert absence.is_to_come(TO_COME + dt.timedelta(days=1), ours)


# --- recordings


def missed(s3: Store, prefix: str, day: dt.date = DAY, **settings: object) -> Finding:
    ours: Pipeline = s3.pipeline(recordings={"prefix": prefix, **settings})
    return absence.no_recordings(RecordingBucket(s3.client, s3.recordings), ours, day)


@pytest.mark.integration
def test_prefix_of_another_day_has_recordings(s3: Store) -> None:
    s3.put("support/2026/11/19/a.mp3")
    found = missed(s3, "support/{date:%Y/%m/%d}/")
    where = f"s3://{s3.recordings}/support/"
    assert (found.health, found.what) == (Health.UNSURE, "2026-11-20")
    assert found.detail == f"No recording of this day is below {where}2026/11/20/. {where} has 2026/."


@pytest.mark.integration
def test_objects_that_are_no_recordings_are_named_with_the_suffixes(s3: Store) -> None:
    s3.put("support/2026/11/20/a.MP3.part")
    found = missed(s3, "support/{date:%Y/%m/%d}/", suffixes=[".mp3", ".wav"])
    assert found.health is Health.UNSURE
    assert found.detail.endswith("which has a.MP3.part; recordings.suffixes are .mp3, .wav.")


@pytest.mark.integration
@pytest.mark.parametrize("prefix", ["suport/{date:%Y/%m/%d}/", "suport/", "suport/{date:%Y-%m}/"])
def test_prefix_without_any_object_is_a_mistake(s3: Store, prefix: str) -> None:
    s3.put("support/2026/11/20/a.mp3")
    found = missed(s3, prefix)
    where = f"s3://{s3.recordings}"
    assert found.health is Health.BAD
    assert found.detail.startswith(f"{where}/suport/ doesn't exist: no object is below it. Check recordings.prefix.")
    assert found.detail.endswith(f"Did you mean {where}/support/?")


@pytest.mark.integration
def test_empty_bucket_is_a_mistake(s3: Store) -> None:
    found = missed(s3, "{date:%Y/%m/%d}/")
    assert found.health is Health.BAD
    where = f"s3://{s3.recordings}/"
    assert found.detail == f"{where} doesn't exist: no object is below it. Check recordings.prefix."


@pytest.mark.integration
def test_day_to_come_is_a_mistake(s3: Store) -> None:
    found = missed(s3, "support/{date:%Y/%m/%d}/", TO_COME)
    assert (found.health, found.detail) == (Health.BAD, "This day is in the future (in UTC).")
