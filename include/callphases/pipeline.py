"""Pipeline files: the settings that a user edits, loaded and validated."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from croniter import CroniterBadDateError, croniter
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from callphases import date_prefixes, sidecars, time_formats
from callphases.errors import ConfigurationError
from callphases.local_days import DAY
from callphases.speech_models import DEFAULT_SPEECH_MODELS, models_of
from callphases.vendor_layouts import LAYOUTS

PIPELINES_VARIABLE = "CALLPHASES_PIPELINES"
UPGRADE = "upgrade"
"""The key of ``transcription`` that is callphases' own, and no option of the service."""
OTHER = "Other"
"""The phase of everything that matches no defined phase. Always available; can't be defined by the user."""

# The second is retired on 2026-11-30; until then it serves accounts that don't have the first.
DEFAULT_LLM_MODELS = ["claude-sonnet-4-6", "claude-sonnet-4-5-20250929"]


def _s3_folder(uri: str) -> str:
    if not re.fullmatch(r"s3://[^/]+(/.*)?", uri):
        raise ValueError("expected s3://bucket/prefix/")
    return uri if uri.endswith("/") else uri + "/"


S3Folder = Annotated[str, AfterValidator(_s3_folder)]


class _Section(BaseModel):
    # pydantic before 2.10 warns of names that begin with model_.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def name_key(name: str) -> str:
    """The form in which names of phases are compared.

    Models return a name with other quotes, dashes, spaces or case than it was given, in markdown, or with a full stop.
    """
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = "".join(sign for sign in text.translate(_PLAIN_SIGNS) if unicodedata.category(sign) != "Cf")
    text = " ".join(text.split())
    return re.sub(r"^[\s*_#'\"]+|[\s*_'\".:,;]+$", "", text) or text


_PLAIN_SIGNS = str.maketrans(
    dict.fromkeys("‘’‚‛′`´ʼ＇", "'") | dict.fromkeys("“”„‟″«»‹›＂", '"') | dict.fromkeys("‐‑‒–—―−﹘﹣－", "-")
)


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise ValueError("expected an IANA time zone, such as Europe/Berlin") from None
    return name


def _readable_format(format: str) -> str:
    time_formats.check(format)
    return format


class KeyTime(_Section):
    """Parses the time of a call from its key."""

    key_pattern: str
    """A regular expression with a group ``time``, which may span folders."""
    format: Annotated[str, AfterValidator(_readable_format)]
    """What the group holds: a format of Python's ``strptime``, or ``epoch`` for seconds since 1970."""
    timezone: Annotated[str, AfterValidator(_known_zone)] | None = None
    """The time zone of times that don't say theirs. Without it: that of the pipeline."""

    @field_validator("key_pattern")
    @classmethod
    def _has_time(cls, pattern: str) -> str:
        if "time" not in _groups_of(pattern):
            raise ValueError("expected a group (?P<time>…)")
        return pattern


class Elsewhere(_Section):
    """Where a value is that is not in a recording's key: its object, its audio file, a document beside it, a list."""

    metadata: str | None = Field(default=None, min_length=1)
    """The name of an entry of the object's metadata, without ``x-amz-meta-``. One request per recording."""
    tag: str | None = Field(default=None, min_length=1)
    """The name of one of the object's tags. One request per recording."""
    audio_tag: str | None = Field(default=None, min_length=1)
    """A tag of the audio file: ``date`` (of ID3, MP4, Vorbis comments or WAV's INFO), ``bext`` (date and time of a
    Broadcast WAV), or another by its name, such as ``comment``. A few requests per recording."""
    sidecar: str | None = Field(default=None, min_length=1)
    """The key of a JSON document of the recording, or its ``s3://`` URI. ``{key}`` is the recording's key, ``{stem}``
    the key without its suffix, ``{folder}`` its folders, ``{name}`` the rest of the stem; groups of ``id_pattern`` are
    placeholders too. One ``*`` stands for anything: the newest such document is used. One request per recording and
    document, two with a ``*``."""
    path: str | None = Field(default=None, min_length=1)
    """Where the value is in the document of ``sidecar``: names and indexes of JSONPath."""
    inventory: str | None = None
    """A list of recordings, read once per task: the ``s3://`` URI of a CSV or Parquet file, of a folder of such files,
    or of S3 Inventory's manifest.json or its folder with all of them, whose newest is used."""
    field: str | None = Field(default=None, min_length=1)
    """The column of ``inventory`` with the value. For ``call_time``, it is LastModifiedDate by default."""
    key_field: str = Field(default="key", min_length=1)
    """The column of ``inventory`` with a recording's key or its ``s3://`` URI."""
    id_field: str | None = Field(default=None, min_length=1)
    """In place of ``key_field``: the column of ``inventory`` with an ID, which ``id_pattern`` finds in the key."""
    id_pattern: str | None = None
    """A regular expression on the key. Its groups are placeholders of ``sidecar``; its group ``id``, or the only one,
    is compared with ``id_field``."""

    @property
    def source(self) -> str | None:
        """What tells a value from others in audio files, documents and lists; None if it is elsewhere."""
        if self.audio_tag is None and self.sidecar is None and self.inventory is None:
            return None
        fields = self.model_dump(include=set(Elsewhere.model_fields), exclude_defaults=True)
        return json.dumps(fields, sort_keys=True, ensure_ascii=False)

    @field_validator("path")
    @classmethod
    def _readable_path(cls, path: str | None) -> str | None:
        if path is not None:
            sidecars.steps(path)
        return path

    @field_validator("inventory")
    @classmethod
    def _uri(cls, uri: str | None) -> str | None:
        if uri is not None and not re.fullmatch(r"s3://[^/]+/.+", uri):
            raise ValueError("expected s3://bucket/key")
        return uri

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self._check_source()
        groups = _groups_of(self.id_pattern, "id_pattern: ") if self.id_pattern is not None else {}
        if self.sidecar is not None:
            if self.path is None:
                raise ValueError("sidecar needs path, such as $.Agent.Username")
            try:
                sidecars.check_name(self.sidecar, groups)
            except ValueError as error:
                raise ValueError(f"sidecar: {error}") from None
        elif self.path is not None:
            raise ValueError("path applies only to a sidecar")
        if self.inventory is None:
            for name in ("field", "key_field", "id_field"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} applies only to an inventory")
            if self.id_pattern is not None and self.sidecar is None:
                raise ValueError("id_pattern applies only to a sidecar or an inventory")
        elif (self.id_field is None) != (self.id_pattern is None):
            raise ValueError("expected id_field and id_pattern, or neither: the ID in the inventory, and in the key")
        elif self.id_pattern is not None and "id" not in groups and len(groups) != 1:
            raise ValueError("id_pattern: expected a group (?P<id>…)")
        return self

    def _check_source(self) -> None:
        """Check that the value is in one place."""
        own = [name for name in _SOURCES if name in type(self).model_fields]
        if sum(getattr(self, name) is not None for name in own) != 1:
            raise ValueError(f"expected one of {', '.join(own[:-1])} and {own[-1]}")


