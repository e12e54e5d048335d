"""A pipeline's own columns: from keys, metadata and tags, converted to their types, in both tables."""

from __future__ import annotations

import datetime as dt
import io
import json
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from callphases.day_run import DayRun
from callphases.errors import ConfigurationError, ServiceUnavailable
from callphases.pipeline import RESERVED_COLUMNS, Column, Pipeline
from callphases.progress import DayPass, Progress
from callphases.recordings import Recording
from callphases.segmentation.gateway import Gateway
from callphases.state.bucket import RecordingBucket
from callphases.state.keys import RecordingKeys
from callphases.state.ledger import LedgerView
from callphases.tables.columns import converted, describe, fields, look, values
from callphases.tables.publishing import Published
from callphases.tables.reading import read_rows
from callphases.tables.schema import CALLS, PHASES, SCHEMAS, object_name
from callphases.transcription.assemblyai import AssemblyAI
from doubles import DAY, KEY, LONG_AGO, Request, Speech, Store, Web, answer, merged, phases_answer, pipeline, recording

COLUMNS = {
    "agent": {"key_pattern": r"agent-(?P<agent>[^/_]+)"},
    "queue": {"metadata": "Queue"},
    "crm_id": {"tag": "crm", "type": "int64"},
}
PASS = DayPass(LONG_AGO)
BERLIN = ZoneInfo("Europe/Berlin")


def is_described(one: Recording, ours: Pipeline, view: LedgerView) -> bool:
    return Progress(one, RecordingKeys(ours), view).is_described


def column(type_: str = "string", **more: Any) -> Column:
    return Column.model_validate({"tag": "x", "type": type_, **more})


# --- from the key


def test_key_pattern_group_named_like_the_column_is_its_value() -> None:
    ours = pipeline(recordings={"columns": {"agent": {"key_pattern": r"(?P<queue>\w+)/agent-(?P<agent>\d+)"}}})
    assert values(recording("sales/agent-17/a.mp3"), ours, LedgerView()) == {"agent": "17"}
    assert values(recording("sales/a.mp3"), ours, LedgerView()) == {"agent": None}


def test_single_key_pattern_group_may_have_any_name() -> None:
    rule = {"key_pattern": r"(a|b)_(?P<call_id>\d+)\.", "type": "int64"}
    ours = pipeline(recordings={"columns": {"crm_call": rule}})
    assert values(recording("calls/a_0042.mp3"), ours, LedgerView()) == {"crm_call": 42}


def test_unmatched_optional_group_is_null() -> None:
    ours = pipeline(recordings={"columns": {"agent": {"key_pattern": r"calls/(?P<agent>\d+)?"}}})
    assert values(recording("calls/a.mp3"), ours, LedgerView()) == {"agent": None}


def test_pipeline_without_own_columns_has_no_values() -> None:
    assert values(recording(), pipeline(), LedgerView()) == {}
    assert is_described(recording(), pipeline(), LedgerView())


# --- types


@pytest.mark.parametrize(
    ("text", "type_", "value"),
    [
        (" 17 ", "int64", 17),
        ("17.5", "int64", None),
        (str(2**63), "int64", None),
        ("17.5", "double", 17.5),
        ("nan", "double", None),
        ("1e999", "double", None),
        ("Yes", "boolean", True),
        ("0", "boolean", False),
        ("perhaps", "boolean", None),
        (" as it is ", "string", " as it is "),
        ("2026-11-20T08:00:00Z", "timestamp", dt.datetime(2026, 11, 20, 8, tzinfo=dt.UTC)),
        ("2026-11-20 08:00", "timestamp", dt.datetime(2026, 11, 20, 7, tzinfo=dt.UTC)),  # in Berlin
        ("0001-01-01", "timestamp", None),  # earlier than any time in UTC
        ("soon", "timestamp", None),
        (None, "int64", None),
        ("-0042", "int64", -42),
        (str(-(2**63)), "int64", -(2**63)),
        ("-.5e1", "double", -5.0),
        ("007.50", "double", 7.5),
        ("1E+3", "double", 1000.0),
        ("20261120T080000Z", "timestamp", dt.datetime(2026, 11, 20, 8, tzinfo=dt.UTC)),
        ("20261120T0800+0200", "timestamp", dt.datetime(2026, 11, 20, 6, tzinfo=dt.UTC)),
        ("2026-11-20T08:00:00.25+02", "timestamp", dt.datetime(2026, 11, 20, 6, 0, 0, 250_000, tzinfo=dt.UTC)),
    ],
)
def test_text_is_converted_to_the_column_type(text: str | None, type_: str, value: object) -> None:
    assert converted(text, column(type_), BERLIN) == value


