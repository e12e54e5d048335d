"""Whether all that a run of a pipeline needs is there: connections, models, buckets and rights, clocks, sound tables.

Nothing is paid for, and nothing stays: what is written below ``output.state`` is deleted again. No finding holds a key
or a presigned URL.
"""

from __future__ import annotations

import datetime as dt
import io
import ipaddress
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import requests
from botocore.exceptions import BotoCoreError, ClientError

from callphases.errors import CallphasesError, ModelRetired, NoModelLeft
from callphases.listing.listing import Listing, time_of
from callphases.pipeline import Pipeline
from callphases.recordings import Recording
from callphases.segmentation.gateway import Gateway
from callphases.state.storage import ObjectPrefix, explain, split_uri
from callphases.tables import columns
from callphases.tables.schema import SCHEMA_VERSION, SCHEMAS, day_of, object_name, own_columns, schema_of
from callphases.transcription.assemblyai import DEFAULT_URL, AssemblyAI
from callphases.transcription.transcriber import URL_LIFE_S

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SKEW_S, TOO_MUCH_SKEW_S = 60.0, 300.0
"""S3 refuses signatures that are 15 minutes off; by then a presigned URL's begin and end are off as well."""
TIMEOUTS_S = 5.0, 15.0
"""To connect, and for an answer, where only reaching it is tried."""
LIST_PAGES = 10
"""Of a thousand objects, in which a recording is looked for where the prefix is not dated."""
TAIL_BYTES = 64 * 1024
"""Of a Parquet file, in which its footer most often fits."""
FOOTERS_AT_ONCE = 8
NAMED_AT_MOST = 10
"""Findings of one kind; of more the number is enough."""


class Health(StrEnum):
    """How a finding is marked."""

    GOOD = "✓"
    UNSURE = "–"
    BAD = "✗"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what there is to say: for what is bad, the remedy."""

    health: Health
    what: str
    said: str


def examine(
    pipeline: Pipeline,
    store: Callable[[], S3Client],
    services: Callable[[], tuple[AssemblyAI, Gateway]],
    days: int = 30,
) -> Iterator[Finding]:
    """Look at all that a pipeline needs, one finding after the other.

    Args:
        pipeline: to look at.
        store: opens S3.
        services: opens the speech service and the language model gateway.
        days: how many of the last days are looked at for a recording, and how many of the newest published ones.
    """
    speech_url = DEFAULT_URL
    opened, problem = _opened("connection assemblyai", services)
    if opened is not None:
        service, gateway = opened
        speech_url = service.url
        yield from _told("speech service", lambda: _speech(service, pipeline))
        yield from _told("language models", lambda: _models(gateway, pipeline))
    yield from problem
    s3, problem = _opened("connection aws", store)
    yield from problem
    if s3 is None:
        return
    yield from _told("clock", lambda: _clock(s3, pipeline))
    recording: list[Recording] = []
    yield from _told("recordings", lambda: _recordings(s3, pipeline, days, recording))
    if pipeline.recordings.send == "presigned":
        yield from _told("presigned URL", lambda: _presigned(s3, recording, speech_url))
    conditional: list[bool] = []
    yield from _told("output.state", lambda: _state(s3, pipeline, conditional))
    yield from _told("output.tables", lambda: _may_write(s3, pipeline, bool(conditional)))
    yield from _told("tables", lambda: _published(s3, pipeline, days))


def _opened(what: str, opens: Callable[[], Any]) -> tuple[Any, list[Finding]]:
    try:
        return opens(), []
    except CallphasesError as error:
        return None, [Finding(Health.BAD, what, str(error))]
    except Exception as error:  # what a secrets backend may raise; its words may hold what is secret
        said = f"It can't be opened ({type(error).__name__}): check the pipeline file's connections and their fields."
        return None, [Finding(Health.BAD, what, said)]


def _told(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of a check, and the error that ended it as one more."""
    try:
        yield from check()
    except CallphasesError as error:
        yield Finding(Health.BAD, what, str(error))


