"""Ledger events: one frozen type per kind, parsed from and serialized to a line of JSON here and nowhere else.

A line holds the fields of its type under their own names, ``event`` (the kind) and ``term`` (the fencing token). A kind
that this version does not know, because a newer one wrote it, becomes ``Unknown``: it is handed on as it was read and
otherwise ignored.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from callphases.errors import AccountError, CallFailure, CallphasesError, OverBudget, ServiceUnavailable

UNSTAMPED = dt.datetime.min.replace(tzinfo=dt.UTC)
"""``at`` of an event that no ledger has taken yet."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What every event says.

    Attributes:
        key: what it is about; see ``state.keys``.
        recording: the recording's key in its bucket; empty in events of an early version.
        at: when the ledger took the event, by the worker's clock.
        fencing_token: the lease's when the event was written; orders the events of different runs.
        run_id: the run that wrote it.
        day: of the call, in the ledger of a run over several days, as YYYY-MM-DD; empty elsewhere.
        unread: fields that this version does not know.
    """

    kind: ClassVar[str] = ""
    is_final: ClassVar[bool] = False
    """Whether no other event of the same key overrides it."""

    key: str
    recording: str = ""
    at: dt.datetime = UNSTAMPED
    fencing_token: int = 0
    run_id: str = ""
    day: str = ""
    unread: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def rank(self) -> tuple[bool, int, dt.datetime]:
        """Of two events of a key the one with the higher rank holds. Tokens are in order whatever clocks say."""
        return self.is_final, self.fencing_token, self.at


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelUsage:
    """What a call's questions took; ``llm_usd`` is None where a model's price is not known."""

    llm_model: str | None = None
    llm_input_tokens: int = 0
    llm_output_tokens: int = 0
    llm_usd: float | None = 0.0

    def plus(self, model: str | None, input_tokens: int, output_tokens: int, usd: float | None) -> ModelUsage:
        """With another question's; nothing was paid where ``model`` is None."""
        if model is None:
            return self
        return ModelUsage(
            llm_model=model,
            llm_input_tokens=self.llm_input_tokens + input_tokens,
            llm_output_tokens=self.llm_output_tokens + output_tokens,
            llm_usd=None if usd is None or self.llm_usd is None else self.llm_usd + usd,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Intended(Event):
    """A submission is about to be sent.

    Attributes:
        audio_url: without its query.
        tries: submissions of this pass over the day, with this one.
        version, options: digests of the recording's bytes and of each option; see ``state.keys``. Events of earlier
            versions have none.
    """

    kind: ClassVar[str] = "intended"
    audio_url: str = ""
    tries: int = 0
    version: str | None = None
    options: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawn(Event):
    """What was intended was not sent."""

    kind: ClassVar[str] = "withdrawn"


@dataclass(frozen=True, kw_only=True, slots=True)
class Submitted(Event):
    """The service has the job ``transcript_id``; ``model`` is the first that was asked for."""

    kind: ClassVar[str] = "submitted"
    transcript_id: str
    tries: int = 1
    model: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Transcribed(Event):
    """The transcript is in the state area.

    Attributes:
        status: ``no_speech`` where nothing was said.
        transcript_uri: of the document; its captions lie beside it.
        cues: the object that holds its cues with those of others; empty where there is none.
        audio_s: the recording's length, in seconds.
        speech_usd: None where the model's price is not known.
        warnings: what the service warned of, as in the table; None if of nothing.
    """

    kind: ClassVar[str] = "transcribed"
    is_final: ClassVar[bool] = True
    status: Literal["completed", "no_speech"]
    transcript_id: str
    transcript_uri: str | None = None
    cues: str = ""
    audio_s: float = 0.0
    language: str | None = None
    speech_model: str | None = None
    speech_usd: float | None = None
    warnings: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Described(Event):
    """What is known of the recording outside its key, as far as the pipeline asks for it.

    Attributes:
        metadata, tags: of the object, by name.
        elsewhere: values of audio files, documents and lists, by ``pipeline.Elsewhere.source``; None if there are none.
    """

    kind: ClassVar[str] = "described"
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    elsewhere: dict[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered(Event):
    """A model divided the call into ``phases``: documents of ``timeline.Phase`` with the phase's ``talk``."""

    kind: ClassVar[str] = "answered"
    is_final: ClassVar[bool] = True
    duration_s: float
    phases: list[dict[str, Any]]
    talk: Mapping[str, Any] = field(default_factory=dict)
    prompt_version: str | None = None
    usage: ModelUsage = ModelUsage()


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed(Event):
    """The recording failed, at the service or at the model.

    Attributes:
        permanent: the same recording with the same settings would fail again.
        again: it is worth another try at once, in the same run.
        paid: the job is done and paid for; only its transcript could not be fetched.
        transcript_id: the job's, where there is one.
        tries: submissions of this pass over the day.
        usage: what questions took; None for a failure of the transcription.
    """

    kind: ClassVar[str] = "failed"
    failure_class: str
    failure_message: str
    permanent: bool
    transcript_id: str | None = None
    tries: int = 0
    again: bool = False
    paid: bool = False
    usage: ModelUsage | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped(Event):
    """A run ended before the recording was done, and why."""

    kind: ClassVar[str] = "stopped"
    failure_class: str
    failure_message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Deleted(Event):
    """The transcript was deleted at the provider."""

    kind: ClassVar[str] = "deleted"
    is_final: ClassVar[bool] = True
    transcript_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed(Event):
    """A process of a task has begun to ask questions; ``recording`` is the task's name."""

    kind: ClassVar[str] = "claimed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unknown(Event):
    """A kind of a newer version; ``unread`` is the whole document."""


_KINDS: tuple[type[Event], ...] = (
    *(Intended, Withdrawn, Submitted, Transcribed, Described),
    *(Answered, Failed, Stopped, Deleted, Claimed),
)
_TYPES = {one.kind: one for one in _KINDS}
_NAMES = {"fencing_token": "term"}
"""What a field is called in a document where that is not its own name."""
_APART = ("at", "usage", "unread")
"""Fields that are not their value in a document."""
_FIELDS: dict[type[Event], list[Field[Any]]] = {
    one: [each for each in fields(one) if each.name not in _APART] for one in _TYPES.values()
}
_USAGE_NAMES = [each.name for each in fields(ModelUsage)]
_KNOWN_NAMES = {one: {"event", "at", *(_NAMES.get(each.name, each.name) for each in _FIELDS[one])} for one in _FIELDS}
for one in (Answered, Failed):
    _KNOWN_NAMES[one].update(_USAGE_NAMES)


def failed(
    key: str,
    failure: CallFailure,
    recording: str,
    *,
    transcript_id: str | None = None,
    tries: int = 0,
    again: bool = False,
    paid: bool = False,
    usage: ModelUsage | None = None,
) -> Failed:
    """The event of a failure; see ``Failed``."""
    return Failed(
        key=key,
        recording=recording,
        failure_class=failure.failure_class,
        failure_message=_message(failure),
        permanent=failure.permanent,
        transcript_id=transcript_id,
        tries=tries,
        again=again,
        paid=paid,
        usage=usage,
    )


def stopped(key: str, error: AccountError | ServiceUnavailable | OverBudget, recording: str) -> Stopped:
    """The event of an error that ends a run; see ``Stopped``."""
    return Stopped(key=key, recording=recording, failure_class=error.failure_class, failure_message=_message(error))


def _message(error: CallphasesError) -> str:
    """The error's text, in characters that can be written: a service may send half of one."""
    return str(error).encode(errors="replace").decode()


def stamped(event: Event, at: dt.datetime, fencing_token: int, run_id: str, day: str = "") -> Event:
    """The event as a ledger writes it."""
    return replace(event, at=at, fencing_token=fencing_token, run_id=run_id, day=day)


def from_document(document: Mapping[str, Any]) -> Event:
    """An event from its JSON document."""
    at = document.get("at")
    moment = dt.datetime.fromisoformat(at) if at else UNSTAMPED
    type_ = _TYPES.get(document.get("event", ""))
    if type_ is None:
        return Unknown(
            key=str(document.get("key", "")),
            recording=str(document.get("recording", "")),
            at=moment,
            unread=dict(document),
        )
    values: dict[str, Any] = {"at": moment}
    for each in _FIELDS[type_]:
        name = _NAMES.get(each.name, each.name)
        if name in document:
            values[each.name] = document[name]
    if "llm_usd" in document and type_ in (Answered, Failed):
        values["usage"] = ModelUsage(**{name: document[name] for name in _USAGE_NAMES if name in document})
    if len(document) > len(values):
        unread = {name: value for name, value in document.items() if name not in _KNOWN_NAMES[type_]}
        if unread:
            values["unread"] = unread
    return type_(**values)


def to_document(event: Event) -> dict[str, Any]:
    """The JSON document of an event; what is as it is by default is left out."""
    if isinstance(event, Unknown):
        return dict(event.unread)
    document: dict[str, Any] = {"event": event.kind}
    for each in _FIELDS[type(event)]:
        value = getattr(event, each.name)
        if each.default is MISSING or value != each.default:
            document[_NAMES.get(each.name, each.name)] = value
    if isinstance(event, Answered | Failed) and event.usage is not None:
        document |= {name: getattr(event.usage, name) for name in _USAGE_NAMES}
    if event.at is not UNSTAMPED:
        document["at"] = event.at.isoformat()
    return {**document, **event.unread}


def parse(body: bytes | None) -> list[Event]:
    """The events of an object: a line of JSON each."""
    return [from_document(json.loads(line)) for line in (body or b"").splitlines()]


def serialize(events: Iterable[Event]) -> bytes:
    """The lines of some events."""
    return "".join(json.dumps(to_document(event), ensure_ascii=False) + "\n" for event in events).encode()
