"""The transcripts in the state area, as cues."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from callphases.cues import Cue, cues_of_captions, cues_of_words
from callphases.errors import TranscriptGone
from callphases.state.ledger import Event
from callphases.state.storage import ObjectPrefix


@dataclass
class Transcripts:
    """The cues of transcripts in the state area; those that were collected together are read together, once.

    Safe to use from the threads of a task.
    """

    state: ObjectPrefix
    _bundles: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def cues(self, transcribed: Event) -> list[Cue]:
        """The cues of the transcript that a ``transcribed`` event is about.

        Raises:
            ProviderError: its captions can't be read.
            TranscriptGone: it is no longer in the state area.
        """
        kept = self._bundle(transcribed.get("cues", "")).get(transcribed["key"])
        if kept is not None:
            return [Cue(**cue) for cue in kept]
        name = str(transcribed["transcript_uri"]).removeprefix(self.state.uri).removesuffix(".json")
        document, vtt = self.state.get(f"{name}.json"), self.state.get(f"{name}.vtt")
        if document is None or vtt is None:
            raise TranscriptGone(f"{transcribed['transcript_uri']} is not there any more.")
        transcript = json.loads(document)
        return cues_of_words(transcript) or cues_of_captions(transcript, vtt.decode())

    def _bundle(self, name: str) -> dict[str, Any]:
        with self._lock:
            if name and name not in self._bundles:
                lines = (json.loads(line) for line in (self.state.get(name) or b"").splitlines())
                self._bundles[name] = {line["key"]: line["cues"] for line in lines}
            return self._bundles.get(name, {})
