"""Words with times, and their grouping into sentences and paragraphs."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

#: A longer pause ends a sentence even without punctuation.
LONG_PAUSE_MS = 1200
PARAGRAPH_SENTENCES = 5

_SENTENCE_END = re.compile(r"""[.?!…]["'”’)\]]*$""")
_ABBREVIATION = re.compile(r"""^["'“‘(\[]*(?:mr|mrs|ms|dr|prof|st|vs|etc|e\.g|i\.e|[a-z])\.$""", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Word:
    """A recognized word; times in milliseconds from the start of the file."""

    text: str
    start: int
    end: int
    confidence: float
    speaker: str | None = None
    channel: str | None = None


_WORD = tuple(one.name for one in fields(Word))


@dataclass(frozen=True, slots=True)
class Sentence:
    """Consecutive words of one speaker."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> int:
        """Milliseconds from the start of the file."""
        return self.words[0].start

    @property
    def end(self) -> int:
        """Milliseconds from the start of the file."""
        return self.words[-1].end

    @property
    def speaker(self) -> str | None:
        """The speaker, if speakers were requested."""
        return self.words[0].speaker

    @property
    def channel(self) -> str | None:
        """The channel, from "1", if channels were requested."""
        return self.words[0].channel

    @property
    def confidence(self) -> float:
        """Mean confidence of the words, 0 to 1."""
        return mean_confidence(self.words)

    def to_json(self) -> list[dict[str, Any]]:
        """Return the sentence in the format of the store."""
        return [{name: getattr(word, name) for name in _WORD} for word in self.words]

    @classmethod
    def from_json(cls, words: list[dict[str, Any]]) -> "Sentence":
        """Create a sentence from the format of the store."""
        return cls(tuple(Word(**word) for word in words))


@dataclass(frozen=True, eq=False)
class Recognition:
    """The result of an engine for a file: duration, number of channels, and sentences in order of time.

    `warnings` say what was wrong with the file, although it could be transcribed.
    """

    duration_s: float
    sentences: tuple[Sentence, ...]
    channels: int = 1
    language_code: str = "en_us"
    warnings: tuple[str, ...] = ()
    _rendered: dict[Hashable, str] = field(default_factory=dict, init=False, repr=False)

    def rendered(self, kind: Hashable, render: Callable[[], str]) -> str:
        """Return `render()`, cached by `kind`, because thousands of scripted transcripts share a recognition."""
        if kind not in self._rendered:
            self._rendered[kind] = render()
        return self._rendered[kind]


def mean_confidence(words: Sequence[Word]) -> float:
    """Return the mean confidence, rounded to five digits as in the API."""
    return round(sum(word.confidence for word in words) / len(words), 5)


def words_in_order(sentences: Iterable[Sentence]) -> list[Word]:
    """Return all words in order of time, also if speakers talk at the same time."""
    return sorted((word for sentence in sentences for word in sentence.words), key=lambda word: (word.start, word.end))


def split_sentences(words: Iterable[Word]) -> list[Sentence]:
    """Split one speaker's words into sentences at punctuation and long pauses."""
    sentences: list[Sentence] = []
    current: list[Word] = []
    for word in words:
        if current and (_ends_sentence(current[-1].text) or word.start - current[-1].end > LONG_PAUSE_MS):
            sentences.append(Sentence(tuple(current)))
            current = []
        current.append(word)
    if current:
        sentences.append(Sentence(tuple(current)))
    return sentences


def paragraphs(sentences: Iterable[Sentence]) -> list[list[Sentence]]:
    """Group sentences into paragraphs of one speaker with at most five sentences."""
    groups: list[list[Sentence]] = []
    for sentence in sentences:
        if groups and len(groups[-1]) < PARAGRAPH_SENTENCES and groups[-1][-1].speaker == sentence.speaker:
            groups[-1].append(sentence)
        else:
            groups.append([sentence])
    return groups


def _ends_sentence(text: str) -> bool:
    return bool(_SENTENCE_END.search(text)) and not _ABBREVIATION.match(text)