@pytest.mark.parametrize(
    ("type_", "texts"),
    [
        ("int64", "1_000 １２３ ٣ १२ +5 0x10 0b1 1e3 1,000 --5 - ²"),
        ("int64", ["", "5\n", "\t5", "\xa05", "\u20035", "1 000"]),
        ("double", "1_0.5 1_0 nan inf -Infinity +1.5 ٣.٥ １.５ 5. . 1e 0x1p3 1,5"),
        ("double", ["", "\x0b1", "1.5\n"]),
        ("boolean", "ｔｒｕｅ truе on y t yes! １ ٠ +1 01"),
        ("boolean", ["", "tr ue", "\u2003yes"]),
        (
            "timestamp",
            "2026-W47-5 2026W475 20261119 2026-324 2026-11 20261119101500 ２０２６-11-20 ٢٠٢٦-11-20 1782945000",
        ),
        (
            "timestamp",
            "2026-11-20T08 2026-11-20T0800 2026-11-20x08:00 2026-11-20T24:00:00 2026-11-20T08:00:60 2026-02-30",
        ),
        ("timestamp", "+002026-11-20 2026-11-20T08:00+25:00 2026-11-20T08:00:00+02:00:30 2026-11-20T08:00−01:00"),
        ("timestamp", ["", "2026-11-20 08:00 Z", "2026-11-20\u200308:00"]),
    ],
)
def test_other_ways_to_write_a_value_are_null(type_: str, texts: str | list[str]) -> None:
    for text in texts.split(" ") if isinstance(texts, str) else texts:
        assert converted(text, column(type_), BERLIN) is None, text


@pytest.mark.parametrize(
    ("text", "format", "is_read"),
    [
        ("２０２６1120", "%Y%m%d", False),
        ("2026112٠", "%Y%m%d", False),
        ("１７８２９４５０００", "epoch", False),
        ("2026年11月20日", "%Y年%m月%d日", True),
    ],
)
def test_digits_of_a_timestamp_with_a_format_are_those_of_ascii(text: str, format: str, is_read: bool) -> None:
    assert (converted(text, column("timestamp", format=format), dt.UTC) is not None) == is_read


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_integer_of_64_bits_is_an_int64(number: int) -> None:
    assert converted(str(number), column("int64"), BERLIN) == number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_any_number_of_json_is_a_double(number: float) -> None:
    assert converted(json.dumps(number), column("double"), BERLIN) == number


def test_timestamp_column_with_a_custom_format() -> None:
    moment = converted("20/11/26 23-30", column("timestamp", format="%d/%m/%y %H-%M"), dt.UTC)
    assert moment == dt.datetime(2026, 11, 20, 23, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "format", "utc"),
    [
        ("2026-07-01 22:30 UTC", "%Y-%m-%d %H:%M %Z", "2026-07-01T22:30+00:00"),
        ("2026-07-01 22:30", "%Y-%m-%d %H:%M", "2026-07-01T20:30+00:00"),
        ("1782945000", "epoch", "2026-07-01T22:30+00:00"),
        ("2026-07-01 22:30 CEST", "%Y-%m-%d %H:%M %Z", None),
        ("9999-12-31", None, "9999-12-30T23:00+00:00"),
        ("0001-01-01", None, None),
    ],
)
def test_timestamp_column_honors_the_zone_in_its_text(text: str, format: str | None, utc: str | None) -> None:
    read = converted(text, column("timestamp", format=format), BERLIN)
    assert read == (utc and dt.datetime.fromisoformat(utc))