_SOURCES = ("key_pattern", "metadata", "tag", "audio_tag", "sidecar", "inventory")


def _groups_of(pattern: str, what: str = "") -> Mapping[str, int]:
    """The named groups of a regular expression; ``what`` begins the message if it is none."""
    try:
        return re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"{what}expected a regular expression: {error}") from None


class TimeElsewhere(Elsewhere):
    """Reads the time of a call from the object, its audio file, a document beside it, or a list of recordings."""

    format: Annotated[str, AfterValidator(_readable_format)] | None = None
    """A format of Python's ``strptime``, or ``epoch``. Without it: ISO 8601, or seconds or milliseconds since 1970."""
    timezone: Annotated[str, AfterValidator(_known_zone)] | None = None
    """The time zone of times that don't say theirs. Without it: that of the pipeline, or UTC for S3 Inventory."""


def _kind_of_call_time(value: object) -> str:
    if isinstance(value, TimeElsewhere) or (isinstance(value, dict) and not value.keys().isdisjoint(_SOURCES[1:])):
        return "<elsewhere>"
    return "<rule>" if isinstance(value, dict | KeyTime) else "<name>"


CallTime = Annotated[
    Annotated[Literal["last_modified"], Tag("<name>")]
    | Annotated[KeyTime, Tag("<rule>")]
    | Annotated[TimeElsewhere, Tag("<elsewhere>")],
    Discriminator(_kind_of_call_time),
]


# fmt: off
RESERVED_COLUMNS = frozenset({
    "dt", "call_id", "recording_uri", "recording_etag", "recording_bytes", "call_started_at", "status",
    "failure_class", "failure_message", "duration_s", "language", "phase_count", "transcript_id",
    "transcript_uri", "speech_model", "llm_model", "llm_input_tokens", "llm_output_tokens", "speech_usd",
    "llm_usd", "prompt_version", "schema_version", "run_id", "processed_at", "turn_count", "silence_s",
    "speaker_1", "speaker_1_talk_s", "speaker_1_talk_share", "speaker_2", "speaker_2_talk_s",
    "speaker_2_talk_share", "other_talk_s", "interruption_count", "words_per_minute", "confidence", "phase_index",
    "phase_name", "start_s", "end_s", "share_of_call", "start_cue", "end_cue", "word_count", "summary",
    "warnings", "finished", "run_speech_usd", "run_llm_usd", "phases",
})
# fmt: on
"""Columns of the tables, and of the intermediate files of a run."""


class Column(Elsewhere):
    """A user-defined column of both tables, read from a recording's key or from elsewhere, of which it names one."""

    key_pattern: str | None = None
    """A regular expression on the key, with a group named like the column, or with one named group."""
    type: Literal["string", "int64", "double", "boolean", "timestamp"] = "string"
    """The column's type. A value that is not of this type is null, and counted in the log."""
    format: str | None = None
    """For a ``timestamp`` that is not ISO 8601: a format of Python's ``strptime``, or ``epoch``."""

    @model_validator(mode="after")
    def _has_format_of_type(self) -> Self:
        if self.inventory is not None and self.field is None:
            raise ValueError("inventory needs field, the name of its column with the value")
        if self.format is not None and self.type != "timestamp":
            raise ValueError("format applies only to columns of type timestamp")
        if self.format is not None:
            try:
                time_formats.check(self.format)
            except ValueError as error:
                raise ValueError(f"format: {error} (it is {self.format!r})") from None
        return self


