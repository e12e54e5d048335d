"""The page of one call: its phases and cues, who talks when, what it was made with, what failed."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

from callphases.cues import Cue, cues_of_captions
from callphases.errors import (
    REMEDIES,
    ConfigurationError,
    ProviderError,
    ServiceUnavailable,
    TranscriptGone,
    failure_classes,
)
from callphases.pages.audio import Unavailable, state_of
from callphases.pages.day_page import local, name_of
from callphases.pages.pipelines import Stores
from callphases.segmentation.talk import TURN_EDGE_MS, turns
from callphases.state.storage import ObjectPrefix, split_uri
from callphases.state.transcripts import Transcript, read_transcript
from callphases.tables.one_call import rows_of_call
from callphases.tables.schema import CALLS

LONG_SILENCE_S = 3.0
"""A longer silence is listed. Amazon Connect's Contact Lens counts silences longer than this as non-talk time."""
MOST_LANES = 8
"""Speakers with a lane of their own; from there on, those who talk least share one."""
LANE_UNITS = 2000
"""Of a lane's width: what is shorter is drawn as one with its neighbor."""

OTHER_VERSION = (
    "The recording was replaced after this call was processed: what is heard need not be what phases and cues are of."
)

Row = Mapping[str, Any]
_CONTENT = ("failure_message", "warnings")
"""Columns with a service's own words, which may quote a call."""
_COMMAND_LINE_RUN = re.compile(r"(run|replay)__\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
"""The ids that the command line gives its runs: Airflow does not know them."""


@dataclass(frozen=True)
class Line:
    """A cue on the page. ``lane`` is the number of its speaker's lane."""

    number: int
    start_s: float
    end_s: float
    speaker: str | None
    lane: int
    text: str
    interrupts: bool


@dataclass(frozen=True)
class PhaseOfCall:
    """A phase with its cues; ``summary`` is None for who may not read it."""

    name: str
    start_s: float
    end_s: float
    share_of_call: float | None
    summary: str | None
    row: Row
    cues: list[Line]


@dataclass(frozen=True)
class Lane:
    """When a speaker talks: ``path`` is SVG's, in a box of 2,000 by 10; ``share`` is of the time that anybody talks."""

    number: int
    label: str
    talk_s: float
    share: float | None
    path: str


@dataclass(frozen=True)
class Silence:
    """A stretch in which nobody speaks."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """In seconds."""
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Interruption:
    """A turn that starts before another speaker has finished; ``cue`` is its first."""

    cue: int
    start_s: float
    label: str


@dataclass(frozen=True)
class Talk:
    """Who talks when, as the cues have it."""

    lanes: list[Lane]
    silences: list[Silence]
    interruptions: list[Interruption]


@dataclass(frozen=True)
class Failure:
    """What failed and what to do. ``message`` is None for who may not read it.

    ``failure_class`` is None where the table has none that this version knows. ``task_id``: of the Dag's task that came
    to it. ``command``: tries the call again, in a terminal.
    """

    failure_class: str | None
    message: str | None
    remedy: str | None
    task_id: str
    command: str


@dataclass(frozen=True)
class Audio:
    """Whether the page has a player, and what is to be said about the recording."""

    plays: bool
    note: str | None = None


@dataclass(frozen=True)
class CallPage:
    """What the page shows; times of day are in the pipeline's zone, other times are seconds from the call's start.

    Attributes:
        row: of the table ``calls``, without what may quote the call for who may not read it.
        phase_names: of the pipeline, and of the call where it has others; they decide colors and letters.
        unphased: cues of a call that was not divided into phases.
        transcript_note: why there are no cues, or what is odd about them.
        own: the pipeline's own columns, as text.
        in_airflow: whether the run that made the row is one of Airflow's.
    """

    day: dt.date
    call_id: str
    name: str
    started_at: dt.datetime | None
    processed_at: dt.datetime | None
    end_s: float
    row: Row
    phase_names: list[str]
    phases: list[PhaseOfCall]
    unphased: list[Line]
    talk: Talk | None
    transcript_note: str | None
    failure: Failure | None
    own: dict[str, str]
    audio: Audio
    may_read: bool
    may_replay: bool
    in_airflow: bool
    long_silence_s: float = LONG_SILENCE_S
    turn_edge_s: float = TURN_EDGE_MS / 1000


@dataclass(frozen=True)
class Heard:
    """The cues of a call, in order; ``note`` says why there are none, or what is odd about them.

    ``by_channel``: the labels of speakers begin with the number of their channel.
    """

    cues: list[Cue] = field(default_factory=list)
    note: str | None = None
    by_channel: bool = False


def call_page(
    stores: Stores, day: dt.date, call_id: str, *, may_read: bool, may_listen: bool, may_replay: bool
) -> CallPage | None:
    """The page of a call; None if its day has no such call.

    Args:
        stores: the pipeline with its stores.
        day: of the call.
        call_id: of the call.
        may_read: the user may read transcripts, summaries, and what services say of failures.
        may_listen: the user may hear recordings.
        may_replay: the user may try failed calls again.

    Raises:
        ConfigurationError, ServiceUnavailable: the tables can't be read.
    """
    calls = rows_of_call(stores.tables, "calls", day, call_id)
    if calls is None or not calls.num_rows:
        return None
    call = calls.slice(0, 1).to_pylist()[0]
    found = rows_of_call(stores.tables, "phases", day, call_id)
    phases = [] if found is None else sorted(found.to_pylist(), key=lambda row: row["phase_index"])
    return page_of_call(
        day,
        call,
        phases,
        heard_in(stores.state, call, phases),
        stores.pipeline.zone,
        [phase.name for phase in stores.pipeline.phases],
        audio=_audio(stores, call) if may_listen else Audio(plays=False),
        command=f"callphases replay {stores.pipeline.pipeline}.yaml --date {day} --call {call_id}",
        may_read=may_read,
        may_replay=may_replay,
    )


def page_of_call(
    day: dt.date,
    call: Row,
    phases: Sequence[Row],
    heard: Heard,
    zone: ZoneInfo,
    phase_names: Sequence[str],
    *,
    audio: Audio,
    command: str,
    may_read: bool,
    may_replay: bool,
) -> CallPage:
    """The page of a call whose rows and cues are known.

    Args:
        day: of the call.
        call: its row of ``calls``.
        phases: its rows of ``phases``, in order.
        heard: its cues.
        zone: of times of day.
        phase_names: the pipeline's.
        audio: whether there is a player.
        command: tries a failed call again.
        may_read: as in ``call_page``.
        may_replay: as in ``call_page``.
    """
    end_s = _end_s(call, phases, heard.cues)
    speakers = _speakers(heard, may_read)
    _, interrupts = turns(heard.cues)
    lines = [
        Line(cue.number, cue.start_s, cue.end_s, cue.speaker, speakers.lane(cue), cue.text, interrupting)
        for cue, interrupting in zip(heard.cues, interrupts, strict=True)
    ]
    parts, is_whole = _by_phase(lines, phases)
    note = heard.note
    if not is_whole:
        note = (
            "The phases were made of other cues than the transcript has now, so cues are put to phases by their times."
        )
    failed = call["status"] == "failed"
    return CallPage(
        day=day,
        call_id=call["call_id"],
        name=name_of(call),
        started_at=local(call["call_started_at"], zone),
        processed_at=local(call["processed_at"], zone),
        end_s=end_s,
        row={name: None if name in _CONTENT and not may_read else value for name, value in call.items()},
        phase_names=list(dict.fromkeys([*phase_names, *(phase["phase_name"] for phase in phases)])),
        phases=[
            PhaseOfCall(
                name=phase["phase_name"],
                start_s=phase["start_s"],
                end_s=phase["end_s"],
                share_of_call=phase["share_of_call"],
                summary=phase["summary"] if may_read else None,
                row={name: value for name, value in phase.items() if name != "summary"},
                cues=part if may_read else [],
            )
            for phase, part in zip(phases, parts, strict=True)
        ],
        unphased=lines if may_read and not phases else [],
        talk=_talk(heard.cues, lines, speakers, end_s) if lines else None,
        transcript_note=note,
        failure=_failure(call, command, may_read) if failed else None,
        own={name: _as_text(value, zone) for name, value in call.items() if name not in CALLS.names},
        audio=audio,
        may_read=may_read,
        may_replay=may_replay and failed,
        in_airflow=bool(call["run_id"]) and _COMMAND_LINE_RUN.fullmatch(call["run_id"]) is None,
    )


def _audio(stores: Stores, call: Row) -> Audio:
    bucket, key = split_uri(call["recording_uri"])
    if bucket != stores.bucket.name:
        return Audio(
            False, f"The recording is in the bucket {bucket}, which is not the pipeline's (recordings.bucket)."
        )
    found = state_of(stores.bucket, key, call["recording_etag"], stores.pipeline.pages.audio)
    if isinstance(found, Unavailable):
        return Audio(False, found.message)
    return Audio(True, OTHER_VERSION if found else None)


def heard_in(state: ObjectPrefix, call: Row, phases: Sequence[Row]) -> Heard:
    """The cues of a call as the state area has them, numbered as ``phases`` has them.

    Args:
        state: ``output.state``.
        call: a row of ``calls``.
        phases: its rows of ``phases``.
    """
    uri = call["transcript_uri"]
    if call["status"] == "no_speech":
        return Heard(note="Nobody speaks in this recording.")
    if not uri:
        return Heard(note="There is no transcript of this call.")
    if not uri.startswith(state.uri):
        return Heard(
            note=f"The transcript is at {uri}, outside of the pipeline's output.state ({state.uri}), and is not read."
        )
    try:
        transcript = read_transcript(state, uri)
        return Heard(_cues(transcript, phases), by_channel=transcript.document.get("multichannel") is True)
    except TranscriptGone:
        return Heard(note=f"The transcript is no longer there: {uri} was deleted, or moved.")
    except ProviderError:
        return Heard(note=f"The transcript can't be read: {uri} or its captions beside it are damaged.")
    except (ConfigurationError, ServiceUnavailable) as error:
        return Heard(note=f"The transcript can't be read. {error}")


def _cues(transcript: Transcript, phases: Sequence[Row]) -> list[Cue]:
    """The cues; those of the captions if an earlier version has made other cues of the words, and written these."""
    cues = transcript.cues()
    if phases and len(cues) != phases[-1]["end_cue"]:
        with contextlib.suppress(ProviderError):
            captions = cues_of_captions(transcript.document, transcript.captions)
            if len(captions) == phases[-1]["end_cue"]:
                return captions
    return cues


def _by_phase(lines: Sequence[Line], phases: Sequence[Row]) -> tuple[list[list[Line]], bool]:
    """The cues of each phase, each cue in one of them, and whether they are those of ``start_cue`` and ``end_cue``."""
    parts = [lines[phase["start_cue"] - 1 : phase["end_cue"]] for phase in phases]
    numbers = [line.number for part in parts for line in part]
    if not lines or not phases or numbers == [line.number for line in lines]:
        return [list(part) for part in parts], True
    by_time: list[list[Line]] = [[] for _ in phases]
    for line in lines:
        started = [number for number, phase in enumerate(phases) if phase["start_s"] <= line.start_s]
        by_time[started[-1] if started else 0].append(line)
    return by_time, False


@dataclass(frozen=True)
class _Speakers:
    """Lanes by what is in them; ``labels`` are in the order of the lanes."""

    labels: list[str]
    lanes: dict[str, int]
    by_channel: bool

    def lane(self, cue: Cue) -> int:
        """The number of the lane that a cue is in."""
        return self.lanes[_lane_key(cue, self.by_channel)]


def _lane_key(cue: Cue, by_channel: bool) -> str:
    # With several channels, labels are 1, 2, …; with speakers told apart as well, 1A, 1B, 2A.
    found = re.match(r"\d+", cue.speaker or "") if by_channel else None
    return found[0] if found else cue.speaker or ""


def _speakers(heard: Heard, may_read: bool) -> _Speakers:
    """The lanes, by who is heard first. A label may be a name that was said, so who may not read gets numbers."""
    talk_s: dict[str, float] = {}
    for cue in heard.cues:
        key = _lane_key(cue, heard.by_channel)
        talk_s[key] = talk_s.get(key, 0.0) + cue.end_s - cue.start_s
    most = set(
        sorted(talk_s, key=lambda key: -talk_s[key])[: MOST_LANES if len(talk_s) <= MOST_LANES else MOST_LANES - 1]
    )
    own = [key for key in talk_s if key in most]
    lanes = {key: own.index(key) if key in most else len(own) for key in talk_s}
    labels = [_label(key, number, heard.by_channel, may_read) for number, key in enumerate(own, start=1)]
    return _Speakers(labels + ["Others"] * (len(own) < len(talk_s)), lanes, heard.by_channel)


def _label(key: str, number: int, by_channel: bool, may_read: bool) -> str:
    if not key:
        return "Without a label"
    if by_channel and key.isdecimal():
        return f"Channel {key}"
    return f"Speaker {key if may_read else number}"


def _talk(cues: Sequence[Cue], lines: Sequence[Line], speakers: _Speakers, end_s: float) -> Talk:
    of_lane: list[list[tuple[int, int]]] = [[] for _ in speakers.labels]
    for cue, line in zip(cues, lines, strict=True):
        of_lane[line.lane].append((_ms(cue.start_s), _ms(cue.end_s)))
    end_ms = _ms(end_s)
    anybody = _joined([one for lane in of_lane for one in lane], end_ms)
    spoken_ms = _length(anybody)
    lanes = []
    for number, (label, times) in enumerate(zip(speakers.labels, of_lane, strict=True)):
        joined = _joined(times, end_ms)
        talk_ms = _length(joined)
        share = talk_ms / spoken_ms if spoken_ms else None
        lanes.append(Lane(number, label, talk_ms / 1000, share, _path(joined, end_ms)))
    edges = [(0, 0), *anybody, (end_ms, end_ms)]
    silences = [
        Silence(end / 1000, start / 1000)
        for (_, end), (start, _) in pairwise(edges)
        if start - end > LONG_SILENCE_S * 1000
    ]
    interruptions = [
        Interruption(line.number, line.start_s, speakers.labels[line.lane]) for line in lines if line.interrupts
    ]
    return Talk(lanes, silences, interruptions)


def _joined(times: Sequence[tuple[int, int]], end_ms: int, gap_ms: int = 0) -> list[tuple[int, int]]:
    """Times as disjoint intervals within the call, in order."""
    found: list[tuple[int, int]] = []
    for start, end in sorted((max(start, 0), min(end, end_ms)) for start, end in times):
        if end <= start:
            continue
        if found and start <= found[-1][1] + gap_ms:
            found[-1] = found[-1][0], max(found[-1][1], end)
        else:
            found.append((start, end))
    return found


def _length(intervals: Sequence[tuple[int, int]]) -> int:
    return sum(end - start for start, end in intervals)


def _path(intervals: Sequence[tuple[int, int]], end_ms: int) -> str:
    if end_ms <= 0:
        return ""
    scale = LANE_UNITS / end_ms
    drawn = ((round(start * scale), round(end * scale)) for start, end in _joined(intervals, end_ms, round(1 / scale)))
    return "".join(f"M{start} 0h{max(end - start, 1)}v10h-{max(end - start, 1)}z" for start, end in drawn)


def _end_s(call: Row, phases: Sequence[Row], cues: Sequence[Cue]) -> float:
    """When the call ends: as the tables have it, else with the last cue."""
    if phases:
        return float(phases[-1]["end_s"])
    return float(call["duration_s"] or max((cue.end_s for cue in cues), default=0.0))


def _failure(call: Row, command: str, may_read: bool) -> Failure:
    failure_class = call["failure_class"]
    return Failure(
        failure_class=failure_class if failure_class in failure_classes() else None,
        message=call["failure_message"] if may_read else None,
        remedy=REMEDIES.get(failure_class or ""),
        task_id="calls.segment" if call["transcript_uri"] else "calls.transcribe",
        command=command,
    )


def _as_text(value: Any, zone: ZoneInfo) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dt.datetime):
        return f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