def _speech(service: AssemblyAI, pipeline: Pipeline) -> Iterator[Finding]:
    if (problem := _unreachable(service.url)) is not None:
        remedy = "check the host of the assemblyai connection (ASSEMBLYAI_BASE_URL), and proxies and firewalls."
        yield Finding(Health.BAD, "speech service", f"{service.url} can't be reached ({problem}): {remedy}")
        return
    service.check()
    yield Finding(Health.GOOD, "speech service", f"{service.url} answers and takes the key.")
    names = ", ".join(pipeline.speech_models)
    try:
        service.check_options(pipeline.transcription)
    except ModelRetired as error:
        said = f"{error} Name another in transcription.speech_models."
        yield Finding(Health.BAD, "speech models", said)
    else:
        said = f"The service does not object to {names}; for sure it tells only of a recording."
        yield Finding(Health.UNSURE, "speech models", said)


def _models(gateway: Gateway, pipeline: Pipeline) -> Iterator[Finding]:
    what = "language models"
    if (problem := _unreachable(gateway.url)) is not None:
        remedy = "check llm_gateway_url of the assemblyai connection (LLM_GATEWAY_URL)."
        yield Finding(Health.BAD, what, f"{gateway.url} can't be reached ({problem}): {remedy}")
        return
    models = pipeline.segmentation.models
    refused, understood = [], True
    for model in models:
        try:
            understood &= gateway.check([model])
        except NoModelLeft:
            refused.append(model)
    if len(refused) == len(models):
        said = f"{gateway.url} serves none of {', '.join(models)}: name another in segmentation.models."
        yield Finding(Health.BAD, what, said)
    elif refused:
        said = f"{gateway.url} does not serve {', '.join(refused)} (any more): take it out of segmentation.models."
        yield Finding(Health.UNSURE, what, said)
    elif not understood:
        said = (
            f"{gateway.url} answers, but not as a gateway does that takes the key: run this again, or check "
            "llm_gateway_url of the assemblyai connection (LLM_GATEWAY_URL)."
        )
        yield Finding(Health.UNSURE, what, said)
    else:
        said = f"{gateway.url} answers, and refuses neither the key nor {', '.join(models)}."
        yield Finding(Health.GOOD, what, said)


def _unreachable(url: str) -> str | None:
    """Why nothing answers at an address, or None. At once, where a client of ours would go on trying for minutes."""
    try:
        requests.get(url, timeout=TIMEOUTS_S, allow_redirects=False, stream=True).close()
    except requests.RequestException as error:
        return type(error).__name__
    return None


def _clock(s3: S3Client, pipeline: Pipeline) -> Iterator[Finding]:
    bucket = pipeline.recordings.bucket
    asked = dt.datetime.now(dt.UTC)
    try:
        answer: Any = s3.head_bucket(Bucket=bucket)
    except ClientError as error:  # a refusal tells the time too
        answer = error.response
    except BotoCoreError as error:
        raise explain(error, bucket, "recordings.bucket") from None
    told = time_of(answer)
    if told is None:
        yield Finding(Health.UNSURE, "clock", "The store does not tell its time.")
        return
    # The store tells whole seconds; how long its answer took is nobody's skew.
    here = asked + (dt.datetime.now(dt.UTC) - asked) / 2
    skew_s = (here - told).total_seconds() - 0.5
    if abs(skew_s) <= SKEW_S:
        yield Finding(Health.GOOD, "clock", f"It is within {max(abs(skew_s), 1):.0f} s of the store's.")
        return
    way = "ahead of" if skew_s > 0 else "behind"
    effect = (
        "signatures and presigned URLs fail" if abs(skew_s) > TOO_MUCH_SKEW_S else "signatures fail from minutes on"
    )
    health = Health.BAD if abs(skew_s) > TOO_MUCH_SKEW_S else Health.UNSURE
    said = f"It is {abs(skew_s):.0f} s {way} the store's, and {effect}: set it, by NTP best."
    yield Finding(health, "clock", said)


