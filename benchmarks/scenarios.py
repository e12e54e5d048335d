"""Defines the scenarios: what each measures, its targets, and its duration on two cores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks import bulk, rivals, segmentation
from benchmarks.archives import Year
from benchmarks.backfills import OVER_ALONE, NightInBackfill
from benchmarks.bench import Bench
from benchmarks.bound import Service
from benchmarks.figures import Figure, at_least, at_most
from benchmarks.nights import PER_CALL, Night
from benchmarks.readers import Readers
from benchmarks.report import CORE_MS, OVER_BOUND

FULL_NIGHT = 5000
LLM_FAULTS = (
    "fenced", "wordy", "cut", "not_json", "empty", "wrong_name", "missing_call", "unordered", "unknown_cue",
    "missing_fields", "refusal", "no_choices", "no_response_format", "context_limit",
)  # fmt: skip
FAULTS: tuple[dict[str, object], ...] = (
    {"fault": "status", "status": 429, "retry_after_s": 1, "rate": 0.10},
    {"fault": "status", "status": 500, "rate": 0.05},
    {"fault": "status", "status": 503, "rate": 0.05},
    {"fault": "drop_answer", "rate": 0.05},
    {"fault": "drop", "rate": 0.02},
    {"fault": "job_error", "rate": 0.03},
    *({"fault": fault, "rate": 0.10} for fault in LLM_FAULTS),
)

Results = Mapping[str, Sequence[Figure]]


@dataclass(frozen=True)
class Scenario:
    """A measurement; ``measure`` receives the results so far, ``minutes`` is an estimate for two cores."""

    name: str
    about: str
    minutes: float
    measure: Callable[[Bench, Results], list[Figure]]
    nights: tuple[Night | Readers, ...] = ()
    dag_id: str | None = None


def _night(about: str, minutes: float, night: Night) -> Scenario:
    return Scenario(night.name, about, minutes, lambda bench, _: night.measure(bench), (night,))


def _small_day(bench: Bench, results: Results) -> list[Figure]:
    figures = SMALL_DAY.measure(bench)
    core_ms = f"{CORE_MS}: Airflow"
    both = (figures, results.get("night-500", ()))
    values = [figure.value for one in both for figure in one if figure.name == core_ms]
    if len(values) == 2 and values[0] is not None and values[1]:
        figures.append(Figure("core time a call over night-500's", values[0] / values[1], target=at_most(2)))
    return figures


def _rivals(bench: Bench, results: Results) -> list[Figure]:
    return rivals.measure(bench, results.get("night-5000"), bench.scaled(FULL_NIGHT), at_least(12))


SMALL_DAY = Night("night-60", 60)
YEAR = Year("year")
READERS = Readers()

_SCENARIOS = (
    _night(
        "5,000 calls: speech 3 s each, 200 at once; model 1 s a question, 60 at once",
        4,
        Night(
            "night-5000",
            FULL_NIGHT,
            targets={
                OVER_BOUND: at_most(2.0),
                PER_CALL: at_most(3.2),
                "calls a question": at_least(8),
                "S3 requests a call": at_most(5),
                f"{CORE_MS}: Airflow": at_most(50),
            },
        ),
    ),
    _night("500 calls on the same services", 1, Night("night-500", 500, targets={OVER_BOUND: at_most(4.0)})),
    Scenario("night-60", "60 calls on the same services", 1, _small_day, (SMALL_DAY,)),
    Scenario(
        "year",
        "365 days of 20 calls through callphases backfill, then one day of 7,300",
        12,
        lambda bench, _: YEAR.measure(bench),
        (YEAR.night, YEAR.day),
    ),
    _night(
        "5,000 calls, one call per question",
        4,
        Night(
            "night-5000-single",
            FULL_NIGHT,
            packing=False,
            targets={
                OVER_BOUND: at_most(2.0),
                PER_CALL: at_most(4.0),
                "S3 requests a call": at_most(5),
                f"{CORE_MS}: Airflow": at_most(50),
            },
        ),
    ),
    _night(
        "a gateway limited to 30 questions per minute, for about 5 minutes",
        6,
        Night(
            "pace-30",
            2600,
            Service(questions_per_minute=30),
            targets={"most questions in a minute": at_most(30), "calls an hour": at_least(12_000)},
        ),
    ),
    _night(
        "500 calls with failing services: 429, 5xx, lost responses, malformed answers of the model",
        2,
        Night("faulty-500", 500, faults=FAULTS, targets={"transcriptions paid for twice": at_most(0)}),
    ),
    Scenario("rivals", "a loop, the official SDK, one mapped task per recording", 5, _rivals, dag_id=rivals.DAG_ID),
    _night(
        "400 jobs of 5 minutes: worker slots held while they run; the run is then given up",
        3,
        Night(
            "long-jobs",
            400,
            Service(speech_s=300, jobs=400),
            observed_s=150,
            targets={"worker slots held half a minute later": at_most(0)},
        ),
    ),
    _night(
        "20,000 calls in a day: memory",
        9,
        Night("night-20000", 20_000, Service(speech_s=1.0), targets={"largest process": at_most(500)}),
    ),
    _night(
        "60 calls in the middle of a backfill of 60 days with 100 calls each, and alone",
        6,
        NightInBackfill(
            "night-in-backfill", 60, targets={OVER_ALONE: at_most(1.3), "transcriptions paid for twice": at_most(0)}
        ),
    ),
    Scenario("listing", "a day of 1,000,000 recordings, dated and flat", 4, lambda bench, _: bulk.listing(bench)),
    Scenario("archive", "365 days of a flat archive of 100,000 recordings", 2, lambda bench, _: bulk.archive(bench)),
    Scenario("publish", "1,000,000 rows of phases, and pyarrow alone", 2, lambda bench, _: bulk.publish(bench)),
    Scenario(
        "readers",
        "the pages of a day of 10,000 calls, and Airflow's API beside twenty readers",
        8,
        lambda bench, _: READERS.measure(bench),
        (READERS,),
    ),
    Scenario(
        "segmentation",
        "accuracy of the local model on the sample calls, compared with baselines",
        0.5,
        lambda bench, _: segmentation.measure(bench),
    ),
)
SCENARIOS = {scenario.name: scenario for scenario in _SCENARIOS}
