"""Changed speech models: what was transcribed is kept, unless the pipeline file says ``upgrade``."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from callphases.day_run import DayRun
from callphases.pipeline import DEFAULT_SPEECH_MODELS
from callphases.recordings import Recording
from callphases.replay import Replay
from callphases.segmentation.gateway import Gateway
from callphases.state.events import Intended, Submitted, parse, serialize
from callphases.state.keys import transcript_key
from callphases.tables.publishing import Published
from callphases.tables.reading import read_rows
from callphases.transcription.assemblyai import AssemblyAI
from callphases.transcription.delivery import TRIES_AT_PROVIDER
from doubles import DAY, KEY, Speech, Store, Web, answer, merged, phases_answer

pytestmark = pytest.mark.integration

GOOD = phases_answer(("Introduction", 1), ("Complaint", 2))
NO_QUESTION = answer({"error": {"code": 400, "message": "messages: at least one message is required"}}, 400)
FORMER = {"speech_models": ["universal-3-5-pro", "universal-2"], "speaker_labels": True}
"""What earlier versions asked for by default."""


class Runner:
    """Runs a day with one set of options of the transcription after the other."""

    def __init__(self, s3: Store, speech: Speech, models: Web) -> None:
        self.s3, self.speech, self.runs = s3, speech, 0
        models.respond = lambda request: GOOD if request.json["messages"] else NO_QUESTION
        self.models = models

    def put(self, name: str = "a", body: bytes = b"RIFF") -> Recording:
        return self.s3.put(f"calls/{DAY}/{name}.mp3", body)

    def day_run(self, options: dict[str, Any] | None = None, **settings: Any) -> DayRun:
        if options is not None:
            settings["transcription"] = options
        pipeline = self.s3.pipeline(**merged({"limits": {"ramp": False}}, settings))
        return DayRun(pipeline, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))

    def run(self, options: dict[str, Any] | None = None, replay: str | None = None, **settings: Any) -> Published:
        self.runs += 1
        day_run = self.day_run(options, **settings)
        listed = day_run.begin(DAY, f"run-{self.runs}", Replay.of(replay))
        for uri in listed.chunks:
            assert day_run.transcribe(day_run.load(uri), math.inf) is None
            day_run.segment(day_run.load(uri))
        return day_run.end(day_run.load_day(listed.day))

    def run_of_an_earlier_version(self, options: dict[str, Any] = FORMER) -> None:
        """Run the day, and let its ledger be as earlier versions wrote it: intents name neither bytes nor options."""
        self.run(options)
        for name in list(self.s3.state.names("ledger/")):
            if name.endswith(".jsonl"):
                events = parse(self.s3.state.get(name))
                plain = [
                    replace(one, version=None, options=None) if isinstance(one, Intended) else one for one in events
                ]
                self.s3.state.put(name, serialize(plain), "application/x-ndjson")

    @property
    def row(self) -> dict[str, Any]:
        (row,) = read_rows(self.s3.tables, "calls", DAY)
        return row

    @property
    def status(self) -> str:
        return self.row["failure_class"] or self.row["status"]

    @property
    def sent(self) -> list[list[str]]:
        """The models of each submission."""
        return [document.get("speech_models", document.get("speech_model")) for document in self.speech.submitted]

    @property
    def questions(self) -> int:
        return sum(bool(request.json["messages"]) for request in self.models.requests)


@pytest.fixture
def runner(s3: Store, speech: Speech, models: Web) -> Runner:
    return Runner(s3, speech, models)


def models(*names: str, **options: Any) -> dict[str, Any]:
    return {"speech_models": list(names), "speaker_labels": True, **options}


CHANGES: list[tuple[dict[str, Any], dict[str, Any] | None]] = [
    (FORMER, None),
    (models("universal-3-pro"), models("assemblyai-stt-3-7", "universal-2")),
    (models("universal-2"), models("assemblyai-stt-3-7")),
    (models("universal-3-5-pro"), {"speech_model": "universal-2", "speaker_labels": True}),
    ({"speech_model": "best", "speaker_labels": True}, models("assemblyai-stt-3-7")),
    ({"speaker_labels": True}, models("assemblyai-stt-3-7")),
    (models(), models("assemblyai-stt-3-7")),
    (models("universal-3-5-pro"), {"speaker_labels": True}),
    (models("of-our-own"), models("of-our-own-2")),
    (models("universal-3-5-pro", "of-our-own"), models("of-our-own", "universal-2")),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
@pytest.mark.parametrize("version", ["this", "an earlier"])
def test_transcript_is_kept_when_only_the_models_change(
    runner: Runner, before: dict[str, Any], after: dict[str, Any] | None, version: str
) -> None:
    runner.put()
    if version == "this":
        runner.run(before)
    else:
        runner.run_of_an_earlier_version(before)
    row = runner.row
    published = runner.run(after)
    assert (len(runner.sent), runner.questions) == (1, 1)
    assert (published.listed, published.unfinished, published.run_speech_usd) == (1, 0, 0)
    assert runner.row == row
    assert runner.row["status"] == "completed"


@pytest.mark.parametrize("version", ["this", "an earlier"])
def test_changed_option_transcribes_again_whatever_the_models(runner: Runner, version: str) -> None:
    runner.put()
    (runner.run if version == "this" else runner.run_of_an_earlier_version)(FORMER)
    changed = models("assemblyai-stt-3-7", language_code="de")
    runner.run(changed)
    runner.run(changed)
    assert runner.sent == [FORMER["speech_models"], ["assemblyai-stt-3-7"]]


def test_replaced_recording_is_transcribed_again(runner: Runner) -> None:
    runner.put()
    runner.run(FORMER)
    runner.put(body=b"RIFF, and more")
    runner.run()
    assert len(runner.sent) == 2


@pytest.mark.parametrize("version", ["this", "an earlier"])
def test_upgrade_transcribes_again_exactly_once(runner: Runner, version: str) -> None:
    runner.put()
    (runner.run if version == "this" else runner.run_of_an_earlier_version)(FORMER)
    after = models("assemblyai-stt-3-7", "universal-2")
    for options in (after, {**after, "upgrade": True}, {**after, "upgrade": True}, after, {**after, "upgrade": False}):
        assert runner.run(options).unfinished == 0
    assert runner.sent == [FORMER["speech_models"], after["speech_models"]]
    assert runner.row["transcript_id"] == "t-2"
    assert not any("upgrade" in document for document in runner.speech.submitted)


def test_upgrade_pays_nothing_where_the_models_are_the_same(runner: Runner) -> None:
    runner.put()
    runner.run(FORMER)
    runner.run({**FORMER, "upgrade": True})
    assert len(runner.sent) == 1


def test_models_of_before_find_their_transcript_again(runner: Runner) -> None:
    runner.put()
    after = models("assemblyai-stt-3-7", upgrade=True)
    for options in (FORMER, after, {**FORMER, "upgrade": True}, after):
        runner.run(options)
    assert len(runner.sent) == 2
    assert runner.row["transcript_id"] == "t-2"


@pytest.mark.parametrize(
    "error", ["Server error, developers have been alerted.", "File does not appear to contain audio."]
)
def test_failed_upgrade_keeps_the_transcript(runner: Runner, error: str) -> None:
    runner.put()
    runner.run(FORMER)
    row = runner.row
    runner.speech.endings = {f"t-{number}": {"status": "error", "error": error} for number in range(2, 99)}
    assert runner.run(models("assemblyai-stt-3-7", upgrade=True)).unfinished == 0
    assert runner.row == row
    assert len(runner.sent) >= 2


def test_upgrade_over_the_budget_keeps_the_transcript(runner: Runner) -> None:
    runner.put()
    runner.run(FORMER)
    row = runner.row
    runner.run(models("assemblyai-stt-3-7", upgrade=True), budget={"usd_per_run": 1e-9})
    assert runner.row == row
    assert len(runner.sent) == 1


# Recordings that have no transcript


@pytest.mark.parametrize(
    ("error", "submissions"),
    [("Server error, developers have been alerted.", TRIES_AT_PROVIDER + 1), ("Download error, 403", None)],
)
def test_failed_recording_is_tried_with_the_new_models(runner: Runner, error: str, submissions: int | None) -> None:
    runner.put()
    runner.speech.ending = {"status": "error", "error": error}
    runner.run_of_an_earlier_version()
    before = len(runner.sent)
    runner.speech.ending = {}
    assert runner.run().statuses == {"completed": 1}
    assert runner.sent[before:] == [DEFAULT_SPEECH_MODELS]
    assert submissions in (None, len(runner.sent))


def test_recording_without_audio_is_not_tried_with_other_models_unless_replayed(runner: Runner) -> None:
    runner.put()
    runner.speech.ending = {"status": "error", "error": "File does not appear to contain audio."}
    runner.run_of_an_earlier_version()
    row = runner.row
    assert runner.run().failures == {"bad_audio": 1}
    assert (len(runner.sent), runner.row) == (1, row)
    runner.speech.ending = {}
    assert runner.run(replay="bad_audio").statuses == {"completed": 1}
    assert runner.sent[1:] == [DEFAULT_SPEECH_MODELS]


def test_row_of_a_failure_stays_until_it_is_tried_again(runner: Runner) -> None:
    runner.put()
    runner.speech.ending = {"status": "error", "error": "Server error, developers have been alerted."}
    runner.run_of_an_earlier_version()
    row = runner.row
    assert runner.run(replay="auth").unfinished == 0
    assert runner.row == row


# Jobs under way when the models are changed


@pytest.mark.parametrize("has_id", [True, False])
def test_job_under_way_is_collected_and_not_paid_again(runner: Runner, has_id: bool) -> None:
    recording = runner.put()
    url = str(runner.s3.client.generate_presigned_url("get_object", {"Bucket": recording.bucket, "Key": recording.key}))
    key = transcript_key(recording, FORMER)
    runner.s3.knows(Intended(key=key, recording=recording.key, audio_url=url.partition("?")[0]))
    job = runner.speech.take({"audio_url": url, **FORMER})["id"]
    if has_id:
        runner.s3.knows(Submitted(key=key, recording=recording.key, transcript_id=job))
    assert runner.run().statuses == {"completed": 1}
    assert (runner.sent, runner.row["transcript_id"]) == ([], job)
    runner.run(models("assemblyai-stt-3-7"))
    assert runner.sent == []


def test_intent_without_a_job_is_sent_with_the_new_models_under_their_key(runner: Runner) -> None:
    recording = runner.put()
    url = f"{runner.s3.url}/{recording.bucket}/{recording.key}"
    runner.s3.knows(Intended(key=transcript_key(recording, FORMER), recording=recording.key, audio_url=url))
    assert runner.run().statuses == {"completed": 1}
    runner.run({**runner.day_run().pipeline.speech_options, "upgrade": True})
    assert runner.sent == [DEFAULT_SPEECH_MODELS], "an upgrade finds what these models have transcribed"


def test_job_under_way_that_fails_is_sent_with_the_new_models_in_the_same_run(runner: Runner) -> None:
    recording = runner.put()
    url = str(runner.s3.client.generate_presigned_url("get_object", {"Bucket": recording.bucket, "Key": recording.key}))
    job = runner.speech.take({"audio_url": url, **FORMER})["id"]
    runner.speech.endings[job] = {"status": "error", "error": "speech model universal-3-5-pro is no longer supported"}
    key = transcript_key(recording, FORMER)
    runner.s3.knows(Submitted(key=key, recording=recording.key, transcript_id=job, model="universal-3-5-pro"))
    assert runner.run().statuses == {"completed": 1}
    assert runner.sent == [DEFAULT_SPEECH_MODELS]