def _recordings(s3: S3Client, pipeline: Pipeline, days: int, found: list[Recording]) -> Iterator[Finding]:
    source = pipeline.recordings
    what = f"s3://{source.bucket}/"
    today = dt.datetime.now(pipeline.zone).date()
    for back in range(days if source.dated else 1):
        found += _first(s3, pipeline, source.prefix_of(today - dt.timedelta(days=back)))
        if found:
            break
    if not found:
        where = f"of the last {days} days" if source.dated else f"among the first objects below {source.prefix!r}"
        said = f"It can be listed and has no recording {where}: check recordings.prefix and suffixes, if it should."
        yield Finding(Health.UNSURE, what, said)
        return
    try:
        s3.get_object(Bucket=source.bucket, Key=found[0].key, Range="bytes=0-0")["Body"].close()
    except (ClientError, BotoCoreError) as error:
        problem = explain(error, source.bucket, "recordings.bucket")
        yield Finding(Health.BAD, what, f"It can be listed, and {found[0].key} not read (s3:GetObject). {problem}")
        return
    yield Finding(Health.GOOD, what, f"It can be listed, and {found[0].key} can be read.")
    if source.columns:
        held = columns.look(s3, found[0], pipeline)
        without = [name for name, value in held.items() if value is None]
        said = f"{found[0].key} has {', '.join(name for name in held if name not in without) or 'none of them'}"
        said += f", and no {', '.join(without)}: check recordings.columns, if it should." if without else "."
        yield Finding(Health.UNSURE if without else Health.GOOD, "own columns", said)


class _Enough(Exception):
    pass


def _first(s3: S3Client, pipeline: Pipeline, prefix: str) -> list[Recording]:
    pages = 0

    def count() -> None:
        nonlocal pages
        pages += 1
        if pages == LIST_PAGES:
            raise _Enough

    try:
        return [next(one for one in Listing(s3, pipeline, prefix, count) if one.size)]
    except (StopIteration, _Enough):
        return []


def _presigned(s3: S3Client, found: list[Recording], speech_url: str) -> Iterator[Finding]:
    what, upload = "presigned URL", "set recordings.send: upload"
    host = urlsplit(s3.meta.endpoint_url).hostname or ""
    if _is_inside(host) and not _is_inside(urlsplit(speech_url).hostname or ""):
        said = f"{host} is an address of this network, which the service at {speech_url} can't reach: {upload}."
        yield Finding(Health.BAD, what, said)
        return
    if not found:
        yield Finding(Health.UNSURE, what, "There is no recording to try it with.")
        return
    one = found[0]
    try:
        url = s3.generate_presigned_url(
            "get_object", Params={"Bucket": one.bucket, "Key": one.key}, ExpiresIn=URL_LIFE_S
        )
    except (ClientError, BotoCoreError) as error:
        raise explain(error, one.bucket, "recordings.bucket") from None
    try:
        with requests.get(url, headers={"Range": "bytes=0-0"}, timeout=TIMEOUTS_S, stream=True) as answer:
            status = answer.status_code
    except requests.RequestException as error:  # whose words hold the URL
        problem = type(error).__name__
        said = f"{one.key} can't be read by one from here ({problem}): check the store's address, or {upload}."
        yield Finding(Health.BAD, what, said)
        return
    if status not in (200, 206):
        said = (
            f"The store answers {status} to one of {one.key}: check the credentials' right s3:GetObject and the "
            f"bucket's policy, or {upload}."
        )
        yield Finding(Health.BAD, what, said)
        return
    said = f"One of {one.key} can be read from here without credentials; whether from the service, only it can tell."
    if "X-Amz-Security-Token=" in url:
        said += " It ends with the temporary credentials that signed it."
    yield Finding(Health.GOOD, what, said)


