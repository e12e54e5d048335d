"""Takes the pictures of the pages in the docs, in Airflow's UI as ``make up`` shows it: ``make screenshots``.

``make up`` must be running. Some nights before the last one are run first, in one Dag run, so that the page of the
pipeline has something to show. That takes some minutes the first time.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Browser, FrameLocator, Page

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from chromium import chromium
from demo.__main__ import UP_ENV
from demo.stack import DAG_ID, add_calls, client, last_night

DOCS = Path(__file__).parents[1] / "docs"
THEMES = ("light", "dark")
WIDTH_PX, HEIGHT_PX = 1280, 1080
NIGHTS = 9
"""Run before the last one."""
CALL = "091405-broadband-outage.mp3"
LONGEST_S = 1200
MOST_BYTES = 200_000
"""Of a picture: all of them stay in the repository."""


def main() -> None:
    """Write the pictures to docs.

    Raises:
        SystemExit: ``make up`` is not running, a run failed, or a picture is too large.
    """
    settings = _settings()
    url = settings["AIRFLOW__API__BASE_URL"]
    night = last_night()
    _run_nights(url, settings["AWS_ENDPOINT_URL"], night)
    run = _nightly_run(url, night)
    with chromium() as browser:
        for theme in THEMES:
            with _window(browser, theme) as page:
                page.goto(f"{url}/dags/{DAG_ID}/runs/{urllib.parse.quote(run, safe='')}")
                view = _tab(page, "Calls")
                # What is above is in Airflow's own heading as well.
                view.locator("#day-heading").evaluate("heading => heading.scrollIntoView()")
                _take(page, "run", theme)
                view.get_by_role("link", name=CALL).first.click()
                view.locator("audio").wait_for()
                _take(page, "call", theme)
                page.goto(f"{url}/dags/{DAG_ID}")
                _tab(page, "Call phases")
                _take(page, "pipeline", theme)


def _settings() -> dict[str, str]:
    """What ``make up`` has written: where its servers are."""
    if not UP_ENV.exists():
        raise SystemExit("Airflow's UI with the demo is not running: start it with make up.")
    lines = UP_ENV.read_text().splitlines()
    return dict(line.removeprefix("export ").split("=", 1) for line in lines)


def _run_nights(url: str, s3_url: str, night: dt.date) -> None:
    """Run the nights before the last one, with copies of the demo's calls."""
    s3 = client(s3_url)
    for number in range(1, NIGHTS + 1):
        add_calls(s3, night - dt.timedelta(days=number))
    days = {"from": str(night - dt.timedelta(days=NIGHTS)), "to": str(night - dt.timedelta(days=1))}
    run = f"screenshots__{days['from']}__{days['to']}"
    document = {"dag_run_id": run, "logical_date": None, "conf": days}
    answer = requests.post(f"{url}/api/v2/dags/{DAG_ID}/dagRuns", json=document, timeout=60)
    if answer.status_code != requests.codes.conflict:  # it was run before
        answer.raise_for_status()
    _wait_for(url, run)


def _nightly_run(url: str, night: dt.date) -> str:
    """The id of the scheduled run of a night, once it has ended."""
    answer = requests.get(
        f"{url}/api/v2/dags/{DAG_ID}/dagRuns",
        params={"run_type": "scheduled", "order_by": "-run_after", "limit": "1"},
        timeout=60,
    )
    answer.raise_for_status()
    [run] = answer.json()["dag_runs"]
    if not run["data_interval_start"].startswith(str(night)):
        raise SystemExit(f"The newest nightly run is not that of {night}: start it with make down and make up.")
    _wait_for(url, run["dag_run_id"])
    return str(run["dag_run_id"])


def _wait_for(url: str, run: str) -> None:
    give_up = time.monotonic() + LONGEST_S
    while True:
        answer = requests.get(f"{url}/api/v2/dags/{DAG_ID}/dagRuns/{urllib.parse.quote(run, safe='')}", timeout=60)
        answer.raise_for_status()
        state = answer.json()["state"]
        if state == "success":
            return
        if state == "failed" or time.monotonic() > give_up:
            raise SystemExit(f"The run {run} is {state}: see {url}/dags/{DAG_ID}")
        time.sleep(2)


@contextmanager
def _window(browser: Browser, theme: str) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": WIDTH_PX, "height": HEIGHT_PX}, reduced_motion="reduce")
    # Airflow keeps a user's choice here.
    context.add_init_script(f"localStorage.setItem('theme', '{theme}')")
    try:
        yield context.new_page()
    finally:
        context.close()


def _tab(page: Page, name: str) -> FrameLocator:
    """Open a tab of ours; returns what is in it."""
    page.get_by_role("link", name=name, exact=True).click()
    view = page.frame_locator("iframe")
    view.locator("h1").wait_for()
    return view


def _take(page: Page, name: str, theme: str) -> None:
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)  # away from what was clicked, which would be highlighted
    path = DOCS / f"pages-{name}-{theme}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise SystemExit(f"{path} has {size:,} bytes; a picture in the docs has at most {MOST_BYTES:,}.")
    print(f"{os.path.relpath(path)}: {size:,} bytes")


if __name__ == "__main__":
    main()
