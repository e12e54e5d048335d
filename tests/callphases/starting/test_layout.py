"""Proposals for buckets: layouts that recorders and contact centers are known to write, and random ones."""

from __future__ import annotations

import datetime as dt
import random
import uuid
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callphases.listing.listing import time_in_key
from callphases.pipeline import KeyTime, Pipeline
from callphases.starting.layout import Layout, Proposal, Seen, propose
from doubles import pipeline

Spelling = Callable[[dt.datetime], str]
FIRST = dt.datetime(2026, 9, 1)
RANDOM = random.Random(7)


@pytest.fixture(autouse=True)
def same_keys_in_any_order_of_tests() -> None:
    RANDOM.seed(7)


def unique() -> str:
    return str(uuid.UUID(int=RANDOM.getrandbits(128)))


def phone() -> str:
    return "".join(RANDOM.choice("0123456789") for _ in range(10))


def one_of(*words: str) -> str:
    return RANDOM.choice(words)


def epoch_s(moment: dt.datetime) -> int:
    return int(moment.replace(tzinfo=dt.UTC).timestamp())


def moments(count: int, days: int = 80) -> list[dt.datetime]:
    return [FIRST + dt.timedelta(seconds=RANDOM.randrange(days * 86_400)) for _ in range(count)]


def seen_of(spell: Spelling, times: Sequence[dt.datetime], after: dt.timedelta = dt.timedelta(hours=1)) -> list[Seen]:
    return [Seen(spell(time), (time + after).replace(tzinfo=dt.UTC)) for time in times]


def pipeline_of(layout: Layout) -> Pipeline:
    return pipeline(recordings=layout.settings("recordings"))


def days_and_times(layout: Layout, keys: Sequence[str], times: Sequence[dt.datetime]) -> tuple[int, list[dt.datetime]]:
    """How many keys a run of their day lists, and the times that are read, without a zone."""
    ours = pipeline_of(layout)
    rule = ours.recordings.call_time
    listed, read = 0, []
    for key, time in zip(keys, times, strict=True):
        found = time_in_key(key, rule, ours.zone) if isinstance(rule, KeyTime) else None
        if ours.recordings.is_daily:
            listed += key.startswith(ours.recordings.prefix_of(time.date()))
        elif found is not None:
            listed += found.date() == time.date() and ours.recordings.is_listed(key, time.date())
        read += [found.replace(tzinfo=None)] if found is not None else []
    return listed, read


