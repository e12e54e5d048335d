"""The interface of speech engines, which transcribe the audio behind a URL into sentences."""

from collections.abc import Mapping
from typing import Any, Protocol

from speechbox.sentences import Recognition


class JobError(Exception):
    """A transcription failed permanently; clients see the message in the transcript's `error`."""


class Engine(Protocol):
    """A speech engine; a server has exactly one."""

    name: str
    #: Number of jobs that the engine runs at the same time.
    parallel_jobs: int

    async def start(self) -> None:
        """Load the model; the server accepts requests only afterwards."""

    async def stop(self) -> None:
        """Abort unfinished jobs; they stay in the store, and the next start resumes them."""

    async def transcribe(self, audio_url: str, options: Mapping[str, Any]) -> Recognition:
        """Transcribe the audio or raise `JobError`; `options` is the body of POST /v2/transcript."""
