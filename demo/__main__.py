"""``python -m demo run | up | down``: what `make demo`, `make up` and `make down` call."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import requests

from demo.stack import (
    DAG_ID,
    DAYS,
    HOME,
    LOGS,
    ROOT,
    TABLES,
    WAREHOUSE,
    Stack,
    add_calls,
    airflow_environment,
    airflow_home,
    client,
    copy_of_database,
    last_night,
    migrating,
    running,
    say,
    stop,
    wait_for,
)

UP_ENV, UP_PID = HOME / "up.env", HOME / "up.pid"
AIRFLOW_PORT = 8080
UP_HOME, DEMO_HOME = "airflow", "airflow-demo"
# A line that callphases wrote to a task's log: "<time> [info     ] <message>   [<logger>] …".
OWN_LINE = re.compile(r"\[(\w+)\s*\] (.*?)\s+\[(?:airflow\.task\.operators\.)?callphases[\w.]*\]")
# The last line of a traceback with an error raised by callphases.
OWN_ERROR = re.compile(r"(?:airflow\.sdk\.exceptions\.AirflowFailException|callphases\.errors\.\w+): (.*)")


def run() -> None:
    """Run both days at the same time, then show them."""
    began = time.monotonic()
    if _up_pid():
        raise SystemExit("`make up` uses the same files: stop it with `make down` first.")
    say("==> Starting an S3 server and speechbox (speech and phases on local models), preparing Airflow")
    with migrating(DEMO_HOME) as migrated, running() as stack:
        migrated()
        say(f"==> Running the Dag {DAG_ID} for {' and '.join(DAYS)}")
        _run_days(stack)
    picture = HOME / "phases.png"
    tables = WAREHOUSE / TABLES
    say()
    _callphases("show", str(tables), *(f"--date={day}" for day in DAYS), f"--png={picture}")
    shown = _from_root(tables)
    command = _from_root(Path(sys.executable).with_name("callphases"))
    say(
        f"""