LAYOUTS: dict[str, tuple[Spelling, str, str | None]] = {
    "the day's folder": (
        lambda t: f"{t:support/%Y/%m/%d/%H%M%S}-{one_of('outage', 'bill', 'other')}.mp3",
        "support/{date:%Y/%m/%d}/",
        "%Y/%m/%d/%H%M%S",
    ),
    "Amazon Connect": (
        lambda t: f"{t:connect/acme/CallRecordings/%Y/%m/%d}/{unique()}_{t:%Y%m%dT%H:%M}_UTC.wav",
        "connect/acme/CallRecordings/{date:%Y/%m/%d}/",
        "%Y%m%dT%H:%M",
    ),
    "Genesys Cloud": (
        lambda t: f"org/year={t.year}/month={t.month}/day={t.day}/hour={t.hour}/conversation_id={unique()}/a.opus",
        "org/year={date:%Y}/month={date:%-m}/day={date:%-d}/",
        "%Y/month=%m/day=%d/hour=%H",
    ),
    "Asterisk": (
        lambda t: (
            f"{t:%Y/%m/%d}/out-{phone()}-{RANDOM.randrange(200, 240)}-{t:%Y%m%d-%H%M%S}-{epoch_s(t)}"
            f".{RANDOM.randrange(99_999)}.wav"
        ),
        "{date:%Y/%m/%d}/",
        "%Y%m%d-%H%M%S",
    ),
    "FusionPBX": (lambda t: f"archive/{t:%Y/%b/%d}/{unique()}.wav", "archive/{date:%Y/%b/%d}/", None),
    "FocalScope": (
        lambda t: f"monitor/{t:%Y-UTC/%m/%d}/{unique()}.wav",
        "monitor/{date:%Y}-UTC/{date:%m/%d}/",
        None,
    ),
    "Telesis": (lambda t: f"x/{phone()}_{t:%y%m%d_%H%M%S}_AO_{RANDOM.randrange(999):03}.mp3", "x/", "%y%m%d_%H%M%S"),
    "VICIdial": (lambda t: f"MP3/{t:%Y%m%d-%H%M%S}_{phone()}-all.mp3", "MP3/{date:%Y%m%d}", "%Y%m%d-%H%M%S"),
    "MiaRec": (lambda t: f"{t:%Y%m%d/%Y%m%d%H%M%S}_{RANDOM.randrange(9)}.mp3", "{date:%Y%m%d}/", "%Y%m%d%H%M%S"),
    "RingCentral": (
        lambda t: f"rc/{t:%Y%m%d-%H%M%S}_(555) 123-{phone()[:4]}_Inbound_Automatic_{phone()}.mp3",
        "rc/{date:%Y%m%d}",
        "%Y%m%d-%H%M%S",
    ),
    "8x8": (lambda t: f"rec/{epoch_s(t) * 1000 + 543}-{phone()}-117209.mp3", "rec/", "epoch"),
    "epoch seconds": (lambda t: f"calls/{epoch_s(t)}.{RANDOM.randrange(10_000, 99_999)}.wav", "calls/", "epoch"),
    "no date": (lambda t: f"AC12/RE{unique().replace('-', '')}.wav", "AC12/", None),
    "day first": (lambda t: f"calls/{t:%d-%m-%Y}/{unique()}.mp3", "calls/{date:%d-%m-%Y}/", None),
    "month first, afternoon": (
        lambda t: f"calls/{t:%m/%d/%Y}/{t:%I-%M-%S %p} {one_of('ann', 'bob', 'eve')}.mp3",
        "calls/{date:%m/%d/%Y}/",
        "%m/%d/%Y/%I-%M-%S %p",
    ),
    "Hive": (lambda t: f"raw/dt={t:%Y-%m-%d}/{unique()}.ogg", "raw/dt={date:%Y-%m-%d}/", None),
    "month's folder": (
        lambda t: f"{t:%Y-%m}/call_{unique()}_{t:%Y-%m-%d_%H-%M-%S}.wav",
        "{date:%Y-%m}/",
        "%Y-%m-%d_%H-%M-%S",
    ),
    "flat": (
        lambda t: f"{t:%Y-%m-%dT%H:%M:%SZ}_{phone()}.mp3",
        "{date:%Y-%m-%d}",
        "%Y-%m-%dT%H:%M:%S",
    ),
    "escaped": (
        lambda t: f"c/{t:%Y-%m-%dT%H%%3A%M%%3A%S}_{one_of('a', 'b')}.mp3",
        "c/{date:%Y-%m-%d}",
        "%Y-%m-%dT%H%%3A%M%%3A%S",
    ),
    "odd signs": (
        lambda t: f"ré {{x}}/100% [c]/{t:%Y.%m.%d}/{t:%Hh%Mm%Ss} +1 ({phone()}).mp3",
        "ré {{x}}/100% [c]/{date:%Y.%m.%d}/",
        "%Y.%m.%d/%Hh%Mm%S",
    ),
    "day of the year": (lambda t: f"c/{t:%Y/%j}/{unique()}.mp3", "c/{date:%Y/%j}/", None),
    "Dialpad": (
        lambda t: f"dp/{RANDOM.randrange(10**15, 10**16)}_{t:%Y-%m-%d %H-%M-%S}.mp3",
        "dp/",
        "%Y-%m-%d %H-%M-%S",
    ),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_is_proposed_and_reads_its_keys(name: str) -> None:
    spell, prefix, format = LAYOUTS[name]
    times = moments(120)
    seen = seen_of(spell, times)
    (layout,) = propose(seen).layouts
    assert layout.prefix == prefix
    assert (layout.call_time["format"] if layout.call_time else None) == format
    listed, read = days_and_times(layout, [one.key for one in seen], times)
    assert len(read) == (len(seen) if format else 0)
    if name != "no date":
        assert listed == len(seen)
    precision = {"%Y/month=%m/day=%d/hour=%H": 3600, "%Y%m%dT%H:%M": 60}.get(format or "", 1)
    for time, found in zip(times, read, strict=False):
        assert 0 <= (time - found).total_seconds() < precision or abs(time - found) < dt.timedelta(seconds=1)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_single_recording_is_listed(name: str) -> None:
    spell, _, format = LAYOUTS[name]
    time = dt.datetime(2026, 11, 21, 14, 3, 25)  # the 21st is no month
    (layout,) = propose(seen_of(spell, [time])).layouts
    listed, read = days_and_times(layout, layout.keys, [time])
    assert listed == (name != "no date")
    assert [found.date() for found in read] == ([time.date()] if format else [])


@pytest.mark.parametrize(
    ("spelled", "prefix"),
    [
        ("%Y-%m/%Y%m%d-%H%M%S", "{date:%Y-%m/%Y%m%d}"),
        ("%Y/%Y-%m-%d/%H%M%S", "{date:%Y/%Y-%m-%d}/"),
        ("calls-%Y/%m/%Y.%m.%d_%H.%M.%S", "calls-{date:%Y/%m/%Y.%m.%d}"),
        ("%Y/%b/%Y%m%d/%H%M%S", "{date:%Y/%b/%Y%m%d}/"),
    ],
)
@pytest.mark.parametrize("days", [9, 80])
def test_month_above_the_date_is_no_literal(spelled: str, prefix: str, days: int) -> None:
    """Also if the bucket has no other month yet."""
    times = moments(40, days)
    seen = seen_of(lambda t: f"{t:{spelled}}_{phone()}.mp3", times)
    (layout,) = propose(seen).layouts
    assert layout.prefix == prefix
    assert days_and_times(layout, layout.keys, times) == (len(times), times)


@pytest.mark.parametrize(("spelled", "is_first"), [("%d/%m/%Y", True), ("%m/%d/%Y", False)])
def test_uploads_tell_whether_the_day_is_first(spelled: str, is_first: bool) -> None:
    times = [dt.datetime(2026, 6, day, 10) for day in range(1, 12)]
    proposal = propose(seen_of(lambda t: f"c/{t:{spelled}}/{unique()}.mp3", times))
    assert proposal.orders is None
    assert proposal.layouts[0].prefix == f"c/{{date:{spelled}}}/"


def test_folders_tell_whether_the_day_is_first() -> None:
    seen = seen_of(lambda t: f"c/{t:%d/%m/%Y}/{unique()}.mp3", [dt.datetime(2026, 6, 5)], dt.timedelta(days=300))
    proposal = propose(seen, ["c/04/", "c/05/", "c/31/", "c/05/06/"])
    assert (proposal.orders, proposal.layouts[0].prefix) == (None, "c/{date:%d/%m/%Y}/")


def test_ambiguous_order_is_said_and_can_be_chosen() -> None:
    seen = seen_of(lambda t: f"c/{t:%d-%m-%Y}/{unique()}.mp3", [dt.datetime(2026, 6, 5)], dt.timedelta(days=300))
    proposal = propose(seen)
    assert proposal.orders == ("05-06-2026", dt.date(2026, 6, 5), dt.date(2026, 5, 6))
    assert any("--month-first" in note for note in proposal.notes)
    assert propose(seen, day_first=False).layouts[0].prefix == "c/{date:%m-%d-%Y}/"
    assert propose(seen, day_first=True).orders is None


def tenants(names: Sequence[str]) -> Proposal:
    times = moments(20 * len(names))
    numbers = iter(range(len(times)))
    return propose(
        seen_of(lambda t: f"rec/{names[next(numbers) % len(names)]}/{t:%Y/%m/%d/%H%M%S}-{phone()}.mp3", times)
    )


def test_each_tenant_gets_a_layout_and_there_is_one_for_all() -> None:
    proposal = tenants(["acme", "globex", "initech"])
    assert [(one.name, one.prefix) for one in proposal.layouts] == [
        (name, f"rec/{name}/{{date:%Y/%m/%d}}/") for name in ("acme", "globex", "initech")
    ]
    assert proposal.together is not None
    assert proposal.together.prefix == "rec/"
    assert proposal.together.call_time is not None
    assert proposal.together.columns == {"tenant": "^[^/]*/(?P<tenant>[^/]+)/"}


def test_many_folders_above_the_dates_are_listed_together() -> None:
    proposal = tenants([f"agent-{number}" for number in range(40)])
    assert proposal.together is None
    assert [one.prefix for one in proposal.layouts] == ["rec/"]
    assert proposal.layouts[0].columns == {"agent": "^[^/]*/agent-(?P<agent>[^/]+)/"}
    assert any("lists everything below rec/" in note for note in proposal.notes)


def test_copies_in_other_folders_are_named_and_left_out() -> None:
    times = moments(40)
    seen = seen_of(lambda t: f"{t:connect/a/CallRecordings/%Y/%m/%d}/{unique()}_{t:%Y%m%dT%H:%M}_UTC.wav", times)
    seen += seen_of(
        lambda t: f"{t:connect/a/Analysis/Voice/Redacted/%Y/%m/%d}/{unique()}_call_{t:%Y-%m-%dT%H:%M:%SZ}.wav",
        times[:4],
    )
    proposal = propose(seen)
    assert [one.prefix for one in proposal.layouts] == ["connect/a/CallRecordings/{date:%Y/%m/%d}/"]
    assert any("connect/a/Analysis/Voice/Redacted/" in note for note in proposal.notes)


def test_numbers_that_look_like_dates_are_no_dates() -> None:
    extensions = ["1204", "1130", "0915"]
    seen = seen_of(lambda t: f"calls/{RANDOM.choice(extensions)}/{phone()}.mp3", moments(50))
    (layout,) = propose(seen).layouts
    assert (layout.prefix, layout.call_time) == ("calls/", None)
    versions = seen_of(lambda t: f"v2.0/20200101/{unique()}.mp3", moments(5))
    assert pipeline_of(propose(versions).layouts[0])


def test_folders_of_weeks_are_no_tenants() -> None:
    times = moments(80)
    proposal = propose(seen_of(lambda t: f"c/{t:%G-W%V}/{t:%Y%m%dT%H%M%SZ}-{unique()}.wav", times))
    (layout,) = proposal.layouts
    assert (layout.prefix, layout.columns, proposal.together) == ("c/", {}, None)
    assert days_and_times(layout, layout.keys, times) == (len(times), times)


def test_date_that_is_the_same_in_all_keys_is_not_that_of_the_calls() -> None:
    seen = seen_of(lambda t: f"export-20260101/{t:%Y-%m-%d}/{unique()}.wav", moments(40))
    (layout,) = propose(seen).layouts
    assert layout.prefix == "export-20260101/{date:%Y-%m-%d}/"


def test_utc_behind_a_fraction_of_a_second_is_noticed() -> None:
    seen = seen_of(lambda t: f"c/{t:%Y-%m-%dT%H-%M-%S}-{RANDOM.randrange(1000):03}Z.wav", moments(20))
    (layout,) = propose(seen).layouts
    assert layout.call_time is not None
    assert layout.call_time["timezone"] == "UTC"


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="no recordings"):
        propose([])