def _prefix_or_layout(schema: dict[str, Any]) -> None:
    """In the JSON schema, a section without a prefix needs a layout, which sets one."""
    schema["required"].remove("prefix")
    schema["anyOf"] = [{"required": ["prefix"]}, {"required": ["layout"]}]


class Recordings(_Section):
    """Where recordings are stored and how they are sent to the speech service."""

    model_config = ConfigDict(json_schema_extra=_prefix_or_layout)

    bucket: str = Field(min_length=1)
    """The bucket's name, without ``s3://``."""
    layout: Literal["amazon_connect", "genesys_cloud", "twilio"] | None = None
    """A vendor whose public documentation says how it stores recordings. It sets ``prefix``, ``key_pattern``,
    ``call_time``, ``suffixes``, ``columns`` and ``channels``; each that the file sets replaces the layout's as a
    whole."""
    prefix: str
    """The beginning of the keys, with the day as a ``{date:…}`` of ``strftime`` if keys have it. A prefix that differs
    for each day gives the day of its calls. With one of a month or a year, or with none, ``call_time`` gives it.
    ``{any}`` stands for any one folder, and ``{zero}`` for a zero that may precede a digit; both take more LIST
    requests. Required without ``layout``."""
    key_pattern: str | None = None
    """A regular expression. Only objects whose key it is found in are recordings."""
    call_time: CallTime = "last_modified"
    """When a call started: ``last_modified`` (the time of the upload), or a rule that reads it from the key or from
    elsewhere. A time from elsewhere is read once for the same key and ETag. Where there is none, LastModified is
    used."""
    suffixes: list[str] = [".mp3", ".wav", ".m4a", ".flac", ".ogg", ".opus", ".webm", ".mp4"]
    """The ends of the names of recordings; upper and lower case are the same. Other objects are ignored."""
    send: Literal["presigned", "upload"] = "presigned"
    """How the speech service gets a recording: it downloads a presigned URL, or the worker uploads the recording."""
    when_deleted: Literal["keep", "drop"] = "keep"
    """What happens to the rows of a recording that was deleted: they stay, or the day's next run drops them and deletes
    the transcript."""
    look_back_days: int = Field(default=3, ge=0, le=366)
    """How many days before its own day a run checks for late or replaced recordings."""
    columns: dict[str, Column] = {}
    """Columns of your own by name, at the end of both tables. See below."""
    channels: dict[Annotated[int, Field(ge=1, le=32)], Literal["agent", "customer"]] = {}
    """Who is on which channel of a recording, from 1 (left). Checked, and so far not used: talk times of agents and
    customers will be. It changes neither what is sent nor what is paid for."""

    @model_validator(mode="before")
    @classmethod
    def _as_layout(cls, document: Any) -> Any:
        if isinstance(document, dict) and isinstance(name := document.get("layout"), str) and name in LAYOUTS:
            return {**LAYOUTS[name], **document}
        return document

    @field_validator("bucket")
    @classmethod
    def _only_a_name(cls, bucket: str) -> str:
        if "/" in bucket or ":" in bucket:
            raise ValueError("expected only a bucket's name, without s3:// and without a prefix")
        return bucket

    @field_validator("prefix")
    @classmethod
    def _only_dates(cls, prefix: str) -> str:
        date_prefixes.check(prefix)
        return prefix

    @field_validator("key_pattern")
    @classmethod
    def _is_pattern(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _groups_of(pattern)
        return pattern

    @field_validator("columns")
    @classmethod
    def _named_well(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for name, column in columns.items():
            # These names are valid in every warehouse; some fold case.
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
                raise ValueError(f"expected a column name of lower-case letters, digits and _, not {name!r}")
            if name in RESERVED_COLUMNS:
                raise ValueError(f"the tables already have a column {name}; expected another name")
            if column.key_pattern is not None:
                groups = _groups_of(column.key_pattern, f"{name}.key_pattern: ")
                if name not in groups and len(groups) != 1:
                    raise ValueError(f"{name}.key_pattern: expected a group (?P<{name}>…)")
        return columns

    @field_validator("suffixes")
    @classmethod
    def _lower(cls, suffixes: list[str]) -> list[str]:
        return [suffix.lower() for suffix in suffixes]

    @property
    def is_daily(self) -> bool:
        """Whether each day has a prefix of its own, which then gives the calls' day. If not, their times do."""
        return date_prefixes.is_daily(self.prefix)

    def prefix_of(self, day: dt.date) -> str:
        """The prefix of ``day``: its own, or that of its month, of all days, and so on.

        Raises:
            ConfigurationError: the prefix has a date, and the day is not one of 1970 to 2069.
        """
        if date_prefixes.has_date(self.prefix) and not date_prefixes.FIRST <= day <= date_prefixes.LAST:
            raise ConfigurationError(
                f"{day} has no prefix in recordings.prefix, only days from {date_prefixes.FIRST} to "
                f"{date_prefixes.LAST} have: check the date."
            )
        return date_prefixes.of_day(self.prefix, day)

    def prefixes(self, day: dt.date) -> tuple[str, ...]:
        """The prefixes to list for the recordings of ``day``, in order; no key is below two of them.

        If the prefix is not daily, these are also the prefixes of the ``look_back_days`` before and after, and of at
        least one day: a call at the end of a month may be below the prefix of the next one, where the two go by
        different time zones or by the time of the upload.

        Raises:
            ConfigurationError: as ``prefix_of``.
        """
        own = self.prefix_of(day)
        return (own,) if self.is_daily else self._around(day)

    def is_listed(self, key: str, day: dt.date) -> bool:
        """Whether a run of ``day`` lists ``key``; for prefixes that are not daily."""
        return date_prefixes.begins(key, self._around(day))

    def _around(self, day: dt.date) -> tuple[str, ...]:
        return date_prefixes.around(self.prefix, day, max(self.look_back_days, 1))


class PhaseDefinition(_Section):
    """A phase: its name in the table, and a description for the model."""

    name: str = Field(min_length=1, max_length=60)
    """The value of ``phase_name``, one line."""
    description: str = ""
    """What belongs to the phase and where it starts; the language model reads it."""

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("expected one line without leading or trailing spaces")
        return name


DEFAULT_PHASES = [
    PhaseDefinition(
        name="Introduction",
        description="From the start of the call: the answering line, names and greetings, until the first cue that "
        "says why the customer calls.",
    ),
    PhaseDefinition(
        name="Complaint",
        description="From the first cue that carries the customer's need or problem. The agent's echo of it and "
        "questions about what the problem is belong here, and so do a bare 'okay' and an apology.",
    ),
    PhaseDefinition(
        name="Resolution",
        description="From the agent's first move to act: 'I can help with that', a lookup, verification, asking for "
        "data or for a name to find the account, an answer, a fix, a booking. Questions after it stay here.",
    ),
    PhaseDefinition(
        name="Goodbye",
        description="From the first closing move that no new business follows: 'anything else?' answered with no, or "
        "the thanks that end the business, and the farewells.",
    ),
]


class Segmentation(_Section):
    """The language models and how they are asked."""

    models: list[str] = Field(default=DEFAULT_LLM_MODELS, min_length=1)
    """The language models, in order of preference. One is used only if those before it are retired or fail."""
    side_by_side: bool = False
    """Spread questions over all models, each with its own limit of requests per minute, instead of by preference."""
    calls_per_question: int = Field(default=20, ge=1)
    """How many short calls may share a question. With 1, each call has its own, and costs more input tokens."""


class Output(_Section):
    """Where the tables are published and where runs keep their state."""

    tables: S3Folder
    """Where the tables ``calls`` and ``phases`` go. No other pipeline may publish there."""
    state: S3Folder
    """Where runs keep their ledger, manifests and transcripts. Keep it as long as the tables: without it, recordings
    are paid for again. Not inside ``tables``, and ``tables`` not inside it."""

    @model_validator(mode="after")
    def _apart(self) -> Self:
        # Readers of the tables list everything below their prefix.
        if self.state.startswith(self.tables) or self.tables.startswith(self.state):
            raise ValueError("expected separate locations for state and tables: neither may contain the other")
        return self


def _daily_hours(text: str) -> str:
    found = re.fullmatch(r"(\d{1,2}):([0-5]\d)\s*[-–]\s*(\d{1,2}):([0-5]\d)", text.strip())
    if not found or int(found[1]) > 23 or (int(found[3]), int(found[4])) > (24, 0):
        raise ValueError('expected two times of day from 00:00 to 24:00, such as "20:00-06:00"')
    start, end = f"{int(found[1]):02}:{found[2]}", f"{int(found[3]) % 24:02}:{found[4]}"
    if start == end:
        raise ValueError("expected two different times; without hours, backfills run all day")
    return f"{start}-{end}"


class BackfillLimits(_Section):
    """Limits on the runs of backfills. Nights, and days that are run by hand, go before these in all limits."""

    transcriptions_at_once: int | None = Field(default=None, ge=1)
    """Jobs that all backfill runs of the pipeline together have at the speech service at the same time. Without it:
    what nights leave of ``limits.transcriptions_at_once``."""
    usd_per_day: float | None = Field(default=None, gt=0)
    """What all backfill runs of the pipeline together may spend on a calendar day in its time zone, in US dollars. What
    is over it waits for the next day; nothing fails. Without it, there is no limit."""
    hours: Annotated[str, AfterValidator(_daily_hours)] | None = None
    """When backfills submit recordings and ask models: two times of day in the pipeline's time zone, which may have
    midnight between them. Outside, their tasks wait without a worker. Without it, all day."""

    @property
    def open_hours(self) -> tuple[dt.time, dt.time] | None:
        """When ``hours`` begin and end; the end may come before the beginning, on the next day."""
        if self.hours is None:
            return None
        start, end = (dt.time.fromisoformat(part) for part in self.hours.split("-"))
        return start, end


class Limits(_Section):
    """Limits on concurrency, on requests per minute, and on the share of failed recordings."""

    transcriptions_at_once: int = Field(default=200, ge=1)
    """Jobs that all runs of the pipeline together have at the speech service at the same time."""
    ramp: bool = True
    """Start slowly, as the provider recommends: 25 submissions in 15 s, then 8.5 % more every 15 s. Each run does."""
    llm_requests_per_minute: int = Field(default=30, ge=1)
    """Questions to each language model in any 60 s, over all runs of the pipeline."""
    max_failed_ratio: float = Field(default=0.05, ge=0, le=1)
    """The run fails if a larger share of the day's recordings failed. All rows are published either way."""
    backfill: BackfillLimits = BackfillLimits()


class Privacy(_Section):
    """What happens to data at the provider."""

    delete_after: bool = False
    """Delete transcripts at the provider once the tables are published."""


class LlmPrice(_Section):
    """Prices in US dollars per million tokens."""

    input: float = Field(ge=0)
    """US dollars per million tokens of questions."""
    output: float = Field(ge=0)
    """US dollars per million tokens of answers."""


class Prices(_Section):
    """Prices by model, where the account does not pay the list price."""

    speech_usd_per_hour: dict[str, Annotated[float, Field(ge=0)]] = {}
    """US dollars per hour of audio, by speech model. Without it: the list price."""
    speaker_labels_usd_per_hour: float = Field(default=0.02, ge=0)
    """What ``speaker_labels`` adds per hour of audio, in US dollars."""
    options_usd_per_hour: dict[str, Annotated[float, Field(ge=0)]] = {}
    """What other options of ``transcription`` add per hour of audio, in US dollars, by option. Without it: the list
    price, if the option has one."""
    llm_usd_per_million: dict[str, LlmPrice] = {}
    """US dollars per million tokens, by language model. Without it: the list price, if the model has one."""


class Budget(_Section):
    """Spending limits in US dollars."""

    usd_per_run: float | None = Field(default=None, gt=0)
    """What one run may spend, in US dollars. Recordings above it are not sent, and fail with the class ``budget``.
    Without it, there is no limit."""


class Connections(_Section):
    """The Airflow connections that the pipeline uses."""

    assemblyai: str = "assemblyai_default"
    """The Airflow connection with the AssemblyAI account's key."""
    aws: str = "aws_default"
    """The Airflow connection for S3: recordings, tables and state."""
    gateway: str | None = Field(default=None, min_length=1)
    """The Airflow connection of the language models, if they are not those of the AssemblyAI account: any server that
    speaks OpenAI's API."""


_DOTTED_PATH = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+"


class Deadline(_Section):
    """When a day's tables must be published."""

    by: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    """A time of day in the pipeline's time zone, ``HH:MM``, by which the night's run must have finished."""
    notify: str | None = Field(default=None, pattern=f"^{_DOTTED_PATH}$")
    """The dotted path of a function, sync or async, that the triggerer calls with a message and Airflow's context if
    the deadline is missed. Without it, the triggerer only logs an error."""


class SlackChannel(_Section):
    """A channel that Airflow's Slack provider sends to: a webhook, or an API token and a channel."""

    slack_webhook_conn_id: str | None = Field(default=None, min_length=1)
    """The Airflow connection of a webhook, of the type ``slackwebhook``; it has its channel."""
    slack_conn_id: str | None = Field(default=None, min_length=1)
    """The Airflow connection of an API token, of the type ``slack``; needs ``channel``."""
    channel: str | None = Field(default=None, min_length=1)
    """The channel, with ``slack_conn_id``."""

    @model_validator(mode="after")
    def _one_connection(self) -> Self:
        if (self.slack_webhook_conn_id is None) == (self.slack_conn_id is None):
            raise ValueError("expected slack_webhook_conn_id, or slack_conn_id and channel, or for email to")
        if (self.slack_conn_id is None) != (self.channel is None):
            raise ValueError("slack_conn_id and channel belong together")
        return self


class EmailChannel(_Section):
    """Addresses that Airflow's SMTP provider sends to."""

    to: Annotated[list[str], Field(min_length=1)]
    """One address, or several."""
    from_email: str | None = Field(default=None, min_length=1)
    """The sender. Without it: that of the connection."""
    smtp_conn_id: str = "smtp_default"
    """The Airflow connection of the mail server."""

    @field_validator("to", mode="before")
    @classmethod
    def _several(cls, to: Any) -> Any:
        return _as_list(to)


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _kind_of_channel(value: object) -> str:
    is_email = isinstance(value, EmailChannel) or (
        isinstance(value, dict) and not value.keys().isdisjoint({"to", "from_email", "smtp_conn_id"})
    )
    return "<email>" if is_email else "<slack>"


Channel = Annotated[
    Annotated[SlackChannel, Tag("<slack>")] | Annotated[EmailChannel, Tag("<email>")],
    Discriminator(_kind_of_channel),
]
Targets = Annotated[list[str], BeforeValidator(_as_list)]


_EVENTS = ("failed_night", "budget_reached", "model_fallback", "deadline")


class Notify(_Section):
    """Who is told what: for each event, names of ``channels`` and dotted paths of functions, one or several.

    A function is called with a message and Airflow's context.
    """

    failed_night: Targets = []
    """Who is told that a run has failed, for whatever reason."""
    budget_reached: Targets = []
    """Who is told that recordings were not sent because of ``budget.usd_per_run``."""
    model_fallback: Targets = []
    """Who is told that other models were used than the first of ``speech_models`` or ``segmentation.models``."""
    deadline: Targets = []
    """Who is told that a run has missed ``deadline.by``, which it needs."""
    channels: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], Channel] = {}
    """Slack channels and mail addresses, by a name without a dot."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        for event in _EVENTS:
            for target in getattr(self, event):
                if target not in self.channels and not re.fullmatch(_DOTTED_PATH, target):
                    known = ", ".join(self.channels) or "none is defined"
                    raise ValueError(
                        f"{event}: expected the name of one of notify.channels ({known}) or the dotted path of a "
                        f"function, not {target!r}"
                    )
        return self

    @property
    def targets(self) -> list[str]:
        """All who are told of an event, once each."""
        return list(dict.fromkeys(target for event in _EVENTS for target in getattr(self, event)))


def _off(value: Any) -> Any:
    return "off" if value is False else value  # which YAML reads without quotes as false


WhoMay = Literal["read", "edit", "view"]


class Pages(_Section):
    """The pages that the plugin adds to Airflow's UI."""

    audio: Annotated[Literal["redirect", "stream", "off"], BeforeValidator(_off)] = "redirect"
    """How a recording gets to the browser of who may listen to it. ``redirect``: from the bucket, by a presigned URL of
    five minutes. ``stream``: through Airflow's API server, where browsers can't reach the bucket. ``off``: not at all.
    What browsers don't play (µ-law, GSM, AMR, …) is converted and comes through the server; that needs the extra
    ``audio`` there."""
    transcripts: WhoMay = "read"
    """Who may read what was said, and summaries; who else may read the Dag sees the strips of phases. ``read``: who may
    read the Dag. ``edit``: who may edit it. ``view``: who has the custom view ``callphases transcripts``, in Airflow's
    FAB auth manager a role with ``can_read`` on it; SimpleAuthManager gives custom views to each of its roles."""
    listening: WhoMay = "read"
    """Who may listen to recordings: as for ``transcripts``. The custom view is ``callphases audio``."""