@given(text=st.text(), type_=st.sampled_from(["string", "int64", "double", "boolean", "timestamp"]))
def test_any_text_converts_to_a_valid_arrow_value_or_null(text: str, type_: str) -> None:
    ours = pipeline(recordings={"columns": {"x": {"tag": "x", "type": type_}}})
    [field] = fields(ours)
    pa.array([converted(text, ours.recordings.columns["x"], BERLIN)], field.type)


# --- the pipeline file


def test_reserved_names_are_those_of_the_tables() -> None:
    internal = {"finished", "run_speech_usd", "run_llm_usd", "phases"}
    assert {*CALLS.names, *PHASES.names, "dt"} | internal == RESERVED_COLUMNS


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"status": {"tag": "x"}}, "the tables already have a column status"),
        ({"Agent": {"tag": "x"}}, "lower-case letters"),
        ({"agent": {}}, "expected one of key_pattern, metadata, tag, audio_tag, sidecar and inventory"),
        (
            {"agent": {"tag": "x", "metadata": "x"}},
            "expected one of key_pattern, metadata, tag, audio_tag, sidecar and inventory",
        ),
        ({"agent": {"sidecar": "{stem}.json"}}, "sidecar needs path"),
        ({"agent": {"tag": "x", "path": "$.x"}}, "path applies only to a sidecar"),
        ({"agent": {"sidecar": "{stem}.json", "path": "$..x"}}, "expected a path of names and indexes"),
        ({"agent": {"sidecar": "{day}.json", "path": "x"}}, "sidecar: expected only the placeholders"),
        ({"agent": {"inventory": "list.csv", "field": "x"}}, "expected s3://bucket/key"),
        ({"agent": {"inventory": "s3://b/list.csv"}}, "inventory needs field"),
        ({"agent": {"inventory": "s3://b/c", "field": "x", "id_field": "y"}}, "expected id_field and id_pattern"),
        (
            {"agent": {"inventory": "s3://b/c", "field": "x", "id_field": "y", "id_pattern": "z"}},
            r"id_pattern: expected a group \(\?P<id>",
        ),
        ({"agent": {"tag": "x", "id_pattern": "(?P<id>x)"}}, "id_pattern applies only to"),
        ({"agent": {"tag": "x", "field": "y"}}, "field applies only to an inventory"),
        ({"agent": {"key_pattern": "agent"}}, r"agent.key_pattern: expected a group \(\?P<agent>…\)"),
        ({"agent": {"key_pattern": "(?P<a>.)(?P<b>.)"}}, r"expected a group \(\?P<agent>…\)"),
        ({"agent": {"key_pattern": "(?P<agent>"}}, "agent.key_pattern: expected a regular expression"),
        ({"agent": {"tag": "x", "format": "%Y"}}, "format applies only to columns of type timestamp"),
        ({"at": {"tag": "x", "type": "timestamp", "format": "%H:%M"}}, "format: expected a date with its year"),
        ({"at": {"tag": "x", "type": "timestamp", "format": "dd.MM.yyyy"}}, r"may be %d.%m.%Y \(it is 'dd.MM.yyyy'\)"),
    ],
)
def test_invalid_column_is_refused_with_the_reason(columns: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pipeline(recordings={"columns": columns})


# --- from S3


def put(s3: Store, name: str = "agent-7_a", queue: str | None = "sales", crm: str | None = "42") -> Recording:
    """A recording with metadata and a tag."""
    key = f"calls/{DAY}/{name}.mp3"
    done = s3.client.put_object(
        Bucket=s3.recordings,
        Key=key,
        Body=b"RIFF",
        Metadata={} if queue is None else {"queue": queue},
        Tagging="" if crm is None else f"crm={crm}&other=x",
    )
    return recording(key, bucket=s3.recordings, etag=done["ETag"].strip('"'), size=4)


def bucket(s3: Store) -> RecordingBucket:
    return RecordingBucket(s3.client, s3.recordings)


@pytest.mark.integration
def test_metadata_and_tags_are_read_once(s3: Store) -> None:
    one, other = put(s3), put(s3, "b", queue=None, crm="no number")
    ours = s3.pipeline(recordings={"columns": COLUMNS})
    ledger = s3.ledger()
    assert not is_described(one, ours, ledger)
    describe(bucket(s3), [one, other], ours, ledger, PASS)
    assert values(one, ours, ledger) == {"agent": "7", "queue": "sales", "crm_id": 42}
    assert values(other, ours, ledger) == {"agent": None, "queue": None, "crm_id": None}
    ledger.write()
    describe(bucket(s3), [one, other], ours, s3.ledger("run-1", "chunk-0001"), PASS)
    assert s3.counted()["HeadObject"] == s3.counted()["GetObjectTagging"] == 2
    assert "other" not in str(s3.known().all())


@pytest.mark.integration
def test_new_etag_or_new_columns_are_read_again(s3: Store) -> None:
    one = put(s3)
    ours = s3.pipeline(recordings={"columns": COLUMNS})
    ledger = s3.ledger()
    describe(bucket(s3), [one], ours, ledger, PASS)
    assert not is_described(recording(one.key, bucket=one.bucket, etag="new"), ours, ledger)
    more = s3.pipeline(recordings={"columns": {**COLUMNS, "site": {"metadata": "site"}}})
    assert not is_described(one, more, ledger)
    renamed = s3.pipeline(recordings={"columns": {"q": {"metadata": "queue"}, "id": {"tag": "crm"}}})
    assert values(one, renamed, ledger) == {"q": "sales", "id": "42"}


@pytest.mark.integration
def test_tags_are_not_read_if_no_column_needs_them(s3: Store) -> None:
    describe(
        bucket(s3), [put(s3)], s3.pipeline(recordings={"columns": {"queue": {"metadata": "queue"}}}), s3.ledger(), PASS
    )
    assert s3.counted()["HeadObject"] == 1
    assert s3.counted()["GetObjectTagging"] == 0


@pytest.mark.integration
def test_rfc_2047_encoded_metadata_is_decoded(s3: Store) -> None:
    ours = s3.pipeline(recordings={"columns": {"queue": {"metadata": "queue"}}})
    assert look(bucket(s3), put(s3, queue="=?UTF-8?Q?K=C3=BCndigung?="), ours) == {"queue": "Kündigung"}
    assert look(bucket(s3), put(s3, queue="=?none?Q?x?="), ours) == {"queue": "=?none?Q?x?="}


@pytest.mark.integration
def test_deleted_recording_has_no_metadata_or_tags(s3: Store) -> None:
    one = put(s3)
    s3.client.delete_object(Bucket=s3.recordings, Key=one.key)
    ours = s3.pipeline(recordings={"columns": COLUMNS})
    ledger = s3.ledger()
    describe(bucket(s3), [one], ours, ledger, PASS)
    assert is_described(one, ours, ledger)
    assert values(one, ours, ledger) == {"agent": "7", "queue": None, "crm_id": None}


def refuse(s3: Store, operation: str, status: int, only: str = "") -> None:
    """Let S3 refuse an operation, for keys that contain ``only``."""

    def answer_instead(params: dict[str, Any], **_: object) -> None:
        if only in str(params.get("url_path", params)):
            head = {"HTTPStatusCode": status, "HostId": "", "HTTPHeaders": {}, "RequestId": "", "RetryAttempts": 0}
            raise ClientError({"Error": {"Code": str(status)}, "ResponseMetadata": head}, operation)

    s3.client.meta.events.register(f"before-call.s3.{operation}", answer_instead)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("operation", "status", "error", "told"),
    [
        ("HeadObject", 400, ConfigurationError, "recordings.bucket"),
        ("HeadObject", 503, ServiceUnavailable, "503"),
    ],
)
def test_metadata_that_no_recording_yields_end_the_task(
    s3: Store, operation: str, status: int, error: type[Exception], told: str
) -> None:
    one = put(s3)
    refuse(s3, operation, status)
    with pytest.raises(error, match=told):
        describe(bucket(s3), [one], s3.pipeline(recordings={"columns": COLUMNS}), s3.ledger(), PASS)


