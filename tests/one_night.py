"""A run without Airflow, in a process that can kill itself at a given request: ``python one_night.py '{…}'``.

The argument is JSON with ``s3_url``, ``speech_url``, ``key``, ``pipeline`` (the document), ``day`` (or days, as
``2026-11-01/2026-11-03``), ``run_id``, and ``kill``: ``{"request": "PutObject .*/calls.parquet", "when": "before" |
"after", "nth": 1}`` or null. A request is an S3 operation with its key, or a method and a path of the speech service or
the gateway. ``lease_s`` shortens the life of a lease; ``least_calls`` is how many calls a chunk of several days has.

Or it is a list of such objects, each of which a process of its own runs, all at the same time; their exit codes are
printed as JSON, a signal as a negative number.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import requests
from requests.adapters import HTTPAdapter

from callphases.day_range import DayRange, Span, parse_span
from callphases.day_run import DayRun
from callphases.errors import DayHeld
from callphases.listing import listing
from callphases.pipeline import Pipeline
from callphases.segmentation.gateway import Gateway
from callphases.state import lease, ledger
from callphases.transcription.assemblyai import AssemblyAI
from servers import s3_client

T = TypeVar("T")


class Killer:
    """Kills this process with SIGKILL at the n-th request that matches."""

    def __init__(self, kill: dict[str, Any] | None) -> None:
        self._kill = kill
        self._seen = 0

    def pass_by(self, request: str, when: str) -> None:
        if self._kill and self._kill["when"] == when and re.fullmatch(self._kill["request"], request):
            self._seen += 1
            if self._seen == self._kill["nth"]:
                os.kill(os.getpid(), signal.SIGKILL)


class Adapter(HTTPAdapter):
    def __init__(self, killer: Killer) -> None:
        super().__init__()
        self._killer = killer

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> requests.Response:
        name = f"{request.method} {request.path_url.partition('?')[0]}"
        self._killer.pass_by(name, "before")
        response = super().send(request, *args, **more)
        self._killer.pass_by(name, "after")
        return response


def main() -> None:
    arguments = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if isinstance(arguments, list):
        children = [forked(one) for one in arguments]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        sys.stdout.write(json.dumps(codes))
    else:
        night(arguments)


def forked(arguments: dict[str, Any]) -> int:
    """Run a night in a child process, which need not import everything again; returns its id."""
    child = os.fork()
    if not child:
        code = 1
        try:
            night(arguments)
            code = 0
        except Exception:
            logging.exception("%s", arguments["run_id"])
        finally:
            os._exit(code)
    return child


def night(arguments: dict[str, Any]) -> None:
    killer = Killer(arguments["kill"])
    session = requests.Session()
    session.mount("http://", Adapter(killer))
    s3 = s3_client(arguments["s3_url"])

    def before(params: dict[str, Any], model: Any, context: dict[str, Any], **_: Any) -> None:
        context["callphases"] = f"{model.name} {params.get('Key', params.get('Prefix', ''))}"
        killer.pass_by(context["callphases"], "before")

    s3.meta.events.register("before-parameter-build.s3", before)
    s3.meta.events.register("after-call.s3", lambda context, **_: killer.pass_by(context["callphases"], "after"))
    day_run = DayRun(
        Pipeline.model_validate(arguments["pipeline"]),
        s3,
        AssemblyAI(arguments["key"], arguments["speech_url"], session),
        Gateway(arguments["key"], arguments["speech_url"], session),
    )
    if life_s := arguments.get("lease_s"):
        lease.LIFE_S = ledger.LIFE_S = life_s
        lease.FRESH_S = ledger.FRESH_S = life_s / 3
    listing.LEAST_CALLS_OF_ARCHIVE = arguments.get("least_calls", listing.LEAST_CALLS_OF_ARCHIVE)
    run(day_run, parse_span(arguments["day"]), arguments["run_id"])


def run(day_run: DayRun, days: Span, run_id: str) -> None:
    if isinstance(days, DayRange):
        listed = patiently(partial(day_run.begin_range, days, run_id))
    else:
        listed = patiently(partial(day_run.begin, days, run_id))
    for uri in listed.chunks:
        patiently(lambda uri=uri: day_run.transcribe(day_run.load(uri), math.inf))
        patiently(lambda uri=uri: day_run.segment(day_run.load(uri)))
    if isinstance(days, DayRange):
        patiently(lambda: day_run.end_range(day_run.load_days(listed.day)))
    else:
        patiently(lambda: day_run.end(day_run.load_day(listed.day)))


def patiently(step: Callable[[], T]) -> T:
    """Do a step once no other run has the day, as a task of Airflow does."""
    while True:
        try:
            return step()
        except DayHeld as held:
            time.sleep(min(held.wait_s, 1))


if __name__ == "__main__":
    main()