def _is_inside(host: str) -> bool:
    """Whether a host's name or address means nothing, or something else, outside of its own network."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        inner = (".localhost", ".local", ".internal", ".lan", ".intranet", ".corp", ".home.arpa", ".svc")
        return "." not in host or host.lower().endswith(inner)


def _state(s3: S3Client, pipeline: Pipeline, conditional: list[bool]) -> Iterator[Finding]:
    state = ObjectPrefix(s3, pipeline.output.state, "output.state")
    what, name = pipeline.output.state, f"doctor/{uuid.uuid4().hex}.json"
    first = state.put_if_match(name, b'{"version": 1}', None)
    is_kept = first is not None
    try:
        is_kept = is_kept and state.put_if_match(name, b'{"version": 2}', None) is None
        second = state.put_if_match(name, b'{"version": 3}', first) if is_kept else None
        is_kept = second is not None and state.put_if_match(name, b'{"version": 4}', first) is None
        was = state.get(name)
    finally:
        state.delete(name)
    if not is_kept:
        said = (
            "The store ignores conditional writes (If-None-Match, If-Match), so two runs of a day may both pay for it: "
            "choose a store that does them for output.state."
        )
        yield Finding(Health.BAD, what, said)
        return
    conditional.append(True)
    if was != b'{"version": 3}' or state.get(name) is not None:
        said = (
            "What was written is not what is read right after it: choose a store that is consistent for output.state."
        )
        yield Finding(Health.BAD, what, said)
        return
    next(state.names("doctor/"), None)
    said = "Objects can be written, on conditions too, read, listed and deleted."
    yield Finding(Health.GOOD, what, said)


def _may_write(s3: S3Client, pipeline: Pipeline, conditional: bool) -> Iterator[Finding]:
    """Whether tables can be written: a PUT on a condition that can't hold needs the right, and writes nothing."""
    what = pipeline.output.tables
    if not conditional:
        said = "Whether objects can be written is not tried: one would stay for a moment, as conditions are not kept."
        yield Finding(Health.UNSURE, what, said)
        return
    tables = ObjectPrefix(s3, what, "output.tables")
    for table in SCHEMAS:
        name = f"{table}/.doctor-{uuid.uuid4().hex}"
        if tables.put_if_match(name, b"", f'"{uuid.uuid4().hex}"') is not None:
            tables.delete(name)
    yield Finding(Health.GOOD, what, "Objects can be written.")


@dataclass
class _Found:
    """What lies below ``output.tables``: the days of each table, and objects that are none."""

    days: dict[str, list[dt.date]] = field(default_factory=lambda: {table: [] for table in SCHEMAS})
    foreign: list[str] = field(default_factory=list)
    foreign_count: int = 0


def _published(s3: S3Client, pipeline: Pipeline, days: int) -> Iterator[Finding]:
    tables = ObjectPrefix(s3, pipeline.output.tables, "output.tables")
    found = _Found()
    for name in tables.names(""):
        table = name.partition("/")[0]
        day = day_of(table, name) if table in SCHEMAS else None
        if day is not None:
            found.days[table].append(day)
            continue
        found.foreign_count += 1
        if len(found.foreign) < NAMED_AT_MOST:
            found.foreign.append(name)
    if found.foreign:
        more = (
            f" and {found.foreign_count - len(found.foreign)} more" if found.foreign_count > len(found.foreign) else ""
        )
        said = (
            f"No tables of callphases: {', '.join(map(repr, found.foreign))}{more}. Readers take all that lies there: "
        )
        # Readers of one table see its own prefix alone.
        is_read = any(name.partition("/")[0] in SCHEMAS for name in found.foreign)
        yield Finding(Health.BAD if is_read else Health.UNSURE, tables.uri, f"{said}move it elsewhere.")
    if alone := sorted(set(found.days["phases"]) - set(found.days["calls"])):
        said = f"phases without calls, of {', '.join(map(str, alone[:NAMED_AT_MOST]))}: run these days again."
        yield Finding(Health.BAD, tables.uri, said)
    for table, of_table in found.days.items():
        schema = schema_of(table, pipeline)
        yield from _partitions(tables, table, schema, sorted(of_table, reverse=True)[:days], len(of_table))


