"""The job queue: runs transcripts in order of submission, with a fixed number at a time."""

import asyncio
import contextlib
import http.client
import json
import logging
import time
import traceback
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from speechbox.engines import Engine, JobError
from speechbox.faults import Faults
from speechbox.fetch import connect
from speechbox.store import Record, Store

SERVER_ERROR = "Server error, developers have been alerted."
#: A job that ran this often when the server died is assumed to be the cause.
MAX_STARTS = 3
WEBHOOK_TIMEOUT_S = 10.0

logger = logging.getLogger(__name__)


class Jobs:
    """Runs the engine on queued transcripts."""

    def __init__(self, store: Store, engine: Engine, faults: Faults) -> None:
        self._store = store
        self._engine = engine
        self._faults = faults
        #: The maximum number of jobs that were queued or processing at the same time.
        self.most_at_once = 0
        self._unfinished = 0
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._webhooks = ThreadPoolExecutor(4, thread_name_prefix="webhook")

    async def start(self) -> None:
        """Start the engine and resume the unfinished jobs of an earlier run."""
        await self._engine.start()
        for transcript_id in self._store.take_up_again():
            self.submit(transcript_id)
        for _ in range(self._engine.parallel_jobs):
            self._spawn(self._work())

    async def stop(self) -> None:
        """Stop immediately; unfinished jobs stay in the store."""
        for task in self._tasks:
            task.cancel()
        await self._engine.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._webhooks.shutdown(wait=False, cancel_futures=True)

    def submit(self, transcript_id: str) -> None:
        """Queue a stored transcript."""
        self._unfinished += 1
        self.most_at_once = max(self.most_at_once, self._unfinished)
        self._queue.put_nowait(transcript_id)

    async def _work(self) -> None:
        while True:
            await self._run(await self._queue.get())
            self._unfinished -= 1

    async def _run(self, transcript_id: str) -> None:
        started = self._store.start(transcript_id)
        if started is None:
            return
        starts, record = started
        options = record.options
        began = time.monotonic()
        try:
            if starts > MAX_STARTS:
                raise JobError(SERVER_ERROR)
            if self._faults.rules:
                await self._misbehave(record)
            recognition = await self._engine.transcribe(record.audio_url, options)
        except JobError as error:
            self._store.fail(transcript_id, str(error))
            logger.info("transcript %s failed", transcript_id)
        except Exception as error:
            # Log the location only: the message of an unexpected exception may contain a URL or transcript text.
            self._store.fail(transcript_id, SERVER_ERROR)
            where = "".join(traceback.format_tb(error.__traceback__))
            logger.error("transcript %s failed with %s at\n%s", transcript_id, type(error).__name__, where)
        else:
            self._store.complete(transcript_id, recognition)
            took_s = time.monotonic() - began
            logger.info("transcript %s: %.1f s of audio in %.1f s", transcript_id, recognition.duration_s, took_s)
        if options.get("webhook_url"):
            self._spawn(self._notify(record))

    async def _misbehave(self, record: Record) -> None:
        firing = self._faults.of_job(record.id, record.audio_url, record.options)
        if firing is None:
            return
        rule = firing.rule
        await asyncio.sleep(rule.delay_s)
        if rule.fault == "job_error":
            raise JobError(rule.message or SERVER_ERROR)
        if rule.model:
            self._store.fall_back(record.id, rule.model)

    async def _notify(self, record: Record) -> None:
        finished = self._store.get(record.id)
        if finished is None or finished.deleted:
            return
        status = await asyncio.get_running_loop().run_in_executor(
            self._webhooks, _post_webhook, record.options, {"transcript_id": record.id, "status": finished.status}
        )
        if status is not None:
            self._store.notified(record.id, status)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _post_webhook(options: dict[str, Any], notification: dict[str, str]) -> int | None:
    """Send the webhook once; returns the status, or None without a response."""
    headers = {"Content-Type": "application/json"}
    if options.get("webhook_auth_header_name"):
        headers[options["webhook_auth_header_name"]] = options.get("webhook_auth_header_value") or ""
    try:
        connection, target = connect(options["webhook_url"], WEBHOOK_TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request("POST", target, json.dumps(notification), headers)
            return connection.getresponse().status
    except (OSError, http.client.HTTPException, ValueError):
        return None
