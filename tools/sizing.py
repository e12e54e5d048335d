"""Computes what a night of a given size needs and what limits it first: ``python -m tools.sizing``.

The program prints the tables of docs/scaling.md: the model compared with benchmarked nights, then extrapolations. The
model uses callphases' own constants and the measured nights in ``NIGHTS``.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from benchmarks.bound import Service
from benchmarks.call import CUES, sentences
from benchmarks.figures import number
from callphases.cues import Cue
from callphases.limits.quota import LEAST_SHARE, TURNS_FOR_S, TYPICAL_JOB_S, WINDOW_S
from callphases.limits.throttle import SPEECH_REQUESTS_PER_S, ramp_s
from callphases.listing.listing import LEAST_CALLS, MAX_CHUNKS
from callphases.pipeline import Limits, Output, Pipeline, Recordings
from callphases.segmentation.segmenter import packed
from callphases.segmentation.tokens import expected_tokens
from callphases.state.lease import FRESH_S
from callphases.state.ledger import SEGMENT_BYTES

MB = 2**20


@dataclass(frozen=True)
class Measured:
    """A benchmarked night, as in docs/performance.md.

    Core-milliseconds are per call, on two cores that ran everything: ``core_ms`` of Airflow's processes and tasks,
    ``beside_core_ms`` of the test servers and the database, and the rest of single processes.
    """

    name: str
    calls: int
    service: Service
    makespan_s: float
    core_ms: float
    beside_core_ms: float
    calls_a_question: float
    s3_a_call: float
    provider_a_call: float
    lists: int
    api_server_ms: float
    triggerer_ms: float
    postgres_ms: float


NIGHTS = (
    Measured("500 calls", 500, Service(), 27.0, 64.6, 5.8, 15.15, 3.76, 2.17, 2, 3.3, 0.6, 1.9),
    Measured("5,000", 5_000, Service(), 127.9, 34.3, 5.4, 17.86, 3.54, 2.15, 6, 2.1, 0.3, 1.2),
    Measured("20,000", 20_000, Service(speech_s=1.0), 386.7, 26.3, 4.7, 18.78, 3.34, 2.09, 21, 0.9, 0.3, 0.8),
)
PACED = Measured(
    "2,600, 30 a minute", 2_600, Service(questions_per_minute=30), 408.6, 47.7, 7.9, 17.33, 3.68, 2.15, 4, 4.7, 1.8, 3.7
)
"""Measured while a test suite used a part of the two cores."""


def solved(small: Measured, large: Measured) -> tuple[float, float]:
    """Solve for core-seconds per task and per call from two nights, whose ratios of tasks to calls differ."""
    tasks, calls = (tasks_of(small.calls), tasks_of(large.calls)), (small.calls, large.calls)
    spent = (small.core_ms * small.calls / 1000, large.core_ms * large.calls / 1000)
    determinant = tasks[0] * calls[1] - tasks[1] * calls[0]
    a_task = (spent[0] * calls[1] - spent[1] * calls[0]) / determinant
    return a_task, (tasks[0] * spent[1] - tasks[1] * spent[0]) / determinant


LEAD_S, TAIL_S = 7.0, 5.0
"""Time from the trigger to the first submission, and from the last transcript to the end, with 5,000 calls."""
BUSY = 0.86
"""Share of the cores that the night of 5,000 calls kept busy in between, with 12 slots."""
SLOTS_A_CORE = 6
"""Slots per core for which ``BUSY`` was measured."""
TASKS_A_S = 2.4
"""Tasks that Airflow starts per second on two cores: 161 in the 66 s of "one task per recording"."""
LIST_S_A_KEY, PUBLISH_S_A_CALL = 150 / 1e6, 2.2 / 250_000
S3_A_CALL, S3_A_CHUNK = 3.0, 75.0
"""Per call: the service's download and two objects. Per chunk: manifest, ledger, lease, job slots, cues and rows."""
SPEECH_REQUESTS_A_CALL = 2.1
"""A submission, a lookup, and a share of a list request. Questions go to the gateway."""
LIST_MB, TASK_MB = 142.0, 312.0
"""Largest process when listing a million keys, and for the task of a chunk of 143 calls."""
LEDGER_BYTES, KNOWN_BYTES, CUE_BYTES = 2_890, 9_500, 480
"""Bytes of a call in the ledger, of the same call in memory, and of a cue in a chunk's task.
tests/tools/test_sizing.py measures them."""
POLL_IN_WORKER_S, LONGEST_SLEEP_S, QUICK_JOBS = 30.0, 600.0, 0.25
"""Copied from ``callphases.airflow.operators`` and ``callphases.transcription.transcriber``, which import
Airflow and pyarrow."""
HOUR_S = 3600.0
ALONE = 3
"""Tasks of a run without a chunk: list, publish, verify."""