CRON_OF_PRESET = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@quarterly": "0 0 1 */3 *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""The presets of Airflow's and croniter's that stand for a cron expression; ``@once`` and ``@continuous`` do not."""
_CRON_FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of the month": "1 to 31",
    "month": "1 to 12 or JAN to DEC",
    "day of the week": "0 to 7 or SUN to SAT",
}


class DagSettings(_Section):
    """The part of a pipeline file that names and schedules its Dag."""

    pipeline: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    """The pipeline's name. Its Dag is ``call_phases_<pipeline>``."""
    schedule: str | None = "0 0 * * *"
    """When the Dag runs: a cron expression, or a preset such as ``@daily``; ``null`` for manual runs only."""
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    """An IANA time zone: of the schedule, of days, and of times in keys that don't say theirs."""

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        return None if schedule is None else _valid_schedule(schedule)

    @property
    def dag_id(self) -> str:
        """The pipeline's Dag id."""
        return f"call_phases_{self.pipeline}"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of the pipeline's days."""
        return ZoneInfo(self.timezone)

    @property
    def cron(self) -> str | None:
        """The schedule as a cron expression."""
        return CRON_OF_PRESET.get(self.schedule, self.schedule) if self.schedule is not None else None

    @property
    def time_of_day(self) -> dt.timedelta | None:
        """When its Dag runs, as time since midnight; None if that is not once a day."""
        found = re.fullmatch(r"(\d{1,2}) (\d{1,2}) \* \* \*", self.cron or "")
        return dt.timedelta(hours=int(found[2]), minutes=int(found[1])) if found else None


