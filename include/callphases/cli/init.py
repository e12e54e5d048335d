"""``callphases init``: the files for a bucket, from some of its keys."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import yaml
from pydantic import ValidationError

from callphases import date_prefixes, pipeline
from callphases.cli.console import console, notes
from callphases.connections import s3_of
from callphases.errors import ConfigurationError
from callphases.inspection.showing import printable
from callphases.pipeline import Pipeline
from callphases.starting import files
from callphases.starting.layout import Layout, Proposal, propose
from callphases.starting.sample import Sample, look_at
from callphases.state.bucket import ListedObject, RecordingBucket
from callphases.vendor_layouts import recognized

T = TypeVar("T")

EXAMPLES = 3
"""Keys that are shown with what is read from them."""


def init(
    folder: Annotated[
        Path, typer.Argument(help="The Dags folder: gets call_phases.py, and pipelines/ with the pipeline file.")
    ] = Path(),
    bucket: Annotated[
        str | None, typer.Option(help="The bucket of the recordings; s3://bucket/prefix/ as well.")
    ] = None,
    prefix: Annotated[
        str | None,
        typer.Option(help="Look only below this prefix. With {date:…} in it, it is taken as recordings.prefix."),
    ] = None,
    call_time: Annotated[
        str | None,
        typer.Option(help="recordings.call_time: last_modified, or {key_pattern: '…', format: '…'}."),
    ] = None,
    suffix: Annotated[
        list[str] | None, typer.Option(help="recordings.suffixes, if the usual ones won't do. Can be repeated.")
    ] = None,
    columns: Annotated[bool, typer.Option("--columns/--no-columns", help="Propose columns from the keys.")] = True,
    day_first: Annotated[
        bool | None, typer.Option("--day-first/--month-first", help="How to read a date such as 05/06/2026.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="The pipeline's name. Without it, there may be one pipeline for each folder above the dates."
        ),
    ] = None,
    timezone: Annotated[str | None, typer.Option(help="Of days, and of times in keys that don't say theirs.")] = None,
    tables: Annotated[str | None, typer.Option(help="output.tables: where the tables go, s3://…")] = None,
    state: Annotated[str | None, typer.Option(help="output.state: where runs keep their state, s3://…")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposals without asking.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")] = False,
) -> None:
    """Write the Dag file and a pipeline file for a bucket, proposed from some of its keys.

    Sends at most 100 LIST requests, and reads no recording. Shows what would be read from keys, asks about each
    proposal (not with --yes), and checks that the recordings that were looked at would be listed.
    """
    asks = not yes and sys.stdin.isatty()
    if not (yes or asks):
        raise typer.BadParameter("Nobody can be asked, as standard input is no terminal: give --bucket and --yes.")
    if bucket is None:
        if not asks:
            raise typer.BadParameter("Give --bucket.")
        bucket = typer.prompt("Bucket of the recordings")
    bucket, below = _bucket_and_prefix(bucket, prefix)
    if timezone is None and asks:
        timezone = _asked("Time zone of days, and of times in keys", "UTC", partial(_checked, "timezone"))
    timezone = _checked("timezone", timezone or "UTC")
    fixed = below if "{date" in below else None
    store = RecordingBucket(s3_of(None), bucket)
    looked_below = below[: below.find("{date")] if fixed else below
    sample = look_at(store, looked_below)
    suffixes = [one if one.startswith(".") or not one else f".{one}" for one in suffix] if suffix else sample.suffixes()
    recordings = sample.recordings(suffixes)
    vendor = None if call_time or suffix else _vendor(sample, below, asks=asks)
    if vendor is not None:
        recordings = [one for one in sample.objects if one.key in set(vendor.keys)]
    if not recordings:
        raise ConfigurationError(_nothing(sample, bucket, looked_below, suffixes))
    notes.print(
        f"Looked at {len(sample.objects)} objects of s3://{bucket}/{looked_below}, {len(recordings)} of them "
        f"recordings, with {sample.requests} requests.",
        soft_wrap=True,
    )
    proposal = (
        propose(sample.seen(suffixes), sample.folders, day_first=day_first) if vendor is None else Proposal([vendor])
    )
    if proposal.orders is not None and asks and day_first is None:
        text, first, other = proposal.orders
        is_first = typer.confirm(f"Is {text} the {first:%d %B} (and not the {other:%d %B})?", default=True)
        proposal = propose(sample.seen(suffixes), sample.folders, day_first=is_first)
    for note in proposal.notes:
        notes.print(f"note: {printable(note)}", soft_wrap=True)
    layouts = _layouts(proposal, name, asks=asks)
    if vendor is None:
        layouts = [
            _edited(layout, fixed, call_time, columns=columns, asks=asks and len(layouts) == 1) for layout in layouts
        ]
    names = _pipeline_names(layouts, name, bucket, asks=asks)
    places = _places(layouts, names, bucket, tables, state, asks=asks)
    written: dict[Path, str] = {folder / files.DAG_FILE: files.DAG}
    for layout in layouts:
        of_layout = names[layout.name]
        settings = {
            "pipeline": of_layout,
            "schedule": "0 0 * * *",
            "timezone": timezone,
            "recordings": layout.settings(bucket, suffixes),
            "output": places[layout.name],
        }
        text = files.pipeline_text(settings, _comment(of_layout, len(recordings), bucket, proposal.notes))
        _show(files.checked(text, of_layout), store, recordings, layout)
        written[folder / "pipelines" / f"{of_layout}.yaml"] = text
    if asks and not typer.confirm(f"Write {', '.join(map(str, written))}?", default=True):
        raise typer.Abort
    files.write(written, force=force)
    for path in written:
        console.print(f"Written: {path}", soft_wrap=True)
    _say_what_is_next([path for path in written if path.suffix == ".yaml"], folder)


def _vendor(sample: Sample, below: str, *, asks: bool) -> Layout | None:
    """The layout of a vendor whose keys these are, if it is taken. Twilio's alone may be below any prefix."""
    found = recognized(one.key for one in sample.objects)
    if found is None or (below and found[0] != "twilio"):
        return None
    vendor, keys = found
    notes.print(
        f"{len(keys)} of the keys are as {vendor} names recordings: recordings.layout can set what depends on it."
    )
    if asks and not typer.confirm(f"Set recordings.layout to {vendor}?", default=True):
        return None
    return Layout(below, None, {}, keys, vendor=vendor)


