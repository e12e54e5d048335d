"""The pipeline file: what a user edits, as a validated object."""

from __future__ import annotations

import datetime as dt
import os
import re
import string
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from callphases.errors import ConfigurationError

PIPELINES_VARIABLE = "CALLPHASES_PIPELINES"
DAY = dt.timedelta(days=1)
OTHER = "Other"
"""The phase of whatever fits none of the list; always allowed, never defined by a user."""

# The vendor's own order of October 2026, where its document and its price list agree.
DEFAULT_SPEECH_MODELS = ["universal-3-5-pro", "universal-2"]
# The second is retired by its maker on 2026-11-30; accounts without the first still answer with it.
DEFAULT_LLM_MODELS = ["claude-sonnet-4-6", "claude-sonnet-4-5-20250929"]


def _s3_folder(uri: str) -> str:
    if not re.fullmatch(r"s3://[^/]+(/.*)?", uri):
        raise ValueError("expected s3://bucket/prefix/")
    return uri if uri.endswith("/") else uri + "/"


S3Folder = Annotated[str, AfterValidator(_s3_folder)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyTime(_Section):
    """The call's time read from its key: ``key_pattern`` has a group ``time``, ``format`` is strptime's."""

    key_pattern: str
    format: str

    @field_validator("key_pattern")
    @classmethod
    def _has_time(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groupindex
        except re.error as error:
            raise ValueError(f"expected a regular expression: {error}") from None
        if "time" not in groups:
            raise ValueError("expected a group (?P<time>…)")
        return pattern


def _kind_of_call_time(value: object) -> str:
    return "<rule>" if isinstance(value, dict | KeyTime) else "<name>"


CallTime = Annotated[
    Annotated[Literal["last_modified"], Tag("<name>")] | Annotated[KeyTime, Tag("<rule>")],
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
    "finished", "run_speech_usd", "run_llm_usd", "phases",
})
# fmt: on
"""Columns that the tables have already, or that a run's own files have on their way there."""


class Column(_Section):
    """A column of both tables that a recording's key, metadata or tag gives.

    ``key_pattern`` has a group of the column's name, or one group with any name; ``metadata`` and ``tag`` name what is
    set at the object in S3. ``format`` is strptime's, for a ``timestamp`` that is not ISO 8601.
    """

    key_pattern: str | None = None
    metadata: str | None = Field(default=None, min_length=1)
    tag: str | None = Field(default=None, min_length=1)
    type: Literal["string", "int64", "double", "boolean", "timestamp"] = "string"
    format: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(source is not None for source in (self.key_pattern, self.metadata, self.tag)) != 1:
            raise ValueError("expected one of key_pattern, metadata and tag")
        if self.format is not None and self.type != "timestamp":
            raise ValueError("a format is for columns of type timestamp")
        return self


class Recordings(_Section):
    """Where a day's recordings lie and how the service gets them."""

    bucket: str = Field(min_length=1)
    prefix: str
    call_time: CallTime = "last_modified"
    suffixes: list[str] = [".mp3", ".wav", ".m4a", ".flac", ".ogg", ".opus", ".webm", ".mp4"]
    send: Literal["presigned", "upload"] = "presigned"
    when_deleted: Literal["keep", "drop"] = "keep"
    look_back_days: int = Field(default=3, ge=0, le=366)
    """How many days before its own a run looks for recordings that came late or were replaced."""
    columns: dict[str, Column] = {}
    """More columns of both tables, by their names, at the end of each."""

    @field_validator("bucket")
    @classmethod
    def _only_a_name(cls, bucket: str) -> str:
        if "/" in bucket or ":" in bucket:
            raise ValueError("expected a bucket's name alone, without s3:// and without a prefix")
        return bucket

    @field_validator("prefix")
    @classmethod
    def _only_dates(cls, prefix: str) -> str:
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(prefix) if name is not None]
            prefix.format(date=dt.date(2000, 1, 2))
        except (KeyError, IndexError, ValueError, AttributeError):
            fields = ["?"]
        if any(name != "date" for name in fields):
            raise ValueError("expected text with {date:…} as its only placeholder, such as support/{date:%Y/%m/%d}/")
        return prefix

    @field_validator("columns")
    @classmethod
    def _named_well(cls, columns: dict[str, Column]) -> dict[str, Column]:
        for name, column in columns.items():
            # Warehouses differ in what else a name may be, and some of them know no capitals.
            if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
                raise ValueError(f"expected lower-case letters, digits and _ as a column's name, not {name!r}")
            if name in RESERVED_COLUMNS:
                raise ValueError(f"the tables have a column {name} of their own; expected another name")
            if column.key_pattern is not None:
                try:
                    groups = re.compile(column.key_pattern).groupindex
                except re.error as error:
                    raise ValueError(f"{name}.key_pattern: expected a regular expression: {error}") from None
                if name not in groups and len(groups) != 1:
                    raise ValueError(f"{name}.key_pattern: expected a group (?P<{name}>…)")
        return columns

    @field_validator("suffixes")
    @classmethod
    def _lower(cls, suffixes: list[str]) -> list[str]:
        return [suffix.lower() for suffix in suffixes]

    @property
    def dated(self) -> bool:
        """Whether the prefix holds the date, so that one day is one prefix."""
        return self.prefix.format(date=dt.date(2000, 1, 2)) != self.prefix.format(date=dt.date(2001, 2, 3))

    def prefix_of(self, day: dt.date) -> str:
        """The prefix to list for ``day``."""
        return self.prefix.format(date=day)