class Pipeline(DagSettings):
    """A pipeline file.

    Only ``pipeline``, ``recordings.bucket``, ``recordings.prefix`` or ``layout``, and ``output`` are required.
    """

    connections: Connections = Connections()
    recordings: Recordings
    transcription: dict[str, Any] = {"speech_models": DEFAULT_SPEECH_MODELS, "speaker_labels": True}
    """Options of ``POST /v2/transcript``, sent as they are, but for ``upgrade``. They replace the default as a whole,
    so name all that you want. A changed option is paid for again when a day is run again. New ``speech_models`` are
    for new recordings only, unless ``upgrade: true`` is among the options."""
    phases: list[PhaseDefinition] = Field(default=DEFAULT_PHASES, min_length=1)
    """The phases, in the order of a typical call. ``Other`` always exists. If you change them, the language model is
    asked again, and nothing is transcribed again."""
    segmentation: Segmentation = Segmentation()
    output: Output
    limits: Limits = Limits()
    privacy: Privacy = Privacy()
    prices: Prices = Prices()
    budget: Budget = Budget()
    deadline: Deadline | None = None
    """When a day's tables must be published. Needs a schedule of one run a day, and Airflow 3.2 or newer."""
    notify: Notify = Notify()
    pages: Pages = Pages()

    @field_validator("transcription")
    @classmethod
    def _not_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "audio_url" in options:
            raise ValueError("audio_url is set for each recording and can't be set here")
        if not isinstance(options.get(UPGRADE, False), bool):
            raise ValueError(f"expected true or false for {UPGRADE}, not {options[UPGRADE]!r}")
        return options

    @field_validator("phases")
    @classmethod
    def _distinct(cls, phases: list[PhaseDefinition]) -> list[PhaseDefinition]:
        known: dict[str, str] = {}
        for phase in phases:
            key = name_key(phase.name)
            if key == name_key(OTHER):
                raise ValueError(f"{OTHER} is always available and can't be defined")
            if key in known:
                raise ValueError(f"expected unique names; {known[key]!r} and {phase.name!r} count as the same")
            known[key] = phase.name
        return phases

    @model_validator(mode="after")
    def _one_deadline_a_day(self) -> Pipeline:
        if self.deadline is not None and self.time_of_day is None:
            raise ValueError('a deadline needs a schedule with one run a day, such as "0 0 * * *" or @daily')
        if self.notify.deadline and self.deadline is None:
            raise ValueError("notify.deadline needs deadline.by, the time of day by which tables are expected")
        return self

    @model_validator(mode="after")
    def _dates_are_days_of_the_pipeline(self) -> Pipeline:
        rule = self.recordings.call_time
        if (
            isinstance(rule, KeyTime | TimeElsewhere)
            and rule.format is not None
            and time_formats.is_date_only(rule.format)
            and (rule.timezone not in (None, self.timezone) or time_formats.names_zone(rule.format))
        ):
            raise ValueError(
                "recordings.call_time.format gives a date without a time of day, which can't be converted to "
                f"{self.timezone} from another time zone: expected the time of day too, or no other zone"
            )
        return self

    @property
    def ready_after(self) -> dt.timedelta:
        """Time from the start of the data interval to ``deadline``. An hour off on days when the clocks change."""
        runs_at = self.time_of_day
        assert self.deadline is not None
        assert runs_at is not None
        hour, minute = map(int, self.deadline.by.split(":"))
        ready_at = dt.timedelta(hours=hour, minutes=minute)
        return DAY + (ready_at - runs_at) % DAY

    @property
    def speech_options(self) -> dict[str, Any]:
        """The options of ``POST /v2/transcript``: all of ``transcription`` but ``upgrade``."""
        return {name: value for name, value in self.transcription.items() if name != UPGRADE}

    @property
    def upgrades_transcripts(self) -> bool:
        """Whether recordings that other speech models have transcribed are transcribed again."""
        return bool(self.transcription.get(UPGRADE))

    @property
    def speech_models(self) -> list[str]:
        """The speech models in order of preference, from ``speech_models`` or the older ``speech_model``."""
        return models_of(self.transcription) or DEFAULT_SPEECH_MODELS

    @property
    def phase_names(self) -> list[str]:
        """The names of the phases, including ``Other``."""
        return [*(phase.name for phase in self.phases), OTHER]