def _bucket_and_prefix(bucket: str, prefix: str | None) -> tuple[str, str]:
    name, _, below = re.sub(r"(?i)^s3[an]?://", "", bucket.strip()).partition("/")
    if not name:
        raise typer.BadParameter("--bucket: expected a bucket's name.")
    return name, below if prefix is None else prefix


def _nothing(sample: Sample, bucket: str, prefix: str, suffixes: Sequence[str] | None) -> str:
    where = f"s3://{bucket}/{prefix}"
    if not sample.objects:
        return f"{where} has no object: upload a recording, or check --bucket and --prefix."
    found = ", ".join(f"{suffix or 'without a suffix'} ({count})" for suffix, count in sample.endings().most_common(5))
    ends = f"ends in {', '.join(suffixes)}" if suffixes else "has the suffix of a recording"
    return (
        f"{where}: none of the {len(sample.objects)} objects that were looked at {ends}. They have: {found}. Name the "
        "suffix of the recordings with --suffix, or their prefix with --prefix."
    )


def _layouts(proposal: Proposal, name: str | None, *, asks: bool) -> list[Layout]:
    """One layout, or one for each folder above the dates."""
    if proposal.together is None:
        return list(proposal.layouts)
    folders = ", ".join(layout.prefix for layout in proposal.layouts[:4]) + (", …" if len(proposal.layouts) > 4 else "")
    notes.print(
        f"The dates are below {len(proposal.layouts)} folders: {printable(folders)}. With a pipeline for each, a run "
        f"lists only its day. One pipeline for all has them in the same tables, finds new folders by itself, and lists "
        f"everything below {proposal.together.prefix or 'the bucket'!r} in every run.",
        soft_wrap=True,
    )
    # Whoever names a pipeline expects one file of this name.
    splits = typer.confirm("A pipeline for each?", default=name is None) if asks else name is None
    if not asks:
        chosen = "a pipeline for each; --name makes one for all" if splits else "one pipeline, since --name is given"
        notes.print(f"Chosen: {chosen}.")
    return list(proposal.layouts) if splits else [proposal.together]


