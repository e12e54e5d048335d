"""The keys that ledger events are found by: each follows from everything that the result depends on.

A transcript's key follows from the recording's bucket, key and ETag and from the options of the transcription; an
answer's from the transcript's key and the question. So a changed prompt asks the model again and transcribes nothing,
and a changed option transcribes again.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from callphases.pipeline import Pipeline
from callphases.recordings import Recording

QUESTION_VERSION = "2"
"""Of the question to the model. A new one has every call divided again that a run looks at."""


def digest(*parts: object) -> str:
    """32 hex digits over the parts' JSON."""
    document = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(document.encode()).hexdigest()[:32]


def transcript_key(recording: Recording, options: dict[str, Any]) -> str:
    """The key of what is paid for when ``recording`` is transcribed with ``options``."""
    return digest(recording.bucket, recording.key, recording.etag, options)


def answer_key(transcript: str, question: object) -> str:
    """The key of a model's answer to ``question`` about the transcript with this key."""
    return digest(transcript, question)


def stop_key(transcript: str) -> str:
    """The key of why a run ended before a recording was done."""
    return f"stopped/{transcript}"


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
    """The names of metadata and tags that the pipeline's own columns need, sorted, by kind; no kind without names."""
    columns = pipeline.recordings.columns.values()
    kinds = {
        "metadata": sorted({one.metadata.lower() for one in columns if one.metadata is not None}),
        "tags": sorted({one.tag for one in columns if one.tag is not None}),
    }
    return {kind: names for kind, names in kinds.items() if names}


class RecordingKeys:
    """The keys of a pipeline's recordings."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._options = pipeline.transcription
        self._question = question(pipeline)
        self.wanted_descriptions = wanted_descriptions(pipeline)

    def transcript(self, recording: Recording) -> str:
        """See ``transcript_key``."""
        return transcript_key(recording, self._options)

    def answer(self, transcript: str) -> str:
        """See ``answer_key``."""
        return answer_key(transcript, self._question)

    def description(self, recording: Recording) -> str | None:
        """See ``description_key``; None where the pipeline asks for no metadata and no tags."""
        return description_key(recording, self.wanted_descriptions) if self.wanted_descriptions else None