def _valid_schedule(schedule: str) -> str:
    """The schedule with single spaces, if Airflow's cron timetables accept it; they use croniter, too."""
    schedule = " ".join(schedule.split())
    if schedule.startswith("@"):
        if (preset := schedule.lower()) not in CRON_OF_PRESET:
            raise ValueError(f"expected a cron expression, or one of {', '.join(CRON_OF_PRESET)}")
        return preset
    fields = schedule.split(" ")
    if len(fields) != len(_CRON_FIELDS):
        raise ValueError('expected a cron expression of five fields, such as "0 0 * * *", or null for no schedule')
    for number, (name, values) in enumerate(_CRON_FIELDS.items()):
        alone = [*("*" * number), fields[number], *("*" * (len(fields) - number - 1))]
        # Of Jenkins' letters croniter rejects H; R is another time whenever the Dag file is read.
        if not croniter.is_valid(" ".join(alone)) or re.search(r"(?i)\br\b", fields[number]):
            raise ValueError(f"expected a cron expression whose {name} is {values}, not {fields[number]!r}")
    try:
        croniter(schedule, dt.datetime(2000, 1, 1)).get_next()
    except CroniterBadDateError:
        raise ValueError("expected a cron expression that matches a day; there is none like this") from None
    except ValueError as error:
        raise ValueError(f"expected a cron expression: {error}") from None
    return schedule