DATES = st.sampled_from(
    ["%Y/%m/%d", "%Y-%m-%d", "%Y%m%d", "%Y_%m_%d", "%Y.%m.%d", "%Y/%m-%d", "%Y%m/%d", "%Y/%m%d", "%Y/%b/%d",
     "year=%Y/month=%m/day=%d", "dt=%Y-%m-%d", "%Y/%m/%Y-%m-%d", "%Y%m/%d-%m-%Y",
     "%d-%m-%Y", "%d.%m.%Y", "%m-%d-%Y", "%d%m%Y", "%Y-%j", "%d-%b-%Y"]
)  # fmt: skip
TIMES = st.sampled_from(
    ["%Y%m%dT%H%M%SZ", "%Y%m%d%H%M%S", "%Y-%m-%d_%H-%M-%S", "%Y-%m-%dT%H:%M:%S", "%Y%m%d-%H%M", "%d%m%Y_%H%M%S",
     "%Y.%m.%d %I.%M.%S %p", "%Y%m%dT%H%M%S+0000", "%H%M%S", "%H-%M-%S", ""]
)  # fmt: skip
WORDS = st.text("abcdefgh", min_size=1, max_size=6)


@settings(max_examples=20)  # a second each
@given(
    date=DATES,
    time=TIMES,
    head=st.sampled_from(["", "calls/", "a b/c{d}/", "x%41/", "recordings/emea/", "rec-"]),
    middle=st.sampled_from(["", "agent-{number}/", "inbound/"]),
    before=st.sampled_from(["", "{unique}_", "call-", "{phone}_", "out-{phone}-{number}-"]),
    after=st.sampled_from(["", "_{unique}", "-{number}", "_{phone}", " ({number})"]),
    zone=st.integers(0, 1000),
)
def test_random_layout_is_read_back(
    date: str, time: str, head: str, middle: str, before: str, after: str, zone: int
) -> None:
    source = random.Random(zone)
    times = [FIRST + dt.timedelta(seconds=source.randrange(80 * 86_400)) for _ in range(25)]
    keys = []
    for moment in times:
        fill = {
            "unique": str(uuid.UUID(int=source.getrandbits(128))),
            "phone": "".join(source.choice("0123456789") for _ in range(10)),
            "number": source.randrange(10, 40),
        }
        name = f"{before.format(**fill)}{moment:{time}}{after.format(**fill)}" if time else fill["unique"]
        keys.append(f"{head}{moment:{date}}/{middle.format(**fill)}{name}.wav")
    seen = [
        Seen(key, (moment + dt.timedelta(hours=1)).replace(tzinfo=dt.UTC))
        for key, moment in zip(keys, times, strict=True)
    ]
    proposal = propose(seen)
    (layout,) = proposal.layouts
    listed, read = days_and_times(layout, keys, times)
    assert listed == len(keys), layout
    if "%Y" in time:
        whole = 60 if time == "%Y%m%d-%H%M" else 1
        assert [moment.replace(second=0) if whole == 60 else moment for moment in times] == read, layout


def test_redacted_copies_beside_recordings_are_left_out_whatever_their_depth() -> None:
    when = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
    keys = [f"connect/prod/CallRecordings/2026/11/{day}/id{day}_202611{day}T09:14_UTC.wav" for day in (20, 21, 22)]
    copies = [
        f"Analysis/Voice/Redacted/2026/11/{day}/id{day}_call_recording_redacted_2026-11-{day}T10:00:00Z.wav"
        for day in (20, 21, 22)
    ]
    proposal = propose([Seen(key, when) for key in [*keys, *copies]])
    [layout] = proposal.layouts
    assert layout.prefix == "connect/prod/CallRecordings/{date:%Y/%m/%d}/"
    assert layout.call_time is not None
    assert any("Analysis/Voice/Redacted/ are left out" in note for note in proposal.notes)
    [only] = propose([Seen(key, when) for key in copies]).layouts
    assert only.prefix == "Analysis/Voice/Redacted/{date:%Y/%m/%d}/"
