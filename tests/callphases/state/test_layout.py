"""Names of objects in the state area, which every version must find."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.day_range import DayRange, Span
from callphases.state import layout
from doubles import DAY

RUN = "scheduled__2024-05-13T00_00_00+00_00-664f3901"
KEY = "d914b086c866a711f22e43020134b14c"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (layout.lease(DAY), "ledger/dt=2026-11-20/lease.json"),
        (layout.ledger_of(DAY), "ledger/dt=2026-11-20/"),
        (layout.ledger_segment(DAY, RUN, "list"), f"ledger/dt=2026-11-20/{RUN}/list.jsonl"),
        (layout.ledger_segment(DAY, RUN, "chunk-0004", 2), f"ledger/dt=2026-11-20/{RUN}/chunk-0004.2.jsonl"),
        (layout.day_list(DAY, RUN), f"runs/dt=2026-11-20/{RUN}/day.json"),
        (layout.manifest(DAY, RUN, "chunk-0004"), f"runs/dt=2026-11-20/{RUN}/chunk-0004.jsonl"),
        (layout.jobs_limit(), "limits/jobs.json"),
        (layout.backfill_spending(), "limits/backfill-usd.json"),
        (layout.part(DAY, RUN, layout.part_name(layout.CHUNK, 4)), f"runs/dt=2026-11-20/{RUN}/rows/chunk-0004.arrow"),
        (layout.part(DAY, RUN, layout.part_name(layout.REST, 0)), f"runs/dt=2026-11-20/{RUN}/rows/rest-0000.arrow"),
        (layout.transcript(DAY, KEY), f"transcripts/dt=2026-11-20/{KEY}.json"),
        (layout.captions(layout.transcript(DAY, KEY)), f"transcripts/dt=2026-11-20/{KEY}.vtt"),
        (layout.llm_limit("claude-sonnet-4-6"), "limits/llm-7d811269d13fd7df.json"),
        (layout.archive_index("0123456789abcdef"), "index/0123456789abcdef/index.json"),
        (layout.archive_lease("0123456789abcdef"), "index/0123456789abcdef/lease.json"),
        (
            layout.archive_day("0123456789abcdef", layout.archive_day_object(DAY, "fedcba9876543210")),
            "index/0123456789abcdef/2026-11-20-fedcba9876543210.jsonl.gz",
        ),
    ],
)
def test_object_has_the_name_that_the_previous_version_wrote(name: str, expected: str) -> None:
    assert name == expected


@given(st.dates(), st.text("0123456789abcdef", min_size=32, max_size=32), st.sampled_from(["", "s3://b/calls.json/x/"]))
def test_transcript_key_is_the_inverse_of_transcript(day: dt.date, key: str, root: str) -> None:
    assert layout.transcript_key(root + layout.transcript(day, key)) == key


def test_captions_of_a_uri_are_beside_its_transcript() -> None:
    assert layout.captions(f"s3://b/state/transcripts/dt=2024-05-12/{KEY}.json") == (
        f"s3://b/state/transcripts/dt=2024-05-12/{KEY}.vtt"
    )


def test_lease_is_below_the_ledger_of_its_day_but_holds_no_events() -> None:
    assert layout.lease(DAY).startswith(layout.ledger_of(DAY))
    assert not layout.is_ledger_segment(layout.lease(DAY))
    assert layout.is_ledger_segment(layout.ledger_segment(DAY, RUN, "publish", 12))


def test_only_parts_of_chunks_are_chunks() -> None:
    assert layout.is_chunk(layout.part_name(layout.CHUNK, 12345))
    assert not layout.is_chunk(layout.part_name(layout.REST, 0))


def test_each_cue_bundle_has_a_new_name() -> None:
    first, second = layout.new_cue_bundle(DAY), layout.new_cue_bundle(DAY)
    assert first != second
    assert first.startswith("transcripts/dt=2026-11-20/cues-")


@pytest.mark.parametrize("span", [DAY, DayRange(DAY, DAY), DayRange(DAY, dt.date(2027, 1, 3))])
def test_folder_of_a_ledger_says_whose_it_is(span: Span) -> None:
    assert layout.span_of(layout.ledger_of(span)) == span


@pytest.mark.parametrize(
    "folder", ["ledger/dt=2026-11-31/", "ledger/days=2026-11-01/", "ledger/x", "runs/dt=2026-11-01/"]
)
def test_other_folders_are_of_no_day(folder: str) -> None:
    assert layout.span_of(folder) is None