class PhaseDefinition(_Section):
    """A phase's name, as it is in the table, and what belongs to it, as the model is told."""

    name: str = Field(min_length=1, max_length=60)
    description: str = ""

    @field_validator("name")
    @classmethod
    def _one_line(cls, name: str) -> str:
        if name != name.strip() or not name.isprintable():
            raise ValueError("expected one line without spaces at its ends")
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
    """The language models, in order of preference, and how they are asked.

    ``side_by_side`` spreads the questions over all models of the list, each with its own limit of requests a minute;
    without it a model stands in where those before it are not served or fail. ``calls_per_question`` is how many calls
    share a question at most, where they are short enough; with 1 each has a question of its own.
    """

    models: list[str] = Field(default=DEFAULT_LLM_MODELS, min_length=1)
    side_by_side: bool = False
    calls_per_question: int = Field(default=20, ge=1)


class Output(_Section):
    """Where the tables are published, and where the run keeps its own state."""

    tables: S3Folder
    state: S3Folder

    @model_validator(mode="after")
    def _apart(self) -> Self:
        # Readers of the tables list everything below their prefix, so nothing else may lie there.
        if self.state.startswith(self.tables) or self.tables.startswith(self.state):
            raise ValueError("expected state and tables to be apart: neither inside the other")
        return self


class Limits(_Section):
    """How much at once, and how many failures a night may have."""

    transcriptions_at_once: int = Field(default=200, ge=1)
    ramp: bool = True
    llm_requests_per_minute: int = Field(default=30, ge=1)
    max_failed_ratio: float = Field(default=0.05, ge=0, le=1)


class Privacy(_Section):
    """What stays at the provider."""

    delete_after: bool = False


class LlmPrice(_Section):
    """US dollars per million tokens."""

    input: float = Field(ge=0)
    output: float = Field(ge=0)


class Prices(_Section):
    """What the account pays, by model, where it is not the list price."""

    speech_usd_per_hour: dict[str, Annotated[float, Field(ge=0)]] = {}
    speaker_labels_usd_per_hour: float = Field(default=0.02, ge=0)
    llm_usd_per_million: dict[str, LlmPrice] = {}


class Budget(_Section):
    """What a run may spend, in US dollars."""

    usd_per_run: float | None = Field(default=None, gt=0)


class Connections(_Section):
    """The Airflow connections that the pipeline uses."""

    assemblyai: str = "assemblyai_default"
    aws: str = "aws_default"


class Deadline(_Section):
    """When the tables of a night have to be there: a time of day, in the pipeline's time zone.

    ``notify`` is the dotted path of a function, plain or async, which the triggerer calls with a message and Airflow's
    context where they are not; without it the triggerer's log says so.
    """

    by: str = Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")
    notify: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")


class Pipeline(_Section):
    """One pipeline file. Required are only ``pipeline``, ``recordings.bucket``, ``recordings.prefix``, ``output``."""

    pipeline: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")
    schedule: str | None = "0 0 * * *"
    timezone: str = "UTC"
    connections: Connections = Connections()
    recordings: Recordings
    transcription: dict[str, Any] = {"speech_models": DEFAULT_SPEECH_MODELS, "speaker_labels": True}
    phases: list[PhaseDefinition] = Field(default=DEFAULT_PHASES, min_length=1)
    segmentation: Segmentation = Segmentation()
    output: Output
    limits: Limits = Limits()
    privacy: Privacy = Privacy()
    prices: Prices = Prices()
    budget: Budget = Budget()
    deadline: Deadline | None = None

    @field_validator("schedule")
    @classmethod
    def _cron(cls, schedule: str | None) -> str | None:
        if schedule is not None and len(schedule.split()) != 5 and not schedule.startswith("@"):
            raise ValueError('expected a cron expression of five fields, such as "0 0 * * *", or null for no schedule')
        return schedule

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (OSError, ValueError, KeyError):
            raise ValueError("expected an IANA time zone, such as Europe/Berlin") from None
        return name

    @field_validator("transcription")
    @classmethod
    def _not_ours(cls, options: dict[str, Any]) -> dict[str, Any]:
        if "audio_url" in options:
            raise ValueError("audio_url is set for each recording and can't be given here")
        return options

    @field_validator("phases")
    @classmethod
    def _distinct(cls, phases: list[PhaseDefinition]) -> list[PhaseDefinition]:
        names = [phase.name.casefold() for phase in phases]
        if len(set(names)) < len(names):
            raise ValueError("expected each name once")
        if OTHER.casefold() in names:
            raise ValueError(f"{OTHER} is always there and can't be defined")
        return phases

    @model_validator(mode="after")
    def _one_deadline_a_day(self) -> Pipeline:
        if self.deadline is not None and _time_of_day(self.schedule) is None:
            raise ValueError('a deadline needs a schedule of one run a day, such as "0 0 * * *" or @daily')
        return self

    @property
    def ready_after(self) -> dt.timedelta:
        """From the begin of a day's interval to the moment when ``deadline`` wants its tables to be there.

        On the two days a year when clocks change it is an hour off.
        """
        runs_at = _time_of_day(self.schedule)
        assert self.deadline is not None
        assert runs_at is not None
        hour, minute = map(int, self.deadline.by.split(":"))
        ready_at = dt.timedelta(hours=hour, minutes=minute)
        return DAY + (ready_at - runs_at) % DAY

    @property
    def dag_id(self) -> str:
        """The id of the pipeline's Dag."""
        return f"call_phases_{self.pipeline}"

    @property
    def zone(self) -> ZoneInfo:
        """The time zone that a day is a day in."""
        return ZoneInfo(self.timezone)

    @property
    def speech_models(self) -> list[str]:
        """The speech models, in order of preference, from ``speech_models`` or from the older ``speech_model``."""
        named = self.transcription.get("speech_models") or [self.transcription.get("speech_model")]
        return [str(model) for model in named if model] or DEFAULT_SPEECH_MODELS

    @property
    def phase_names(self) -> list[str]:
        """The names that a phase may have, ``Other`` included."""
        return [*(phase.name for phase in self.phases), OTHER]