def _partitions(tables: ObjectPrefix, table: str, schema: pa.Schema, days: list[dt.date], of: int) -> Iterator[Finding]:
    if not days:
        yield Finding(Health.UNSURE, f"table {table}", "No day is published yet.")
        return
    names = [object_name(table, day) for day in days]
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as pool:
        looked = list(zip(names, pool.map(lambda name: _look(tables, schema, name), names), strict=True))
    versions: Counter[int] = Counter()
    bad = 0
    for name, (version, mistakes) in looked:
        versions[version] += 1
        if not mistakes:
            continue
        bad += 1
        if bad <= NAMED_AT_MOST:
            said = f"{'; '.join(mistakes)}. Move it away, and run the day again."
            yield Finding(Health.BAD, tables.uri_of(name), said)
    if bad > NAMED_AT_MOST:
        yield Finding(Health.BAD, f"table {table}", f"{bad - NAMED_AT_MOST} more objects do not fit the schema.")
    told = ", ".join(f"{count} of version {version}" for version, count in sorted(versions.items()) if version)
    newer = [version for version in versions if version > SCHEMA_VERSION]
    if newer:
        said = f"{told}: there are days of a newer callphases, whose columns this one does not know. Update it."
        yield Finding(Health.UNSURE, f"table {table}", said)
    elif not bad:
        said = f"The newest {len(days)} of {of} days fit the schema ({told})."
        yield Finding(Health.GOOD, f"table {table}", said)


def _look(tables: ObjectPrefix, ours: pa.Schema, name: str) -> tuple[int, list[str]]:
    """The ``schema_version`` of an object, and in what it is not as that version should be; 0 of what is no Parquet."""
    try:
        schema = _schema(tables, name)
    except (pa.ArrowException, OSError, ValueError):
        return 0, ["it is no Parquet file"]
    try:
        version = int((schema.metadata or {}).get(b"schema_version", b"1"))
    except ValueError:
        return 0, ["its schema_version is no number"]
    return version, mistakes(ours, schema, version)


def mistakes(ours: pa.Schema, schema: pa.Schema, version: int) -> list[str]:
    """In what the columns of an object are not those of the table ``ours``, as it was in ``version``.

    Columns are only ever added, at the end: an older version lacks the last ones, a newer one has more. Those of
    ``recordings.columns`` come and go with the pipeline file.
    """
    found = [
        f"column {name} is {schema.field(name).type}, expected {ours.field(name).type}"
        for name in ours.names
        if name in schema.names and schema.field(name).type != ours.field(name).type
    ]
    own, own_once = own_columns(ours), own_columns(schema)
    fixed = [name for name in ours.names if name not in own]
    if version <= SCHEMA_VERSION:
        more = [name for name in schema.names if name not in ours.names and name not in own_once]
        found += [f"there is no column {name} in the table" for name in more]
    missing = [name for name in fixed if name not in schema.names]
    if missing and (version >= SCHEMA_VERSION or missing != fixed[-len(missing) :]):
        found.append(f"it lacks {', '.join(missing)}")
    return found


def _schema(tables: ObjectPrefix, name: str) -> pa.Schema:
    """The schema of a Parquet object, from its last bytes alone."""
    tail = _tail(tables, name, TAIL_BYTES)
    if not tail.endswith(b"PAR1"):
        raise ValueError("no Parquet")
    # Before the mark is the length of the footer, in four bytes.
    need = int.from_bytes(tail[-8:-4], "little") + 8
    if need > len(tail):
        tail = _tail(tables, name, need)
    return pq.read_schema(io.BytesIO(tail))


def _tail(tables: ObjectPrefix, name: str, count: int) -> bytes:
    bucket, prefix = split_uri(tables.uri)
    try:
        return tables.client.get_object(Bucket=bucket, Key=prefix + name, Range=f"bytes=-{count}")["Body"].read()
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "InvalidRange":  # of nothing there is no last byte
            return b""
        raise explain(error, bucket, tables.setting) from None
    except BotoCoreError as error:
        raise explain(error, bucket, tables.setting) from None
