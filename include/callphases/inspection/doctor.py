"""Checks whether a pipeline can run: connections, models, buckets and rights, clock, presigned URLs, published tables.

The checks cost nothing and leave nothing behind: what they write below ``output.state`` they delete. No finding
contains a key or a presigned URL.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import difflib
import ipaddress
import itertools
import pkgutil
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import requests
from croniter import croniter

from callphases.errors import CallphasesError, ModelRetired, NoModelLeft, without_secrets
from callphases.inspection.call_times import CallTimes
from callphases.inspection.findings import Finding, Health
from callphases.inspection.paid_again import paid_again_findings
from callphases.inspection.published import published_findings
from callphases.limits import costs
from callphases.listing.listing import Listing
from callphases.local_days import DAY
from callphases.pipeline import Pipeline, TimeElsewhere
from callphases.recordings import Recording
from callphases.segmentation.gateway import Gateway
from callphases.speech_models import outdated
from callphases.state import probes
from callphases.state.bucket import RecordingBucket
from callphases.state.storage import ObjectPrefix
from callphases.tables import columns
from callphases.tables.schema import SCHEMAS
from callphases.transcription.assemblyai import DEFAULT_URL, AssemblyAI
from callphases.transcription.delivery import URL_LIFE_S

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SKEW_S, TOO_MUCH_SKEW_S = 60.0, 300.0
"""S3 refuses signatures that are 15 minutes off; well before that, presigned URLs start and expire at wrong times."""
TIMEOUTS_S = 5.0, 15.0
"""To connect and to read, when only reachability is checked."""
LIST_PAGES = 10
"""Pages of a thousand objects to look at below a prefix."""
FEW_OBJECTS = 50
"""Objects of a page, where each recording's time takes a request."""
SCHEDULE_DAYS = 28
"""How many days to look for one without a run."""
_T = TypeVar("_T")
_Check = Generator[Finding, None, _T]
"""A check yields its findings, and returns what later checks need."""


def examine(
    pipeline: Pipeline,
    open_s3: Callable[[], S3Client],
    open_services: Callable[[], tuple[AssemblyAI, Gateway]],
    days: int = 30,
) -> Iterator[Finding]:
    """Check everything that runs of a pipeline need; findings come as they are made.

    Args:
        pipeline: to check.
        open_s3: makes the S3 client.
        open_services: makes the clients of the speech service and the language model gateway.
        days: how many days to go back for a recording, and how many of each table's newest days to check.
    """
    yield from _schedule(pipeline)
    yield from _notify(pipeline)
    for warning in costs.unpriced(pipeline):
        yield Finding(Health.UNSURE, "prices", warning)
    speech_url = DEFAULT_URL
    own = pipeline.connections.gateway is not None
    services = yield from _opened(f"connection assemblyai{' or gateway' if own else ''}", open_services)
    if services is not None:
        service, gateway = services
        speech_url = service.url
        yield from _or_error("speech service", _speech(service, pipeline))
        yield from _or_error("language models", _models(gateway, pipeline))
    s3 = yield from _opened("connection aws", open_s3)
    if s3 is None:
        return
    bucket = RecordingBucket(s3, pipeline.recordings.bucket)
    state = ObjectPrefix(s3, pipeline.output.state, "output.state")
    tables = ObjectPrefix(s3, pipeline.output.tables, "output.tables")
    yield from _or_error("clock", _clock(bucket))
    recording = yield from _or_error("recordings", _recordings(bucket, pipeline, days))
    if pipeline.recordings.send == "presigned":
        yield from _or_error("presigned URL", _presigned(bucket, recording, speech_url))
    honors_conditions = yield from _or_error("output.state", _state(state))
    yield from _or_error("output.tables", _tables_writable(tables, bool(honors_conditions)))
    yield from _or_error("tables", published_findings(tables, pipeline, days))
    yield from _or_error("published calls", paid_again_findings(state, tables, pipeline))


