"""Reads labelled calls (the ground truth) and predicted calls from JSON files, one call per file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from callphases.cues import Cue
from callphases.errors import ConfigurationError
from callphases.scoring.metrics import Span, fit_to_call


def _number(value: object) -> object:
    # pydantic would read strings as Python does, such as "1_000", and true as 1.
    if isinstance(value, str | bool):
        raise ValueError("expected a number")
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Seconds = Annotated[Number, Field(ge=0)]
CueNumber = Annotated[int, BeforeValidator(_number)]


@dataclass(frozen=True)
class LabelledCall:
    """A call with its labels. ``phases`` cover 0 to ``end_s``, or are empty if the call was labelled as having none.

    ``cues`` are numbered from 1 by their starts, as in transcripts.
    """

    call_id: str
    recording: str | None
    cues: tuple[Cue, ...]
    phases: tuple[Span, ...]
    end_s: float
    path: Path


@dataclass(frozen=True)
class PredictedCall:
    """A prediction for a call: ``phases``, or in ``why`` the reason for having none.

    ``recording`` is a path or a URI; ``end_s`` is the end of the call according to the prediction.
    """

    call_id: str
    recording: str
    phases: tuple[Span, ...]
    end_s: float | None = None
    why: str = ""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class _CueEntry(_Entry):
    cue: CueNumber
    speaker: str | None = None
    start_s: Seconds
    end_s: Seconds
    text: str = ""


class _PhaseEntry(_Entry):
    name: str = Field(min_length=1)
    start_cue: CueNumber | None = None
    start_s: Seconds | None = None
    end_s: Seconds | None = None


class _CallFile(_Entry):
    call_id: str = Field(default="", validate_default=False)
    recording: str | None = None
    duration_s: Annotated[Number, Field(gt=0)] | None = None
    cues: list[_CueEntry] = []
    phases: list[_PhaseEntry]


def read_labelled(places: Sequence[Path]) -> list[LabelledCall]:
    """Read labelled calls from files, and from all ``*.json`` below folders.

    Raises:
        ConfigurationError: a file is invalid; the message names it and the mistake.
    """
    calls: dict[str, LabelledCall] = {}
    for path in _files(places):
        call = _labelled(path)
        if (first := calls.setdefault(call.call_id, call)) is not call:
            raise ConfigurationError(f"{path}: call_id {call.call_id!r} is also that of {first.path}; expected another")
    return list(calls.values())


def read_predicted(places: Sequence[Path]) -> list[PredictedCall]:
    """Read predicted calls from files and folders. A phase without ``end_s`` lasts until the next one starts.

    Raises:
        ConfigurationError: a file is invalid; the message names it and the mistake.
    """
    return [_predicted(path) for path in _files(places)]


def stem(recording: str) -> str:
    """A recording's file name without folder and suffix."""
    return PurePosixPath(recording).stem


def _labelled(path: Path) -> LabelledCall:
    file = _read(path)
    starts_s = _starts_s(file, path)
    ends_s = [cue.end_s for cue in file.cues] + [phase.end_s for phase in file.phases if phase.end_s is not None]
    end_s = file.duration_s or max(ends_s, default=0.0)
    if file.phases and end_s <= 0:
        raise ConfigurationError(f"{path}: duration_s: missing, and without cues the end of the call is unknown")
    for place, start_s in enumerate(starts_s):
        if place and start_s >= end_s:
            raise ConfigurationError(f"{path}: phases.{place}: starts at {start_s:g} s, but the call ends at {end_s:g}")
    # By convention, labels cover the call: the first phase starts at 0, and silence belongs to the phase before it.
    spans = [
        Span(phase.name, start_s, end_s) for phase, start_s in zip(file.phases, [0.0, *starts_s[1:]], strict=False)
    ]
    return LabelledCall(
        call_id=file.call_id or path.stem,
        recording=file.recording,
        cues=tuple(
            Cue(number, cue.start_s, cue.end_s, cue.speaker, cue.text)
            for number, cue in enumerate(sorted(file.cues, key=lambda cue: cue.start_s), start=1)
        ),
        phases=tuple(fit_to_call(spans, end_s)) if spans else (),
        end_s=end_s,
        path=path,
    )


def _predicted(path: Path) -> PredictedCall:
    file = _read(path)
    starts_s = _starts_s(file, path)
    if file.phases and file.phases[0].start_s is None:
        starts_s[0] = 0.0  # as in published tables, where the first phase starts with the call, not with its first cue
    until_s = [*starts_s[1:], max([0.0, file.duration_s or 0.0, *(cue.end_s for cue in file.cues), *starts_s])]
    spans = [
        Span(phase.name, start_s, next_s if phase.end_s is None else phase.end_s)
        for phase, start_s, next_s in zip(file.phases, starts_s, until_s, strict=False)
    ]
    end_s = file.duration_s or max((span.end_s for span in spans), default=None)
    why = "" if spans else "its file has no phases"
    return PredictedCall(file.call_id or path.stem, file.recording or path.name, tuple(spans), end_s, why)


def _starts_s(file: _CallFile, path: Path) -> list[float]:
    cues = {cue.cue: cue.start_s for cue in file.cues}
    if len(cues) < len(file.cues):
        raise ConfigurationError(f"{path}: cues: expected each number once")
    starts_s: list[float] = []
    for place, phase in enumerate(file.phases):
        if phase.start_s is not None:
            starts_s.append(phase.start_s)
        elif phase.start_cue is None:
            raise ConfigurationError(f"{path}: phases.{place}: expected start_cue or start_s")
        elif phase.start_cue not in cues:
            raise ConfigurationError(f"{path}: phases.{place}.start_cue: there is no cue {phase.start_cue}")
        else:
            starts_s.append(cues[phase.start_cue])
    for place, (before_s, start_s) in enumerate(pairwise(starts_s), start=1):
        if start_s < before_s:
            raise ConfigurationError(
                f"{path}: phases.{place}: starts at {start_s:g} s, before phase {place - 1} at {before_s:g} s; "
                "expected phases ordered by start"
            )
    return starts_s


def _read(path: Path) -> _CallFile:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{path}: expected JSON in UTF-8") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: expected a JSON object with call_id, cues and phases")
    try:
        return _CallFile.model_validate(document)
    except ValidationError as error:
        # pydantic's own message would quote the input, which may be a transcript.
        mistakes = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False)]
        more = f" (and {len(mistakes) - 3} more)" if len(mistakes) > 3 else ""
        raise ConfigurationError(f"{path}: {'; '.join(mistakes[:3])}{more}") from None


def _files(places: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for place in places:
        files = sorted(place.rglob("*.json")) if place.is_dir() else [place]
        if not files:
            raise ConfigurationError(f"{place}: there is no *.json below this folder")
        found += files
    return found
