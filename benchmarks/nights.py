"""Measures nights on the real stack: one run each of the callphases Dag."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.accounting import Accounting
from benchmarks.airflow import COMPONENTS, Run, Sample
from benchmarks.bench import Bench
from benchmarks.bound import Service, bound_s
from benchmarks.figures import Figure, Target
from benchmarks.processes import Broken, say
from benchmarks.report import CORE_MS, OVER_BOUND
from benchmarks.services import DAY, RECORDINGS, WAREHOUSE, Services

SERVERS = ("S3 server", "speechbox")
AFTER_SUBMITTING_S = 30.0
PER_CALL = "provider requests a call, polls included"


@dataclass(frozen=True)
class Night:
    """One night.

    Attributes:
        name: of the scenario and of its pipeline.
        calls: number of recordings of the day, of 25 cues each.
        service: latencies and limits of the services.
        packing: whether a question may contain several calls, as by default.
        faults: fault rules for speechbox.
        observed_s: seconds after which to give up the run and report worker slots only; None runs it to its end.
        limit_s: seconds after which the scenario counts as broken.
        targets: by figure name.
    """

    name: str
    calls: int
    service: Service = field(default_factory=Service)
    packing: bool = True
    faults: tuple[dict[str, Any], ...] = ()
    observed_s: float | None = None
    limit_s: float = 1200.0
    targets: Mapping[str, Target] = field(default_factory=dict)

    @property
    def dag_id(self) -> str:
        """ID of the pipeline's Dag."""
        return f"call_phases_{self.name}"

    @property
    def pipeline(self) -> dict[str, Any]:
        """Content of the pipeline file, with the service's limits as a user would set them."""
        asked_a_minute = self.service.questions_per_minute or math.floor(
            self.service.questions_at_once * 60 / self.service.question_s
        )
        document: dict[str, Any] = {
            "pipeline": self.name,
            "schedule": None,
            "recordings": {"bucket": RECORDINGS, "prefix": f"{self.name}/{{date:%Y-%m-%d}}/"},
            "output": {
                "tables": f"s3://{WAREHOUSE}/tables/{self.name}/",
                "state": f"s3://{WAREHOUSE}/state/{self.name}/",
            },
            "limits": {
                "ramp": False,
                "transcriptions_at_once": self.service.jobs,
                "llm_requests_per_minute": asked_a_minute,
                "max_failed_ratio": 0.05,
            },
        }
        if not self.packing:
            document["segmentation"] = {"calls_per_question": 1}
        return document

    def measure(self, bench: Bench) -> list[Figure]:
        """Run the night.

        Raises:
            Broken: the run failed, or a call was not completed.
        """
        calls = bench.scaled(self.calls)
        with bench.services(self.service) as services:
            services.fill(f"{self.name}/", calls, "%Y-%m-%d/")
            if self.faults:
                services.misbehave(3, list(self.faults))
            services.reset()
            slots = _Slots(services, calls)
            database = bench.airflow.database
            roots = {
                **bench.airflow.pids,
                **services.pids,
                **({"database": database.server.pid} if database.server else {}),
            }
            with Accounting(roots) as used:
                run = bench.airflow.run(
                    self.dag_id, {"date": DAY.isoformat()}, self.observed_s or self.limit_s, slots.look
                )
            s3_requests, health = services.s3_requests(), services.health()
            say(f"    {run.state} after {run.makespan_s:.1f} s")
            for task, times in bench.airflow.tasks(run).items():
                say(f"      {task:18} {times}")
            if self.observed_s is not None:
                return [self._held_to(figure) for figure in slots.figures(run)]
            if self.faults:
                services.misbehave(3, [])
            figures = list(_figures(self, calls, run, used, s3_requests, health))
            figures += _outcome(self, services, run, calls)
        return [self._held_to(figure) for figure in figures]

    def _held_to(self, figure: Figure) -> Figure:
        return Figure(figure.name, figure.value, figure.unit, self.targets.get(figure.name), figure.note)


