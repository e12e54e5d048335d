"""The files that ``callphases init`` writes: a pipeline, and the Dag file that makes Dags of all pipelines."""

from __future__ import annotations

import datetime as dt
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from callphases.date_prefixes import begins
from callphases.errors import ConfigurationError
from callphases.listing.archive import RecordingsByDay
from callphases.listing.listing import Listing, SomeKeys
from callphases.listing.times import NO_TIMES
from callphases.pipeline import Pipeline, TimeElsewhere, load
from callphases.recordings import Recording
from callphases.starting.readings import readings
from callphases.state.bucket import ListedObject, Page, RecordingBucket

DAG_FILE = "call_phases.py"
DAG = '''\
"""The Dags of callphases: one for each pipeline file in the folder pipelines/ beside this file."""
from callphases.airflow.dag import call_phases_dags

globals().update(call_phases_dags(__file__))
'''
_COMMENTS = {
    "schedule": "at midnight, for the day that has just ended",
    "timezone": "of days, and of times in keys unless call_time has another",
}


@dataclass(frozen=True)
class Listed:
    """What a pipeline makes of the recordings that were looked at.

    Attributes:
        days: how many of them are listed, by day.
        unlisted: those that are on no day.
        untimed: listed ones whose key has no time where ``call_time`` expects one.
        examples: some of those that are listed, with the day.
    """

    days: Counter[dt.date] = field(default_factory=Counter)
    unlisted: list[str] = field(default_factory=list)
    untimed: SomeKeys = field(default_factory=SomeKeys)
    examples: list[tuple[Recording, dt.date]] = field(default_factory=list)


def pipeline_text(settings: Mapping[str, Any], comment: str) -> str:
    """A pipeline file; ``comment`` goes to its top."""
    lines = [*(f"# {line}".rstrip() for line in comment.splitlines())]
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += ["", f"{key}:", *_section(value)]
        else:
            line = _line(key, value)
            lines.append(f"{line:<42} # {_COMMENTS[key]}" if key in _COMMENTS else line)
    return "\n".join(lines) + "\n"


def _section(section: Mapping[str, Any]) -> Iterator[str]:
    for key, value in section.items():
        if key == "columns":
            yield "  columns:"
            yield from (f"    {_line(name, column)}" for name, column in value.items())
        else:
            yield f"  {_line(key, value)}"


def _line(key: str, value: Any) -> str:
    """One line of YAML, however long."""
    if isinstance(value, Mapping | list):
        return f"{key}: {flow(value)}"
    return _dumped({key: value}, default_flow_style=False)


def flow(value: Mapping[str, Any] | list[Any]) -> str:
    """YAML in one line, with brackets."""
    plain = dict(value) if isinstance(value, Mapping) else value
    return _dumped(plain, default_flow_style=True)


def _dumped(value: Any, *, default_flow_style: bool) -> str:
    def dump(allow_unicode: bool) -> str:
        dumped: str = yaml.safe_dump(
            value,
            default_flow_style=default_flow_style,
            allow_unicode=allow_unicode,
            sort_keys=False,
            width=float("inf"),
        )
        return dumped.strip(" \n")  # and no other space, which may be the text itself

    text = dump(allow_unicode=True)
    # YAML reads these line breaks as spaces, unless they are escaped.
    return dump(allow_unicode=False) if any(one in text for one in "\x85\u2028\u2029") else text


def checked(text: str, name: str) -> Pipeline:
    """The pipeline of a file's text, loaded as from the file.

    Raises:
        ConfigurationError: it is invalid.
    """
    with tempfile.TemporaryDirectory(prefix="callphases-") as folder:
        path = Path(folder) / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return load(path)
        except ConfigurationError as error:
            raise ConfigurationError(str(error).replace(str(path), f"{name}.yaml")) from None


@dataclass(frozen=True)
class _Seen(RecordingBucket):
    """A bucket that has only the objects that were looked at; sends no request."""

    objects: Sequence[ListedObject] = ()

    def pages(self, prefix: str) -> Iterator[Page]:
        """Those that a LIST of the prefix would return, at once."""
        yield Page([one for one in self.objects if begins(one.key, (prefix,))], None)


def listed(pipeline: Pipeline, bucket: RecordingBucket, objects: Sequence[ListedObject]) -> Listed:
    """What runs of a pipeline would list of the objects that were looked at.

    Args:
        pipeline: whose listing is tried.
        bucket: that the objects are from; it is not asked.
        objects: recordings.
    """
    seen = _Seen(bucket.client, bucket.name, objects=sorted(objects, key=lambda one: one.key))
    found, source = Listed(), pipeline.recordings
    times = NO_TIMES if isinstance(source.call_time, TimeElsewhere) else None  # sends no request
    taken: set[str] = set()

    def take(recording: Recording, day: dt.date) -> None:
        taken.add(recording.key)
        found.days[day] += 1
        if found.days[day] == 1 or len(found.days) < 3:
            found.examples.append((recording, day))

    if source.is_daily:
        latest = dt.datetime.now() + dt.timedelta(days=366)
        days = {reading.moment.date() for one in objects for reading in readings(one.key, latest)}
        for day in sorted(days, reverse=True):
            for recording in Listing(seen, pipeline, source.prefix_of(day), unmatched=found.untimed, times=times):
                take(recording, day)
    else:
        of_all = Listing(seen, pipeline, "", unmatched=found.untimed, times=times)
        by_day = RecordingsByDay(pipeline, of_all, SomeKeys())
        for day in sorted(by_day.counts, reverse=True):
            for recording in by_day.recordings_of(day):
                take(recording, day)
        by_day.close()
    found.unlisted.extend(one.key for one in objects if one.key not in taken)
    return found


def write(files: Mapping[Path, str], *, force: bool) -> None:
    """Write files that are not there yet; those that are there as they would be written stay.

    Raises:
        ConfigurationError: another one is there, and ``force`` is false, or one can't be written. Nothing is written
            then, or not all.
    """
    others = [path for path, text in files.items() if _differs(path, text)]
    if others and not force:
        names = ", ".join(map(str, others))
        raise ConfigurationError(f"{names}: there already, with other content; --force overwrites.")
    for path, text in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_name(f".{path.name}.{os.getpid()}")  # Airflow may be reading the folder
            beside.write_text(text, encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            raise ConfigurationError(f"{path}: can't be written: {error.strerror}") from None


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != text
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True
