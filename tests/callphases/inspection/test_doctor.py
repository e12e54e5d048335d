"""Findings of the doctor: good for a healthy pipeline, and a bad one with its remedy for each thing that can fail."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from email.utils import format_datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError

from callphases.errors import ConfigurationError
from callphases.inspection import doctor
from callphases.inspection.doctor import examine
from callphases.inspection.findings import Finding, Health
from callphases.inspection.published import schema_mistakes
from callphases.pipeline import Pipeline
from callphases.segmentation.gateway import Gateway, Settings
from callphases.state.events import Intended, Transcribed
from callphases.state.keys import RecordingKeys
from callphases.tables.schema import CALLS, PHASES, SCHEMA_VERSION, SCHEMAS, object_name, schema_of
from callphases.transcription.assemblyai import AssemblyAI
from doubles import DAY, KEY, Answer, Request, Speech, Store, Web, answer, pipeline, text_answer

pytestmark = pytest.mark.integration

Examine = Callable[..., dict[str, Finding]]
WORSE = [Health.GOOD, Health.UNSURE, Health.BAD]
TODAY = dt.datetime.now(dt.UTC).date()
OLD = PHASES.names[: PHASES.names.index("processed_at") + 1]


@pytest.fixture
def healthy(s3: Store, speech: Speech, models: Web) -> Store:
    """Everything that a pipeline needs."""
    models.respond = lambda request: answer({"error": "messages: expected one at least"}, 400)
    speech.refuse = nothing_to_transcribe
    s3.put(f"calls/{TODAY}/a.mp3", b"RIFF" * 100)
    for table in SCHEMAS:
        put(s3, table)
    return s3


def nothing_to_transcribe(request: Request) -> Any:
    if request.method == "POST" and request.path == "/v2/transcript" and "audio_url" not in request.json:
        return answer({"error": "audio_url is required"}, 400)
    return None


def put(s3: Store, table: str, schema: Any = None, day: dt.date = DAY, version: str = str(SCHEMA_VERSION)) -> None:
    schema = (schema if schema is not None else SCHEMAS[table]).with_metadata({"schema_version": version})
    body = io.BytesIO()
    pq.write_table(pa.Table.from_batches([], schema), body)
    s3.tables.put(object_name(table, day), body.getvalue())


@pytest.fixture
def look(healthy: Store, speech: Speech, models: Web) -> Examine:
    """Examines the pipeline; returns findings by subject, the worst if there are several."""

    def look(pipeline: Pipeline | None = None, **options: Any) -> dict[str, Finding]:
        services = AssemblyAI(KEY, speech.web.url), Gateway(KEY, models.url)
        found: dict[str, Finding] = {}
        ours = pipeline or healthy.pipeline()
        for finding in examine(ours, lambda: healthy.client, lambda: services, **options):
            assert KEY not in finding.detail
            assert "X-Amz-Signature" not in finding.detail
            was = found.get(finding.what)
            if was is None or WORSE.index(finding.health) > WORSE.index(was.health):
                found[finding.what] = finding
        return found

    return look


def bad(found: dict[str, Finding]) -> dict[str, str]:
    return {what: finding.detail for what, finding in found.items() if finding.health is Health.BAD}


def refuses(s3: Store, operation: str, code: str = "AccessDenied", status: int = 403) -> None:
    """Make the store refuse an operation."""

    def refuse(**_: object) -> None:
        details: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
        raise ClientError(details, operation)

    s3.client.meta.events.register(f"before-call.s3.{operation}", refuse)


def test_healthy_pipeline_has_no_bad_finding_and_no_side_effects(look: Examine, healthy: Store, speech: Speech) -> None:
    before = healthy.keys()
    found = look()
    assert bad(found) == {}
    assert [what for what, finding in found.items() if finding.health is Health.UNSURE] == [
        "speech models",
        "call times",
    ]
    tables, state = healthy.tables.uri, healthy.state.uri
    assert list(found) == [
        *("speech service", "speech models", "language models", "clock", f"s3://{healthy.recordings}/"),
        *("call times", "presigned URL", state, tables, "table calls", "table phases"),
    ]
    assert healthy.keys() == before
    assert speech.jobs == {}


# schedule and deadline


def test_days_that_no_run_takes_are_uncertain(look: Examine, healthy: Store) -> None:
    found = look(healthy.pipeline(schedule="0 3 * * MON-FRI"))["schedule"]
    assert found.health is Health.UNSURE
    assert "'0 3 * * MON-FRI' has none on the day after" in found.detail
    assert "8 of 28 days are left out" in found.detail
    assert "24 of 28 days are left out" in look(healthy.pipeline(schedule="@weekly"))["schedule"].detail


@pytest.mark.parametrize("schedule", ["@daily", "0 */6 * * *", "@hourly", "30 23 * * *", "0 0 * * 0-6", None])
def test_schedule_with_a_run_each_day_is_no_finding(look: Examine, healthy: Store, schedule: str | None) -> None:
    assert "schedule" not in look(healthy.pipeline(schedule=schedule))


@pytest.mark.parametrize(
    ("notify", "health", "detail"),
    [
        ("os.getcwd", Health.GOOD, "os.getcwd can be imported here."),
        ("os.path.nothing", Health.BAD, "There is no os.path.nothing"),
        ("os.sep", Health.BAD, "os.sep is no function."),
        ("my_company.alerts.page", Health.UNSURE, "can't be imported here (ModuleNotFoundError: No module named"),
    ],
)
def test_function_of_the_deadline_is_imported(
    look: Examine, healthy: Store, notify: str, health: Health, detail: str
) -> None:
    found = look(healthy.pipeline(deadline={"by": "06:00", "notify": notify}, notify={"failed_night": notify}))
    for what in ("deadline.notify", f"notify: {notify}"):
        assert (found[what].health, detail in found[what].detail) == (health, True), found[what].detail


# services


def test_wrong_speech_key_is_bad(look: Examine, speech: Speech) -> None:
    speech.refuse = lambda request: answer({"error": "Authentication error, API token missing/invalid"}, 401)
    assert "does not accept the key" in bad(look())["speech service"]


def test_unreachable_services_are_bad_without_retries(look: Examine, speech: Speech, models: Web) -> None:
    speech.web.url = models.url = "http://127.0.0.1:9"
    found = bad(look())
    assert "check the host of the assemblyai connection" in found["speech service"]
    assert "check llm_gateway_url" in found["language models"]


def test_retired_speech_model_is_bad(look: Examine, speech: Speech) -> None:
    gone = answer({"error": "The model assemblyai-stt-3-7 is no longer supported"}, 400)
    speech.refuse = lambda request: gone if request.method == "POST" else None
    assert "transcription.speech_models" in bad(look())["speech models"]


def test_language_models_that_are_not_served_are_named(look: Examine, models: Web, healthy: Store) -> None:
    gone, fine = answer({"error": "unknown model"}, 400), answer({"error": "no messages"}, 400)
    models.respond = lambda request: gone if request.body and request.json["model"] == "old" else fine
    pipeline = healthy.pipeline(segmentation={"models": ["old", "new"]})
    finding = look(pipeline)["language models"]
    assert finding.health is Health.UNSURE
    assert "does not serve old" in finding.detail
    pipeline = healthy.pipeline(segmentation={"models": ["old"]})
    assert "segmentation.models" in bad(look(pipeline))["language models"]


def lists(document: object, status: int = 200) -> Callable[[Request], Answer]:
    """A gateway that refuses no model, with this answer to the request for its list."""
    fine = answer({"error": "no messages"}, 400)
    return lambda request: answer(document, status) if request.path.endswith("/models") else fine


@pytest.mark.parametrize(
    ("document", "status", "health", "detail"),
    [
        ({"data": [{"id": "mine"}, {"id": "other"}]}, 200, Health.GOOD, "Its list of models has them"),
        ({"data": [{"id": "models/mine"}]}, 200, Health.GOOD, "has them"),
        ({"models": [{"name": "mine:latest"}]}, 200, Health.GOOD, "has them"),
        ([{"id": "mine"}], 200, Health.GOOD, "has them"),
        ({"data": [{"id": "mine-2"}, {"id": 5}, 5]}, 200, Health.UNSURE, "does not have mine (it has mine-2): check"),
        ({"data": [{"id": "x"}], "has_more": True}, 200, Health.UNSURE, ", as far as it was sent, does not have mine"),
        ({"error": "not found"}, 404, Health.GOOD, "It has no list of models to compare them with"),
        ({"data": []}, 200, Health.GOOD, "It has no list"),
        ("OK", 200, Health.GOOD, "It has no list"),
    ],
)
def test_language_models_are_compared_with_the_gateways_list(
    look: Examine, models: Web, healthy: Store, document: object, status: int, health: Health, detail: str
) -> None:
    models.respond = lists(document, status)
    finding = look(healthy.pipeline(segmentation={"models": ["mine"]}))["language models"]
    assert finding.health is health
    assert detail in finding.detail
    if health is Health.UNSURE:
        assert "segmentation.models" in finding.detail


@pytest.mark.parametrize("url", ["", "/v1", "/v1/chat/completions", "/v1/chat/completions?api-version=1"])
def test_list_of_models_is_beside_the_chat_completions(models: Web, url: str) -> None:
    models.respond = lists({"data": [{"id": "mine"}]})
    listed = Gateway(KEY, f"{models.url}{url}").models()
    assert listed is not None
    assert listed.has("mine")
    assert models.requests[-1].path == "/v1/models"


# Models of speech, prices, and what a changed setting costs


def test_speech_model_that_is_not_current_is_told_with_its_successor(look: Examine, healthy: Store) -> None:
    finding = look(healthy.pipeline(transcription={"speech_models": ["universal-3-5-pro"]}))["speech models"]
    assert finding.health is Health.UNSURE
    assert "deprecated and replaced by assemblyai-stt-3-7: name it in transcription.speech_models" in finding.detail


def test_model_without_a_price_is_told_under_a_budget_only(look: Examine, healthy: Store) -> None:
    settings = {"segmentation": {"models": ["tomorrow"]}}
    assert "prices" not in look(healthy.pipeline(**settings))
    finding = look(healthy.pipeline(**settings, budget={"usd_per_run": 5}))["prices"]
    assert finding.health is Health.UNSURE
    assert "prices.llm_usd_per_million" in finding.detail


def test_calls_that_a_changed_option_would_pay_for_again_are_counted(look: Examine, healthy: Store) -> None:
    ours = healthy.pipeline()
    keys = RecordingKeys(ours)
    one = healthy.put(f"calls/{DAY}/a.mp3")
    row = {
        "call_id": one.call_id,
        "recording_uri": one.uri,
        "recording_etag": one.etag,
        "recording_bytes": one.size,
        "call_started_at": one.call_time,
    }
    body = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist([row], schema=CALLS.with_metadata({"schema_version": str(SCHEMA_VERSION)})), body
    )
    healthy.tables.put(object_name("calls", DAY), body.getvalue())
    assert "published calls" not in look(), "no ledger, nothing that was paid for"
    key = keys.transcript(one)
    healthy.knows(
        Intended(key=key, recording=one.key, **keys.intended(one)),
        Transcribed(key=key, recording=one.key, status="no_speech", transcript_id="t-1"),
    )
    found = look()["published calls"]
    assert (found.health, f"Looked at 1 calls of {DAY}" in found.detail) == (Health.GOOD, True)
    found = look(healthy.pipeline(transcription={"punctuate": False}))["published calls"]
    assert found.health is Health.UNSURE
    assert "because transcription.punctuate and transcription.speaker_labels changed" in found.detail


def test_gateway_of_its_own_is_named_by_its_connection(healthy: Store, speech: Speech, models: Web) -> None:
    settings = Settings("the password of the connection 'x'", "the host of the connection 'x'")
    gateway = Gateway(KEY, models.url, bearer=True, settings=settings)
    pipeline = healthy.pipeline(connections={"gateway": "x"})

    def said() -> str:
        found = examine(pipeline, lambda: healthy.client, lambda: (AssemblyAI(KEY, speech.web.url), gateway))
        return next(finding.detail for finding in found if finding.what == "language models")

    models.respond = lambda request: answer({"error": "invalid key"}, 401)
    assert "set the password of the connection 'x'" in said()
    models.respond = lambda request: text_answer("<html>", kind="text/html")
    assert "check the host of the connection 'x'" in said()
    gateway.url = "http://127.0.0.1:9"
    assert "check the host of the connection 'x'" in said()


def test_missing_connection_of_the_gateway_is_bad(healthy: Store) -> None:
    def missing() -> Any:
        raise ConfigurationError("There is no connection 'x'.")

    pipeline = healthy.pipeline(connections={"gateway": "x"})
    found = list(examine(pipeline, lambda: healthy.client, missing))
    assert (found[0].what, found[0].health) == ("connection assemblyai or gateway", Health.BAD)


def test_gateway_that_refuses_the_key_is_bad(look: Examine, models: Web) -> None:
    models.respond = lambda request: answer({"error": "invalid key"}, 401)
    assert "does not accept the key" in bad(look())["language models"]


@pytest.mark.parametrize(
    "given",
    [
        text_answer("<html>Nothing here</html>", 404, "text/html"),
        text_answer("<html>Sign in</html>", 200, "text/html"),
        answer({}, 503),
        (401, {}, b""),
    ],
)
def test_response_unlike_a_gateways_is_unsure(look: Examine, models: Web, given: Answer) -> None:
    models.respond = lambda request: given
    finding = look()["language models"]
    assert finding.health is Health.UNSURE
    assert "not like a gateway that accepts the key" in finding.detail


def test_broken_connection_is_bad_and_the_other_checks_still_run(healthy: Store) -> None:
    def missing() -> Any:
        raise ConfigurationError("There is no connection 'assemblyai_default': add one.")

    def broken() -> Any:
        raise RuntimeError(f"the backend says {KEY}")

    found = {one.what: one for one in examine(healthy.pipeline(), lambda: healthy.client, missing)}
    assert "add one" in found["connection assemblyai"].detail
    assert found["clock"].health is Health.GOOD
    (_, last) = examine(healthy.pipeline(), broken, missing)
    assert (last.health, last.what) == (Health.BAD, "connection aws")
    assert "RuntimeError" in last.detail
    assert KEY not in last.detail


# the clock


@pytest.mark.parametrize(
    ("ahead_s", "health", "way"),
    [(30, "✓", "within"), (120, "–", "behind"), (-120, "–", "ahead of"), (600, "✗", "behind"), (-600, "✗", "ahead of")],
)
def test_clock_skew_is_measured_against_the_stores_clock(
    look: Examine, healthy: Store, ahead_s: int, health: str, way: str
) -> None:
    def later(parsed: dict[str, Any], **_: object) -> None:
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=ahead_s)
        parsed["ResponseMetadata"]["HTTPHeaders"]["date"] = format_datetime(moment)

    healthy.client.meta.events.register("after-call.s3.HeadBucket", later)
    finding = look()["clock"]
    assert finding.health.value == health
    assert way in finding.detail


# buckets and rights


def test_missing_buckets_are_bad_and_name_the_setting(look: Examine, healthy: Store) -> None:
    away = {"tables": "s3://nowhere-t/t/", "state": "s3://nowhere-s/s/"}
    found = bad(look(healthy.pipeline(recordings={"bucket": "nowhere-r"}, output=away)))
    assert "'nowhere-r': check recordings.bucket" in found["recordings"]
    assert "'nowhere-s': check output.state" in found["output.state"]
    assert "'nowhere-t': check output.tables" in found["tables"]


def test_unreadable_recordings_are_bad(look: Examine, healthy: Store) -> None:
    refuses(healthy, "GetObject")
    assert "s3:GetObject" in bad(look())[f"s3://{healthy.recordings}/"]


@pytest.mark.parametrize("prefix", ["other/{date:%Y-%m-%d}/", "other/"])
def test_bucket_without_recordings_is_unsure(look: Examine, healthy: Store, prefix: str) -> None:
    found = look(healthy.pipeline(recordings={"prefix": prefix}))
    assert bad(found) == {}
    assert "check recordings.prefix" in found[f"s3://{healthy.recordings}/"].detail
    assert found["presigned URL"].health is Health.UNSURE


def test_search_for_a_recording_is_limited_to_days_and_pages(
    look: Examine, healthy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy.client.delete_object(Bucket=healthy.recordings, Key=f"calls/{TODAY}/a.mp3")
    healthy.put(f"calls/{TODAY - dt.timedelta(days=2)}/empty.mp3", b"")
    healthy.put(f"calls/{TODAY - dt.timedelta(days=3)}/b.mp3")
    assert "b.mp3 can be read" in look()[f"s3://{healthy.recordings}/"].detail
    assert look(days=3)[f"s3://{healthy.recordings}/"].health is Health.UNSURE
    monkeypatch.setattr(doctor, "LIST_PAGES", 1)
    flat = healthy.pipeline(recordings={"prefix": "", "suffixes": [".wav"]})
    assert look(flat)[f"s3://{healthy.recordings}/"].health is Health.UNSURE


@pytest.mark.parametrize("prefix", ["calls/{date}/", "calls/{date:%Y-%m}", "calls/"])
def test_times_and_days_that_are_read_are_shown(look: Examine, healthy: Store, prefix: str) -> None:
    rule = {"key_pattern": r"calls/(?P<time>.{10})", "format": "%Y-%m-%d"}
    healthy.put(f"calls/{TODAY}/no recording")
    found = look(healthy.pipeline(recordings={"prefix": prefix, "call_time": rule}))["call times"]
    assert found.health is Health.GOOD
    assert found.detail == f"calls/{TODAY}/a.mp3: {TODAY} 00:00:00+00:00, day {TODAY}"


def test_few_times_from_elsewhere_are_read(look: Examine, healthy: Store) -> None:
    for number in range(doctor.FEW_OBJECTS * 2):
        healthy.put(f"calls/{TODAY}/b{number:03}.mp3")
    body = {"Bucket": healthy.recordings, "Body": b"RIFF", "Metadata": {"start": f"{TODAY}T08:30:00Z"}}
    healthy.client.put_object(Key=f"calls/{TODAY}/a.mp3", **body)
    healthy.asked.clear()
    rule = {"metadata": "start"}
    found = look(healthy.pipeline(recordings={"prefix": "calls/", "call_time": rule}))["call times"]
    assert (
        f"{doctor.FEW_OBJECTS - 1} recordings have no time where recordings.call_time says that it is" in found.detail
    )
    assert healthy.counted()["HeadObject"] <= doctor.FEW_OBJECTS


def test_keys_without_a_time_are_unsure(look: Examine, healthy: Store) -> None:
    rule = {"key_pattern": r"(?P<time>\d{8})", "format": "%Y%m%d"}
    found = look(healthy.pipeline(recordings={"call_time": rule}))["call times"]
    assert found.health is Health.UNSURE
    assert f"1 keys do not match recordings.call_time.key_pattern or its format: 'calls/{TODAY}/a.mp3'" in found.detail


def test_unwritable_state_area_is_bad(look: Examine, healthy: Store) -> None:
    refuses(healthy, "PutObject")
    found = bad(look())
    assert "check the AWS connection's key, region and rights, and output.state" in found["output.state"]


def test_state_area_without_the_right_to_delete_is_bad(look: Examine, healthy: Store) -> None:
    refuses(healthy, "DeleteObject")
    assert "AccessDenied" in bad(look())["output.state"]


@pytest.mark.parametrize("condition", ["If-Match", "If-None-Match"])
def test_store_that_ignores_conditional_writes_is_bad(look: Examine, healthy: Store, condition: str) -> None:
    def ignore(params: dict[str, Any], **_: object) -> None:
        params["headers"].pop(condition, None)

    healthy.client.meta.events.register("before-call.s3.PutObject", ignore)
    before = healthy.keys()
    found = look()
    assert "ignores conditional writes" in found[healthy.state.uri].detail
    assert found[healthy.state.uri].health is Health.BAD
    assert found[healthy.tables.uri].health is Health.UNSURE
    assert healthy.keys() == before


def test_unwritable_tables_are_bad(look: Examine, healthy: Store) -> None:
    def refuse(params: dict[str, Any], model: Any, **_: object) -> None:
        if "/tables/" in params["url_path"] or "/tables/" in params["url"]:
            details: Any = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
            raise ClientError(details, "PutObject")

    healthy.client.meta.events.register("before-call.s3.PutObject", refuse)
    found = bad(look())
    assert "output.tables" in found.pop("output.tables")
    assert found == {}


def test_probe_object_is_deleted_if_its_condition_was_ignored(look: Examine, healthy: Store) -> None:
    def ignore(params: dict[str, Any], **_: object) -> None:
        if "/tables/" in params["url"]:
            params["headers"].pop("If-Match", None)

    healthy.client.meta.events.register("before-call.s3.PutObject", ignore)
    before = healthy.keys()
    look()
    assert healthy.keys() == before
    removed = [key.rpartition("-")[0] for operation, key in healthy.asked if operation == "DeleteObject"]
    assert removed[1:] == ["tables/calls/.doctor", "tables/phases/.doctor"]


# presigned URLs


def test_internal_store_with_a_hosted_service_is_bad(look: Examine, speech: Speech) -> None:
    speech.web.url = speech.web.url.replace("127.0.0.1", "127.0.0.1.nip.example")
    detail = bad(look())["presigned URL"]
    assert "127.0.0.1 is an address of this network" in detail
    assert "recordings.send: upload" in detail


@pytest.mark.parametrize(
    ("host", "is_internal"),
    [
        *(("localhost", True), ("minio", True), ("10.1.2.3", True), ("192.168.0.1", True), ("::1", True)),
        *(("s3.storage.internal", True), ("minio.apps.svc", True), ("169.254.1.1", True)),
        *(("s3.eu-central-1.amazonaws.com", False), ("8.8.8.8", False), ("storage.example.com", False)),
    ],
)
def test_internal_hosts_are_recognized(host: str, is_internal: bool) -> None:
    assert doctor._is_internal(host) == is_internal


@pytest.mark.parametrize("url", ["refused", "nowhere"])
def test_presigned_url_that_can_not_be_fetched_is_bad(
    look: Examine, healthy: Store, web: Web, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    other = f"{healthy.url}/no-such-bucket/a?X-Amz-Signature=1" if url == "refused" else "http://127.0.0.1:9/a?sig"
    monkeypatch.setattr(healthy.client, "generate_presigned_url", lambda *_, **__: other)
    detail = bad(look())["presigned URL"]
    assert ("answers 404" if url == "refused" else "ConnectionError") in detail
    assert "recordings.send: upload" in detail


def test_presigned_url_of_temporary_credentials_is_mentioned(
    look: Examine, healthy: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = healthy.client.generate_presigned_url
    monkeypatch.setattr(
        healthy.client, "generate_presigned_url", lambda *a, **b: sign(*a, **b) + "&X-Amz-Security-Token=x"
    )
    assert "expires with the temporary credentials" in look()["presigned URL"].detail


def test_presigned_url_is_not_checked_with_send_upload(look: Examine, healthy: Store) -> None:
    assert "presigned URL" not in look(healthy.pipeline(recordings={"send": "upload"}))


# published days


def test_days_of_an_older_schema_version_are_good(look: Examine, healthy: Store) -> None:
    old = pa.schema([PHASES.field(name) for name in OLD])
    put(healthy, "phases", old, DAY - dt.timedelta(days=1), "1")
    finding = look()["table phases"]
    assert finding.health is Health.GOOD
    assert "The newest 2 of 2 days fit the schema (1 of version 1, 1 of version 3)." in finding.detail


def test_days_of_version_2_are_good(look: Examine, healthy: Store) -> None:
    for table, schema in {"calls": CALLS.remove(CALLS.get_field_index("warnings")), "phases": PHASES}.items():
        put(healthy, table, schema, version="2")
    found = look()
    for table in SCHEMAS:
        assert found[f"table {table}"].health is Health.GOOD
        assert "fit the schema (1 of version 2)" in found[f"table {table}"].detail


def test_object_with_a_wrong_schema_is_named_with_its_columns(look: Examine, healthy: Store) -> None:
    fields = [field if field.name != "start_s" else pa.field("start_s", pa.string()) for field in PHASES]
    put(healthy, "phases", pa.schema([*fields, pa.field("mood", pa.string())]))
    found = look()
    detail = bad(found)[healthy.tables.uri_of(object_name("phases", DAY))]
    assert "column start_s is string, expected double" in detail
    assert "there is no column mood in the table" in detail
    assert "table phases" not in found
    assert found["table calls"].health is Health.GOOD


@pytest.mark.parametrize("body", [b"", b"x", b"not Parquet at all", b"PAR1\xff\xff\xff\x7fPAR1"])
def test_object_that_is_not_parquet_is_named(look: Examine, healthy: Store, body: bytes) -> None:
    healthy.tables.put(object_name("calls", DAY), body)
    assert "no Parquet file" in bad(look())[healthy.tables.uri_of(object_name("calls", DAY))]


def test_days_of_a_newer_schema_version_ask_for_an_update(look: Examine, healthy: Store) -> None:
    put(healthy, "calls", pa.schema([*CALLS, pa.field("mood", pa.string())]), version="99")
    finding = look()["table calls"]
    assert finding.health is Health.UNSURE
    assert "Update it" in finding.detail


def test_only_the_newest_days_are_checked(look: Examine, healthy: Store) -> None:
    healthy.tables.put(object_name("calls", DAY - dt.timedelta(days=3)), b"not Parquet")
    assert bad(look(days=1)) == {}
    assert len(bad(look(days=2))) == 1


def test_only_the_footers_of_objects_are_read(look: Examine, healthy: Store) -> None:
    ranges: list[str] = []
    healthy.client.meta.events.register(
        "provide-client-params.s3.GetObject", lambda params, **_: ranges.append(params.get("Range", params["Key"]))
    )
    # A footer that is longer than the first read, after many rows.
    long = CALLS.with_metadata({"schema_version": "2", "note": "x" * 100_000})
    body = io.BytesIO()
    ids = [{"call_id": f"{number:0500}"} for number in range(1000)]
    pq.write_table(pa.Table.from_pylist(ids, schema=long), body, compression="none", use_dictionary=False)
    healthy.tables.put(object_name("calls", DAY), body.getvalue())
    assert look()["table calls"].health is Health.GOOD
    tails = [int(one.removeprefix("bytes=-")) for one in ranges if one.startswith("bytes=-")]
    assert len(tails) == 3
    assert max(tails) < len(body.getvalue()) / 2
    assert not any("dt=" in one for one in ranges)


def test_foreign_objects_are_named(look: Examine, healthy: Store) -> None:
    healthy.tables.put("notes.txt", b"")
    finding = look()[healthy.tables.uri]
    assert finding.health is Health.UNSURE, "readers of a table do not list it"
    assert "'notes.txt'" in finding.detail
    for number in range(12):
        healthy.tables.put(f"calls/dt=2026-11-20/copy-{number:02}.parquet", b"")
    detail = bad(look())[healthy.tables.uri]
    assert "'calls/dt=2026-11-20/copy-00.parquet'" in detail
    assert "and 3 more" in detail


def test_phases_of_a_day_without_calls_are_bad(look: Examine, healthy: Store) -> None:
    healthy.tables.delete(object_name("calls", DAY))
    found = look()
    assert "phases without calls, of 2026-11-20" in bad(found)[healthy.tables.uri]
    assert found["table calls"].health is Health.UNSURE


@pytest.mark.parametrize("table", SCHEMAS)
def test_schema_mistakes_depend_on_the_schema_version(table: str) -> None:
    ours = SCHEMAS[table]
    shorter = ours.remove(len(ours) - 1)
    assert schema_mistakes(SCHEMAS[table], ours, SCHEMA_VERSION) == []
    assert schema_mistakes(SCHEMAS[table], shorter, SCHEMA_VERSION - 1) == []
    assert schema_mistakes(SCHEMAS[table], shorter, SCHEMA_VERSION) == [f"it lacks {ours.names[-1]}"]
    assert schema_mistakes(SCHEMAS[table], ours.remove(0), SCHEMA_VERSION - 1) == ["it lacks call_id"]


@pytest.mark.parametrize("table", SCHEMAS)
def test_own_columns_may_be_added_and_removed(table: str) -> None:
    columns = {"agent": {"metadata": "agent"}, "crm_id": {"tag": "crm", "type": "int64"}}
    ours, before = schema_of(table, pipeline(recordings={"columns": columns})), schema_of(table, pipeline())
    assert schema_mistakes(ours, ours, SCHEMA_VERSION) == schema_mistakes(ours, before, SCHEMA_VERSION) == []
    assert schema_mistakes(before, ours, SCHEMA_VERSION) == []
    other = pa.schema([pa.field("crm_id", pa.string()) if one.name == "crm_id" else one for one in ours], ours.metadata)
    assert schema_mistakes(ours, other, SCHEMA_VERSION) == ["column crm_id is string, expected int64"]
    unlisted = pa.schema([*before, pa.field("mood", pa.string())])
    assert schema_mistakes(ours, unlisted, SCHEMA_VERSION) == ["there is no column mood in the table"]


def test_own_columns_are_checked_on_a_recording(look: Examine, healthy: Store) -> None:
    key = f"calls/{TODAY}/a.mp3"
    columns = {"agent": {"metadata": "agent"}, "crm_id": {"tag": "crm", "type": "int64"}}
    healthy.client.put_object(
        Bucket=healthy.recordings, Key=key, Body=b"RIFF", Metadata={"agent": "Ada"}, Tagging="crm=17"
    )
    ours = healthy.pipeline(recordings={"columns": columns})
    found = look(ours)["own columns"]
    assert (found.health, found.detail) == (Health.GOOD, f"{key} has agent, crm_id.")
    healthy.client.put_object(Bucket=healthy.recordings, Key=key, Body=b"RIFF", Metadata={"agent": "Ada"})
    found = look(ours)["own columns"]
    assert (found.health, found.detail) == (
        Health.UNSURE,
        f"{key} has agent, but no crm_id: check recordings.columns if it should.",
    )
    assert "own columns" not in look()