@dataclass
class _Slots:
    """Worker slots that are held after the last job is submitted."""

    services: Services
    calls: int
    submitted_at_s: float | None = None

    def look(self, sample: Sample) -> bool:
        """Record when the last job is submitted; returns False, which continues the run."""
        if self.submitted_at_s is None and self.services.health()["submissions"] >= self.calls:
            self.submitted_at_s = sample.at_s
        return False

    def figures(self, run: Run) -> Iterator[Figure]:
        """Yield the number of slots held half a minute after the last submission, and the maximum."""
        yield Figure("all jobs submitted after", self.submitted_at_s, "s")
        if self.submitted_at_s is None:
            raise Broken(f"Fewer than {self.calls} jobs were submitted within {run.makespan_s:.0f} s.")
        later = [sample for sample in run.samples if sample.at_s > self.submitted_at_s + AFTER_SUBMITTING_S]
        yield Figure("worker slots held half a minute later", max((sample.running for sample in later), default=None),
                     note=f"maximum of {len(later)} samples")  # fmt: skip
        yield Figure("most worker slots held", max(sample.running for sample in run.samples))


def _figures(
    night: Night, calls: int, run: Run, used: Accounting, s3_requests: dict[str, dict[str, int]], health: dict[str, Any]
) -> Iterator[Figure]:
    bound = bound_s(night.service, calls, health["questions"])
    asked = health.get("requests")
    yield Figure("calls", calls)
    yield Figure("makespan", run.makespan_s, "s", note=f"bound {bound:.1f} s")
    yield Figure(OVER_BOUND, run.makespan_s / bound if bound else None)
    yield Figure("calls an hour", calls / run.makespan_s * 3600)
    yield Figure(PER_CALL, sum(asked.values()) / calls if asked else None, note=_kinds(asked, calls))
    yield Figure("calls a question", health["questions_calls"] / max(health["questions"], 1))
    s3_total = sum(count for kinds in s3_requests.values() for count in kinds.values())
    kinds = {f"{method} {kind}": count for method, kinds in s3_requests.items() for kind, count in kinds.items()}
    yield Figure("S3 requests a call", s3_total / calls, note=_kinds(kinds, calls))
    yield Figure("LIST requests", sum(s3_requests.get("LIST", {}).values()))
    yield Figure(f"{CORE_MS}: Airflow", used.of(*COMPONENTS) / calls * 1000,
                 note=", ".join(f"{name} {used.of(name) / calls * 1000:.1f}" for name in COMPONENTS))  # fmt: skip
    yield Figure(f"{CORE_MS}: test servers", used.of(*SERVERS) / calls * 1000,
                 note=", ".join(f"{name} {used.of(name) / calls * 1000:.1f}" for name in SERVERS))  # fmt: skip
    if "database" in used.roots:
        yield Figure(f"{CORE_MS}: database", used.of("database") / calls * 1000)
    role, peak_mb = used.largest(*COMPONENTS)
    yield Figure("largest process", peak_mb, "MB", note=role.replace("scheduler child", "a task's process"))
    yield Figure("worker-slot seconds a call", run.slot_s / calls)
    if (refused := health.get("refused")) is not None:
        yield Figure("requests refused", sum(refused.values()) if isinstance(refused, dict) else refused)
    if (at_once := health.get("most_chats_at_once")) is not None:
        yield Figure("most questions at once", at_once)
    if (a_minute := health.get("most_chats_a_minute")) is not None:
        yield Figure("most questions in a minute", max(a_minute.values(), default=0))


def _outcome(night: Night, services: Services, run: Run, calls: int) -> list[Figure]:
    """Check that every call is completed, and count the transcriptions paid for more than once."""
    import pyarrow.parquet as pq

    s3 = services.s3()
    completed = 0
    prefix = f"tables/{night.name}/calls/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=WAREHOUSE, Prefix=prefix):
        for item in page.get("Contents", []):
            body = s3.get_object(Bucket=WAREHOUSE, Key=item["Key"])["Body"].read()
            statuses = pq.read_table(io.BytesIO(body), columns=["status"], partitioning=None)["status"].to_pylist()
            completed += statuses.count("completed")
    if run.state != "success" or completed != calls:
        raise Broken(f"{night.name}: the run ended as {run.state!r} with {completed} of {calls} calls completed.")
    twice = sum(count - 1 for count in services.paid().values())
    return [Figure("transcriptions paid for twice", twice)]


def _kinds(counts: Mapping[str, int] | None, calls: int) -> str:
    """Format counts per call, largest first, without those below 0.01."""
    largest = sorted((counts or {}).items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {count / calls:.2f}" for name, count in largest if count / calls >= 0.01)
