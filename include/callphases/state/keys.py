"""The keys that ledger events are found by: each follows from everything that the result depends on.

A transcript's key follows from the recording's bucket, key and ETag and from the options of the transcription; an
answer's from the transcript's key and the question. So a changed prompt asks the model again and transcribes nothing,
and a changed option transcribes again. Keys that differ in nothing but the names of the speech models are found by
``RecordingKeys.of_other_models``, as such a transcript is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import permutations
from typing import Any

from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.speech_models import FORMER_DEFAULTS, KNOWN_SPEECH_MODELS, without_models
from callphases.state.events import Event, Failed, Intended, Stopped, Submitted, Transcribed

QUESTION_VERSION = "2"
"""Of the question to the model. A new one has every call divided again that a run looks at."""


MOST_MODELS = 3
"""How many speech models a ledger without ``Intended.version`` is expected to have asked for at most."""
OPTION_DIGITS = 12
_STOPPED = "stopped/"


def digest(*parts: object) -> str:
    """32 hex digits over the parts' JSON."""
    return hashlib.sha256(_json(parts).encode()).hexdigest()[:32]


def transcript_key(recording: Recording, options: dict[str, Any]) -> str:
    """The key of what is paid for when ``recording`` is transcribed with ``options``."""
    return digest(recording.bucket, recording.key, recording.etag, options)


def answer_key(transcript: str, question: object) -> str:
    """The key of a model's answer to ``question`` about the transcript with this key."""
    return digest(transcript, question)


def stop_key(transcript: str) -> str:
    """The key of why a run ended before a recording was done."""
    return f"{_STOPPED}{transcript}"


def deletion_key(transcript_id: str) -> str:
    """The key of a deletion at the provider."""
    return f"deleted/{transcript_id}"


def description_key(recording: Recording, wanted: dict[str, list[str]]) -> str:
    """The key of an object's metadata and tags; other bytes, or other names to ask for, have another."""
    return f"described/{digest(recording.bucket, recording.key, recording.etag, wanted)}"


def question(pipeline: Pipeline) -> dict[str, Any]:
    """All that an answer depends on besides the transcript.

    Other calls of the same question are not part of it: the model treats each call by itself.
    """
    return {
        "version": QUESTION_VERSION,
        "phases": [phase.model_dump() for phase in pipeline.phases],
        "models": pipeline.segmentation.models,
    }


def wanted_descriptions(pipeline: Pipeline) -> dict[str, list[str]]:
    """What the pipeline's own columns need, sorted, by kind; no kind without any.

    Names of metadata and tags, and the ``Elsewhere.source`` of other values.
    """
    columns = pipeline.recordings.columns.values()
    kinds = {
        "metadata": sorted({one.metadata.lower() for one in columns if one.metadata is not None}),
        "tags": sorted({one.tag for one in columns if one.tag is not None}),
        "elsewhere": sorted({one.source for one in columns if one.source is not None}),
    }
    return {kind: names for kind, names in kinds.items() if names}


def version(recording: Recording) -> str:
    """What an event says of the recording's bytes: a digest of its bucket, key and ETag."""
    return digest(recording.bucket, recording.key, recording.etag)


def option_digests(options: dict[str, Any]) -> dict[str, str]:
    """What an event says of options: a digest of each, as a value may be a secret (``webhook_auth_header_value``)."""
    return {name: digest(value)[:OPTION_DIGITS] for name, value in sorted(options.items())}


class RecordingKeys:
    """The keys of a pipeline's recordings.

    Attributes:
        upgrades: see ``Pipeline.upgrades_transcripts``.
        wanted_descriptions: see the function of that name.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.upgrades = pipeline.upgrades_transcripts
        self.wanted_descriptions = wanted_descriptions(pipeline)
        self._options = pipeline.speech_options
        self._named = pipeline.speech_models
        self._digests = option_digests(self._options)
        self._question = question(pipeline)

    def transcript(self, recording: Recording) -> str:
        """The key of a transcript by the models of today; see ``transcript_key``."""
        return transcript_key(recording, self._options)

    def intended(self, recording: Recording) -> dict[str, Any]:
        """The fields of an intent that tell keys apart later: which bytes, and which options."""
        return {"version": version(recording), "options": self._digests}

    def of_other_models(self, recording: Recording, events: Iterable[Event]) -> set[str]:
        """The keys of the same bytes with the same options but for the names of the speech models.

        Intents say which keys these are. Those of earlier versions do not: their keys are compared with those of every
        choice of the models that may have been named.

        Args:
            recording: the recording.
            events: those about it.
        """
        today, ours = self.transcript(recording), version(recording)
        found, explained, others, names = set[str](), {today}, set[str](), dict.fromkeys(self._named)
        for event in events:
            if isinstance(event, Stopped):
                others.add(event.key.removeprefix(_STOPPED))
            elif isinstance(event, Intended | Submitted | Transcribed) or _is_of_speech(event):
                others.add(event.key)
            if isinstance(event, Intended) and event.version:
                explained.add(event.key)
                if event.key != today and event.version == ours and not self.changed_options(event):
                    found.add(event.key)
            elif isinstance(event, Submitted) and event.model:
                names[event.model] = None
            elif isinstance(event, Transcribed) and event.speech_model:
                names[event.speech_model] = None
        if unexplained := others - explained:
            found |= unexplained.intersection(_keys_of_any_models(recording, self._options, tuple(names)))
        return found

    def changed_options(self, intent: Intended) -> list[str]:
        """The options that an intent had with other values, sorted, but for the names of the speech models."""
        then, now = without_models(intent.options or {}), without_models(self._digests)
        return sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))

    def answer(self, transcript: str) -> str:
        """See ``answer_key``."""
        return answer_key(transcript, self._question)

    def description(self, recording: Recording) -> str | None:
        """See ``description_key``; None where the pipeline asks for no metadata and no tags."""
        return description_key(recording, self.wanted_descriptions) if self.wanted_descriptions else None


def _is_of_speech(event: Event) -> bool:
    """Whether it is a failure of the transcription, not of the segmentation."""
    return isinstance(event, Failed) and event.usage is None


def _keys_of_any_models(recording: Recording, options: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """The keys of a recording with ``options``, whichever models were named instead."""
    head = hashlib.sha256(f"{_json((recording.bucket, recording.key, recording.etag))[:-1]}, ".encode())
    for tail in _options_of_any_models(_json(without_models(options)), names):
        key = head.copy()
        key.update(tail)
        yield key.hexdigest()[:32]


@lru_cache(maxsize=64)
def _options_of_any_models(options: str, names: tuple[str, ...]) -> list[bytes]:
    """The end of what ``digest`` is of, for the options without models (as JSON) with every choice of models."""
    rest = json.loads(options)
    known = dict.fromkeys([*KNOWN_SPEECH_MODELS, *names])
    lists = [list(some) for count in range(MOST_MODELS + 1) for some in permutations(known, count)]
    choices: list[dict[str, Any]] = [{}, {"speech_models": None}, {"speech_model": None}]
    choices += [{"speech_models": some} for some in [*FORMER_DEFAULTS, list(names), *lists]]
    choices += [{"speech_model": name} for name in known]
    return [f"{_json(rest | choice)}]".encode() for choice in choices]


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
