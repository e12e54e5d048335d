"""The tasks of a run, in their order: list, transcribe, segment, publish, verify. Each calls a step of ``DayRun``."""

from __future__ import annotations

import datetime as dt
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from callphases.airflow.compat import AirflowFailException, AirflowSkipException, show_label, trigger_run
from callphases.airflow.hook import AssemblyAIHook, s3_client
from callphases.airflow.notify import tell
from callphases.airflow.priority import processor_share
from callphases.airflow.ranges import RangeRun, backfill_of, create
from callphases.airflow.report import DAY, NOTE, PROBLEM, again, counts, fallbacks, push, remedies, sentence, total
from callphases.airflow.schedule import day_of_run
from callphases.airflow.trigger import TranscriptsTrigger
from callphases.errors import (
    AccountError,
    BackfillWaits,
    CallphasesError,
    ConfigurationError,
    DayHeld,
    RunStopped,
    ServiceUnavailable,
)
from callphases.local_days import day_end, left_out
from callphases.pipeline import Pipeline
from callphases.recordings import counted
from callphases.replay import Replay

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from callphases.day_run import DayRun
    from callphases.state.manifests import Manifest
    from callphases.work_list import Listed

POLL_IN_WORKER_S = 30.0
"""A job that ends sooner is awaited in the worker: the scheduler fails a task whose trigger fires within seconds."""
POLL_INTERVAL_S = 20.0
LONGEST_WAIT = dt.timedelta(hours=12)
LONGEST_SLEEP_S = 600.0
"""After this a task that waits for others checks on them, whatever it expected."""
LONGEST_SLEEP_OF_BACKFILL_S = 11 * 3600.0
"""The same for a task of a backfill that waits for its hours or for the next day: less than ``LONGEST_WAIT``."""
DAYS, RANGE = "days", "range"
"""XCom keys of the URIs of the days' lists, the run's own day first; and of the list of a run over several days. The
list task returns the chunks' URIs."""
SCHEDULED, BACKFILL = "scheduled", "backfill"
"""Values of Airflow's ``DagRunType``."""


