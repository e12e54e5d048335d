"""The tasks of a run, in their order: list, transcribe, segment, publish, verify. Each calls the core's rooms."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from callphases.airflow.hook import AssemblyAIHook
from callphases.airflow.trigger import TranscriptsTrigger
from callphases.errors import AccountError, ConfigurationError, ServiceUnavailable
from callphases.pipeline import Pipeline

if TYPE_CHECKING:
    from airflow.sdk import Context
    from mypy_boto3_s3.client import S3Client

    from callphases.ledger import Ledger
    from callphases.recordings import Manifest
    from callphases.storage import Folder

POLL_IN_WORKER_S = 30.0
"""A job that ends sooner is waited for in the worker: the scheduler fails a task whose trigger fires within seconds."""
POLL_INTERVAL_S = 20.0
LONGEST_WAIT = dt.timedelta(hours=12)


class _PipelineOperator(BaseOperator):
    """What the tasks share: the pipeline, its stores and the day; and how an error ends a task.

    Args:
        pipeline: the pipeline file, as an object.
    """

    def __init__(self, *, pipeline: Pipeline, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pipeline = pipeline

    def execute(self, context: Context) -> Any:
        """Run the task; what a retry can't mend fails at once."""
        try:
            return self.work(context)
        except (AccountError, ConfigurationError) as error:
            raise AirflowFailException(str(error)) from None

    def work(self, context: Context) -> Any:
        """The task itself."""
        raise NotImplementedError

    @cached_property
    def s3(self) -> S3Client:
        """The S3 client of the pipeline's connection."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook
        from botocore.config import Config

        conn_id = self.pipeline.connections.aws
        # SigV4, as only it presigns for every region and is checked by every server; checksums only where S3 wants
        # them, as not every S3 server knows the newer ones. What the connection says otherwise wins.
        config = Config(
            signature_version="s3v4",
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"mode": "standard", "max_attempts": 6},
            connect_timeout=10,
        )
        own = S3Hook(aws_conn_id=conn_id).conn_config.botocore_config
        hook = S3Hook(aws_conn_id=conn_id, config=config.merge(own) if own else config)
        return hook.get_conn()

    @cached_property
    def state(self) -> Folder:
        """``output.state``."""
        from callphases.storage import Folder

        return Folder(self.s3, self.pipeline.output.state, "output.state")

    @property
    def service(self) -> AssemblyAIHook:
        """The hook of the pipeline's speech and gateway connection."""
        return AssemblyAIHook(self.pipeline.connections.assemblyai)

    def day(self, context: Context) -> dt.date:
        """The day to process: the Param ``date``, else the day that the run's data interval begins on."""
        if asked := context["params"].get("date"):
            return dt.date.fromisoformat(asked[:10])
        if start := context.get("data_interval_start"):
            return start.astimezone(self.pipeline.zone).date()
        # A run triggered by hand without a logical date has no interval: the last whole day, as a scheduled run has.
        run_after: dt.datetime = context["dag_run"].run_after
        return run_after.astimezone(self.pipeline.zone).date() - dt.timedelta(days=1)

    def ledger(self, context: Context) -> Ledger:
        """The day's ledger as it is now."""
        from callphases.ledger import Ledger

        return Ledger.open(self.state, self.day(context), context["run_id"])


class ListRecordings(_PipelineOperator):
    """Lists the day, writes its manifest and the chunks' into the state area, and returns the chunks' URIs."""

    def work(self, context: Context) -> list[str]:
        """See the class."""
        from callphases.phases import unsettled
        from callphases.recordings import Manifest, chunks, list_day

        for setting in self.pipeline.not_in_force:
            self.log.warning("%s is given in the pipeline file and not in force in this version.", setting)
        day, now = self.day(context), dt.datetime.now(dt.UTC)
        recordings = list(list_day(self.s3, self.pipeline, day))
        todo = unsettled(recordings, self.pipeline, self.ledger(context), now)
        self.log.info(
            "%s: %d recordings listed, %d of them to do, %d done before.",
            day,
            len(recordings),
            len(todo),
            len(recordings) - len(todo),
        )
        if todo:
            self.service.get_conn().check()
        Manifest(day, context["run_id"], now, recordings).save(self.state, "day")
        return [
            Manifest(day, context["run_id"], now, chunk).save(self.state, f"chunk-{number:04d}")
            for number, chunk in enumerate(chunks(todo))
        ]


