"""Recording → transcript: paid for once, whatever happens in between."""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from callphases.assemblyai import AssemblyAI
from callphases.errors import AccountError, ProviderError, ServiceUnavailable, TranscriptGone
from callphases.ledger import Event, transcript_key
from callphases.recordings import Recording
from callphases.transcripts import UPLOAD_PIECE_BYTES, URL_LIFE_S, Transcriber, load_cues
from doubles import KEY, LOST, Answer, Request, Speech, Store, answer, text_answer

pytestmark = pytest.mark.integration

LONG_AGO, NEXT_RUN = (dt.datetime(year, 1, 1, tzinfo=dt.UTC) for year in (2000, 3000))
REFUSED = answer({"error": "audio_end_at must be larger than audio_start_from"}, 400)


class Desk:
    """Starts a run on the day as it is known by then, as a task of Airflow's does."""

    def __init__(self, s3: Store, speech: Speech) -> None:
        self.s3, self.speech = s3, speech

    def run(self, run_id: str = "run-1", **settings: Any) -> Transcriber:
        service = AssemblyAI(KEY, self.speech.web.url)
        return Transcriber(service, self.s3.client, self.s3.pipeline(**settings), self.s3.state, self.s3.ledger(run_id))

    def event(self, recording: Recording, **settings: Any) -> Event:
        """The last that the bucket knows of a recording."""
        key = transcript_key(recording, self.s3.pipeline(**settings).transcription)
        event = self.s3.ledger().find(key)
        assert event is not None
        return event