class _PipelineOperator(BaseOperator):
    """What the tasks share: the pipeline, the day, and how an error ends a task.

    A task whose day another run works on waits for it: in the worker at first, then deferred.

    Args:
        pipeline: the pipeline file, as an object.
        poll_in_worker_s: how long to wait, for another run or for the provider, before the task is deferred.
        poll_interval_s: seconds between two looks of a deferred task.
    """

    def __init__(
        self,
        *,
        pipeline: Pipeline,
        poll_in_worker_s: float = POLL_IN_WORKER_S,
        poll_interval_s: float = POLL_INTERVAL_S,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self.poll_in_worker_s = poll_in_worker_s
        self.poll_interval_s = poll_interval_s

    def execute(self, context: Context) -> Any:
        """Run the task; an error that a retry can't fix fails it at once."""
        with processor_share(context["run_id"], context.get("params") or {}):
            return self._execute(context)

    def _execute(self, context: Context) -> Any:
        defer_at = time.monotonic() + self.poll_in_worker_s
        told = False
        while True:
            try:
                return self.work(context)
            except BackfillWaits as waits:
                self.log.info("%s", waits)
                self._wait_without_worker(min(max(waits.wait_s, self.poll_interval_s), LONGEST_SLEEP_OF_BACKFILL_S))
            except DayHeld as held:
                if not told:
                    self.log.info("%s", held)
                told = True
                if time.monotonic() >= defer_at:
                    self._wait_without_worker(self.poll_interval_s)
                time.sleep(min(held.wait_s, 5.0))
            except RunStopped as stopped:
                raise AirflowSkipException(str(stopped)) from None
            except (AccountError, ConfigurationError) as error:
                push(context, PROBLEM, str(error))
                raise AirflowFailException(str(error)) from None
            except CallphasesError as error:
                push(context, PROBLEM, str(error))
                raise

    def resume(self, context: Context, event: Any) -> Any:
        """Continue after a trigger has fired."""
        if isinstance(event, dict) and event.get("status") == "error":
            raise ServiceUnavailable(event["message"])
        return self.execute(context)

    def work(self, context: Context) -> Any:
        """The task itself."""
        raise NotImplementedError

    def _wait_without_worker(self, seconds: float) -> None:
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        trigger = TimeDeltaTrigger(dt.timedelta(seconds=seconds))
        self.defer(trigger=trigger, method_name="resume", timeout=LONGEST_WAIT)

    @cached_property
    def day_run(self) -> DayRun:
        """The steps of the run, with the pipeline's stores and services."""
        from callphases.day_run import DayRun

        connections = self.pipeline.connections
        service, gateway = AssemblyAIHook(connections.assemblyai).get_clients(connections.gateway)
        return DayRun(self.pipeline, s3_client(connections.aws), service, gateway)


class ListRecordings(_PipelineOperator):
    """Lists the day, writes manifests to the state area, and returns the URIs of the chunks'.

    Earlier days whose recordings have changed since they were published are run again with it.
    """

    def work(self, context: Context) -> list[str]:
        """See the class."""
        run_id, params = context["run_id"], context["params"]
        replay = Replay.of(params.get("replay"), params.get("calls"))
        if (of_range := RangeRun.of(context["params"])) is not None:
            return self._list_range(context, of_range, replay)
        day = self.day(context)
        self.log.info("%s: the day of the calls that this run lists.", day)
        is_backfill = context["dag_run"].run_type == BACKFILL
        listed = [self.day_run.begin(day, run_id, replay, is_archive=is_backfill)]
        # A backfill runs each of its days itself; a replay is for failed calls alone.
        if replay is None and not is_backfill:
            listed += self._other_days(context, day, listed[0].budget_usd)
        context["ti"].xcom_push(DAYS, [one.day for one in listed])
        return [chunk for one in listed for chunk in one.chunks]

    def _list_range(self, context: Context, run: RangeRun, replay: Replay | None) -> list[str]:
        self._check_has_begun(run.days.last)
        push(context, DAY, str(run.days))
        listed = self.day_run.begin_range(run.days, context["run_id"], replay, run.again)
        context["ti"].xcom_push(RANGE, listed.day)
        return listed.chunks

    def day(self, context: Context) -> dt.date:
        """The day to process: the Param ``date``, else the last day that is complete when the run may begin.

        Raises:
            ConfigurationError: the day has not begun, or the runs of a backfill have the Param ``date``.
        """
        asked, zone = context["params"].get("date"), self.pipeline.zone
        interval = context.get("data_interval_start"), context.get("data_interval_end")
        if asked and context["dag_run"].run_type == BACKFILL:
            raise ConfigurationError(
                f"The backfill was created with the Param date ({asked}), so each of its runs would process that day: "
                "cancel it, and create it again without date, for example with callphases backfill."
            )
        day = day_of_run(asked, context.get("logical_date"), interval, context["dag_run"].run_after, zone)
        push(context, DAY, str(day))
        self._check_has_begun(day)
        return day

    def _check_has_begun(self, day: dt.date) -> None:
        zone, now = self.pipeline.zone, dt.datetime.now(dt.UTC)
        if day > now.astimezone(zone).date():
            raise ConfigurationError(f"{day} has not begun in {zone.key}: run the day once it is over.")
        if day_end(day, zone) > now:
            self.log.warning("%s is not over in %s: calls that come later are for the next run.", day, zone.key)

    def _other_days(self, context: Context, day: dt.date, budget_usd: float | None) -> Iterator[Listed]:
        """Begins the other days of the run: those that Airflow left out, and those that have changed."""
        seen = {day}
        try:
            for other, why in itertools.chain(self._left_out(context), self._changed(day)):
                if other in seen:
                    continue
                seen.add(other)
                try:
                    listed = self.day_run.begin(other, context["run_id"], budget_usd=budget_usd)
                    budget_usd = listed.budget_usd
                    yield listed
                except DayHeld as held:
                    self.log.info("%s %s. %s", other, why, held)
                else:
                    self.log.info("%s %s, and is run with this day.", other, why)
        except ServiceUnavailable as error:
            self.log.warning("Whether days before %s have changed is for the next run to find out: %s", day, error)

    def _left_out(self, context: Context) -> Iterator[tuple[dt.date, str]]:
        from callphases.state.lease import has_run

        start, end = context.get("data_interval_start"), context.get("data_interval_end")
        is_nightly = context["dag_run"].run_type == SCHEDULED and self.pipeline.time_of_day is not None
        if not is_nightly or start is None or end is None:
            return
        for day in left_out(start, end, self.pipeline.zone):
            if not has_run(self.day_run.state, day):
                yield day, "has no run of its own, because the clocks were put forward"

    def _changed(self, day: dt.date) -> Iterator[tuple[dt.date, str]]:
        return ((late, "changed since it was published") for late in self.day_run.late_days(day))

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """The recordings that are listed, for OpenLineage."""
        from callphases.airflow.lineage import read_recordings

        return read_recordings(self.pipeline)


class _ChunkOperator(_PipelineOperator):
    """A task on one chunk of the day.

    Args:
        manifest: the chunk's URI.
    """

    template_fields: Sequence[str] = ("manifest",)

    def __init__(self, *, manifest: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.name = ""

    def chunk(self, context: Context) -> Manifest:
        """The chunk; also names the task's map index after it."""
        chunk = self.day_run.load(self.manifest)
        first, count = chunk.recordings[0], len(chunk.recordings)
        name = first.key.rsplit("/", 1)[-1]
        self.name = name if count == 1 else f"{name} and {count - 1} more"
        context["chunk"] = self.name  # type: ignore[typeddict-unknown-key]
        return chunk


class TranscribeRecordings(_ChunkOperator):
    """Has a chunk transcribed: submits, waits, and saves transcripts and captions to the state area.

    Jobs that end within ``poll_in_worker_s`` are awaited in the worker; for the others the task is deferred.
    """

    def work(self, context: Context) -> dict[str, Any]:
        """See the class."""
        chunk = self.chunk(context)
        waiting = self.day_run.transcribe(chunk, self.poll_in_worker_s, partial(self._show, context))
        if waiting is not None:
            in_s = min(max(waiting.in_s, self.poll_interval_s), LONGEST_SLEEP_S)
            if not waiting.jobs:
                self._wait_without_worker(in_s)
            # With recordings left to submit it is enough that a good part of the jobs makes room for them.
            enough = math.ceil(len(waiting.jobs) / 2) if waiting.unsent else len(waiting.jobs)
            service = self.pipeline.connections.assemblyai
            trigger = TranscriptsTrigger(service, waiting.jobs, self.poll_interval_s, enough, in_s)
            self.defer(trigger=trigger, method_name="resume", timeout=LONGEST_WAIT)
        return {"recordings": len(chunk.recordings)}

    def _show(self, context: Context, progress: str) -> None:
        """Show how far the chunk is in the grid."""
        context["chunk"] = f"{self.name}: {progress}"  # type: ignore[typeddict-unknown-key]
        show_label(f"{self.name}: {progress}")

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """The recordings that the service reads, for OpenLineage."""
        from callphases.airflow.lineage import read_recordings

        return read_recordings(self.pipeline)


class SegmentCalls(_ChunkOperator):
    """Has the calls of a chunk divided into phases."""

    def work(self, context: Context) -> dict[str, Any]:
        """See the class."""
        chunk = self.chunk(context)
        self.day_run.segment(chunk)
        return {"recordings": len(chunk.recordings)}


def _rows(day: dict[str, Any], table: str) -> int:
    """The rows of a day's object of a table."""
    return int(day["objects"].get(table, {}).get("rows", 0))


class PublishDay(_PipelineOperator):
    """Publishes all of the day's rows, whatever became of single chunks, and adds counts and costs to the Asset events.

    Args:
        listed: the id of the task that listed the day. Its XCom is pulled in ``work``: where the listing failed, a
            template would fail before the task can say so.
    """

    def __init__(self, *, listed: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listed = listed
        self.days: list[dict[str, Any]] = []

    def work(self, context: Context) -> dict[str, Any]:
        """See the class."""
        if (of_range := context["ti"].xcom_pull(task_ids=self.listed, key=RANGE)) is not None:
            return self._publish_range(context, of_range)
        manifests = context["ti"].xcom_pull(task_ids=self.listed, key=DAYS)
        if manifests is None:
            raise AirflowFailException(f"The day was not listed, so nothing is published: see the task {self.listed}.")
        tables = self.pipeline.output.tables
        days: list[dict[str, Any]] = []
        for manifest in manifests:
            listed = self.day_run.load_day(manifest)
            days.append({"dt": listed.day.isoformat(), **asdict(self.day_run.end(listed))})
            calls, phases = (_rows(days[-1], table) for table in ("calls", "phases"))
            self.log.info("%s: %s in calls, %d in phases, below %s", listed.day, counted(calls, "row"), phases, tables)
        published = {**days[0], "late": days[1:]}
        self._announce(context, published)
        self.days = days
        return published

    def _publish_range(self, context: Context, listed: str) -> dict[str, Any]:
        lists = self.day_run.load_days(listed)
        ended = self.day_run.end_range(lists)
        days = [{"dt": str(one.day), **asdict(published)} for one, published in zip(lists, ended, strict=True)]
        run = RangeRun.of(context["params"])
        assert run is not None
        published = {**total(str(run.days), days), "late": [], "days": [day["dt"] for day in days]}
        if days:
            from callphases.state.manifests import save_published

            # An XCom has no room for the figures of a year of days.
            published["of_days"] = save_published(self.day_run.state, lists[0], days)
            # A Dag that an Asset starts finds the days where it finds those that a night has republished.
            self._announce(context, {**published, "late": days})
        self.days = days
        return published

    def _announce(self, context: Context, published: dict[str, Any]) -> None:
        """Add the counts to the events of the Assets."""
        for outlet in self.outlets:
            table = outlet.name.rpartition(".")[2]
            place = f"{self.pipeline.output.tables}{table}/"
            context["outlet_events"][outlet].extra = {**published, "table": place, "rows": _rows(published, table)}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> OperatorLineage[Any, Any]:  # noqa: ARG002
        """The recordings, and both tables with their columns and rows, for OpenLineage."""
        from callphases.airflow.lineage import published

        return published(self.pipeline, self.days)


class VerifyDay(_PipelineOperator):
    """Fails the run if the published rows are not those of the recordings listed, or if too many calls failed.

    Args:
        published: what the task ``publish`` returned.
    """

    template_fields: Sequence[str] = ("published",)

    def __init__(self, *, published: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published

    def work(self, context: Context) -> None:
        """See the class."""
        if "days" in self.published:
            self._verify_range(context)
            return
        days = [self.published, *self.published["late"]]
        sentences = [sentence(day) for day in days]
        for one in sentences:
            self.log.info("%s", one)
        problems = {number: problem for number, day in enumerate(days) if (problem := self._problem(day))}
        notes = [
            # The counts are in both; a note has room for them once.
            one + problems.get(number, "").removeprefix(counts(days[number])).replace(":", "", 1)
            for number, one in enumerate(sentences)
        ]
        push(context, NOTE, "\n\n".join(notes))
        for day, one in zip(days, sentences, strict=True):
            self._tell(day, one, context)
        if problems:
            raise AirflowFailException(" ".join(problems.values()))

    def _verify_range(self, context: Context) -> None:
        """Verify each day of a run over several, and create the next run of its backfill."""
        from callphases.state.manifests import load_published

        of_run = self.published
        days = load_published(self.day_run.state, of_run["of_days"]) if of_run["days"] else []
        said = sentence(of_run) if days else f"{of_run['dt']}: nothing to do, as every day of it is done."
        self.log.info("%s", said)
        problems = []
        for day in days:
            self.log.info("%s", sentence(day))
            if (problem := self._problem(day, most_failed=1.0)) is not None:
                problems.append(problem)
        problems = problems or [one for one in [self._problem(of_run)] if one is not None]
        # A note has room for the first.
        push(context, NOTE, " ".join([said, *problems[:1]]))
        self._tell(of_run, said, context)
        if not of_run["stopped"]:
            self._go_on(context)
        if problems:
            raise AirflowFailException(" ".join(problems))

    def _go_on(self, context: Context) -> None:
        run = RangeRun.of(context["params"])
        assert run is not None
        created = create(
            run.following(),
            backfill_of(context["run_id"]),
            lambda days: bool(self.day_run.days_to_do(days, run.again)),
            partial(trigger_run, self.pipeline.dag_id),
        )
        if run.then is not None:
            after = created[0].days if created else "none"
            self.log.info("The backfill's next run: %s.", after)

    def _tell(self, day: dict[str, Any], said: str, context: Context) -> None:
        """Tell of the budget and, in the log too, of other models, whatever becomes of the run."""
        if "budget" in day["failures"]:
            lines = [said, *remedies({"budget": day["failures"]["budget"]})]
            tell(
                self.pipeline,
                self.pipeline.notify,
                "budget_reached",
                [*lines, again(self.pipeline.dag_id, day["dt"])],
                context,
            )
        if others := fallbacks(self.pipeline, day):
            for other in others:
                self.log.warning("%s", other)
            tell(self.pipeline, self.pipeline.notify, "model_fallback", [*others, said], context)

    def _problem(self, day: dict[str, Any], most_failed: float | None = None) -> str | None:
        """The problem with a day, or with all days of a run, if any.

        ``most_failed`` is the share of failed recordings that is none; None stands for ``limits.max_failed_ratio``.
        """
        listed, failed = day["listed"], day["statuses"].get("failed", 0)
        summary = counts(day)
        if sum(day["statuses"].values()) != listed:
            return f"{summary}: the table calls does not hold every recording listed."
        if day["stopped"]:
            return f"{summary}: the run was stopped. {day['stopped']}"
        if day["unfinished"]:
            were = "was" if day["unfinished"] == 1 else "were"
            return (
                f"{summary}: {counted(day['unfinished'])} {were} not finished. The log of the failed task in the group "
                "calls says why; run the day again, what is paid for is not paid for again."
            )
        over = ""
        if "budget" in day["failures"]:
            over = " For what is over the budget, raise budget.usd_per_run and run the day again."
            self.log.warning("%s: %s over the budget.%s", day["dt"], counted(day["failures"]["budget"]), over)
        most = self.pipeline.limits.max_failed_ratio if most_failed is None else most_failed
        if listed and failed / listed > most:
            return (
                f"{summary}: {failed / listed:.1%} failed, more than limits.max_failed_ratio ({most:.1%}).{over} The "
                "columns failure_class and failure_message of the table calls say why; all rows are published."
            )
        return None
