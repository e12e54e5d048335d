"""Audio to the service, and transcripts from there to the state area."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from callphases.errors import NoModelLeft, ProviderError, TranscriptGone
from callphases.state.bucket import PIECE_BYTES
from callphases.state.events import Failed, Submitted, Transcribed, from_document, to_document
from callphases.state.transcripts import TranscriptReader
from callphases.transcription.delivery import MOST_OF_WARNINGS, TRIES_AT_PROVIDER, URL_LIFE_S
from doubles import DAY, NEXT_RUN, WORDS, Answer, Request, answer, text_answer
from transcribing import SERVER_ERROR, Runner, collect, losing, refusing

pytestmark = pytest.mark.integration


# Sending


@pytest.mark.parametrize("key", ["calls/a.mp3", "calls/a b+c%20'\"é🎧.mp3", "/calls//a.mp3"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_service_receives_the_recordings_bytes(runner: Runner, key: str, send: str) -> None:
    body = bytes(range(256)) * (PIECE_BYTES // 128)
    runner.submit(runner.s3.put(key, body), recordings={"send": send})
    assert runner.speech.heard == [body]


def test_presigned_url_is_sent_by_default_and_outlives_the_queue(runner: Runner) -> None:
    runner.submit(runner.s3.put("calls/a.mp3"))
    (url,) = [document["audio_url"] for document in runner.speech.submitted]
    assert url.startswith(f"{runner.s3.url}/{runner.s3.recordings}/calls/a.mp3?")
    assert int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]) == URL_LIFE_S >= 2 * 3600
    assert runner.speech.uploads == {}


def test_large_upload_is_streamed_in_pieces(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3", b"x" * (2 * PIECE_BYTES + 1))
    runner.submit(recording, recordings={"send": "upload"})
    (sent,) = runner.speech.asked("POST", "/v2/upload")
    assert sent.headers["transfer-encoding"] == "chunked"


def test_submission_has_the_pipelines_options(runner: Runner) -> None:
    options = {"speech_models": ["universal-3-pro"], "redact_pii": True}
    runner.submit(runner.s3.put("calls/a.mp3"), transcription=options)
    (document,) = runner.speech.submitted
    assert document == {"audio_url": document["audio_url"], **options}


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_empty_file_is_not_sent(runner: Runner, send: str) -> None:
    empty = runner.s3.put("calls/empty.mp3", b"")
    runner.submit(empty, recordings={"send": send})
    assert runner.speech.web.requests == []
    assert (runner.failure(empty).failure_class, runner.failure(empty).permanent) == ("empty_file", True)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_recording_that_changed_since_the_listing_is_not_uploaded(runner: Runner, change: str) -> None:
    recording = runner.s3.put("calls/a.mp3", b"old")
    if change == "deleted":
        runner.s3.client.delete_object(Bucket=runner.s3.recordings, Key=recording.key)
    else:
        runner.s3.put("calls/a.mp3", b"new")
    runner.submit(recording, recordings={"send": "upload"})
    assert runner.speech.submitted == []
    assert (runner.failure(recording).failure_class, runner.failure(recording).permanent) == ("recording_gone", False)


# Retired speech models


def not_serving(*models: str) -> Callable[[Request], Answer | None]:
    """Refuses submissions that name one of ``models``; the refusal names the first of them."""

    def refuse(request: Request) -> Answer | None:
        named = request.json.get("speech_models", []) if request.method == "POST" else []
        gone = [model for model in named if model in models]
        return answer({"error": f"speech model {gone[0]} is no longer supported"}, 400) if gone else None

    return refuse


def first_of(request: Request) -> str:
    return str((request.json.get("speech_models") or [request.json.get("speech_model")])[0])


MODELS = {"transcription": {"speech_models": ["one", "two", "three"], "speaker_labels": True}}


def test_retired_speech_model_is_left_out_of_later_submissions(
    runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = not_serving("two")
    runner.submit(*recordings, **MODELS)
    sent = [document["speech_models"] for document in runner.speech.submitted]
    assert sent == [["one", "two", "three"], ["one", "three"], ["one", "three"]]
    assert all(document["speaker_labels"] for document in runner.speech.submitted)
    assert "It is left out; going on with one, three." in caplog.text


@pytest.mark.parametrize(
    "error",
    [
        "This model has been retired",
        "The following models are not available in this language: speaker_labels",
        "speech model four is no longer supported",
    ],
)
def test_refusal_that_names_no_model_asked_for_is_of_one_call(runner: Runner, error: str) -> None:
    first, second = (runner.s3.put(f"calls/{name}.mp3") for name in "ab")
    refusals = [answer({"error": error}, 400)]
    runner.speech.refuse = lambda request: refusals.pop() if refusals and request.method == "POST" else None
    runner.submit(first, second, **MODELS)
    assert runner.speech.submitted[-1]["speech_models"] == ["one", "two", "three"]
    assert Counter(runner.events(first, second, **MODELS)) == {Failed: 1, Submitted: 1}
    [failure] = [event for event in runner.s3.known().all() if isinstance(event, Failed)]
    assert failure.failure_class == "request_refused"


def test_model_missing_among_those_that_the_service_accepts_is_left_out(runner: Runner) -> None:
    error = '"speech_models" must be a non-empty list containing one or more of: "two", "three"'
    runner.speech.refuse = lambda request: (
        answer({"error": error}, 400) if request.method == "POST" and "one" in request.json["speech_models"] else None
    )
    runner.submit(runner.s3.put("calls/a.mp3"), **MODELS)
    assert runner.speech.submitted[-1]["speech_models"] == ["two", "three"]


def test_transcript_by_a_remaining_model_is_not_paid_for_again(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.refuse = not_serving("one")
    runner.transcribe(recording, **MODELS)
    runner.transcribe(recording, run_id="run-2", since=NEXT_RUN, **MODELS)
    assert len(runner.speech.jobs) == 1


@pytest.mark.parametrize(
    ("transcription", "asked"),
    [
        ({"speech_models": ["one", "two"]}, 2),
        ({"speech_model": "one"}, 1),
    ],
)
def test_error_names_the_setting_if_no_speech_model_is_left(
    runner: Runner, transcription: dict[str, Any], asked: int
) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = lambda request: answer({"error": f"speech model {first_of(request)} is retired"}, 400)
    with pytest.raises(NoModelLeft, match=r"transcription\.speech_models.*one"):
        runner.submit(*recordings, transcription=transcription)
    assert len(runner.speech.submitted) == asked


def test_jobs_that_fail_for_a_retired_model_are_submitted_without_it(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    gone = {"status": "error", "error": "speech model one is no longer supported"}
    runner.speech.endings = {"t-1": gone, "t-2": gone}
    run = runner.submit(*recordings, **MODELS)
    assert collect(run) == 2
    run.submit()
    assert [document["speech_models"] for document in runner.speech.submitted[2:]] == [["two", "three"]] * 2
    assert collect(run) == 0
    assert runner.events(*recordings, **MODELS) == [Transcribed] * 2


# Submitting a failed job again


@pytest.mark.parametrize(
    ("error", "failure_class"),
    [
        (SERVER_ERROR, "provider_error"),
        ("Download error, unable to download https://b/a.mp3?X-Amz-Signature=abc", "download_refused"),
    ],
)
def test_job_with_a_passing_failure_is_submitted_a_few_times_in_a_pass(
    runner: Runner, error: str, failure_class: str
) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": error}
    run = runner.submit(recording)
    for _ in range(TRIES_AT_PROVIDER - 1):
        assert collect(run) == 1, "it is submitted again"
        run.submit()
    assert collect(run) == 0
    run.submit()
    assert len(runner.speech.submitted) == TRIES_AT_PROVIDER
    event = runner.failure(recording)
    assert event.failure_class == failure_class
    assert "Signature" not in event.failure_message


def test_tries_are_counted_across_the_processes_of_a_task(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": SERVER_ERROR}
    for left in [1] * (TRIES_AT_PROVIDER - 1) + [0]:
        assert collect(runner.submit(recording)) == left
    runner.submit(recording)
    assert len(runner.speech.submitted) == TRIES_AT_PROVIDER


def test_next_run_counts_its_tries_from_one(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": SERVER_ERROR}
    assert collect(runner.submit(recording)) == 1
    assert collect(runner.submit(recording, run_id="run-2", since=NEXT_RUN)) == 1
    assert runner.failure(recording).tries == 1


def test_repeated_submission_of_a_lost_answer_counts_as_one_try(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.status, runner.speech.ending = "error", {"error": SERVER_ERROR}
    runner.speech.refuse = losing(runner.speech, taken=False, times=3)
    assert collect(runner.submit(recording)) == 1
    assert runner.failure(recording).tries == 1


# Saving


def test_saved_transcript_contains_no_url_signature(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    kept = runner.s3.state.get(runner.transcribed(recording).transcript_uri.removeprefix(runner.s3.state.uri))
    assert kept is not None
    assert b"calls/a.mp3" in kept
    assert b"Signature" not in kept


def test_transcript_is_saved_with_its_length_model_and_price(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    event = runner.transcribed(recording)
    assert event.status == "completed"
    assert (event.audio_s, event.language, event.speech_model) == (6.0, "en", "assemblyai-stt-3-7")
    assert event.speech_usd == pytest.approx(6 / 3600 * 0.23)
    saved = json.loads(runner.s3.bytes_of(event.transcript_uri.removeprefix(f"s3://{runner.s3.warehouse}/")))
    assert saved["id"] == event.transcript_id


@pytest.mark.parametrize("text", ["", None, "  \n"])
def test_captions_of_a_recording_without_speech_are_not_requested(runner: Runner, text: str | None) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"text": text, "words": [], "audio_duration": 8}
    runner.transcribe(recording)
    assert runner.transcribed(recording).status == "no_speech"
    assert runner.transcribed(recording).audio_s == 8.0
    assert not [request for request in runner.speech.web.requests if request.path.endswith("/vtt")]


def test_warnings_of_the_service_are_logged_without_secrets(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    url = f"https://calls.example/{DAY}/a.mp3?X-Amz-Signature=abc"
    warnings = [{"message": f"Fell back to another model for {url}."}, {"message": "Low volume."}]
    runner.speech.ending = {"metadata": {"warnings": warnings}}
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    assert "calls/a.mp3: the service warns: Fell back to another model for https://calls.example/" in caplog.text
    assert "calls/a.mp3: the service warns: Low volume." in caplog.text
    assert "Signature" not in caplog.text
    said = f"Fell back to another model for https://calls.example/{DAY}/a.mp3; Low volume."
    assert runner.transcribed(recording).warnings == said


@pytest.mark.parametrize(
    "metadata",
    [
        *(None, {}, [], "none", {"warnings": None}, {"warnings": []}, {"warnings": "none"}),
        *({"warnings": [None, "a", 1]}, {"warnings": [{}, {"message": None}, {"message": 5}, {"message": " \n "}]}),
    ],
)
def test_transcript_without_warnings_is_saved(runner: Runner, metadata: Any, caplog: pytest.LogCaptureFixture) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"metadata": metadata}
    runner.transcribe(recording)
    assert runner.transcribed(recording).warnings is None
    assert "warns" not in caplog.text


def test_warnings_in_the_row_are_one_line_of_limited_length(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"metadata": {"warnings": [{"message": "half of \ud83d\n" + "x" * 400}] * 40}}
    runner.transcribe(recording)
    warnings = runner.transcribed(recording).warnings or ""
    assert len(warnings) == MOST_OF_WARNINGS
    assert warnings.startswith("half of ? xxx")
    assert warnings.endswith("…")
    assert len(warnings.encode()) <= 2048


# Reading what was saved


CUES = [(0.5, "A", "Thank you for calling."), (2.5, "B", "My invoice is wrong.")]


def read(transcripts: TranscriptReader, event: Transcribed) -> list[tuple[float, str | None, str]]:
    return [(cue.start_s, cue.speaker, cue.text) for cue in transcripts.cues(event)]


def test_cues_that_were_collected_together_are_read_with_one_request(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "abc"]
    runner.transcribe(*recordings)
    events = [runner.transcribed(recording) for recording in recordings]
    before, transcripts = runner.s3.counted()["GetObject"], TranscriptReader(runner.s3.state)
    assert [read(transcripts, event) for event in events] == [CUES] * 3
    assert runner.s3.counted()["GetObject"] - before == 1


def test_cues_keep_their_confidence(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.speech.ending = {"words": [WORDS[0] | {"confidence": 0.9}, WORDS[1]]}
    runner.transcribe(recording)
    assert [cue.confidence for cue in TranscriptReader(runner.s3.state).cues(runner.transcribed(recording))] == [
        0.9,
        None,
    ]


def test_cues_of_an_earlier_version_have_no_confidence(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    event = runner.transcribed(recording)
    kept = json.loads(runner.s3.state.get(event.cues) or b"")
    for cue in kept["cues"]:
        del cue["confidence"]
    runner.s3.state.put(event.cues, json.dumps(kept).encode())
    transcripts = TranscriptReader(runner.s3.state)
    assert read(transcripts, event) == CUES
    assert [cue.confidence for cue in transcripts.cues(event)] == [None, None]


def test_cues_are_read_from_the_transcript_if_their_object_was_not_written(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    run = runner.submit(*recordings)
    run.look()
    run.collect()
    run.ledger.write()  # and killed before it could keep the cues
    events = [runner.transcribed(recording) for recording in recordings]
    before, transcripts = runner.s3.counted()["GetObject"], TranscriptReader(runner.s3.state)
    assert [read(transcripts, event) for event in events] == [CUES] * 2
    assert runner.s3.counted()["GetObject"] - before == 5


def test_cues_are_read_from_the_transcript_if_the_event_names_no_object(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    document = to_document(runner.event(recording))
    for name in ("cues", "recording", "term"):
        del document[name]
    event = from_document(document)
    assert isinstance(event, Transcribed)
    assert read(TranscriptReader(runner.s3.state), event) == CUES


def test_missing_transcript_error_says_how_to_recover(runner: Runner) -> None:
    recording = runner.s3.put("calls/a.mp3")
    runner.transcribe(recording)
    for key in runner.s3.keys("state/transcripts/"):
        runner.s3.client.delete_object(Bucket=runner.s3.warehouse, Key=key)
    with pytest.raises(TranscriptGone, match=r"not there any more.*below output\.state"):
        TranscriptReader(runner.s3.state).cues(runner.transcribed(recording))


def test_invalid_captions_are_a_provider_error(runner: Runner) -> None:
    recordings = [runner.s3.put(f"calls/{name}.mp3") for name in "ab"]
    runner.speech.refuse = refusing("/v2/transcript/t-1/vtt", text_answer("<html>"))
    runner.transcribe(*recordings)
    transcripts = TranscriptReader(runner.s3.state)
    with pytest.raises(ProviderError, match="not WebVTT"):
        transcripts.cues(runner.transcribed(recordings[0]))
    assert read(transcripts, runner.transcribed(recordings[1])) == CUES