# --- in a run


class Runs:
    """Consecutive runs of a day, and what they paid for."""

    def __init__(self, s3: Store, speech: Speech, models: Web) -> None:
        self.s3, self.speech, self.models = s3, speech, models
        models.respond = self.respond

    def respond(self, request: Request) -> Any:
        good = phases_answer(("Introduction", 1), ("Complaint", 2))
        return good if request.json["messages"] else answer({"error": {"message": "messages"}}, 400)

    def run(self, run_id: str, columns: Any, **settings: Any) -> Published:
        changes = {"limits": {"ramp": False}, "segmentation": {"calls_per_question": 1}}
        ours = self.s3.pipeline(**merged(changes, {"recordings": {"columns": columns}, **settings}))
        night = DayRun(ours, self.s3.client, AssemblyAI(KEY, self.speech.web.url), Gateway(KEY, self.models.url))
        listed = night.begin(DAY, run_id)
        for uri in listed.chunks:
            chunk = night.load(uri)
            assert night.transcribe(chunk, 60) is None
            night.segment(chunk)
        return night.end(night.load_day(listed.day))

    @property
    def paid(self) -> tuple[int, int]:
        questions = [one for one in self.models.requests if one.json["messages"]]
        return len(self.speech.submitted), len(questions)

    def column(self, table: str, name: str) -> list[Any]:
        return [row[name] for row in read_rows(self.s3.tables, table, DAY)]

    def in_key_order(self, name: str) -> list[Any]:
        rows = sorted(read_rows(self.s3.tables, "calls", DAY), key=lambda row: str(row["recording_uri"]))
        return [row[name] for row in rows]

    def schema(self, table: str) -> pa.Schema:
        body = self.s3.bytes_of(f"tables/{object_name(table, DAY)}")
        return pq.read_schema(io.BytesIO(body))


