"""Answers from a file instead of a model, for tests and benchmarks: hundreds of jobs at once must cost nothing."""

import asyncio
import fnmatch
import re
from collections.abc import Mapping
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
    """One sentence; its words share the time evenly, by their letters."""

    text: str
    start_s: float
    end_s: float
    speaker: str = "A"


class ScriptedAnswer(_Strict):
    """What becomes of a file: an error, no speech at all, or sentences."""

    match: str = "*"
    latency_s: float | None = None
    error: str | None = None
    no_speech: bool = False
    sentences: list[ScriptedSentence] = []
    audio_duration_s: float | None = None

    _recognitions: dict[tuple[bool, bool], Recognition] = PrivateAttr(default_factory=dict)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """`match`, ready for use: of long scripts, fnmatch would forget the first patterns before the last."""
        return re.compile(fnmatch.translate(self.match))

    def recognition(self, labels: bool, multichannel: bool) -> Recognition:
        """The answer as an engine gives it, with speakers and channels only where they were asked for."""
        asked = labels, multichannel
        if asked not in self._recognitions:
            said = () if self.no_speech else tuple(_sentence(sentence) for sentence in self.sentences)
            last_s = max((sentence.end / 1000 for sentence in said), default=1.0)
            self._recognitions[asked] = _as_asked(Recognition(self.audio_duration_s or last_s, said), *asked)
        return self._recognitions[asked]


class PhaseRule(_Strict):
    """A cue whose text matches the regular expression begins the named phase."""

    match: str
    name: str


class ScriptedChat(_Strict):
    """How chat completions are answered; without rules the local segmenter answers, after the latency."""

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
    """The whole script file; the first file pattern that matches answers."""

    latency_s: float = 0.0
    requests_per_5_minutes: Some | None = None
    fetch: bool = False
    files: list[ScriptedAnswer] = []
    default: ScriptedAnswer = _DEFAULT_ANSWER
    chat: ScriptedChat = Field(default_factory=ScriptedChat)

    @classmethod
    def load(cls, path: Path | None) -> "Script":
        """Read a YAML or JSON file; without one, every file gets the same short call."""
        if path is None:
            return cls()
        # Scripts of hundreds of calls are long: the parser in C, where PyYAML has it, is several times as fast.
        content = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)
        return cls.model_validate(content or {})

    def answer_for(self, audio_url: str) -> ScriptedAnswer:
        """Patterns are matched with the URL's path as a person writes it: decoded, with its first slash."""
        path = unquote(urlsplit(audio_url).path)
        matching = (answer for answer in self.files if answer.pattern.match(path))
        return next(matching, self.default)


class ScriptedEngine:
    """Waits as long as the script says, then answers what it says. A waiting job is one timer, not a thread."""

    name = "scripted"

    def __init__(self, source: AudioSource, script: Script, parallel_jobs: int | None = None) -> None:
        self.parallel_jobs = parallel_jobs or 200
        self._source = source
        self._script = script

    async def start(self) -> None:
        """Nothing to load."""

    async def stop(self) -> None:
        """Nothing to drop."""

    async def transcribe(self, audio_url: str, options: Mapping[str, Any]) -> Recognition:
        """The script's answer, with speakers and channels only where they were asked for."""
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
    return Recognition(recognition.duration_s, sentences, max(len(speakers), 1) if multichannel else 1)


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
