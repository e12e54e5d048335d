"""What was published, to be looked at: calls of a day or a single one, as a table, strips of letters, CSV or JSON."""

from __future__ import annotations

import csv
import datetime as dt
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text

from callphases.errors import ConfigurationError
from callphases.inspection.strips import colours_of
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import published_days, read_rows
from callphases.tables.schema import CALLS, PHASES

Row = dict[str, Any]

OF_CALL = ("dt", "call_id", "recording_uri", "call_started_at", "status", "failure_class", "failure_message")
"""What a line of CSV begins with, before the columns of ``phases``."""


def calls_of_days(tables: ObjectPrefix | Path, days: Iterable[dt.date]) -> list[Row]:
    """The calls of some days: rows of ``calls`` by day and begin, each with its ``dt`` and, in order, its ``phases``.

    Raises:
        ConfigurationError: what lies there is no table of ours; no such bucket, no rights.
        ServiceUnavailable: S3 does not answer.
    """
    found: list[Row] = []
    for day in sorted(set(days)):
        try:
            calls, phases = read_rows(tables, "calls", day), read_rows(tables, "phases", day)
        except (pa.ArrowException, OSError) as error:
            where = tables.uri if isinstance(tables, ObjectPrefix) else tables
            raise ConfigurationError(f"{where}: {day} can't be read as tables of calls and phases: {error}") from None
        of_call: dict[str, list[Row]] = {}
        for phase in sorted(phases, key=lambda row: row["phase_index"]):
            of_call.setdefault(phase["call_id"], []).append(phase)
        calls.sort(key=lambda row: (row["call_started_at"], row["call_id"]))
        found += [{"dt": day, **call, "phases": of_call.get(call["call_id"], [])} for call in calls]
    return found


def find_calls(tables: ObjectPrefix | Path, wanted: str, days: Sequence[dt.date] = ()) -> list[Row]:
    """The calls that ``wanted`` names: by ``call_id``, by a recording's URI, or by the last parts of its key.

    Without ``days``, all days are looked through, the newest first, and the calls of the first that has any returned.
    Raises as ``of_days``.
    """
    for one in [list(days)] if days else [[day] for day in reversed(published_days(tables))]:
        if found := [call for call in calls_of_days(tables, one) if _is(call, wanted)]:
            return found
    return []


def _is(call: Row, wanted: str) -> bool:
    return wanted in (call["call_id"], call["recording_uri"]) or call["recording_uri"].endswith(f"/{wanted}")


def table(calls: Iterable[Row], whole: bool = False) -> Table:
    """A line for each phase, with its times and its summary; for a call that has none, what became of it.

    ``whole``: what is too long for its line goes on in the next one, in place of being cut.
    """
    shown = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False)
    for header in ("call", "started", "phase", "from", "to"):
        shown.add_column(header, max_width=30, no_wrap=True)
    shown.add_column("summary", ratio=1, no_wrap=not whole)
    for call in calls:
        head = (_name(call), f"{call['call_started_at']:%m-%d %H:%M}")
        if call["status"] != "completed":
            what = call["failure_class"] or call["status"]
            shown.add_row(*head, what, "", "", printable(call["failure_message"] or ""))
        for number, phase in enumerate(call["phases"]):
            times = [_clock(phase["start_s"]), _clock(phase["end_s"])]
            summary = printable(phase["summary"] or "")
            shown.add_row(*(head if number == 0 else ("", "")), printable(phase["phase_name"]), *times, summary)
        shown.add_section()
    return shown


def strips(calls: Sequence[Row], width: int, coloured: bool) -> Iterator[Text]:
    """A line for each call that has phases: its strip on a time axis that all share, and its length. A legend first.

    Args:
        calls: with their phases.
        width: of the lines, in characters.
        coloured: a strip is of the colours of the picture; if not, it is of letters, a phase's first where they differ.
    """
    drawn = [call for call in calls if call["phases"]]
    if not drawn:
        return
    colours = colours_of(phase["phase_name"] for call in drawn for phase in call["phases"])
    letters = _letters(colours)
    legend = Text()
    for name, letter in letters.items():
        mark = Text("  ", Style(bgcolor=colours[name])) if coloured else Text(letter)
        legend += Text.assemble(mark, f" {printable(name)}   ")
    legend.rstrip()
    yield legend
    longest_s = max(call["phases"][-1]["end_s"] for call in drawn) or 1.0
    names = max(min(len(_name(call)), 30) for call in drawn)
    cells = max(width - names - 12, 10)
    for call in drawn:
        name = _name(call)
        line = Text(f"{name if len(name) <= 30 else name[:29] + '…':<{names}}  ")
        for phase in call["phases"]:
            # Both edges are rounded alike, so strips have neither gaps nor overlaps.
            count = round(phase["end_s"] / longest_s * cells) - round(phase["start_s"] / longest_s * cells)
            of = phase["phase_name"]
            line += Text(" " * count, Style(bgcolor=colours[of])) if coloured else Text(letters[of] * count)
        line.append(f"  {_clock(call['phases'][-1]['end_s'])}")
        yield line


def _letters(names: Iterable[str]) -> dict[str, str]:
    letters: dict[str, str] = {}
    for name in names:
        free = [one for one in name.upper() + name.lower() + "#*+=%&@" if one.isprintable() and one.strip()]
        letters[name] = next((one for one in free if one not in letters.values()), "?")
    return letters


def write_csv(calls: Sequence[Row], file: TextIO) -> None:
    """A line for each phase, with the columns of ``phases`` and its call's status; for a call without phases one line
    without them. Times are ISO 8601, numbers have all their digits, nothing is an empty field."""
    # A pipeline's own columns, which are the same in both tables; not all days need have them.
    own = list(dict.fromkeys(name for call in calls for name in call if name not in {"dt", "phases", *CALLS.names}))
    columns = [*OF_CALL, *(name for name in PHASES.names if name not in OF_CALL), *own]
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for call in calls:
        of_call = {name: call[name] for name in OF_CALL}
        # What a call has in common with its phases is said of one that has none, too; its talk is not a phase's.
        alone = {name: call.get(name) for name in ("transcript_id", *_LINEAGE, *own)}
        for phase in call["phases"] or [alone]:
            row = {**phase, **of_call}
            writer.writerow({key: _iso(value) for key, value in row.items()})


_LINEAGE = ("speech_model", "llm_model", "prompt_version", "schema_version", "run_id", "processed_at")


def write_json(calls: Iterable[Row], file: TextIO) -> None:
    """JSON lines: an object for each call, with ``dt``, the columns of ``calls`` and the list of its ``phases``. Times
    are ISO 8601, numbers have all their digits."""
    for call in calls:
        file.write(json.dumps(call, ensure_ascii=False, default=_iso) + "\n")


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def _name(call: Row) -> str:
    return printable(call["recording_uri"].rsplit("/", 1)[-1])


def printable(text: str) -> str:
    """Without what a terminal would obey: names and summaries are others' words."""
    return "".join(one if one.isprintable() else " " for one in text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