class _ChunkOperator(_PipelineOperator):
    """A task on one chunk of the day.

    Args:
        manifest: the chunk's URI.
    """

    template_fields: Sequence[str] = ("manifest",)

    def __init__(self, *, manifest: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest

    def chunk(self, context: Context) -> Manifest:
        """The chunk; also names the task's map index after it."""
        from callphases.recordings import Manifest

        chunk = Manifest.load(self.state, self.manifest)
        first, count = chunk.recordings[0], len(chunk.recordings)
        name = first.key.rsplit("/", 1)[-1]
        context["chunk"] = name if count == 1 else f"{name} and {count - 1} more"  # type: ignore[typeddict-unknown-key]
        return chunk


class TranscribeRecordings(_ChunkOperator):
    """Has a chunk transcribed: submits, waits, and saves transcripts and captions to the state area.

    What ends within ``poll_in_worker_s`` is waited for in the worker; for the rest the task is deferred. Whatever
    happens in between, the ledger knows what was submitted, so running this again submits nothing twice.

    Args:
        poll_in_worker_s: how long to wait before the task is deferred.
        poll_interval_s: seconds between two look-ups of a deferred task.
    """

    def __init__(
        self, *, poll_in_worker_s: float = POLL_IN_WORKER_S, poll_interval_s: float = POLL_INTERVAL_S, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.poll_in_worker_s = poll_in_worker_s
        self.poll_interval_s = poll_interval_s

    def work(self, context: Context) -> dict[str, Any]:
        """See the class."""
        from callphases.transcripts import Transcriber

        chunk = self.chunk(context)
        service = self.service.get_conn()
        transcriber = Transcriber(service, self.s3, self.pipeline, self.state, self.ledger(context))
        transcriber.submit(chunk.recordings, chunk.listed_at)
        defer_at, pause_s = time.monotonic() + self.poll_in_worker_s, 1.0
        while transcriber.collect(chunk.recordings):
            transcriber.submit(chunk.recordings, chunk.listed_at)  # what failed at the provider, once more
            if time.monotonic() + pause_s > defer_at:
                self.defer(
                    trigger=TranscriptsTrigger(
                        self.pipeline.connections.assemblyai,
                        list(transcriber.under_way(chunk.recordings)),
                        self.poll_interval_s,
                    ),
                    method_name="resume",
                    timeout=LONGEST_WAIT,
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 5.0)
        return {"recordings": len(chunk.recordings)}

    def resume(self, context: Context, event: dict[str, Any]) -> dict[str, Any]:
        """Go on after the trigger has fired."""
        if event["status"] == "error":
            raise ServiceUnavailable(event["message"])
        return self.execute(context)  # type: ignore[no-any-return]


class SegmentCalls(_ChunkOperator):
    """Has the calls of a chunk divided into phases."""

    def work(self, context: Context) -> dict[str, Any]:
        """See the class."""
        from callphases.phases import Divider
        from callphases.segmentation import Segmenter

        chunk = self.chunk(context)
        segmenter = Segmenter(self.service.get_gateway(), self.pipeline)
        Divider(segmenter, self.pipeline, self.state, self.ledger(context)).divide(chunk.recordings, chunk.listed_at)
        return {"recordings": len(chunk.recordings)}


class PublishDay(_PipelineOperator):
    """Publishes all of the day's rows, whatever became of single chunks, and tells the day's Asset what it holds.

    Args:
        listed: what the task ``list`` returned; None where it failed.
    """

    template_fields: Sequence[str] = ("listed",)

    def __init__(self, *, listed: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.listed = listed

    def work(self, context: Context) -> dict[str, Any]:
        """See the class."""
        from callphases.recordings import Manifest, run_folder
        from callphases.storage import Folder
        from callphases.tables import publish

        if self.listed is None:
            raise AirflowFailException("The day was not listed, so nothing is published: see the task list.")
        day, ledger = self.day(context), self.ledger(context)
        name = f"{run_folder(day, context['run_id'])}day.jsonl"
        recordings = Manifest.load(self.state, self.state.uri_of(name)).recordings
        tables = Folder(self.s3, self.pipeline.output.tables, "output.tables")
        published = {"dt": day.isoformat(), **asdict(publish(tables, self.pipeline, ledger, recordings))}
        for outlet in self.outlets:
            context["outlet_events"][outlet].extra = {**published, "tables": tables.uri}
        self.log.info(
            "%s: %d rows in calls, %d in phases, below %s",
            day,
            published["listed"] + published["kept"],
            published["phases"],
            tables.uri,
        )
        return published


class VerifyDay(_PipelineOperator):
    """Fails the run where what was listed is not what was published, or where too much failed.

    Args:
        published: what the task ``publish`` returned.
    """

    template_fields: Sequence[str] = ("published",)

    def __init__(self, *, published: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.published = published

    def work(self, context: Context) -> None:  # noqa: ARG002
        """See the class."""
        day: dict[str, Any] = self.published
        listed, failed = day["listed"], day["statuses"].get("failed", 0)
        statuses = " + ".join(f"{count} {status}" for status, count in sorted(day["statuses"].items())) or "none"
        classes = ", ".join(f"{count} {name}" for name, count in sorted(day["failures"].items()))
        summary = f"{day['dt']}: {listed} listed = {statuses}" + (f" ({classes})" if classes else "")
        cost = f"speech ${day['speech_usd']:.4f}, language model ${day['llm_usd']:.4f}"
        if sum(day["statuses"].values()) != listed:
            raise AirflowFailException(f"{summary}: the table calls does not hold every recording listed.")
        if day["unfinished"]:
            raise AirflowFailException(
                f"{summary}: {day['unfinished']} recordings were not finished. The log of the failed task in the group "
                "calls says why; run the day again, what is paid for is not paid for again."
            )
        most = self.pipeline.limits.max_failed_ratio
        if listed and failed / listed > most:
            raise AirflowFailException(
                f"{summary}: {failed / listed:.1%} failed, more than limits.max_failed_ratio ({most:.1%}). The columns "
                "failure_class and failure_message of the table calls say why; all rows are published."
            )
        self.log.info("%s; %s", summary, cost)
