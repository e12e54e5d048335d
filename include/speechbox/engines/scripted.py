"""An engine for tests and benchmarks that answers from a script file, so that hundreds of jobs cost little CPU."""

import asyncio
import fnmatch
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from speechbox.engines import JobError
from speechbox.fetch import AudioSource
from speechbox.sentences import Recognition, Sentence, Word

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Some = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ScriptedSentence(_Strict):
    """One sentence; its duration is divided among its words by their number of letters."""

    text: str
    start_s: float
    end_s: float
    speaker: str = "A"


class ScriptedAnswer(_Strict):
    """The result for matching files: an error, no speech, or sentences."""

    match: str = "*"
    latency_s: float | None = None
    error: str | None = None
    no_speech: bool = False
    sentences: list[ScriptedSentence] = []
    audio_duration_s: float | None = None
    warnings: list[str] = []

    _recognitions: dict[tuple[bool, bool], Recognition] = PrivateAttr(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`match` as a compiled pattern; long scripts exceed fnmatch's own cache."""
        return re.compile(fnmatch.translate(self.match))

    def recognition(self, labels: bool, multichannel: bool) -> Recognition:
        """Return the recognition, with speakers and channels only if requested."""
        asked = labels, multichannel
        if asked not in self._recognitions:
            said = () if self.no_speech else tuple(_sentence(sentence) for sentence in self.sentences)
            last_s = max((sentence.end / 1000 for sentence in said), default=1.0)
            recognition = Recognition(self.audio_duration_s or last_s, said, warnings=tuple(self.warnings))
            self._recognitions[asked] = _as_asked(recognition, *asked)
        return self._recognitions[asked]


class PhaseRule(_Strict):
    """A cue whose text matches the regular expression starts the named phase."""

    match: str
    name: str


class ScriptedChat(_Strict):
    """How to answer chat completions; without rules the local segmenter answers after the latency."""

    latency_s: Seconds = 0.0
    latency_s_per_call: Seconds = 0.0
    at_once: Some | None = None
    requests_per_minute: Some | None = None
    phases: list[PhaseRule] = []
    summary: str = "{name} from cue {start_cue}."


_DEFAULT_ANSWER = ScriptedAnswer(
    sentences=[
        ScriptedSentence(speaker="A", start_s=0.4, end_s=2.6, text="Hello, thank you for calling, how can I help you?"),
        ScriptedSentence(speaker="B", start_s=3.0, end_s=5.2, text="My invoice is wrong, I was charged twice."),
        ScriptedSentence(speaker="A", start_s=5.8, end_s=8.1, text="I have refunded the second charge for you."),
        ScriptedSentence(speaker="B", start_s=8.5, end_s=9.6, text="Thank you, goodbye."),
    ],
    audio_duration_s=10.0,
)


class Script(_Strict):
    """A script file; the first matching file pattern determines the answer."""

    latency_s: float = 0.0
    requests_per_5_minutes: Some | None = None
    fetch: bool = False
    files: list[ScriptedAnswer] = []
    default: ScriptedAnswer = _DEFAULT_ANSWER
    chat: ScriptedChat = Field(default_factory=ScriptedChat)

    @classmethod
    def load(cls, path: Path | None) -> "Script":
        """Load a YAML or JSON file; without a path, every recording has the same short call."""
        if path is None:
            return cls()
        # PyYAML's C parser, if available, is several times as fast, which matters for scripts of hundreds of calls.
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)
        return cls.model_validate(content or {})

    def answer_for(self, audio_url: str) -> ScriptedAnswer:
        """Return the answer whose pattern matches the decoded path of the URL."""
        path = unquote(urlsplit(audio_url).path)
        matching = (answer for answer in self.files if answer.pattern.match(path))
        return next(matching, self.default)


class ScriptedEngine:
    """Waits for the script's latency, then returns its answer. A waiting job is a timer, not a thread."""

    name = "scripted"

    def __init__(self, source: AudioSource, script: Script, parallel_jobs: int | None = None) -> None:
        self.parallel_jobs = parallel_jobs or 200
        self._source = source
        self._script = script

    async def start(self) -> None:
        """Do nothing: there is no model."""

    async def stop(self) -> None:
        """Do nothing: there is no work to abort."""

    async def transcribe(self, audio_url: str, options: Mapping[str, Any]) -> Recognition:
        """Return the script's answer, with speakers and channels only if requested."""
        answer = self._script.answer_for(audio_url)
        if self._script.fetch:
            await self._source.check(audio_url)
        await asyncio.sleep(self._script.latency_s if answer.latency_s is None else answer.latency_s)
        if answer.error:
            raise JobError(answer.error)
        return answer.recognition(bool(options.get("speaker_labels")), bool(options.get("multichannel")))


def _as_asked(recognition: Recognition, labels: bool, multichannel: bool) -> Recognition:
    if labels and not multichannel:
        return recognition
    speakers = sorted({str(sentence.speaker) for sentence in recognition.sentences})
    channels = {speaker: str(number) for number, speaker in enumerate(speakers, start=1)}

    def renamed(word: Word) -> Word:
        channel = channels[str(word.speaker)] if multichannel else None
        speaker = f"{channel}A" if channel and labels else channel
        return Word(word.text, word.start, word.end, word.confidence, speaker, channel)

    sentences = tuple(Sentence(tuple(map(renamed, sentence.words))) for sentence in recognition.sentences)
    return replace(recognition, sentences=sentences, channels=max(len(speakers), 1) if multichannel else 1)


def _sentence(scripted: ScriptedSentence) -> Sentence:
    texts = scripted.text.split()
    letters = sum(map(len, texts))
    start_ms, span_ms = scripted.start_s * 1000, (scripted.end_s - scripted.start_s) * 1000
    words, before = [], 0
    for text in texts:
        start, end = (round(start_ms + span_ms * count / letters) for count in (before, before + len(text)))
        words.append(Word(text, start, end, 0.99, scripted.speaker))
        before += len(text)
    return Sentence(tuple(words))
