"""``callphases archive``: the calendar, in a terminal, in a file and as JSON, once and again and again."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from archives import days, lease, publish, put_all, summary
from callphases.cli import archive as command
from callphases.errors import ServiceUnavailable
from commands import Run
from doubles import Clock, Speech, Store

pytestmark = pytest.mark.integration
DOCS = Path(__file__).parents[3] / "docs"
FROM_TO = ("--from", "2026-11-01", "--to", "2026-11-06")


def archive_of_five_days(aws: Store) -> None:
    """One day done, one with a failure, one late, two to do; the sixth has no recordings."""
    put_all(aws.recordings, (f"calls/{day}/{name}.mp3" for day in days("2026-11-01", "2026-11-05") for name in "ab"))
    put_all(aws.recordings, ["calls/2026-11-03/c.mp3"])
    failed: dict[str, Any] = {"statuses": {"completed": 1, "failed": 1}, "failures": {"provider_error": 1}}
    publish(aws, summary("2026-11-01"), summary("2026-11-02", **failed), summary("2026-11-03"))


def test_archive_shows_a_calendar_what_was_paid_and_what_helps(run: Run, aws: Store, pipeline_file: Path) -> None:
    archive_of_five_days(aws)
    code, out, err = run("archive", pipeline_file, *FROM_TO)
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert lines[0].startswith("support: 2026-11-01 to 2026-11-06 (UTC), as of 2")
    assert lines[3].split() == ["2026-11", "DFLTT.", "1", "of", "5", "11", "$1.20"]
    assert "F  1 day failed: it needs another run" in lines
    assert "Recordings: 11; 6 to do." in lines
    assert "Paid: $1.20 ($0.90 speech, $0.30 language models). To pay: about $1.20 ($0.2000 a recording)." in lines
    assert "Pace: nothing is running; the last day was published at 2026-11-21 02:00." in lines
    assert "Numbers of recordings: the bucket was listed. S3 requests: 6." in lines
    assert lines[-6:] == [
        "1 provider_error: the service failed four times: run the day again.",
        f"  callphases replay {pipeline_file} --date 2026-11-02 --class provider_error",
        "1 day with late recordings: run again.",
        f"  callphases run {pipeline_file} --date 2026-11-03",
        "2 days to do: have Airflow run them.",
        f"  callphases backfill {pipeline_file} --from 2026-11-04 --to 2026-11-05",
    ]


def test_archive_as_json_has_the_keys_that_its_page_says(run: Run, aws: Store, pipeline_file: Path) -> None:
    archive_of_five_days(aws)
    code, out, _ = run("archive", pipeline_file, *FROM_TO, "--format", "json")
    assert code == 1
    found = json.loads(out)
    assert [day["state"] for day in found["days"]] == ["done", "failed", "late", "to_do", "to_do", "empty"]
    assert (found["paid_usd"], found["to_pay_usd"]) == (pytest.approx(1.2), pytest.approx(1.2))
    assert [(step["failure_class"], step["days"]) for step in found["steps"]][:2] == [
        ("provider_error", ["2026-11-02"]),
        (None, ["2026-11-03"]),
    ]
    page = (DOCS / "progress.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| (`.*?) \|", page, re.MULTILINE))
    names = {name for row in documented for name in re.findall(r"`(\w+)`", row)}
    states = set(found["days_by_state"])
    assert {*found, *found["days"][0], *found["steps"][0], *states} == names


def test_archive_that_is_done_is_fine(run: Run, aws: Store, pipeline_file: Path) -> None:
    put_all(aws.recordings, ["calls/2026-11-19/a.mp3", "calls/2026-11-19/b.mp3"])
    publish(aws, summary("2026-11-19"))
    code, out, _ = run("archive", pipeline_file, "--to", "2026-11-20", "--watch")
    assert code == 0
    assert re.fullmatch(r"\S+ \S+ support: 1 of 1 day done, \$0\.40 paid, \$0\.00 to pay.*\n", out)


def test_watched_archive_is_a_line_each_until_no_day_is_left(
    run: Run, aws: Store, pipeline_file: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(aws.recordings, (f"calls/2026-11-19/{name}.mp3" for name in "ab"))
    lease(aws, "dt=2026-11-19")
    looks = iter([lambda: None, lambda: publish(aws, summary("2026-11-19"))])
    clock.asleep = lambda _: next(looks)()
    read, calls = command.read_calendar, iter([False, True, False])

    def sometimes(*arguments: Any, **more: Any) -> Any:
        if next(calls):
            raise ServiceUnavailable("S3 answered 503.")
        return read(*arguments, **more)

    monkeypatch.setattr(command, "read_calendar", sometimes)
    code, out, err = run(
        "archive", pipeline_file, "--from", "2026-11-19", "--to", "2026-11-19", "--watch", "--every", "5"
    )
    assert code == 0
    assert [line.split(": ")[1].split(",")[0] for line in out.splitlines()] == ["0 of 1 day done", "1 of 1 day done"]
    assert err == "S3 answered 503.\n"
    assert clock.slept == [5.0, 5.0]


def test_watched_archive_counts_recordings_every_ten_minutes(
    run: Run, aws: Store, pipeline_file: Path, clock: Clock
) -> None:
    put_all(aws.recordings, ["calls/2026-11-19/a.mp3"])
    counted: list[str] = []

    def look(_: float) -> None:
        if len(clock.slept) == 5:
            put_all(aws.recordings, ["calls/2026-11-19/b.mp3"])
        if len(clock.slept) == 20:
            raise KeyboardInterrupt

    clock.asleep = look
    arguments = ("--from", "2026-11-19", "--to", "2026-11-19", "--watch", "--every", "60", "--format", "json")
    code, out, err = run("archive", pipeline_file, *arguments)
    assert (code, err) == (130, "Interrupted.\n")
    counted = [json.loads(line)["recordings"] for line in out.splitlines()]
    assert counted == [1] * 10 + [2] * 10


@pytest.mark.parametrize("no_color", [False, True])
def test_calendar_fits_a_terminal_of_80_columns(
    run: Run, aws: Store, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    archive_of_five_days(aws)
    screen = io.StringIO()
    terminal = Console(
        file=screen, force_terminal=True, width=80, color_system="256", no_color=no_color, markup=False, highlight=False
    )
    monkeypatch.setattr(command, "console", terminal)
    run("archive", pipeline_file, *FROM_TO)
    text = screen.getvalue()
    assert ("38;5;" in text) != no_color
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(len(line) <= 80 for line in plain.splitlines())
    assert "2026-11 DFLTT." in plain, "letters say it without colors"
    assert all(unicodedata.east_asian_width(one) != "W" for one in plain)


def test_terminal_that_is_watched_is_drawn_anew(
    run: Run, aws: Store, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    archive_of_five_days(aws)
    screen = io.StringIO()
    monkeypatch.setattr(command, "console", Console(file=screen, force_terminal=True, width=80))

    def stop(_: float) -> None:
        if len(clock.slept) == 2:
            raise KeyboardInterrupt

    clock.asleep = stop
    code, _, _ = run("archive", pipeline_file, *FROM_TO, "--watch")
    assert code == 130
    assert screen.getvalue().count("\x1b[2J") == 2
    assert screen.getvalue().count("support: 2026-11-01") == 2


def test_many_days_of_a_class_are_named_in_json_and_counted_in_lines(run: Run, aws: Store, pipeline_file: Path) -> None:
    failed: dict[str, Any] = {"statuses": {"failed": 2}, "failures": {"bad_audio": 2}}
    some = days("2026-11-01", "2026-11-05")
    publish(aws, *(summary(day, **failed) for day in some))
    _, out, _ = run("archive", pipeline_file, *FROM_TO)
    shown = " ".join(f"--date {day}" for day in some[:3])
    assert f"  callphases run {pipeline_file} {shown}   # and 2 more days: see --format json" in out.splitlines()
    _, out, _ = run("archive", pipeline_file, *FROM_TO, "--format", "json")
    (step,) = json.loads(out)["steps"]
    assert step["command"] == f"callphases run {pipeline_file} " + " ".join(f"--date {day}" for day in some)


def test_day_that_was_run_is_done(run: Run, aws: Store, pipeline_file: Path, services: Speech) -> None:
    aws.put("calls/2026-11-20/a.mp3")
    assert run("run", pipeline_file, "--date", "2026-11-20")[0] == 0
    code, out, _ = run("archive", pipeline_file, "--to", "2026-11-20", "--format", "json")
    assert code == 0
    found = json.loads(out)
    (day,) = found["days"]
    assert (day["state"], day["listed"], day["statuses"]) == ("done", 1, {"completed": 1})
    assert found["paid_usd"] == day["speech_usd"] + day["llm_usd"] > 0
    assert (found["is_finished"], found["recordings_left"], found["to_pay_usd"]) == (True, 0, 0)


def test_months_without_recordings_take_one_line(run: Run, aws: Store, pipeline_file: Path) -> None:
    put_all(aws.recordings, ["calls/2026-01-31/a.mp3", "calls/2026-06-01/a.mp3"])
    _, out, _ = run("archive", pipeline_file, "--to", "2026-06-02")
    assert "2026-02 to 2026-05: no recordings" in out.splitlines()


def test_reversed_days_are_wrong_usage(run: Run, aws: Store, pipeline_file: Path) -> None:
    code, _, err = run("archive", pipeline_file, "--from", "2026-11-02", "--to", "2026-11-01")
    assert code == 2
    assert "--from 2026-11-02 is after --to 2026-11-01." in err


def test_days_that_are_published_now_give_a_pace_and_an_end(
    run: Run, aws: Store, pipeline_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_all(aws.recordings, (f"calls/{day}/{name}.mp3" for day in days("2026-11-01", "2026-11-04") for name in "ab"))
    now = dt.datetime.now(dt.UTC)
    publish(
        aws,
        summary("2026-11-01", published_at=now - dt.timedelta(minutes=20), began_at=now - dt.timedelta(minutes=35)),
        summary("2026-11-02", published_at=now - dt.timedelta(minutes=5), began_at=now - dt.timedelta(minutes=20)),
    )
    lease(aws, "dt=2026-11-03")
    code, out, _ = run("archive", pipeline_file, "--from", "2026-11-01", "--to", "2026-11-04")
    assert code == 0
    assert "2026-11 DDRT" in out
    assert "Pace: 8 recordings and $1.60 an hour since" in out
    _, out, _ = run("archive", pipeline_file, "--from", "2026-11-01", "--to", "2026-11-04", "--format", "json")
    found = json.loads(out)
    end = dt.datetime.fromisoformat(found["expected_end"]) - dt.datetime.fromisoformat(found["as_of"])
    assert end / dt.timedelta(hours=1) == pytest.approx(0.5)
    assert found["is_working"]