@pytest.fixture
def runs(s3: Store, speech: Speech, models: Web) -> Runs:
    return Runs(s3, speech, models)


@pytest.mark.integration
def test_own_columns_come_last_in_both_tables(runs: Runs, s3: Store) -> None:
    put(s3)
    runs.run("run-1", COLUMNS)
    for table, count in (("calls", 1), ("phases", 2)):
        schema = runs.schema(table)
        assert schema.names == [*SCHEMAS[table].names, "agent", "queue", "crm_id"]
        assert schema.field("crm_id").type == pa.int64()
        assert schema.metadata[b"own_columns"] == b"agent queue crm_id"
        assert runs.column(table, "agent") == ["7"] * count
        assert runs.column(table, "queue") == ["sales"] * count
        assert runs.column(table, "crm_id") == [42] * count


ELSEWHERE: dict[str, Any] = {
    "agent": {"sidecar": "{stem}.json", "path": "$.Agent.Username"},
    "hold_s": {"sidecar": "{stem}.json", "path": "Hold[0]", "type": "double"},
    "rest": {"sidecar": "{stem}.json", "path": "Rest"},
    "queue": {"metadata": "queue"},
}


@pytest.mark.integration
def test_document_of_several_columns_is_fetched_once(runs: Runs, s3: Store) -> None:
    put(s3)
    put(s3, "b")
    put(s3, "c")
    document = json.dumps({"Agent": {"Username": "jo"}, "Hold": [1.5], "Rest": {"a": [True]}}).encode()
    s3.put(f"calls/{DAY}/agent-7_a.json", document)
    s3.put(f"calls/{DAY}/b.json", b"no JSON")
    for number in range(2):
        runs.run(f"run-{number}", ELSEWHERE)
        assert runs.in_key_order("agent") == ["jo", None, None]
        assert runs.in_key_order("hold_s") == [1.5, None, None]
        assert runs.in_key_order("rest") == ['{"a":[true]}', None, None]
        assert runs.in_key_order("queue") == ["sales"] * 3
    read = [key for operation, key in s3.asked if operation == "GetObject" and key.endswith(".json")]
    assert sorted(key for key in read if key.startswith("calls/")) == [
        f"calls/{DAY}/{name}.json" for name in ("agent-7_a", "b", "c")
    ]
    assert len(runs.speech.submitted) == 3


