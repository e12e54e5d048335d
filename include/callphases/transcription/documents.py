"""Models of the speech service's documents, as far as callphases reads them; they name what is not as documented.

The shapes are those of the service's OpenAPI document. A field that callphases can do without is left out if its value
is of another kind; one that it needs makes the document a failure of the one recording that it is about.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, FiniteFloat, ValidationError

from callphases.errors import ProviderError

LONGEST_AUDIO_S = 86_400.0
"""No recording is longer: the service takes ten hours."""
_Document = TypeVar("_Document", bound=BaseModel)


def _text_or_none(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return value.encode(errors="replace").decode() or None  # half of a character can't be written


def _moment(value: object) -> dt.datetime | None:
    try:
        moment = dt.datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)


def _described(value: object) -> object:
    """An error as text, whatever the service makes of it."""
    return value if value is None or isinstance(value, str) else str(value)


def _messages(value: object) -> list[str]:
    warnings = value.get("warnings") if isinstance(value, Mapping) else None
    found = (one.get("message") for one in _list(warnings) if isinstance(one, Mapping))
    return [one for one in found if isinstance(one, str) and one.strip()]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


Text = Annotated[str | None, BeforeValidator(_text_or_none)]
Moment = Annotated[dt.datetime | None, BeforeValidator(_moment)]
Channels = Annotated[int | None, BeforeValidator(lambda value: value if type(value) is int and value > 0 else None)]
Id = Annotated[
    str,
    BeforeValidator(lambda value: str(value) if type(value) is int else value),
    Field(min_length=1, pattern=r"^[\w.:-]+$"),  # it becomes a part of paths
]


class _Read(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class SubmissionDocument(_Read):
    """The answer to a submission: its id is all that is needed."""

    id: Id


class JobDocument(_Read):
    """A job: an entry of the list, or the head of a transcript."""

    id: Id
    status: Literal["queued", "processing", "completed", "error"]
    error: Annotated[str | None, BeforeValidator(_described)] = None
    audio_url: Text = None
    created: Moment = None
    completed: Moment = None


class TranscriptDocument(_Read):
    """A completed transcript; ``audio_duration`` is in seconds."""

    text: str | None = None
    words: list[Any] | None = None
    audio_duration: Annotated[FiniteFloat, Field(ge=0, le=LONGEST_AUDIO_S)] | None = None
    audio_channels: Channels = None
    language_code: Text = None
    speech_model_used: Text = None
    speech_model: Text = None
    warnings: Annotated[list[str], BeforeValidator(_messages), Field(alias="metadata")] = []

    @property
    def model(self) -> str | None:
        """The speech model that answered."""
        return self.speech_model_used or self.speech_model

    @property
    def audio_s(self) -> float:
        """The recording's length; without ``audio_duration`` the end of its last word."""
        if self.audio_duration is not None:
            return self.audio_duration
        ends = (word.get("end") for word in self.words or [] if isinstance(word, dict))
        known = (end / 1000 for end in ends if type(end) is int and 0 <= end <= LONGEST_AUDIO_S * 1000)
        return max(known, default=0.0)


class UploadDocument(_Read):
    """The answer to an upload."""

    upload_url: Annotated[str, Field(min_length=1)]


class PageDocument(_Read):
    """A page of the list of jobs; ``has_older`` says whether there are jobs before it."""

    transcripts: list[Any]
    has_older: Annotated[
        bool,
        BeforeValidator(lambda value: bool(isinstance(value, Mapping) and value.get("prev_url"))),
        Field(alias="page_details"),
    ] = False


def parsed(model: type[_Document], document: object, what: str) -> _Document:
    """A document as a model.

    Args:
        model: one of this module's.
        document: what the service sent, as JSON.
        what: names the document in messages.

    Raises:
        ProviderError: names the fields that are not as documented, and not what they hold.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, details['loc'])) or 'the document'}: {details['msg']}"
            for details in error.errors(include_url=False, include_input=False, include_context=False)[:5]
        )
        raise ProviderError(f"The speech service's {what} is not as documented: {mistakes}") from None