def pipeline_folder(dags: Path | None = None) -> Path:
    """The folder of the pipeline files: ``CALLPHASES_PIPELINES``, else ``pipelines`` in the folder ``dags``.

    Without either it is ``include/pipelines`` next to this package, in a checkout.
    """
    if named := os.environ.get(PIPELINES_VARIABLE):
        return Path(named)
    checkout = Path(__file__).parents[1] / "pipelines"
    beside = checkout if dags is None else dags / "pipelines"
    return beside if beside.is_dir() or not checkout.is_dir() else checkout


def pipeline_files(folder: Path | None = None) -> list[Path]:
    """The pipeline files in a folder, sorted by name.

    Raises:
        ConfigurationError: the folder does not exist.
    """
    folder = folder or pipeline_folder()
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder}: no such folder; set {PIPELINES_VARIABLE} to the folder of the pipeline files"
        )
    # Editors keep locks and copies in hidden files.
    return sorted(
        path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and not path.name.startswith(".")
    )


class _UniqueKeys(yaml.SafeLoader):
    """Loads YAML as PyYAML's safe loader does, but rejects a key that is in a mapping twice, as the standard does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See the class."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path) -> Pipeline:
    """Load one pipeline file.

    Raises:
        ConfigurationError: lists every invalid key of the file and what was expected there.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - is a SafeLoader
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: expected text in UTF-8") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date that doesn't exist
        raise ConfigurationError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: expected keys and values (pipeline:, recordings:, output:, …)")
    try:
        return Pipeline.model_validate(document)
    except ValidationError as error:
        mistakes = "; ".join(_mistake(details) for details in error.errors(include_url=False))
        raise ConfigurationError(f"{path}: {mistakes}") from None