@pytest.mark.integration
def test_newest_of_the_documents_that_a_star_stands_for_is_used(runs: Runs, s3: Store) -> None:
    put(s3)
    for second, agent in ((1, "old"), (2, "new")):
        key = f"Analysis/{DAY}/agent-7_analysis_2026-11-20T08:00:0{second}Z.json"
        s3.put(key, json.dumps({"Agent": agent}).encode())
        s3.written[key] = LONG_AGO + dt.timedelta(seconds=second)
    s3.put(f"Analysis/{DAY}/agent-7_analysis_2026-11-20T08:00:03Z.txt", b"{}")
    rule = {"sidecar": "Analysis/{day}/{id}_analysis_*.json", "path": "Agent"}
    runs.run("run-1", {"agent": {**rule, "id_pattern": r"calls/(?P<day>[^/]+)/(?P<id>[^/_]+)_"}})
    assert runs.in_key_order("agent") == ["new"]


@pytest.mark.integration
def test_columns_from_an_inventory_are_read_once_per_task(runs: Runs, s3: Store) -> None:
    put(s3, "CA1")
    put(s3, "CA2")
    s3.put("lists/calls.csv", b"Call SID,Queue,Wait s\nCA1,sales,7\nCA3,care,8\n")
    rule = {"inventory": f"s3://{s3.recordings}/lists/calls.csv", "id_field": "call_sid"}
    rule["id_pattern"] = r"/(?P<sid>CA\d)\."
    columns = {"queue": {**rule, "field": "queue"}, "wait_s": {**rule, "field": "Wait s", "type": "int64"}}
    runs.run("run-1", columns)
    assert runs.in_key_order("queue") == ["sales", None]
    assert runs.in_key_order("wait_s") == [7, None]
    assert [key for operation, key in s3.asked if operation == "GetObject"].count("lists/calls.csv") <= 2
    runs.run("run-2", columns)
    assert [key for operation, key in s3.asked if operation == "GetObject"].count("lists/calls.csv") <= 2
    assert len(runs.speech.submitted) == 2


@pytest.mark.integration
def test_document_that_may_not_be_read_fails_its_recording_alone(runs: Runs, s3: Store) -> None:
    put(s3)
    put(s3, "b")
    s3.put(f"calls/{DAY}/b.json", b'{"Agent": {"Username": "jo"}}')
    refuse(s3, "GetObject", 403, "agent-7_a.json")
    runs.run("run-1", ELSEWHERE)
    assert runs.in_key_order("status") == ["failed", "completed"]
    assert runs.in_key_order("agent") == [None, "jo"]
    assert len(runs.speech.submitted) == 1