def _time_of_day(schedule: str | None) -> dt.timedelta | None:
    """When the one run of each day begins, or None where a schedule has not one a day."""
    if schedule in ("@daily", "@midnight"):
        return dt.timedelta()
    found = re.fullmatch(r"(\d{1,2}) +(\d{1,2}) +\* +\* +\*", schedule or "")
    return dt.timedelta(hours=int(found[2]), minutes=int(found[1])) if found else None


def pipeline_folder() -> Path:
    """The folder of the pipeline files: ``CALLPHASES_PIPELINES``, else ``include/pipelines`` beside this package."""
    if named := os.environ.get(PIPELINES_VARIABLE):
        return Path(named)
    return Path(__file__).parents[1] / "pipelines"


def pipeline_files(folder: Path | None = None) -> list[Path]:
    """The pipeline files of a folder, by name.

    Raises:
        ConfigurationError: the folder isn't there.
    """
    folder = folder or pipeline_folder()
    if not folder.is_dir():
        raise ConfigurationError(
            f"{folder}: no such folder; {PIPELINES_VARIABLE} names the folder of the pipeline files"
        )
    return sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))


def load(path: Path) -> Pipeline:
    """Read one pipeline file.

    Raises:
        ConfigurationError: names the file, the key and what was expected there; several mistakes are told at once.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path}: expected text in UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path}: expected YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict):
        raise ConfigurationError(f"{path}: expected keys and values (pipeline:, recordings:, output:, …)")
    try:
        return Pipeline.model_validate(document)
    except ValidationError as error:
        mistakes = "; ".join(_mistake(details) for details in error.errors(include_url=False))
        raise ConfigurationError(f"{path}: {mistakes}") from None


def load_all() -> tuple[list[Pipeline], dict[Path, str]]:
    """All pipelines of the folder, and the mistakes of the files that make none.

    Raises:
        ConfigurationError: the folder isn't there.
    """
    pipelines: dict[str, Path] = {}
    loaded: list[Pipeline] = []
    mistakes: dict[Path, str] = {}
    for path in pipeline_files():
        try:
            pipeline = load(path)
        except ConfigurationError as error:
            mistakes[path] = str(error)
            continue
        if (first := pipelines.setdefault(pipeline.pipeline, path)) != path:
            mistakes[path] = (
                f"{path}: pipeline: {pipeline.pipeline!r} is the name in {first.name} too; expected another"
            )
            continue
        loaded.append(pipeline)
    return loaded, mistakes


def sharing(pipeline: Pipeline, others: Iterable[Pipeline]) -> list[str]:
    """The names of other pipelines whose ``output.tables`` lies in this one's, or around it: their days would mix."""
    ours = pipeline.output.tables
    return [
        other.pipeline
        for other in others
        if other.pipeline != pipeline.pipeline
        and (other.output.tables.startswith(ours) or ours.startswith(other.output.tables))
    ]


def _mistake(details: Any) -> str:
    # The member of a union ("<rule>") is no key of the file.
    key = ".".join(str(part) for part in details["loc"] if not str(part).startswith("<"))
    if details["type"] == "missing":
        return f"{key}: missing; it has no default"
    if details["type"] == "extra_forbidden":
        return f"{key}: no such setting"
    message = str(details["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    given = details["input"]
    shown = f" (it is {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{key or 'the file'}: {message}{shown}"