def _schedule(pipeline: Pipeline) -> _Check[None]:
    """Checks that each day has a run that takes it, which is one on the day after."""
    if pipeline.cron is None:
        return
    first = dt.datetime.now(pipeline.zone).date()
    runs = croniter(pipeline.cron, dt.datetime.combine(first, dt.time.max))
    last = first + SCHEDULE_DAYS * DAY
    taken = {
        run.date() - DAY for run in itertools.takewhile(lambda run: run.date() <= last, runs.all_next(dt.datetime))
    }
    missing = [day for number in range(SCHEDULE_DAYS) if (day := first + number * DAY) not in taken]
    if missing:
        detail = (
            f"A run takes the calls of the day before it, and {pipeline.schedule!r} has none on the day after "
            f"{missing[0]}: {len(missing)} of {SCHEDULE_DAYS} days are left out. Set a schedule with a run each day or "
            "run these days with the Param date."
        )
        yield Finding(Health.UNSURE, "schedule", detail)


def _notify(pipeline: Pipeline) -> _Check[None]:
    """Checks that the functions that ``deadline`` and ``notify`` name can be imported."""
    if pipeline.deadline is not None and pipeline.deadline.notify is not None:
        yield from _function("deadline.notify", pipeline.deadline.notify)
    for target in pipeline.notify.targets:
        if target not in pipeline.notify.channels:
            yield from _function(f"notify: {target}", target)


def _function(what: str, path: str) -> _Check[None]:
    try:
        is_function = callable(pkgutil.resolve_name(path))
    except AttributeError as error:
        yield Finding(Health.BAD, what, f"There is no {path} ({error}): name a function.")
    except Exception as error:  # whatever the user's module raises
        detail = f"{path} can't be imported here ({type(error).__name__}: {error}). Airflow must be able to."
        yield Finding(Health.UNSURE, what, without_secrets(detail))
    else:
        if is_function:
            yield Finding(Health.GOOD, what, f"{path} can be imported here. Airflow must be able to, too.")
        else:
            yield Finding(Health.BAD, what, f"{path} is no function.")


def _opened(what: str, opens: Callable[[], _T]) -> _Check[_T | None]:
    """Returns what was opened, or yields why it could not be."""
    try:
        return opens()
    except CallphasesError as error:
        yield Finding(Health.BAD, what, str(error))
    except Exception as error:  # from a secrets backend, perhaps; its message may contain a secret
        detail = f"It can't be opened ({type(error).__name__}): check the pipeline file's connections and their fields."
        yield Finding(Health.BAD, what, detail)
    return None


def _or_error(what: str, check: _Check[_T]) -> _Check[_T | None]:
    """Yields the findings of a check, and the error that ended it as one more; returns what the check returns."""
    try:
        return (yield from check)
    except CallphasesError as error:
        yield Finding(Health.BAD, what, str(error))
        return None


def _speech(service: AssemblyAI, pipeline: Pipeline) -> _Check[None]:
    if (problem := _unreachable(service.url)) is not None:
        remedy = "check the host of the assemblyai connection (ASSEMBLYAI_BASE_URL), proxies and firewalls."
        yield Finding(Health.BAD, "speech service", f"{service.url} can't be reached ({problem}): {remedy}")
        return
    service.check()
    yield Finding(Health.GOOD, "speech service", f"{service.url} answers and accepts the key.")
    if (said := outdated(pipeline.speech_models)) is not None:
        yield Finding(Health.UNSURE, "speech models", said)
    names = ", ".join(pipeline.speech_models)
    try:
        service.check_options(pipeline.speech_options)
    except ModelRetired as error:
        detail = f"{error} Name another in transcription.speech_models."
        yield Finding(Health.BAD, "speech models", detail)
    else:
        detail = f"The service does not object to {names}; only transcribing a recording would tell for sure."
        yield Finding(Health.UNSURE, "speech models", detail)


def _models(gateway: Gateway, pipeline: Pipeline) -> _Check[None]:
    what = "language models"
    if (problem := _unreachable(gateway.url)) is not None:
        detail = f"{gateway.url} can't be reached ({problem}): check {gateway.settings.url}."
        yield Finding(Health.BAD, what, detail)
        return
    models = pipeline.segmentation.models
    refused, conclusive = [], True
    for model in models:
        try:
            conclusive &= gateway.check([model])
        except NoModelLeft:
            refused.append(model)
    if len(refused) == len(models):
        detail = f"{gateway.url} serves none of {', '.join(models)}: name another in segmentation.models."
        yield Finding(Health.BAD, what, detail)
    elif refused:
        detail = f"{gateway.url} does not serve {', '.join(refused)} (any more): remove it from segmentation.models."
        yield Finding(Health.UNSURE, what, detail)
    elif not conclusive:
        detail = (
            f"{gateway.url} answers, but not like a gateway that accepts the key: run this again, or check "
            f"{gateway.settings.url}."
        )
        yield Finding(Health.UNSURE, what, detail)
    else:
        yield _compared_with_list(gateway, models)


