"""Tests of nights on a Celery cluster that loses machines: each completes unattended, with the tables of a quiet night.

All tests share one cluster; each night has a day of its own.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.airflow import Sample
from benchmarks.processes import Program, say
from benchmarks.scenarios import FAULTS
from cluster import WORKERS, Cluster, Outcome, cluster

pytestmark = pytest.mark.e2e

CALLS = 300
FIRST_DAY = dt.date(2026, 11, 1)
ROUGH = (*FAULTS, {"fault": "slow", "delay_s": 2, "on": "POST /v2/transcript", "rate": 0.3})


class Once:
    """Calls ``what`` once, at the first sample for which ``when`` is true."""

    def __init__(self, when: Callable[[Sample], bool], what: Callable[[], None]) -> None:
        self.when, self.what = when, what
        self.done_at: Sample | None = None

    def __call__(self, sample: Sample) -> bool:
        if self.done_at is None and self.when(sample):
            self.done_at = sample
            self.what()
            say(f"  disturbed at {sample}")
        return False


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("cluster") / "it") as it:
        yield it


@pytest.fixture(scope="module")
def quiet(stack: Cluster) -> Outcome:
    return stack.night(FIRST_DAY, CALLS)


def test_night_without_faults_completes_on_both_workers(stack: Cluster, quiet: Outcome) -> None:
    assert quiet.run.state == "success"
    assert quiet.tables["calls"]["status"] == ["completed"] * CALLS
    assert quiet.tables["phases"]["phase_index"] == [0, 1, 2, 3] * CALLS
    assert len(quiet.paid) == CALLS
    assert quiet.paid_twice == 0
    worked = [stack.airflow.programs[name].log.read_text().count("Executing workload") for name in WORKERS]
    assert min(worked) > 0, "both workers ran tasks"


def submitting(stack: Cluster) -> Callable[[Sample], bool]:
    """A condition: the submission of chunks is under way."""
    before = stack.submissions()
    return lambda sample: CALLS / 6 <= stack.submissions() - before < CALLS


def deferred(sample: Sample) -> bool:
    """Whether at least three chunks are deferred, so that they wait for the provider without a worker."""
    return sample.deferred >= 3


def disturbed(
    stack: Cluster,
    quiet: Outcome,
    number: int,
    when: Callable[[Sample], bool],
    what: Callable[[], None],
    faults: tuple[dict[str, Any], ...] = ROUGH,
) -> None:
    """Run a night with a disturbance, and check that its tables and payments are those of the quiet night."""
    once = Once(when, what)
    night = stack.night(FIRST_DAY + dt.timedelta(number), CALLS, faults, once)
    assert once.done_at is not None
    assert night.run.state == "success"
    for table, columns in quiet.tables.items():
        assert [name for name in columns if night.tables[table].get(name) != columns[name]] == []
    assert len(night.paid) == CALLS
    assert night.paid_twice == 0


@pytest.mark.parametrize(("number", "faults"), [(1, ()), pytest.param(8, ROUGH, marks=pytest.mark.kill)])
def test_worker_lost_in_a_chunk_changes_neither_rows_nor_payments(
    stack: Cluster, quiet: Outcome, number: int, faults: tuple[dict[str, Any], ...]
) -> None:
    worker = stack.airflow.programs["worker-1"]
    disturbed(stack, quiet, number, submitting(stack), lambda: stack.lose_for_good(worker), faults)
    stack.supervised.append(worker)


@pytest.mark.kill
def test_triggerer_lost_while_chunks_wait_changes_neither_rows_nor_payments(stack: Cluster, quiet: Outcome) -> None:
    disturbed(stack, quiet, 2, deferred, lambda: stack.lose(stack.airflow.programs["triggerer"]))


@pytest.mark.kill
def test_lost_scheduler_changes_neither_rows_nor_payments(stack: Cluster, quiet: Outcome) -> None:
    disturbed(stack, quiet, 3, submitting(stack), lambda: stack.lose(stack.airflow.programs["scheduler"]))


@pytest.mark.kill
def test_restarted_redis_changes_neither_rows_nor_payments(stack: Cluster, quiet: Outcome) -> None:
    disturbed(stack, quiet, 4, submitting(stack), lambda: stack.lose(stack.redis))


@pytest.mark.kill
def test_restarted_postgres_changes_neither_rows_nor_payments(stack: Cluster, quiet: Outcome) -> None:
    disturbed(stack, quiet, 5, submitting(stack), lambda: stack.lose(stack.airflow.database.server))


@pytest.mark.kill
def test_unreachable_provider_changes_neither_rows_nor_payments(stack: Cluster, quiet: Outcome) -> None:
    def cut() -> None:
        stack.link.cut()
        time.sleep(60)
        stack.link.mend()

    disturbed(stack, quiet, 6, submitting(stack), cut)


@pytest.mark.kill
def test_second_scheduler_finishes_the_night_when_the_first_is_lost(stack: Cluster, quiet: Outcome) -> None:
    first = stack.airflow.programs["scheduler"]
    second = Program(first.command, first.log.with_name("scheduler-2.log"), first.environment)
    second.start()
    try:
        disturbed(stack, quiet, 7, deferred, lambda: stack.lose_for_good(first))
    finally:
        second.end()
        stack.supervised.append(first)


@pytest.mark.kill
def test_waiting_chunks_occupy_no_worker_slot(stack: Cluster) -> None:
    """Fifty chunks use no worker slot from half a minute after the last submission on."""
    calls, before = 10_000, stack.submissions()
    submitted: list[float] = []
    later: list[Sample] = []

    def look(sample: Sample) -> bool:
        if not submitted and stack.submissions() - before >= calls:
            submitted.append(sample.at_s)
        if submitted and sample.at_s > submitted[0] + 30:
            later.append(sample)
        return bool(submitted) and sample.at_s > submitted[0] + 60

    stack.night(dt.date(2026, 12, 1), calls, ({"fault": "job_slow", "delay_s": 1800},), look)
    assert max(sample.deferred for sample in later) >= 50
    assert max(sample.running for sample in later) == 0
