"""Prints published calls: those of a day, or a single one, as a table, strips, CSV or JSON."""

from __future__ import annotations

import csv
import datetime as dt
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
from rich import box
from rich.style import Style
from rich.table import Table
from rich.text import Text

from callphases.errors import ConfigurationError
from callphases.inspection.strips import phase_colors, phase_letters
from callphases.recordings import names_of
from callphases.state.storage import ObjectPrefix
from callphases.tables.reading import published_days, read_rows
from callphases.tables.schema import CALLS, PHASES

Row = dict[str, Any]

CALL_COLUMNS = ("dt", "call_id", "recording_uri", "call_started_at", "status", "failure_class", "failure_message")
"""The first columns of the CSV, before those of ``phases``."""


def calls_of_days(tables: ObjectPrefix | Path, days: Iterable[dt.date]) -> list[Row]:
    """Rows of ``calls`` by day and start of the call, each with its ``dt`` and its ``phases`` in order.

    Raises:
        ConfigurationError: an object is not a table of callphases; no such bucket, no rights.
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
    """The calls that ``wanted`` identifies: by ``call_id``, by the recording's URI, or by the last parts of its key.

    Without ``days``, searches all days from the newest on, and stops at the first that has such calls. Raises as
    ``calls_of_days``.
    """
    for group in [list(days)] if days else [[day] for day in reversed(published_days(tables))]:
        if found := [call for call in calls_of_days(tables, group) if _is(call, wanted)]:
            return found
    return []


def _is(call: Row, wanted: str) -> bool:
    return wanted in names_of(call["call_id"], call["recording_uri"])


def table(calls: Iterable[Row], whole: bool = False) -> Table:
    """One line per phase, with its times and summary; for a call without phases, its status and failure. One more line
    for a call with warnings.

    ``whole`` wraps long summaries instead of cutting them off.
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
        if call.get("warnings"):
            shown.add_row("", "", "warning", "", "", printable(call["warnings"]))
        shown.add_section()
    return shown


def strips(calls: Sequence[Row], width: int, colored: bool) -> Iterator[Text]:
    """A legend, then one line per call with phases: its strip on a time axis shared by all calls, and its length.

    Args:
        calls: with their phases.
        width: of the lines, in characters.
        colored: use the colors of the picture; if not, letters: the first letter of a phase's name if it is free.
    """
    drawn = [call for call in calls if call["phases"]]
    if not drawn:
        return
    colors = phase_colors(phase["phase_name"] for call in drawn for phase in call["phases"])
    letters = phase_letters(colors)
    legend = Text()
    for name, letter in letters.items():
        mark = Text("  ", Style(bgcolor=colors[name])) if colored else Text(letter)
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
            # Rounding both edges, not the length, leaves no gap or overlap.
            count = round(phase["end_s"] / longest_s * cells) - round(phase["start_s"] / longest_s * cells)
            phase_name = phase["phase_name"]
            line += (
                Text(" " * count, Style(bgcolor=colors[phase_name])) if colored else Text(letters[phase_name] * count)
            )
        line.append(f"  {_clock(call['phases'][-1]['end_s'])}")
        yield line


def write_csv(calls: Sequence[Row], file: TextIO, *, raw: bool = False) -> None:
    """Write one line per phase, with the columns of ``phases`` and its call's status; one line for a call without
    phases. Times are ISO 8601, numbers are not rounded, and null is an empty field.

    A text that a spreadsheet would take for a formula has a ' before it, unless ``raw``: what callers say is in it.
    """
    cell = _iso if raw else _guarded
    # A pipeline's own columns are the same in both tables, but may differ between days.
    own = list(dict.fromkeys(name for call in calls for name in call if name not in {"dt", "phases", *CALLS.names}))
    columns = [*CALL_COLUMNS, *(name for name in PHASES.names if name not in CALL_COLUMNS), *own]
    writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for call in calls:
        of_call = {name: call[name] for name in CALL_COLUMNS}
        # For a call without phases: the columns that phases copy from their call. Talk shares differ between the two.
        without_phases = {name: call.get(name) for name in ("transcript_id", *_LINEAGE, *own)}
        for phase in call["phases"] or [without_phases]:
            row = {**phase, **of_call}
            writer.writerow({key: cell(value) for key, value in row.items()})


_LINEAGE = ("speech_model", "llm_model", "prompt_version", "schema_version", "run_id", "processed_at")


def write_json(calls: Iterable[Row], file: TextIO) -> None:
    """Write one JSON object per line and call: ``dt``, the columns of ``calls``, and the list ``phases``. Times are
    ISO 8601, numbers are not rounded."""
    for call in calls:
        file.write(json.dumps(call, ensure_ascii=False, default=_iso) + "\n")


# From OWASP's page on CSV injection; spreadsheets skip spaces, and take full-width signs for ASCII's.
_FORMULA = re.compile(r"""[\s\x00"']*[=+\-@＝＋－＠]|[\t\r\n\x00]""")


def _guarded(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else _iso(value)


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def _name(call: Row) -> str:
    return printable(call["recording_uri"].rsplit("/", 1)[-1])


def printable(text: str) -> str:
    """Replace control characters, which a terminal would execute: names and summaries are untrusted."""
    return "".join(one if one.isprintable() else " " for one in text)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f}:{rest:04.1f}"