def chunks_of(calls: int) -> int:
    """Return the number of chunks of a night whose recordings have the same size."""
    return max(min(max(round(math.sqrt(calls) / 2), 2), calls // LEAST_CALLS, MAX_CHUNKS), min(calls, 1))


def tasks_of(calls: int) -> int:
    """Return the number of task instances of a run: two per chunk, and those without a chunk."""
    return 2 * chunks_of(calls) + ALONE


CORE_S_A_TASK, CORE_S_A_CALL = solved(*NIGHTS[:2])


@dataclass(frozen=True)
class Site:
    """The resources of a night.

    Attributes:
        service: limits of the services.
        copies: length of a call in multiples of the benchmark's call, which takes two minutes.
        cores: of all workers.
        slots: task slots of all workers.
        requests_a_s: requests per second that the speech service accepts.
        ramp: whether ``limits.ramp`` is on.
        beside_core_s: core-seconds per call that other processes use on these cores.
    """

    service: Service = field(default_factory=Service)
    copies: int = 1
    cores: float = 2
    slots: int = 12
    requests_a_s: float = math.inf
    ramp: bool = False
    beside_core_s: float = 0.0


@dataclass(frozen=True)
class _Sized:
    tokens_in: int
    tokens_out: int


@cache
def calls_a_question(copies: int) -> int:
    """Return the number of calls that callphases packs into a question."""
    pipeline = Pipeline(
        pipeline="sizing",
        recordings=Recordings(bucket="recordings", prefix="{date:%Y-%m-%d}/"),
        output=Output(tables="s3://tables/", state="s3://state/"),
    )
    said = sentences()
    cues = [Cue(place, one["start_s"], one["end_s"], one["speaker"], one["text"]) for place, one in enumerate(said, 1)]
    call = _Sized(*expected_tokens(pipeline, copies * cues[-1].end_s, cues * copies))
    most = pipeline.segmentation.calls_per_question
    return len(next(packed([call] * (most + 1), most)))


def questions_of(calls: int, copies: int = 1) -> int:
    """Return the number of questions of a night; chunks do not share questions."""
    chunks = chunks_of(calls)
    if not chunks:
        return 0
    each, more = divmod(calls, chunks)
    together = calls_a_question(copies)
    return more * math.ceil((each + 1) / together) + (chunks - more) * math.ceil(each / together)


def wake_ups_of(calls: int, site: Site) -> float:
    """Return how often ``transcribe`` resumes from the triggerer: after half of its jobs, or to check for slots."""
    service = site.service
    if service.speech_s <= QUICK_JOBS * POLL_IN_WORKER_S:
        return 0.0
    waiting_s = math.ceil(calls / service.jobs) * service.speech_s
    return 2 * calls / service.jobs + chunks_of(calls) * waiting_s / LONGEST_SLEEP_S


def core_s_of(calls: int, site: Site) -> float:
    """Return the core-seconds of Airflow's processes and of all tasks."""
    return CORE_S_A_TASK * (tasks_of(calls) + wake_ups_of(calls, site)) + CORE_S_A_CALL * calls


def list_s(calls: int) -> float:
    """Return the duration of ``list`` in seconds, without the look-back days."""
    return LIST_S_A_KEY * calls


def second_run_mb(calls: int) -> float:
    """Return the memory in MB of the process that reads the whole day's ledger."""
    return LIST_MB + calls * KNOWN_BYTES / MB


def task_mb(calls: int, copies: int) -> float:
    """Return the memory in MB of a chunk's task: that of a task of 143 calls, plus what further calls need."""
    more = calls / max(chunks_of(calls), 1) - NIGHTS[1].calls / chunks_of(NIGHTS[1].calls)
    return TASK_MB + max(more, 0.0) * (KNOWN_BYTES + copies * CUES * CUE_BYTES) / MB


def limits_s(calls: int, site: Site) -> dict[str, float]:
    """Return the seconds that processing all calls takes under each limit alone."""
    service, questions = site.service, questions_of(calls, site.copies)
    core_s = core_s_of(calls, site) + calls * site.beside_core_s
    limits = {
        "jobs at once": math.ceil(calls / service.jobs) * service.speech_s,
        "requests to the speech service": calls * SPEECH_REQUESTS_A_CALL / site.requests_a_s,
        "questions at once": math.ceil(questions / service.questions_at_once) * service.question_s,
        "cores": (core_s - ALONE * CORE_S_A_TASK) / (site.cores * BUSY),
        "tasks that Airflow starts": (tasks_of(calls) + wake_ups_of(calls, site)) / TASKS_A_S,
    }
    if service.questions_per_minute is not None:
        limits["questions a minute"] = questions / service.questions_per_minute * WINDOW_S
    if site.ramp:
        limits["the ramp"] = ramp_s(calls) + service.speech_s
    return limits


def alone_s(calls: int) -> float:
    """Return the seconds before the first submission and after the last transcript."""
    return LEAD_S + list_s(calls) + TAIL_S + PUBLISH_S_A_CALL * calls


def makespan_s(calls: int, site: Site) -> float:
    """Return the seconds from trigger to success."""
    return alone_s(calls) + max(limits_s(calls, site).values())


def most(fits: Callable[[int], bool], at_most: int = 10**9) -> int:
    """Return the largest number of calls for which ``fits`` holds; it must hold for all smaller numbers."""
    low, high = 0, at_most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def usable_s(calls: int, site: Site, window_s: float) -> float:
    """Return the seconds of a window that are left for processing calls."""
    return window_s - alone_s(calls) - site.service.speech_s


def needed(calls: int, site: Site, window_s: float) -> Site:
    """Return ``site`` with enough jobs, questions, cores and slots for a night to fit into a window.

    The speech service's limit on requests stays unchanged and may still make the night longer.
    """
    service, left_s = site.service, usable_s(calls, site, window_s)
    jobs = math.ceil(calls * service.speech_s / left_s)
    a_minute = math.ceil(questions_of(calls, site.copies) * WINDOW_S / left_s)
    service = replace(
        service,
        jobs=max(jobs, service.jobs),
        questions_per_minute=max(a_minute, service.questions_per_minute or 0),
    )
    cores = max(core_s_of(calls, replace(site, service=service)) / (left_s * BUSY), 1.0)
    return replace(site, service=service, cores=cores, slots=math.ceil(cores * SLOTS_A_CORE))


def longest_segment_s(calls: int, site: Site) -> float:
    """Return the seconds of a ``segment`` task when all slots run one and share the questions per minute."""
    chunks = chunks_of(calls)
    questions = questions_of(calls, site.copies) / chunks * min(site.slots, chunks)
    return questions * WINDOW_S / (site.service.questions_per_minute or math.inf)


# Tables of docs/scaling.md

SIZES = (500, 5_000, 50_000, 200_000, 1_000_000)
WINDOW_H = 6
PAPER = Site(
    Service(
        speech_s=TYPICAL_JOB_S,
        jobs=Limits().transcriptions_at_once,
        question_s=10.0,
        questions_per_minute=Limits().llm_requests_per_minute,
    ),
    copies=2,
    requests_a_s=SPEECH_REQUESTS_PER_S,
    ramp=True,
)
"""Calls of four minutes, callphases' default limits, two cores."""
STORE_S = 0.05
"""Seconds per request to the store from a worker; a conditional write takes two requests."""
WORKER_SLOTS, WORKER_MB = 4, 2_048.0
"""``WORKER_CONCURRENCY`` in deploy/celery.env, and a worker's memory in deploy/helm/values.yaml."""
LARGEST_PUT_BYTES, PHASES_BYTES = 5e9, 200
"""S3's limit for one PUT, and bytes per call in the object of ``phases`` with the benchmark's short summaries."""
LOOK_BACK_DAYS = Recordings.model_fields["look_back_days"].default

Row = Sequence[object]


def site_of(night: Measured) -> Site:
    """Return the resources of a benchmarked night."""
    return Site(night.service, beside_core_s=night.beside_core_ms / 1000)


def checks() -> Iterator[Row]:
    """Yield rows that compare the model with the measured nights."""
    nights = (*NIGHTS, PACED)
    yield ["", *(night.name for night in nights)]

    def row(name: str, modelled: Callable[[Measured], float], measured: Callable[[Measured], float]) -> Row:
        pairs = [(modelled(night), measured(night)) for night in nights]
        return [
            name,
            *(f"{number(_round(ours))} : {number(theirs)}, {_apart(ours, theirs)}" for ours, theirs in pairs),
        ]

    yield row("makespan, s", lambda night: makespan_s(night.calls, site_of(night)), lambda night: night.makespan_s)
    yield row(
        "core-ms a call, Airflow",
        lambda night: core_s_of(night.calls, site_of(night)) / night.calls * 1000,
        lambda night: night.core_ms,
    )
    yield row(
        "calls a question",
        lambda night: night.calls / questions_of(night.calls),
        lambda night: night.calls_a_question,
    )
    yield row(
        "requests to the provider a call",
        lambda night: SPEECH_REQUESTS_A_CALL + questions_of(night.calls) / night.calls,
        lambda night: night.provider_a_call,
    )
    yield row(
        "S3 requests a call",
        lambda night: S3_A_CALL + S3_A_CHUNK * chunks_of(night.calls) / night.calls,
        lambda night: night.s3_a_call,
    )
    yield row("LIST requests", lambda night: math.ceil(night.calls / 1000) + 1, lambda night: night.lists)


def beside() -> Iterator[Row]:
    """What the processes that don't work on calls took, in cores, while the nights ran."""
    nights = (*NIGHTS, PACED)
    yield ["cores", *(night.name for night in nights)]
    for name, core_ms in (
        ("API server", lambda night: night.api_server_ms),
        ("triggerer", lambda night: night.triggerer_ms),
        ("Postgres", lambda night: night.postgres_ms),
    ):
        cores = (core_ms(night) * night.calls / 1000 / night.makespan_s for night in nights)
        yield [name, *(f"{each:.2f}" for each in cores)]


def growth() -> Iterator[Row]:
    """Yield rows with what a night needs, by its number of calls."""
    yield ["calls a night", *(f"{calls:,}" for calls in SIZES)]
    sites = {calls: needed(calls, PAPER, WINDOW_H * HOUR_S) for calls in SIZES}

    def row(name: str, value: Callable[[int, Site], float]) -> Row:
        return [name, *(number(_round(value(calls, site))) for calls, site in sites.items())]

    yield row("**needed in six hours**: jobs at once", lambda _, site: site.service.jobs)
    yield row("questions a minute", lambda _, site: site.service.questions_per_minute or 0)
    yield row("slots (`parallelism`)", lambda _, site: site.slots)
    yield row("cores of all workers", lambda _, site: site.cores)
    yield row(f"Celery workers of {WORKER_SLOTS} slots", lambda _, site: math.ceil(site.slots / WORKER_SLOTS))
    yield row("minutes that it then takes", lambda calls, site: makespan_s(calls, site) / 60)
    yield row("with the defaults, two cores and 12 slots", lambda calls, _: makespan_s(calls, PAPER) / 60)
    yield row(f"**does not grow beyond {(2 * MAX_CHUNKS) ** 2:,} calls**: chunks", lambda calls, _: chunks_of(calls))
    yield row("task instances", lambda calls, _: tasks_of(calls))
    yield row("triggers at once, at most", lambda calls, _: chunks_of(calls))
    yield row("**hardly grows**: the ramp, minutes", lambda calls, _: ramp_s(calls) / 60)
    yield row("`publish`, s", lambda calls, _: PUBLISH_S_A_CALL * calls)
    yield row("the longest `segment`, minutes", lambda calls, site: longest_segment_s(calls, site) / 60)
    yield row("times that tasks come back from the triggerer", lambda calls, site: round(wake_ups_of(calls, site)))
    yield row("a chunk's task, MB", lambda calls, site: task_mb(calls, site.copies))
    yield row("**grows with calls**: core-hours", lambda calls, site: core_s_of(calls, site) / HOUR_S)
    yield row("calls in a chunk", lambda calls, _: calls / chunks_of(calls))
    yield row("`list`, s", lambda calls, _: list_s(calls))
    yield row("… with the days that it looks back on, at most", lambda calls, _: (1 + LOOK_BACK_DAYS) * list_s(calls))
    yield row("`list` on a second run of the day, MB", lambda calls, _: second_run_mb(calls))
    yield row("the day's ledger, MB", lambda calls, _: calls * LEDGER_BYTES / MB)
    yield row("… its objects", lambda calls, _: max(calls * LEDGER_BYTES / SEGMENT_BYTES, 2 * chunks_of(calls)))
    yield row("S3 requests, thousands", lambda calls, _: _s3_of(calls) / 1000)
    yield row("… a second", lambda calls, site: _s3_of(calls) / makespan_s(calls, site))


def first_to_break() -> Iterator[Row]:
    """Yield rows with the number of calls that each limit allows in the window, the lowest first."""
    yield ["limit", f"calls in {WINDOW_H} hours", "what to change"]
    window_s = WINDOW_H * HOUR_S

    def within(name: str) -> int:
        return most(lambda calls: alone_s(calls) + limits_s(calls, PAPER)[name] <= window_s)

    service = PAPER.service
    rows: list[tuple[str, int, str]] = [
        (
            f"{service.questions_per_minute} questions a minute, of {calls_a_question(PAPER.copies)} calls each",
            within("questions a minute"),
            "`limits.llm_requests_per_minute` to what the account has; `segmentation.side_by_side`",
        ),
        (
            f"{service.jobs} jobs at once, of {number(service.speech_s)} s each",
            within("jobs at once"),
            "`limits.transcriptions_at_once` to what the account has",
        ),
        (
            f"{number(SPEECH_REQUESTS_PER_S * 300)} requests in five minutes",
            within("requests to the speech service"),
            "a higher limit; or a second account, with a pipeline of its own",
        ),
        (
            f"{number(WORKER_MB)} MB for `list` on a second run of a day",
            most(lambda calls: second_run_mb(calls) <= WORKER_MB),
            "memory of workers; or pipelines with a part of the prefix each",
        ),
        (
            f"{number(WORKER_MB / WORKER_SLOTS)} MB for a chunk's task",
            most(lambda calls: task_mb(calls, PAPER.copies) <= WORKER_MB / WORKER_SLOTS),
            "memory of workers, or fewer slots in each",
        ),
        ("two cores of workers", within("cores"), "workers"),
        (
            "tasks that Airflow starts",
            within("tasks that Airflow starts"),
            "jobs at once: tasks then come back for more of them at a time",
        ),
        (
            f"`list` in half an hour, {LOOK_BACK_DAYS} days of look-back included",
            most(lambda calls: (1 + LOOK_BACK_DAYS) * list_s(calls) <= HOUR_S / 2),
            "`recordings.look_back_days`, or pipelines with a part of the prefix each",
        ),
        (
            f"{number(LARGEST_PUT_BYTES / 1e9)} GB in the one PUT of `phases`",
            int(LARGEST_PUT_BYTES / PHASES_BYTES),
            "pipelines with a part of the prefix each",
        ),
    ]
    for name, calls, change in sorted(rows, key=lambda row: row[1]):
        yield [name, f"{_rounded_down(calls):,}", change]


def shared() -> Iterator[Row]:
    """Yield rows with the maximum rate of writes to objects that tasks share."""
    yield ["object", "follows from", "changes a second, at most"]
    service = PAPER.service
    # Tasks take and release a share of the limit at a time, and each slot is taken once per duration of a job.
    slots, turns = 2 / LEAST_SHARE, (service.questions_per_minute or 0) / 60
    for job_s in (service.speech_s, Service.speech_s):
        yield [
            "`slots.json`, jobs at once",
            f"jobs of {number(job_s)} s, whatever their number",
            number(_round(slots / job_s)),
        ]
    yield ["`llm-….json`, questions a minute", f"{service.questions_per_minute} a minute", number(_round(turns))]
    yield ["", "any number above 120 a minute", number(_round(1 / TURNS_FOR_S))]
    yield ["`lease.json`, read", f"{PAPER.slots} slots", number(_round(PAPER.slots / FRESH_S))]
    yield ["what an object takes", f"requests of {number(STORE_S * 1000)} ms", number(_round(1 / (2 * STORE_S)))]


def markdown(rows: Iterator[Row]) -> str:
    """Format rows as a Markdown table; the first row is the header."""
    head, *body = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
    columns = head.count("|") - 1
    return "\n".join([head, "|" + "---|" * columns, *body])


def tables() -> list[str]:
    """Return all tables of docs/scaling.md."""
    return [markdown(rows) for rows in (checks(), beside(), growth(), first_to_break(), shared())]


def _s3_of(calls: int) -> float:
    return S3_A_CALL * calls + S3_A_CHUNK * chunks_of(calls)


def _round(value: float) -> float:
    """Round to three significant digits."""
    return float(f"{value:.3g}")


def _apart(ours: float, theirs: float) -> str:
    percent = round((ours / theirs - 1) * 100)
    return f"{percent:+} %" if percent else "0 %"


def _rounded_down(calls: int) -> int:
    """Round down to two significant digits, so as not to overstate a limit."""
    unit = 10 ** max(len(str(calls)) - 2, 0)
    return calls // unit * unit


if __name__ == "__main__":
    sys.stdout.write("\n\n".join(tables()) + "\n")
