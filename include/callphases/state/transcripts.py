"""The transcripts in the state area: saved with their captions, read as cues, deleted."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from callphases.cues import Cue, cues_of_captions, cues_of_words
from callphases.day_range import Span
from callphases.errors import ProviderError, TranscriptGone
from callphases.state import layout
from callphases.state.events import Transcribed
from callphases.state.ledger import LedgerView
from callphases.state.storage import ObjectPrefix

BUNDLE_CALLS = 500
"""Calls whose cues share an object."""


class TranscriptWriter:
    """Saves the transcripts of one task. The cues of many share an object, which ``flush`` writes.

    Safe to use from the threads of a task, but for ``flush``.

    Args:
        state: ``output.state``.
        span: the task's day, or days.
    """

    def __init__(self, state: ObjectPrefix, span: Span) -> None:
        self._state, self._span = state, span
        self._cues: dict[str, list[Cue]] = {}
        self._bundle = layout.new_cue_bundle(span)

    @property
    def is_full(self) -> bool:
        """Whether enough cues have come together to be written."""
        return len(self._cues) >= BUNDLE_CALLS

    def save(
        self, day: dt.date, key: str, document: Mapping[str, Any], captions: str | None, cues: list[Cue] | None
    ) -> tuple[str, str]:
        """Write a transcript, and its captions where there are any; keep its cues for the next ``flush``.

        Args:
            day: of the call.
            key: the transcript's.
            document: as the service answered, without secrets.
            captions: as WebVTT; None without speech.
            cues: None where they are to be read from the captions later.

        Returns:
            The transcript's URI, and the name of the object that its cues will be in.
        """
        name = layout.transcript(day, key)
        body = json.dumps(document, ensure_ascii=False).encode(errors="replace")  # halves of a character are JSON
        uri = self._state.put(name, body, "application/json")
        if captions is not None:
            self._state.put(layout.captions(name), captions.encode(), "text/vtt; charset=utf-8")
        if cues is not None:
            self._cues[key] = cues
        return uri, self._bundle

    def flush(self) -> None:
        """Write the cues that were kept, by one PUT."""
        if self._cues:
            lines = ({"key": key, "cues": [asdict(cue) for cue in cues]} for key, cues in self._cues.items())
            body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            self._state.put(self._bundle, body.encode(), "application/x-ndjson")
            self._cues, self._bundle = {}, layout.new_cue_bundle(self._span)


@dataclass(frozen=True)
class Transcript:
    """A transcript in the state area: the service's document, and its captions as WebVTT."""

    document: dict[str, Any]
    captions: str

    def cues(self) -> list[Cue]:
        """Its cues, from its words if they have all of its text.

        Raises:
            ProviderError: its captions can't be read.
        """
        return cues_of_words(self.document) or cues_of_captions(self.document, self.captions)


def read_transcript(state: ObjectPrefix, uri: str) -> Transcript:
    """A transcript of somebody who speaks, by its URI.

    Raises:
        ProviderError: it is damaged.
        TranscriptGone: it is no longer in the state area.
    """
    name = uri.removeprefix(state.uri)
    document, captions = state.get(name), state.get(layout.captions(name))
    if document is None or captions is None:
        raise TranscriptGone(f"{uri} is not there any more.")
    try:
        transcript = json.loads(document)
        if isinstance(transcript, dict) and isinstance(transcript.get("words"), list | None):
            return Transcript(transcript, captions.decode())
    except (ValueError, RecursionError):  # no JSON, or not UTF-8
        pass
    raise ProviderError(f"{uri} or its captions are damaged.")


class TranscriptReader:
    """Reads transcripts as cues; an object with the cues of many is read once.

    Safe to use from the threads of a task.
    """

    def __init__(self, state: ObjectPrefix) -> None:
        self._state = state
        self._bundles: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def cues(self, transcribed: Transcribed) -> list[Cue]:
        """The cues of a transcript.

        Raises:
            ProviderError: it can't be read.
            TranscriptGone: it is no longer in the state area.
        """
        kept = self._bundle(transcribed.cues).get(transcribed.key)
        if kept is not None:
            return [Cue(**cue) for cue in kept]
        return read_transcript(self._state, str(transcribed.transcript_uri)).cues()

    def _bundle(self, name: str) -> dict[str, Any]:
        with self._lock:
            if name and name not in self._bundles:
                lines = (json.loads(line) for line in (self._state.get(name) or b"").splitlines())
                self._bundles[name] = {line["key"]: line["cues"] for line in lines}
            return self._bundles.get(name, {})


def delete_transcript(state: ObjectPrefix, uri: str, view: LedgerView) -> None:
    """Remove a transcript, its captions, and the object that its cues are in.

    Calls whose cues were in the same object are read from their own transcripts from then on.
    """
    name = uri.removeprefix(state.uri)
    transcribed = view.find(layout.transcript_key(name))
    bundle = transcribed.cues if isinstance(transcribed, Transcribed) else ""
    for one in (name, layout.captions(name), bundle):
        if one:
            state.delete(one)