def _compared_with_list(gateway: Gateway, models: Sequence[str]) -> Finding:
    """Models that the gateway does not refuse, against its own list: many gateways look at a name only later."""
    what = "language models"
    detail = f"{gateway.url} answers, and refuses neither the key nor {', '.join(models)}"
    listed = gateway.models()
    if listed is None:
        return Finding(Health.GOOD, what, f"{detail}. It has no list of models to compare them with.")
    missing = [model for model in models if not listed.has(model)]
    if not missing:
        return Finding(Health.GOOD, what, f"{detail}. Its list of models has them.")
    similar = [name for model in missing for name in difflib.get_close_matches(model, listed.names, n=2, cutoff=0.5)]
    detail += f", but its list of models{', as far as it was sent,' if listed.is_partial else ''} does not have "
    detail += ", ".join(missing) + (f" (it has {', '.join(dict.fromkeys(similar))})" if similar else "")
    return Finding(Health.UNSURE, what, f"{detail}: check segmentation.models.")


def _unreachable(url: str) -> str | None:
    """Why nothing answers at ``url``, or None. Tries once, as the services' clients would retry for minutes."""
    try:
        requests.get(url, timeout=TIMEOUTS_S, allow_redirects=False, stream=True).close()
    except requests.RequestException as error:
        return type(error).__name__
    return None


def _clock(bucket: RecordingBucket) -> _Check[None]:
    skew_s = probes.clock_skew_s(bucket)
    if skew_s is None:
        yield Finding(Health.UNSURE, "clock", "The store does not send its time.")
        return
    if abs(skew_s) <= SKEW_S:
        yield Finding(Health.GOOD, "clock", f"It is within {max(abs(skew_s), 1):.0f} s of the store's.")
        return
    way = "ahead of" if skew_s > 0 else "behind"
    is_bad = abs(skew_s) > TOO_MUCH_SKEW_S
    effect = "signatures and presigned URLs fail" if is_bad else "signatures fail if it is off by some minutes more"
    detail = f"It is {abs(skew_s):.0f} s {way} the store's, and {effect}: set it, preferably by NTP."
    yield Finding(Health.BAD if is_bad else Health.UNSURE, "clock", detail)


def _recordings(bucket: RecordingBucket, pipeline: Pipeline, days: int) -> _Check[Recording | None]:
    """Checks that recordings can be listed and read; returns the one that it looked at."""
    source = pipeline.recordings
    what = f"s3://{bucket.name}/"
    today = dt.datetime.now(pipeline.zone).date()
    of_prefix = {source.prefix_of(day): day for day in (today - dt.timedelta(days=back) for back in range(days))}
    found, times = None, CallTimes(pipeline)
    for prefix, day in of_prefix.items():
        found = _first(bucket, pipeline, prefix, day, times)
        if found is not None:
            break
    else:
        where = f"in the last {days} days" if len(of_prefix) > 1 else f"among the first objects below {prefix!r}"
        detail = f"It can be listed, but has no recording {where}: check recordings.prefix and suffixes if it should."
        yield Finding(Health.UNSURE, what, detail)
        return None
    try:
        probes.read_first_byte(bucket, found.key)
    except CallphasesError as error:
        yield Finding(Health.BAD, what, f"It can be listed, but {found.key} can't be read (s3:GetObject). {error}")
        return found
    yield Finding(Health.GOOD, what, f"It can be listed, and {found.key} can be read.")
    yield from times.findings()
    if source.columns:
        yield from _or_error("recordings", _own_columns(bucket, found, pipeline))
    return found