@pytest.fixture
def desk(s3: Store, speech: Speech, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr("callphases.transcripts.LOST_PAUSE_S", 0.0)  # this service lists a job at once
    return Desk(s3, speech)


def refusing(path: str, refusal: Answer, method: str = "GET") -> Callable[[Request], Answer | None]:
    return lambda request: refusal if (request.method, request.path) == (method, path) else None


# Delivering


@pytest.mark.parametrize("key", ["calls/a.mp3", "calls/a b+c%20'\"é🎧.mp3", "/calls//a.mp3"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_the_service_gets_the_recordings_bytes(desk: Desk, key: str, send: str) -> None:
    body = bytes(range(256)) * (UPLOAD_PIECE_BYTES // 128)
    desk.run(recordings={"send": send}).submit([desk.s3.put(key, body)], LONG_AGO)
    assert desk.speech.heard == [body]


def test_a_presigned_url_outlives_the_queue_and_audio_takes_no_detour(desk: Desk) -> None:
    desk.run().submit([desk.s3.put("calls/a.mp3")], LONG_AGO)
    (url,) = [document["audio_url"] for document in desk.speech.submitted]
    assert url.startswith(f"{desk.s3.url}/{desk.s3.recordings}/calls/a.mp3?")
    assert int(parse_qs(urlsplit(url).query)["X-Amz-Expires"][0]) == URL_LIFE_S >= 2 * 3600
    assert desk.speech.uploads == {}


def test_a_large_upload_is_streamed_in_pieces(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3", b"x" * (2 * UPLOAD_PIECE_BYTES + 1))
    desk.run(recordings={"send": "upload"}).submit([recording], LONG_AGO)
    (sent,) = desk.speech.asked("POST", "/v2/upload")
    assert sent.headers["transfer-encoding"] == "chunked"


def test_the_options_are_the_pipelines(desk: Desk) -> None:
    options = {"speech_models": ["universal-3-pro"], "redact_pii": True}
    desk.run(transcription=options).submit([desk.s3.put("calls/a.mp3")], LONG_AGO)
    (document,) = desk.speech.submitted
    assert document == {"audio_url": document["audio_url"], **options}


@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_an_empty_file_is_not_sent(desk: Desk, send: str) -> None:
    empty = desk.s3.put("calls/empty.mp3", b"")
    desk.run(recordings={"send": send}).submit([empty], LONG_AGO)
    assert desk.speech.web.requests == []
    assert (desk.event(empty)["failure_class"], desk.event(empty)["permanent"]) == ("empty_file", True)


@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_a_recording_that_changed_since_it_was_listed_is_not_uploaded(desk: Desk, change: str) -> None:
    recording = desk.s3.put("calls/a.mp3", b"old")
    if change == "deleted":
        desk.s3.client.delete_object(Bucket=desk.s3.recordings, Key=recording.key)
    else:
        desk.s3.put("calls/a.mp3", b"new")
    desk.run(recordings={"send": "upload"}).submit([recording], LONG_AGO)
    assert desk.speech.submitted == []
    assert (desk.event(recording)["failure_class"], desk.event(recording)["permanent"]) == ("recording_gone", False)


# Paying once


def test_a_second_run_of_the_day_submits_nothing(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abc"]
    for run_id in ("run-1", "run-1", "run-2"):
        run = desk.run(run_id)
        run.submit(recordings, NEXT_RUN)
        run.collect(recordings)
    assert len(desk.speech.submitted) == 3


def test_an_intent_is_durable_before_anything_is_sent(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    known: list[list[str]] = []

    def look(request: Request) -> Answer | None:
        known.append([desk.event(recording)["event"] for recording in recordings])
        return None

    desk.speech.refuse = look
    desk.run().submit(recordings, LONG_AGO)
    assert known == [["intended", "intended"]] * 2
    assert [desk.event(recording)["event"] for recording in recordings] == ["submitted", "submitted"]


def test_an_intent_holds_no_signature(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.run().submit([recording], LONG_AGO)
    written = b"".join(desk.s3.bytes_of(key) for key in desk.s3.keys("state/ledger/"))
    assert b"/calls/a.mp3" in written
    assert b"Signature" not in written


def test_a_run_that_was_cut_off_goes_on_where_it_was(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "abc"]
    stop = answer({"error": "Your current account balance is negative."}, 400)
    desk.speech.refuse = lambda request: stop if request.method == "POST" and len(desk.speech.jobs) == 2 else None
    with pytest.raises(AccountError):
        desk.run().submit(recordings, LONG_AGO)
    desk.speech.refuse = lambda request: None
    again = desk.run("run-2")
    again.submit(recordings, NEXT_RUN)
    assert again.collect(recordings) == 0
    assert len(desk.speech.jobs) == 3


@pytest.mark.parametrize(
    ("settings", "paid"),
    [
        ({"phases": [{"name": "Hold"}], "segmentation": {"models": ["gpt-5-mini"]}}, 1),
        ({"recordings": {"send": "upload"}}, 1),
        ({"transcription": {"speaker_labels": False}}, 2),
    ],
    ids=["another prompt", "another way to send", "other options"],
)
def test_only_other_options_are_paid_for_again(desk: Desk, settings: dict[str, Any], paid: int) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.run().submit([recording], LONG_AGO)
    desk.run("run-2", **settings).submit([recording], NEXT_RUN)
    assert len(desk.speech.submitted) == paid


def test_other_bytes_below_the_same_key_are_another_recording(desk: Desk) -> None:
    for body in (b"first", b"second"):
        desk.run().submit([desk.s3.put("calls/a.mp3", body)], LONG_AGO)
    assert desk.speech.heard == [b"first", b"second"]


SUBMISSION = ("POST", "/v2/transcript")


def losing(speech: Speech, taken: bool, lost: Answer = LOST, times: int = 1) -> Callable[[Request], Answer | None]:
    """Answers the first submissions with ``lost``, whether or not the service has taken them."""
    left = [lost] * times

    def lose(request: Request) -> Answer | None:
        if (request.method, request.path) != SUBMISSION or not left:
            return None
        if taken:
            speech.take(request.json)
        return left.pop()

    return lose


@pytest.mark.parametrize("lost", [LOST, answer({}, 500), (504, {}, b"")], ids=["nothing", "500", "504"])
@pytest.mark.parametrize("send", ["presigned", "upload"])
def test_a_job_whose_answer_was_lost_is_found_and_not_paid_for_again(desk: Desk, send: str, lost: Answer) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = losing(desk.speech, taken=True, lost=lost)
    run = desk.run(recordings={"send": send})
    run.submit(recordings, LONG_AGO)
    assert run.collect(recordings) == 0
    assert [desk.event(recording)["event"] for recording in recordings] == ["transcribed"] * 2
    assert len(desk.speech.jobs) == 2


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("lost", [LOST, answer({}, 500)], ids=["nothing", "500"])
def test_a_submission_that_was_not_taken_is_sent_again(desk: Desk, lost: Answer, times: int) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = losing(desk.speech, taken=False, lost=lost, times=times)
    desk.run().submit([recording], LONG_AGO)
    assert len(desk.speech.jobs) == 1
    assert desk.event(recording)["transcript_id"] == "t-1"


def test_a_service_that_answers_no_submission_ends_the_run(desk: Desk) -> None:
    desk.speech.refuse = lambda request: LOST if (request.method, request.path) == SUBMISSION else None
    with pytest.raises(ServiceUnavailable, match="1 submissions were sent 3 times and not answered"):
        desk.run().submit([desk.s3.put("calls/a.mp3")], LONG_AGO)


@pytest.mark.parametrize("clock", [-60, 0, 60, 3600], ids=["behind", "right", "ahead", "far ahead"])
def test_a_job_whose_id_could_not_be_written_is_found_and_not_paid_for_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, clock: int
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.clock = dt.timedelta(seconds=clock)
    run = desk.run()
    write = run.ledger.write

    def killed(events: Iterable[Event]) -> None:
        kept = list(events)
        if any(event["event"] == "submitted" for event in kept):
            raise KeyboardInterrupt
        write(kept)

    monkeypatch.setattr(run.ledger, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        run.submit([recording], LONG_AGO)
    again = desk.run("run-2")
    again.submit([recording], NEXT_RUN)
    assert again.collect([recording]) == 0
    assert len(desk.speech.jobs) == 1
    assert desk.event(recording)["event"] == "transcribed"


def test_a_job_whose_last_answer_was_lost_is_found_too(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    given_up = losing(desk.speech, taken=False, times=2)
    last = losing(desk.speech, taken=True)
    desk.speech.refuse = lambda request: given_up(request) or last(request)
    desk.run().submit([recording], LONG_AGO)
    assert desk.event(recording)["transcript_id"] == "t-1"
    assert len(desk.speech.jobs) == 1


def test_a_job_of_long_before_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.clock = dt.timedelta(hours=-1)
    service = AssemblyAI(KEY, desk.speech.web.url)
    url = desk.s3.client.generate_presigned_url("get_object", Params={"Bucket": recording.bucket, "Key": recording.key})
    service.submit(url, {})
    desk.speech.clock = dt.timedelta(0)
    desk.speech.refuse = losing(desk.speech, taken=False)
    desk.run().submit([recording], LONG_AGO)
    assert desk.event(recording)["transcript_id"] == "t-2"


def test_a_job_that_failed_before_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status = "error"
    run = desk.run()
    run.submit([recording], LONG_AGO)
    run.collect([recording])
    desk.speech.refuse = losing(desk.speech, taken=False)
    desk.run("run-2").submit([recording], NEXT_RUN)
    assert desk.event(recording)["transcript_id"] == "t-2"


def test_a_known_job_of_the_same_recording_is_not_taken_for_a_lost_one(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.run().submit([recording], LONG_AGO)
    desk.speech.refuse = losing(desk.speech, taken=False)
    other = {"transcription": {"speech_models": ["universal-2"]}}
    desk.run("run-2", **other).submit([recording], NEXT_RUN)
    assert desk.event(recording, **other)["transcript_id"] == "t-2"


@pytest.mark.parametrize("path", ["/v2/transcript/t-1", "/v2/transcript/t-1/vtt"])
def test_a_finished_job_that_cannot_be_fetched_is_fetched_by_the_next_run(desk: Desk, path: str) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.run().submit(recordings, LONG_AGO)
    desk.speech.refuse = refusing(path, answer({"error": "Forbidden"}, 403))
    assert desk.run().collect(recordings) == 0
    assert desk.event(recordings[0])["failure_class"] == "request_refused"
    assert desk.event(recordings[1])["event"] == "transcribed"
    desk.speech.refuse = lambda request: None
    again = desk.run("run-2")
    again.submit(recordings, NEXT_RUN)
    assert again.collect(recordings) == 0
    assert desk.event(recordings[0])["event"] == "transcribed"
    assert len(desk.speech.jobs) == 2


def test_a_running_job_that_may_not_be_looked_up_is_not_paid_for_again(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status = "processing"
    desk.run().submit([recording], LONG_AGO)
    desk.speech.refuse = refusing("/v2/transcript/t-1", answer({"error": "Forbidden"}, 403))
    with pytest.raises(ServiceUnavailable):
        desk.run().collect([recording])
    desk.speech.refuse = lambda request: None
    desk.run("run-2").submit([recording], NEXT_RUN)
    assert len(desk.speech.jobs) == 1


# Failing


def test_a_recording_that_is_refused_stops_no_other(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = lambda request: REFUSED if request.json["audio_url"].split("?")[0].endswith("a.mp3") else None
    desk.run().submit(recordings, LONG_AGO)
    failure = desk.event(recordings[0])
    assert (failure["event"], failure["failure_class"], failure["permanent"]) == ("failed", "request_refused", False)
    assert desk.event(recordings[1])["event"] == "submitted"
    assert "calls/a.mp3: The speech service answered 400" in caplog.text


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (answer({"error": "Authentication error, API token missing/invalid"}, 401), "does not take the key"),
        (answer({"error": "speech model universal-3-pro is retired"}, 400), r"transcription\.speech_models"),
    ],
)
def test_what_concerns_the_account_stops_at_once(desk: Desk, refusal: Answer, words: str) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.refuse = lambda request: refusal
    with pytest.raises(AccountError, match=words):
        desk.run().submit(recordings, LONG_AGO)
    assert len(desk.speech.web.requests) == 1


@pytest.mark.parametrize(
    ("error", "failure_class", "tried_again"),
    [
        ("Download error, unable to download https://b/a.mp3?X-Amz-Signature=abc", "download_refused", True),
        ("Something new.", "provider_error", True),
        ("Transcoding failed. File type application/json", "bad_audio", False),
        ("Audio duration is too short.", "too_short", False),
    ],
)
def test_a_failed_job_is_submitted_again_only_where_that_may_help(
    desk: Desk, error: str, failure_class: str, tried_again: bool
) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": error}
    run = desk.run()
    run.submit([recording], LONG_AGO)
    assert run.collect([recording]) == 0
    run.submit([recording], LONG_AGO)
    assert len(desk.speech.submitted) == 1, "in the same pass over the day it is settled"
    event = desk.event(recording)
    assert (event["failure_class"], event["transcript_id"]) == (failure_class, "t-1")
    assert "Signature" not in event["failure_message"]
    desk.run("run-2").submit([recording], NEXT_RUN)
    assert len(desk.speech.submitted) == (2 if tried_again else 1)


def test_a_job_that_failed_on_the_providers_side_is_submitted_once_more_in_the_same_pass(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.status, desk.speech.ending = "error", {"error": "Server error, developers have been alerted."}
    run = desk.run()
    run.submit([recording], LONG_AGO)
    assert run.collect([recording]) == 1, "there is something left to do"
    run.submit([recording], LONG_AGO)
    assert run.collect([recording]) == 0
    run.submit([recording], LONG_AGO)
    assert len(desk.speech.submitted) == 2
    assert desk.event(recording)["failure_class"] == "provider_error"


def test_no_signature_is_kept_with_the_transcript(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    run = desk.run()
    run.submit([recording], LONG_AGO)
    run.collect([recording])
    uri = desk.event(recording)["transcript_uri"]
    kept = run.state.get(uri.removeprefix(run.state.uri))
    assert kept is not None
    assert b"calls/a.mp3" in kept
    assert b"Signature" not in kept


def test_a_job_that_the_service_does_not_know_any_more_hides_no_other(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.run().submit(recordings, LONG_AGO)
    del desk.speech.jobs["t-1"]
    assert desk.run().collect(recordings) == 0
    assert "transcript id not found" in desk.event(recordings[0])["failure_message"]
    assert desk.event(recordings[1])["event"] == "transcribed"


def test_what_was_collected_before_the_service_went_away_is_kept(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.run().submit(recordings, LONG_AGO)
    vtt = [f"/v2/transcript/{one}/vtt" for one in desk.speech.jobs]
    gone = answer({}, 503)
    # Whichever job comes second: once the captions of one were asked for, those of the other are not there.
    desk.speech.refuse = lambda request: (
        gone if request.path in vtt and {one.path for one in desk.speech.web.requests} >= set(vtt) else None
    )
    with pytest.raises(ServiceUnavailable):
        desk.run().collect(recordings)
    assert sorted(desk.event(recording)["event"] for recording in recordings) == ["submitted", "transcribed"]


# Collecting


def test_jobs_under_way_are_waited_for(desk: Desk) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    desk.speech.status = "processing"
    run = desk.run()
    run.submit(recordings, LONG_AGO)
    assert run.collect(recordings) == 2
    assert run.under_way(recordings) == {"t-1": recordings[0], "t-2": recordings[1]}
    desk.speech.status = "completed"
    assert run.collect(recordings) == 0
    assert run.under_way(recordings) == {}


def test_nothing_under_way_is_no_request(desk: Desk) -> None:
    assert desk.run().collect([desk.s3.put("calls/a.mp3")]) == 0
    assert desk.speech.web.requests == []


def test_a_transcript_is_saved_with_what_it_took(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    run = desk.run()
    run.submit([recording], LONG_AGO)
    run.collect([recording])
    event = desk.event(recording)
    assert event["status"] == "completed"
    assert (event["audio_s"], event["language"], event["speech_model"]) == (6.0, "en", "universal-3-5-pro")
    assert event["speech_usd"] == pytest.approx(6 / 3600 * 0.23)
    saved = json.loads(desk.s3.bytes_of(event["transcript_uri"].removeprefix(f"s3://{desk.s3.warehouse}/")))
    assert saved["id"] == event["transcript_id"]
    cues = load_cues(desk.s3.state, event)
    assert [(cue.start_s, cue.speaker, cue.text) for cue in cues] == [
        (0.5, "A", "Thank you for calling."),
        (2.5, "B", "My invoice is wrong."),
    ]


@pytest.mark.parametrize("text", ["", None, "  \n"])
def test_of_silence_no_captions_are_asked_for(desk: Desk, text: str | None) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.ending = {"text": text, "words": [], "audio_duration": 8}
    run = desk.run()
    run.submit([recording], LONG_AGO)
    run.collect([recording])
    assert desk.event(recording)["status"] == "no_speech"
    assert desk.event(recording)["audio_s"] == 8.0
    assert not [request for request in desk.speech.web.requests if request.path.endswith("/vtt")]


def test_a_transcript_that_is_gone_from_the_state_area_says_what_to_do(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    run = desk.run()
    run.submit([recording], LONG_AGO)
    run.collect([recording])
    for key in desk.s3.keys("state/transcripts/"):
        desk.s3.client.delete_object(Bucket=desk.s3.warehouse, Key=key)
    with pytest.raises(TranscriptGone, match=r"not there any more.*below output\.state"):
        load_cues(desk.s3.state, desk.event(recording))


def test_captions_that_are_none_are_the_providers_error(desk: Desk) -> None:
    recording = desk.s3.put("calls/a.mp3")
    desk.speech.refuse = refusing("/v2/transcript/t-1/vtt", text_answer("<html>"))
    run = desk.run()
    run.submit([recording], LONG_AGO)
    run.collect([recording])
    with pytest.raises(ProviderError, match="not WebVTT"):
        load_cues(desk.s3.state, desk.event(recording))


def test_nothing_secret_and_nothing_said_is_logged(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    recordings = [desk.s3.put(f"calls/{name}.mp3") for name in "ab"]
    with caplog.at_level(logging.DEBUG, logger="callphases"):
        run = desk.run()
        run.submit(recordings, LONG_AGO)
        run.collect(recordings)
    assert "calls/a.mp3: 6 s of audio transcribed (completed)" in caplog.text
    for secret in (KEY, "Signature", "invoice"):
        assert secret not in caplog.text
