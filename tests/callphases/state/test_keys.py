"""Keys of ledger events: what they depend on, and that they stay those of the previous version."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callphases.speech_models import KNOWN_SPEECH_MODELS
from callphases.state.events import Intended
from callphases.state.keys import (
    RecordingKeys,
    answer_key,
    deletion_key,
    description_key,
    digest,
    stop_key,
    transcript_key,
)
from doubles import pipeline, recording

OPTIONS = {"speech_models": ["universal-3-pro"], "speaker_labels": True}
COLUMNS = {"agent": {"metadata": "Agent"}, "also": {"metadata": "AGENT"}, "crm_id": {"tag": "crm"}}


def keys(**changes: Any) -> RecordingKeys:
    """The keys of a pipeline that names everything that they depend on."""
    settings: dict[str, Any] = {
        "transcription": {"speech_models": ["universal-2"], "speaker_labels": True},
        "segmentation": {"models": ["claude-sonnet-4-6"]},
        "phases": [{"name": "Greeting", "description": "Hello."}, {"name": "Reason", "description": "The need."}],
    }
    return RecordingKeys(pipeline(**{**settings, **changes}))


def test_transcript_key_is_the_same_in_every_run() -> None:
    again = recording(size=2, call_time=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    reordered = dict(reversed(OPTIONS.items()))
    assert transcript_key(recording(), OPTIONS) == transcript_key(again, reordered)


@pytest.mark.parametrize("changes", [{"bucket": "other"}, {"key": "other"}, {"etag": "other"}])
def test_another_recording_has_another_key(changes: dict[str, Any]) -> None:
    assert transcript_key(recording(**changes), OPTIONS) != transcript_key(recording(), OPTIONS)


def test_other_options_have_another_key() -> None:
    assert transcript_key(recording(), OPTIONS | {"speaker_labels": False}) != transcript_key(recording(), OPTIONS)


def test_answer_key_depends_on_transcript_and_question() -> None:
    assert answer_key("t", {"a": 1, "b": 2}) == answer_key("t", {"b": 2, "a": 1})
    assert len({answer_key("t", {"a": 1}), answer_key("t", {"a": 2}), answer_key("u", {"a": 1})}) == 3


def test_keys_of_the_previous_version_are_unchanged() -> None:
    """Buckets hold events under these keys; other values would pay for everything again."""
    assert digest("é", "b", {"b": 1, "a": None}) == "bb7203007a93f6416fd6c94732b04f53"
    assert transcript_key(recording(), OPTIONS) == "4a49bdde1dd45bf2aeba03262ed4402e"
    assert answer_key("t", {"a": 1, "b": 2}) == "16a05506dac7a596b088ae0777d16c7a"
    assert description_key(recording(), {"tags": ["team"]}) == "described/61d1f2be8d25ec4eb62b7d6d5a3d3b0a"
    assert (stop_key("k"), deletion_key("t-1")) == ("stopped/k", "deleted/t-1")


def test_key_in_the_ledger_fixture_of_the_previous_version_is_unchanged() -> None:
    call = recording(
        "support/2024/05/13/090000-3-answered.mp3",
        bucket="previous-recordings",
        etag="351e902f070720c91642ded787ae7ae7",
    )
    options = {"speech_models": ["universal-3-5-pro", "universal-2"], "speaker_labels": True}
    assert transcript_key(call, options) == "d914b086c866a711f22e43020134b14c"


def test_recording_keys_of_the_previous_version_are_unchanged() -> None:
    ours = keys(recordings={"columns": COLUMNS})
    transcript = ours.transcript(recording())
    assert transcript == "226f0f4ccfbb7bd59946cd9e79af933c"
    assert ours.answer(transcript) == "4db90af3d9590900b7a8bcc96ba80a75"
    assert ours.description(recording()) == "described/001dce96bde0790cc2d0885a39cb6f2f"


def test_changed_phases_or_models_change_the_answer_key_only() -> None:
    renamed = keys(
        phases=[{"name": "Opening", "description": "Hello."}, {"name": "Reason", "description": "The need."}]
    )
    other_model = keys(segmentation={"models": ["claude-haiku-4-5-20251001"]})
    assert {each.transcript(recording()) for each in (keys(), renamed, other_model)} == {keys().transcript(recording())}
    assert len({each.answer("t") for each in (keys(), renamed, other_model)}) == 3


def test_changed_column_changes_the_description_key_only() -> None:
    before, after = (keys(recordings={"columns": {"id": {"tag": name}}}) for name in ("crm", "customer"))
    assert before.description(recording()) != after.description(recording())
    assert before.transcript(recording()) == after.transcript(recording())


def test_pipeline_without_own_columns_has_no_description_key() -> None:
    assert keys().description(recording()) is None


def test_metadata_names_are_wanted_once_in_lower_case() -> None:
    wanted = keys(recordings={"columns": COLUMNS}).wanted_descriptions
    assert wanted == {"metadata": ["agent"], "tags": ["crm"]}


# The same recording with other speech models

NAMES = st.lists(st.sampled_from(KNOWN_SPEECH_MODELS), max_size=3, unique=True)
CHOICES = st.one_of(
    st.just({}),
    NAMES.map(lambda names: {"speech_models": names}),
    st.sampled_from(KNOWN_SPEECH_MODELS).map(lambda name: {"speech_model": name}),
)
OTHERS = st.dictionaries(
    st.sampled_from(["speaker_labels", "language_code", "keyterms_prompt", "prompt"]),
    st.one_of(st.booleans(), st.text(), st.lists(st.text(), max_size=3)),
)


def intent(options: dict[str, Any], **changes: Any) -> Intended:
    """As this version writes it."""
    one, ours = recording(**changes), keys(transcription=options)
    return Intended(key=ours.transcript(one), recording=one.key, **ours.intended(one))


def older(options: dict[str, Any], **changes: Any) -> Intended:
    """As earlier versions wrote it."""
    one = recording(**changes)
    return Intended(key=transcript_key(one, options), recording=one.key)


@pytest.mark.parametrize("written", [intent, older])
@given(before=CHOICES, after=CHOICES, others=OTHERS)
def test_key_that_differs_in_models_only_is_found(
    written: Callable[..., Intended], before: dict[str, Any], after: dict[str, Any], others: dict[str, Any]
) -> None:
    event, ours = written(others | before), keys(transcription=others | after)
    is_same = event.key == ours.transcript(recording())
    assert ours.of_other_models(recording(), [event]) - {event.key} == set()
    assert is_same or ours.of_other_models(recording(), [event]) == {event.key}


@pytest.mark.parametrize("written", [intent, older])
@pytest.mark.parametrize("changes", [{"etag": "other"}, {"bucket": "other"}])
def test_key_of_other_bytes_is_none_of_other_models(written: Callable[..., Intended], changes: dict[str, Any]) -> None:
    event = written({"speech_models": ["best"], "speaker_labels": True}, **changes)
    assert keys().of_other_models(recording(), [event]) == set()


@pytest.mark.parametrize("written", [intent, older])
@pytest.mark.parametrize("options", [{}, {"speaker_labels": False}, {"speaker_labels": True, "punctuate": True}])
def test_key_of_other_options_is_none_of_other_models(
    written: Callable[..., Intended], options: dict[str, Any]
) -> None:
    event = written({"speech_models": ["best"], **options})
    assert keys().of_other_models(recording(), [event]) == set()


def test_intent_names_changed_options_and_holds_no_value() -> None:
    secret = {"webhook_auth_header_value": "hunter2hunter2", "speech_models": ["best"]}
    event = intent({**secret, "speaker_labels": True})
    assert keys(transcription={"speaker_labels": True}).changed_options(event) == ["webhook_auth_header_value"]
    assert keys(transcription={**secret, "punctuate": True}).changed_options(event) == ["punctuate", "speaker_labels"]
    assert keys(transcription={**secret, "speaker_labels": True, "upgrade": True}).changed_options(event) == []
    assert "hunter2" not in repr(event)


def test_upgrade_is_no_option_of_the_transcription() -> None:
    options = {"speech_models": ["universal-2"], "speaker_labels": True}
    upgrading = keys(transcription={**options, "upgrade": True})
    assert upgrading.transcript(recording()) == keys().transcript(recording())
    assert (upgrading.upgrades, keys().upgrades) == (True, False)