def _own_columns(bucket: RecordingBucket, recording: Recording, pipeline: Pipeline) -> _Check[None]:
    values = columns.look(bucket, recording, pipeline)
    missing = [name for name, value in values.items() if value is None]
    detail = f"{recording.key} has {', '.join(name for name in values if name not in missing) or 'none of them'}"
    detail += f", but no {', '.join(missing)}: check recordings.columns if it should." if missing else "."
    yield Finding(Health.UNSURE if missing else Health.GOOD, "own columns", detail)


class _EnoughPages(Exception):
    """``LIST_PAGES`` pages were looked at."""


def _first(
    bucket: RecordingBucket, pipeline: Pipeline, prefix: str, day: dt.date, times: CallTimes
) -> Recording | None:
    """The first recording below the prefix of a day that is not empty; ``times`` sees all of the first pages."""
    pages = itertools.count(1)
    first = None
    asks = isinstance(pipeline.recordings.call_time, TimeElsewhere)

    def count() -> None:
        if next(pages) == LIST_PAGES or (asks and first is not None):
            raise _EnoughPages

    seen = replace(bucket, page_size=FEW_OBJECTS) if asks else bucket  # times are read for all of a page at once
    with contextlib.suppress(_EnoughPages):
        for recording in Listing(seen, pipeline, prefix, count, times.unmatched):
            times.see(recording, day if pipeline.recordings.is_daily else None)
            first = first or (recording if recording.size else None)
    return first


def _presigned(bucket: RecordingBucket, recording: Recording | None, speech_url: str) -> _Check[None]:
    what, upload = "presigned URL", "set recordings.send: upload"
    host = probes.endpoint_host(bucket)
    if _is_internal(host) and not _is_internal(urlsplit(speech_url).hostname or ""):
        detail = f"{host} is an address of this network, which the service at {speech_url} can't reach: {upload}."
        yield Finding(Health.BAD, what, detail)
        return
    if recording is None:
        yield Finding(Health.UNSURE, what, "There is no recording to try it with.")
        return
    key = recording.key
    probe = probes.try_presigned_url(bucket, key, URL_LIFE_S)
    if probe.status is None:
        detail = f"That of {key} can't be fetched from here ({probe.failure}): check the store's address, or {upload}."
        yield Finding(Health.BAD, what, detail)
        return
    if probe.status not in (200, 206):
        detail = (
            f"The store answers {probe.status} to that of {key}: check the credentials' right s3:GetObject and the "
            f"bucket's policy, or {upload}."
        )
        yield Finding(Health.BAD, what, detail)
        return
    detail = f"{key} can be fetched from here without credentials; only the service can tell whether from there too."
    if probe.uses_session_token:
        detail += " The URL expires with the temporary credentials that signed it."
    yield Finding(Health.GOOD, what, detail)


def _is_internal(host: str) -> bool:
    """Whether a host name or address is not valid outside of its own network."""
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        internal = (".localhost", ".local", ".internal", ".lan", ".intranet", ".corp", ".home.arpa", ".svc")
        return "." not in host or host.lower().endswith(internal)


def _state(state: ObjectPrefix) -> _Check[bool]:
    """Checks that the state area can be used; returns whether its store honors conditional writes."""
    probe = probes.try_conditional_writes(state)
    if not probe.honors_conditions:
        detail = (
            "The store ignores conditional writes (If-None-Match, If-Match), so two runs of a day may both pay for it: "
            "choose a store that supports them for output.state."
        )
        yield Finding(Health.BAD, state.uri, detail)
    elif not probe.is_consistent:
        detail = "A read does not return the latest write: choose a store with strong consistency for output.state."
        yield Finding(Health.BAD, state.uri, detail)
    else:
        detail = "Objects can be written (conditionally, too), read, listed and deleted."
        yield Finding(Health.GOOD, state.uri, detail)
    return probe.honors_conditions


def _tables_writable(tables: ObjectPrefix, honors_conditions: bool) -> _Check[None]:
    if not honors_conditions:
        detail = "Not checked: without conditional writes, an object would be visible to readers for a moment."
        yield Finding(Health.UNSURE, tables.uri, detail)
        return
    probes.try_writes(tables, SCHEMAS)
    yield Finding(Health.GOOD, tables.uri, "Objects can be written.")
