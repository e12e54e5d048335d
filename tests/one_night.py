"""A run without Airflow, in a process that can kill itself at a given request: ``python one_night.py '{…}'``.

The argument is JSON with ``s3_url``, ``speech_url``, ``key``, ``pipeline`` (the document), ``day``, ``run_id``, and
``kill``: ``{"request": "PutObject .*/calls.parquet", "when": "before" | "after", "nth": 1}`` or null. A request is an
S3 operation with its key, or a method and a path of the speech service or the gateway.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import math
import os
import re
import signal
import sys
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from callphases.day_run import DayRun
from callphases.errors import DayHeld
from callphases.pipeline import Pipeline
from callphases.segmentation.gateway import Gateway
from callphases.transcription.assemblyai import AssemblyAI
from servers import s3_client


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
    run(day_run, dt.date.fromisoformat(arguments["day"]), arguments["run_id"])


def run(day_run: DayRun, day: dt.date, run_id: str) -> None:
    while True:
        try:
            listed = day_run.begin(day, run_id)
            break
        except DayHeld as held:
            time.sleep(held.wait_s)
    for uri in listed.chunks:
        day_run.transcribe(day_run.load(uri), math.inf)
        day_run.segment(day_run.load(uri))
    day_run.end(day_run.load_day(listed.day))


if __name__ == "__main__":
    main()