def _edited(layout: Layout, prefix: str | None, call_time: str | None, *, columns: bool, asks: bool) -> Layout:
    """The layout with what the options say, and what the user does."""
    layout = replace(layout, prefix=prefix or layout.prefix, columns=layout.columns if columns else {})
    if call_time is not None:
        try:
            layout = replace(layout, call_time=_call_time(call_time))
        except ValueError as error:
            raise typer.BadParameter(f"--call-time: {error}") from None
    if not asks:
        return layout
    if prefix is None:
        layout = replace(layout, prefix=_asked("recordings.prefix", layout.prefix, _prefix))
    if call_time is None:
        default = _as_text(layout.call_time)
        layout = replace(layout, call_time=_asked("recordings.call_time", default, _call_time))
    kept = {}
    for column, pattern in layout.columns.items():
        found = (re.search(pattern, key) for key in layout.keys)
        values = list(dict.fromkeys(one[column] for one in found if one is not None))[:EXAMPLES]
        if typer.confirm(f"A column {column} from the key, such as {', '.join(map(printable, values))}?", default=True):
            kept[column] = pattern
    return replace(layout, columns=kept)


def _asked(what: str, default: str, check: Callable[[str], T]) -> T:
    """An answer that passes the check; asks again until there is one."""
    while True:
        try:
            return check(str(typer.prompt(what, default=default)))
        except (typer.BadParameter, ValueError) as error:
            notes.print(str(error), soft_wrap=True)