@pytest.mark.integration
def test_adding_columns_later_pays_for_nothing_again(runs: Runs, s3: Store) -> None:
    put(s3)
    runs.run("run-1", {})
    paid = runs.paid
    assert runs.column("calls", "status") == ["completed"]
    runs.run("run-2", {"agent": COLUMNS["agent"]})
    assert runs.column("phases", "agent") == ["7", "7"]
    assert s3.counted()["HeadObject"] == 0
    # Calls that are already paid for do not count against the budget.
    runs.run("run-3", COLUMNS, budget={"usd_per_run": 1e-9})
    assert runs.column("phases", "queue") == ["sales", "sales"]
    assert runs.paid == paid
    before = s3.counted()["HeadObject"]
    runs.run("run-4", COLUMNS)
    assert s3.counted()["HeadObject"] == before == 1
    runs.run("run-5", {})
    assert runs.schema("calls").names == CALLS.names
    assert runs.paid == paid


@pytest.mark.integration
def test_kept_rows_keep_values_that_fit_the_columns_new_type(runs: Runs, s3: Store) -> None:
    number, word = put(s3, crm="42"), put(s3, "b", crm="x")
    runs.run("run-1", {"crm_id": {"tag": "crm"}})
    assert sorted(runs.column("calls", "crm_id")) == ["42", "x"]
    s3.client.delete_object(Bucket=s3.recordings, Key=word.key)
    s3.client.delete_object(Bucket=s3.recordings, Key=number.key)
    runs.run("run-2", {"crm_id": {"tag": "crm"}, "queue": {"metadata": "queue"}})
    assert sorted(runs.column("calls", "crm_id")) == ["42", "x"]
    assert runs.column("phases", "queue") == [None] * 4
    runs.run("run-3", {"crm_id": {"tag": "crm", "type": "int64"}})
    assert runs.column("calls", "crm_id") == [None, None]
    assert runs.column("calls", "status") == ["completed"] * 2


@pytest.mark.integration
def test_log_counts_recordings_without_a_value_of_the_column_type(
    runs: Runs, s3: Store, caplog: pytest.LogCaptureFixture
) -> None:
    put(s3)
    put(s3, "b", crm="x")
    with caplog.at_level("INFO", logger="callphases"):
        runs.run("run-1", COLUMNS)
    assert "crm_id: 1 of 1 recording has no int64 for it: s3://" in caplog.text
    assert "queue:" not in caplog.text


@pytest.mark.integration
@pytest.mark.parametrize(
    ("operation", "right"), [("GetObjectTagging", "s3:GetObjectTagging"), ("HeadObject", "s3:GetObject")]
)
def test_recording_whose_tags_or_metadata_are_denied_fails_alone(
    runs: Runs, s3: Store, operation: str, right: str
) -> None:
    put(s3, "a")
    put(s3, "denied")
    refuse(s3, operation, 403, only="denied")
    published = runs.run("run-1", COLUMNS)
    assert (published.failures, published.unfinished, published.stopped) == ({"access_denied": 1}, 0, None)
    assert runs.column("calls", "status").count("completed") == 1
    [message] = [text for text in runs.column("calls", "failure_message") if text]
    assert right in message
    assert runs.paid[0] == 1, "the denied one is not submitted"
    s3.client.meta.events.unregister(f"before-call.s3.{operation}")
    again = DayRun(
        s3.pipeline(recordings={"columns": COLUMNS}),
        s3.client,
        AssemblyAI(KEY, runs.speech.web.url),
        Gateway(KEY, runs.models.url),
    )
    assert again.begin(DAY, "run-2").chunks, "it is tried again"


@pytest.mark.integration
def test_transcribed_recording_whose_new_column_is_denied_stays_with_null(runs: Runs, s3: Store) -> None:
    put(s3, "denied")
    runs.run("run-1", {})
    refuse(s3, "GetObjectTagging", 403)
    published = runs.run("run-2", {"crm_id": COLUMNS["crm_id"]})
    assert (published.statuses, published.unfinished) == ({"completed": 1}, 0)
    assert runs.column("calls", "crm_id") == [None]
    assert runs.paid[0] == 1
