"""What a speech engine is: something that turns the audio behind a URL into sentences."""

from collections.abc import Mapping
from typing import Any, Protocol

from speechbox.sentences import Recognition


class JobError(Exception):
    """A transcription that failed for good; its text is what the client reads in the transcript's `error`."""


class Engine(Protocol):
    """One way of transcribing; a running server has exactly one."""

    name: str
    #: How many jobs the engine can usefully run at the same time on this machine.
    parallel_jobs: int

    async def start(self) -> None:
        """Load what the engine needs; the server takes requests only afterwards."""

    async def stop(self) -> None:
        """Drop unfinished work quickly: the store still has it, and the next start takes it up again."""

    async def transcribe(self, audio_url: str, options: Mapping[str, Any]) -> Recognition:
        """Return what is said in the audio, or raise `JobError`. `options` is the body of POST /v2/transcript."""