def load_all(folder: Path | None = None) -> tuple[list[Pipeline], dict[Path, str]]:
    """All valid pipelines in a folder, that of ``pipeline_folder`` by default, and the message of each invalid file.

    Raises:
        ConfigurationError: the folder does not exist.
    """
    loaded: dict[Path, Pipeline] = {}
    mistakes: dict[Path, str] = {}
    for path in pipeline_files(folder):
        try:
            loaded[path] = load(path)
        except ConfigurationError as error:
            mistakes[path] = str(error)
        except Exception as error:  # whatever it is, the other files must not suffer from it
            mistakes[path] = f"{path}: can't be loaded: {type(error).__name__}: {error}"
    files: dict[str, Path] = {}
    # A copy must not replace the file that it was copied from, which is usually named like its pipeline.
    for path, pipeline in sorted(loaded.items(), key=lambda item: item[0].stem != item[1].pipeline):
        if (other := files.setdefault(pipeline.pipeline, path)) != path:
            mistakes[path] = (
                f"{path}: pipeline: {pipeline.pipeline!r} is also the name in {other.name}; expected another"
            )
    return [pipeline for path, pipeline in loaded.items() if path not in mistakes], dict(sorted(mistakes.items()))


def readable_settings(path: Path) -> dict[str, str | None]:
    """Of ``pipeline``, ``schedule`` and ``timezone``, those that are valid in a file that :func:`load` rejects.

    If the file is no YAML, it is read line by line.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace").removeprefix("\ufeff")
    except OSError:
        return {}
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        document = _top_level_scalars(text)
    if not isinstance(document, dict):
        return {}
    found: dict[str, str | None] = {}
    for key in ("pipeline", "schedule", "timezone"):
        if key in document:
            with contextlib.suppress(ValidationError):
                found |= DagSettings.model_validate({"pipeline": "any", key: document[key]}).model_dump(include={key})
    return found


def readable_notify(path: Path) -> Notify:
    """The section ``notify`` of a file that :func:`load` rejects; one that tells nobody if it can't be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, RecursionError, AttributeError):
        return Notify.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")).get("notify", {}))
    return Notify()


def _top_level_scalars(text: str) -> dict[str, Any]:
    """The lines ``key: value`` that are not indented, each read as YAML of its own, else as text; of two the first."""
    found: dict[str, Any] = {}
    for key, value in re.findall(r"^[\"']?(\w+)[\"']?[ \t]*:[ \t]+(\S.*)$", text, re.MULTILINE):
        try:
            found.setdefault(key, yaml.safe_load(value))
        except (yaml.YAMLError, ValueError):  # such as @daily or */5 * * * * without quotes
            found.setdefault(key, value.partition(" #")[0].strip())
    return found


def sharing(pipeline: Pipeline, others: Iterable[Pipeline]) -> list[str]:
    """The names of other pipelines whose ``output.tables`` is inside this one's or contains it, so days would mix."""
    ours = pipeline.output.tables
    return [
        other.pipeline
        for other in others
        if other.pipeline != pipeline.pipeline
        and (other.output.tables.startswith(ours) or ours.startswith(other.output.tables))
    ]


def _mistake(details: Any) -> str:
    # The tag of a union's member ("<rule>") is not a key of the file.
    key = ".".join(str(part) for part in details["loc"] if not str(part).startswith("<"))
    if details["type"] == "missing":
        return f"{key}: missing; it has no default"
    if details["type"] == "extra_forbidden":
        return f"{key}: no such setting"
    message = str(details["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    given = details["input"]
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{key or 'the file'}: {message}{shown}"