def _checked(setting: str, text: str) -> str:
    """The name or the time zone of a pipeline, as its file must have it."""
    try:
        pipeline.DagSettings.model_validate({"pipeline": "any", setting: text})
    except ValidationError as error:
        raise typer.BadParameter(f"{setting}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    return text


def _prefix(text: str) -> str:
    date_prefixes.check(text)
    return text


def _as_text(rule: Mapping[str, str] | None) -> str:
    return "last_modified" if rule is None else files.flow(rule)


def _call_time(text: str) -> Mapping[str, str] | None:
    if text.strip() == "last_modified":
        return None
    try:
        rule = yaml.safe_load(text)
    except yaml.YAMLError:
        rule = None
    if not isinstance(rule, dict):
        raise ValueError(f"expected last_modified or {{key_pattern: …, format: …}}, not {text}")
    return rule


def _pipeline_names(layouts: Sequence[Layout], name: str | None, bucket: str, *, asks: bool) -> dict[str, str]:
    """The name of each layout's pipeline."""
    proposed = name or _name_of(layouts[0].prefix if len(layouts) == 1 else "", bucket)
    if name is None and asks:
        what = "Name of the pipeline" if len(layouts) == 1 else "Name that the pipelines' names begin with"
        proposed = _asked(what, proposed, partial(_checked, "pipeline"))
    names = {layout.name: f"{proposed}_{layout.name}" if layout.name else proposed for layout in layouts}
    if len(layouts) > 1 and len(set(names.values())) < len(names):
        names = {layout.name: f"{proposed}_{number}" for number, layout in enumerate(layouts, start=1)}
    return names


def _name_of(prefix: str, bucket: str) -> str:
    """A name from the folder above the date, or from the bucket."""
    folders = [
        one
        for one in prefix.partition("{date")[0].split("/")[:-1]
        if re.search(r"[A-Za-z]{2}", one) and len(re.findall(r"\d", one)) < 5  # no identifier
    ]
    words = re.sub(r"[^a-z0-9]+", "_", (folders[-1] if folders else bucket).lower()).strip("_")
    return words[:60] or "calls"


def _places(
    layouts: Sequence[Layout],
    names: Mapping[str, str],
    bucket: str,
    tables: str | None,
    state: str | None,
    *,
    asks: bool,
) -> dict[str, dict[str, str]]:
    """``output`` of each layout's pipeline."""
    several = len(layouts) > 1
    first = "" if several else f"{names[layouts[0].name]}/"
    if tables is None:
        tables = f"s3://{bucket}/call_phases/{first}"
        tables = typer.prompt("output.tables", default=tables) if asks else tables
    if state is None:
        state = _state_beside(tables)
        state = typer.prompt("output.state", default=state) if asks else state
    more = {layout.name: f"{names[layout.name]}/" if several else "" for layout in layouts}
    return {
        layout.name: {
            "tables": f"{tables.rstrip('/')}/{more[layout.name]}",
            "state": f"{state.rstrip('/')}/{more[layout.name]}",
        }
        for layout in layouts
    }


def _state_beside(tables: str) -> str:
    """``output.state`` for ``output.tables``: beside its first folder, so that neither is in the other."""
    bucket, _, path = tables.removeprefix("s3://").rstrip("/").partition("/")
    first, _, rest = path.partition("/")
    if not first:
        raise typer.BadParameter("--tables: expected a folder, s3://bucket/call_phases/, or --state in another bucket.")
    folder = "_callphases" if first == "call_phases" else f"_{first}_state"
    return f"s3://{bucket}/{folder}/{rest}/" if rest else f"s3://{bucket}/{folder}/"


def _comment(name: str, count: int, bucket: str, remarks: Sequence[str]) -> str:
    today = dt.datetime.now(dt.UTC).date()
    return (
        f"Proposed by callphases init on {today} from {count} recordings of s3://{bucket}/. Other settings have their\n"
        f"defaults; `callphases plan {name}.yaml --date …` shows what is read from the keys."
        + "".join(f"\n{printable(remark)}" for remark in remarks)
    )


def _show(read: Pipeline, store: RecordingBucket, objects: Sequence[ListedObject], layout: Layout) -> None:
    """Print what a pipeline makes of the recordings that were looked at.

    Raises:
        ConfigurationError: it would list none of them.
    """
    own = set(layout.keys)
    objects = [one for one in objects if one.key in own]
    found = files.listed(read, store, objects)
    source = read.recordings
    console.print(f"{read.pipeline}: recordings.prefix is {source.prefix!r}", soft_wrap=True)
    for recording, day in found.examples[:EXAMPLES]:
        time = recording.call_time.astimezone(read.zone)
        values = [
            f"{column}={match[column if column in match.re.groupindex else 1]}"
            for column, rule in source.columns.items()
            if rule.key_pattern is not None and (match := re.search(rule.key_pattern, recording.key)) is not None
        ]
        upload = ", the upload" if source.call_time == "last_modified" else ""
        more = "".join(f", {value}" for value in values)
        console.print(
            printable(f"  {recording.key} → day {day}, {time:%H:%M:%S} {time:%Z}{upload}{more}"), soft_wrap=True
        )
    if not found.days:
        raise ConfigurationError(
            f"{read.pipeline}: none of the {len(objects)} recordings that were looked at would be listed: check "
            "recordings.prefix and recordings.call_time."
        )
    console.print(
        f"  {sum(found.days.values())} of {len(objects)} recordings that were looked at would be listed, on "
        + (f"{len(found.days)} days from {min(found.days)} to " if len(found.days) > 1 else "")
        + f"{max(found.days)}.",
        soft_wrap=True,
    )
    if found.unlisted:
        console.print(printable(f"  Not listed: {len(found.unlisted)}, such as {found.unlisted[0]}"), soft_wrap=True)
    if found.untimed.count:
        console.print(
            printable(f"  Without a time in the key: {found.untimed.count}, such as {found.untimed}"), soft_wrap=True
        )
    late = [one for one in found.examples if one[0].call_time > max(item.last_modified for item in objects)]
    if late:
        notes.print("note: times are later than the uploads: check timezone, which they are read in.")


def _say_what_is_next(paths: Sequence[Path], folder: Path) -> None:
    first = paths[0]
    notes.print(
        "Next: set the connections assemblyai_default and aws_default (or ASSEMBLYAI_API_KEY and AWS_PROFILE), then\n"
        f"  callphases doctor {first}\n"
        f"  callphases plan {first} --date YYYY-MM-DD\n"
        f"  callphases run {first} --date YYYY-MM-DD\n"
        "Then unpause the Dag in Airflow.",
        soft_wrap=True,
    )
    named = os.environ.get(pipeline.PIPELINES_VARIABLE)
    if named and Path(named).absolute() != (folder / "pipelines").absolute():
        notes.print(f"note: {pipeline.PIPELINES_VARIABLE} is set, so Dags are made of the files in {named} instead.")