==> Done in {time.monotonic() - began:.0f} s; all servers are stopped.
    Parquet   {shown}/phases/dt=…/phases.parquet and calls/dt=…/calls.parquet
    Picture   {_from_root(picture)}
    Logs      {_from_root(LOGS)}

    Next:
      {command} show {shown} --call 103212-late-parcel.mp3
      make demo    once more: nothing is transcribed again
      make up      a nightly run in Airflow's UI
      README.md    using your own bucket and key"""
    )


def up() -> None:
    """Leave the stack and Airflow running in the background."""
    if _up_pid():
        say(f"Already running at http://127.0.0.1:{_up_port()}. Stop it with: make down")
        return
    LOGS.mkdir(parents=True, exist_ok=True)
    night = last_night()
    say("==> Starting an S3 server, speechbox and Airflow")
    log = LOGS / "up.log"
    with log.open("w") as out:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "demo", "_keep_up"],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    UP_PID.write_text(str(keeper.pid))

    def nightly_run() -> str | None:
        if keeper.poll() is not None:
            raise SystemExit(f"The servers did not start; see {log}")
        return _nightly_run(_up_port(), night) if UP_ENV.exists() and _healthy(_up_port()) else None

    try:
        run = wait_for(nightly_run, 240, "Airflow did not start the nightly run")
    except BaseException:
        down()
        raise
    is_new = not (WAREHOUSE / TABLES / "phases" / f"dt={DAYS[0]}").exists()
    backfill = f"""
      airflow backfill create --dag-id {DAG_ID} --from-date {DAYS[0]} --to-date {DAYS[-1]}"""
    say(
        f"""==> Running.
    Airflow   http://127.0.0.1:{_up_port()} (no password), Dag {DAG_ID}
    Look at   http://127.0.0.1:{_up_port()}/dags/{DAG_ID}/runs/{urllib.parse.quote(run)}
              the nightly run of {night} on new calls (copies of the samples); it takes a minute
              or two. Its tab Calls then shows them, and plays them

    Next:
      . ./env.sh
      callphases show s3://warehouse/{TABLES} --date {night}{backfill if is_new else ""}
      make down"""
    )


def keep_up() -> None:
    """The background process of ``up``: runs the stack and Airflow until it is terminated."""
    try:
        with migrating(UP_HOME) as migrated, running() as stack:
            add_calls(client(stack.s3_url), last_night())
            port = _free_port(AIRFLOW_PORT)
            environment = airflow_environment(stack, UP_HOME) | _airflow_at(port)
            migrated()
            with (LOGS / "airflow.log").open("w") as out:
                airflow = subprocess.Popen(
                    ["airflow", "standalone"],
                    env=environment,
                    stdout=out,
                    stderr=out,
                    text=True,
                    start_new_session=True,
                )
            try:
                _write_env(stack.environment | airflow_home(UP_HOME) | _airflow_at(port))
                airflow.wait()
            finally:
                stop(airflow)
    finally:
        UP_ENV.unlink(missing_ok=True)
        UP_PID.unlink(missing_ok=True)


def down() -> None:
    """Stop what ``up`` started."""
    pid = _up_pid()
    if pid is None:
        say("Nothing is running.")
        return
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: _up_pid() is None, 60, "The servers did not stop")
    say("==> Stopped. The tables stay in .callphases/warehouse; `make clean` removes everything.")


def _run_days(stack: Stack) -> None:
    """Run the Dag for each day in a process of its own, with a database of its own.

    Raises:
        SystemExit: a run failed; the others are stopped.
    """
    with ThreadPoolExecutor(len(DAYS)) as readers, contextlib.ExitStack() as processes:
        ends = []
        for day in DAYS:
            environment = airflow_environment(stack, copy_of_database(DEMO_HOME, day))
            process = subprocess.Popen(
                ["airflow", "dags", "test", DAG_ID, day, "--conf", f'{{"date": "{day}"}}'],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            processes.callback(stop, process)
            ends.append(readers.submit(_follow, process, day))
        for end in as_completed(ends):
            end.result()


def _follow(process: subprocess.Popen[str], day: str) -> None:
    """Print what callphases logs in a process, and save all that it prints, until it ends."""
    log, mistake = LOGS / f"run-{day}.log", ""
    assert process.stdout is not None
    with log.open("w") as out:
        for line in process.stdout:
            out.write(line)
            if match := OWN_LINE.search(line):
                say(f"    {match[2]}")
            elif match := OWN_ERROR.match(line):
                mistake = match[1]
    if process.wait():
        raise SystemExit(f"The run of {day} failed. {mistake}\nThe full log: {log}")


def _callphases(*arguments: str) -> None:
    subprocess.run([Path(sys.executable).with_name("callphases"), *arguments], cwd=ROOT, check=True)


def _from_root(path: Path) -> Path:
    """The path as a user in the clone would type it."""
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _write_env(variables: dict[str, str]) -> None:
    # Readable only by its owner, as a file with keys should be, even though these keys protect nothing.
    UP_ENV.touch(mode=0o600)
    UP_ENV.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()))


def _airflow_at(port: int) -> dict[str, str]:
    """The variables that make Airflow's API listen on ``port``."""
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
    }


def _up_port() -> int:
    match = re.search(r"AIRFLOW__API__PORT=(\d+)", UP_ENV.read_text()) if UP_ENV.exists() else None
    return int(match[1]) if match else AIRFLOW_PORT


def _free_port(wish: int) -> int:
    for port in (wish, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit("No port is free.")


def _up_pid() -> int | None:
    try:
        pid = int(UP_PID.read_text())
        os.kill(pid, 0)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    return pid


def _healthy(port: int) -> bool:
    health = _answer(port, "monitor/health") or {}
    return [part["status"] for part in health.values()].count("healthy") >= 4


def _nightly_run(port: int, night: dt.date) -> str | None:
    """The id of the scheduled run of a day, or None if there is none yet."""
    newest = _answer(port, f"dags/{DAG_ID}/dagRuns?run_type=scheduled&order_by=-run_after&limit=1")
    runs = newest["dag_runs"] if newest else []
    return runs[0]["dag_run_id"] if runs and runs[0]["data_interval_start"] >= night.isoformat() else None


def _answer(port: int, path: str) -> dict[str, Any] | None:
    """What Airflow's API answers, or None if it is not ready: it does not run, or has not read the Dag yet."""
    try:
        answer = requests.get(f"http://127.0.0.1:{port}/api/v2/{path}", timeout=10)
        answer.raise_for_status()
        return dict(answer.json())
    except requests.RequestException:
        return None


COMMANDS = {"run": run, "up": up, "down": down, "_keep_up": keep_up}

if __name__ == "__main__":
    command = COMMANDS.get(sys.argv[1] if len(sys.argv) == 2 else "")
    if command is None:
        raise SystemExit("usage: python -m demo run | up | down")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        command()
    except KeyboardInterrupt:
        raise SystemExit("\n==> Interrupted; all servers are stopped.") from None
