"""Tests of the pages in a real browser, in the UI of a real Airflow, below a path and behind a proxy with TLS."""

from __future__ import annotations

import re
import urllib.parse
from typing import Any

import pytest
from playwright.sync_api import FrameLocator, Locator, Page, expect

from chromium import Open
from pages_site import BROKEN, DAG_ID, HOSTILE, HOSTILE_NAME, MU_LAW, NIGHT, ORDINARY, RUN_ID, Site

pytestmark = pytest.mark.e2e

WIDTH_PX = 400
THEMES = ("light", "dark")
BRIGHTNESS = """html => {
    // Airflow's colors may be of any color space; a canvas has them in red, green and blue.
    const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    return ["backgroundColor", "color"].map(name => {
        pixel.fillStyle = getComputedStyle(html)[name];
        pixel.fillRect(0, 0, 1, 1);
        return pixel.getImageData(0, 0, 1, 1).data.slice(0, 3).reduce((sum, part) => sum + part);
    });
}"""
"""Of the background and of the text, 0 to 765."""
LATE_S = 2.0
"""How far audio may have played before a test sees it, on a busy machine."""


def run_address(airflow: Site) -> str:
    return f"{airflow.url}/dags/{DAG_ID}/runs/{urllib.parse.quote(RUN_ID, safe='')}"


def tab(page: Page, name: str) -> FrameLocator:
    """Open a tab of ours in Airflow's UI; returns what is in it."""
    page.get_by_role("link", name=name, exact=True).click()
    return page.frame_locator("iframe")


def calls_in(view: Page | FrameLocator) -> Locator:
    """The calls that are shown."""
    return view.locator("[data-call]").filter(visible=True)


def choose(view: Page | FrameLocator, label: str, value: str) -> None:
    """Choose a value in the filter, and send it."""
    form = view.locator("form#filter")
    form.get_by_role("combobox", name=label, exact=True).select_option(value)
    form.locator("button[type=submit]").click()


def phase_of(view: Page | FrameLocator, name: str) -> Locator:
    """A phase on the strip of a call that can be played."""
    return view.get_by_role("button", name=re.compile(rf"^Play from {name}\b"))


def playing_at(audio: Locator) -> float:
    """Where the audio is, in seconds, once it plays."""
    audio.evaluate("audio => new Promise(done => audio.paused ? audio.addEventListener('playing', done) : done())")
    return float(audio.evaluate("audio => audio.currentTime"))


def plays_past(audio: Locator, time_s: float) -> None:
    """Wait until the audio is past a time."""
    audio.evaluate(
        "(audio, time_s) => new Promise(done => { audio.ontimeupdate = () => audio.currentTime > time_s && done() })",
        time_s,
    )


def test_tab_of_a_run_leads_to_a_call_that_plays_from_a_phase(airflow: Site, open_as: Open) -> None:
    view = tab(open_as("viewer", run_address(airflow)), "Calls")
    expect(calls_in(view)).to_have_count(len(airflow.rows("calls")))
    choose(view, "agent", "ada")
    expect(calls_in(view)).to_have_count(4)

    call = airflow.call(ORDINARY)
    view.locator(f"[data-call='{call['call_id']}']").get_by_role("link").first.click()
    [start_s] = [
        row["start_s"]
        for row in airflow.rows("phases")
        if row["call_id"] == call["call_id"] and row["phase_name"] == "Complaint"
    ]
    audio = view.locator("audio")
    phase_of(view, "Complaint").click()
    at_s = playing_at(audio)
    assert start_s - 0.1 <= at_s <= start_s + LATE_S
    plays_past(audio, at_s + 0.3)


def test_recording_that_browsers_do_not_play_is_converted(airflow: Site, open_as: Open) -> None:
    page = open_as("viewer", airflow.call_page(MU_LAW))
    phase_of(page, "Resolution").click()
    at_s = playing_at(page.locator("audio"))
    assert 5.4 <= at_s <= 5.5 + LATE_S
    plays_past(page.locator("audio"), at_s + 0.3)


def test_cue_plays_from_its_start_and_is_marked_while_it_plays(airflow: Site, open_as: Open) -> None:
    page = open_as("viewer", airflow.call_page(ORDINARY))
    cue = page.locator("[data-cue]").filter(has_text="My invoice is wrong.").first
    cue.click()
    at_s = playing_at(page.locator("audio"))
    assert 2.9 <= at_s <= 3.0 + LATE_S
    expect(page.locator("[data-cue][aria-current]")).to_contain_text("My invoice is wrong.")
    page.locator("audio").evaluate("audio => { audio.currentTime = 6 }")
    expect(page.locator("[data-cue][aria-current]")).to_contain_text("I will refund it.")


def test_filter_by_status_and_phase_and_search(airflow: Site, open_as: Open) -> None:
    page = open_as("viewer", airflow.page(f"/days/{NIGHT}"))
    everything = len(airflow.rows("calls"))
    expect(calls_in(page)).to_have_count(everything)
    choose(page, "Status", "failed")
    expect(calls_in(page)).to_have_count(1)
    choose(page, "Status", "")
    choose(page, "Phase", "Complaint")
    expect(calls_in(page)).to_have_count(len({row["call_id"] for row in airflow.rows("phases")}))
    search = page.locator("form#filter").get_by_label("Search")
    search.fill("svg")
    search.press("Enter")
    expect(calls_in(page)).to_have_count(1)


def test_viewer_may_not_replay(airflow: Site, open_as: Open) -> None:
    page = open_as("viewer", airflow.call_page(BROKEN))
    expect(page.get_by_text("bad audio").first).to_be_visible()
    expect(page.locator("button[name=replay]:enabled")).to_have_count(0)


def test_failed_call_is_replayed_by_the_user_and_its_result_shown(airflow: Site, open_as: Open) -> None:
    view = tab(open_as("user", run_address(airflow)), "Calls")
    failed = airflow.call(BROKEN)["call_id"]
    view.locator(f"[data-call='{failed}']").get_by_role("link").first.click()
    before = {run["dag_run_id"] for run in airflow.runs()}
    view.locator("button[name=replay]").first.click()
    airflow.wait(lambda: len(airflow.runs()) > len(before), "a run replays the call")
    [run] = [run for run in airflow.runs() if run["dag_run_id"] not in before]
    assert run["triggering_user_name"] == "user"
    assert run["conf"]["date"] == NIGHT
    link = view.get_by_role("link", name=re.compile(re.escape(run["dag_run_id"]))).first
    expect(link).to_be_visible()
    assert airflow.ended(run["dag_run_id"]) == "success"
    assert airflow.call(BROKEN)["status"] == "completed"

    page = open_as("user", airflow.call_page(BROKEN))
    expect(phase_of(page, "Complaint")).to_be_visible()
    expect(page.locator("button[name=replay]:enabled")).to_have_count(0)


@pytest.mark.parametrize("name", [*HOSTILE, HOSTILE_NAME])
def test_what_callers_say_is_shown_as_they_said_it(name: str, airflow: Site, open_as: Open) -> None:
    page = open_as("admin", airflow.call_page(name))
    expect(page.locator("[data-cue]").first).to_be_visible()
    harmless(page)
    if name in HOSTILE:
        said = " ".join(page.locator("[data-cue] .said").all_text_contents())
        assert " ".join(HOSTILE[name].split()) in " ".join(said.split())


def test_no_page_runs_what_callers_and_models_say(airflow: Site, open_as: Open) -> None:
    for kind, address in airflow.pages().items():
        page = open_as("admin", address)
        expect(page.locator("main")).to_be_visible()
        harmless(page)
        if kind in ("run", "day"):
            expect(page.locator("main")).to_contain_text(HOSTILE_NAME)


def harmless(page: Page) -> None:
    """No script of a caller's has run, and no element of a caller's is there."""
    assert page.evaluate("window.hostile") is None
    assert page.locator("img, iframe, math, animate, [onload], [onerror], [autofocus], body [style]").count() == 0
    links = page.locator("a[href], form[action]").evaluate_all("all => all.map(one => one.href || one.action)")
    assert [link for link in links if not link.startswith("https://")] == []


def test_links_stay_below_the_path_that_airflow_is_served_at(airflow: Site, open_as: Open) -> None:
    for address in airflow.pages().values():
        page = open_as("user", address)
        for link in page.locator("a[href], form[action], audio[src]").evaluate_all(
            "all => all.map(one => one.href || one.currentSrc || one.src || one.action)"
        ):
            assert link.startswith((f"{airflow.url}/", "https://localhost/")), link


def test_every_link_between_pages_leads_somewhere(airflow: Site, open_as: Open) -> None:
    links: set[str] = set()
    for address in airflow.pages().values():
        page = open_as("user", address)
        links |= set(page.locator("a[href]").evaluate_all("all => all.map(one => one.href)"))
    ours = {link for link in links if link.startswith(f"{airflow.url}/callphases/")}
    assert ours
    answers = {link: airflow.request("GET", link, "user").status_code for link in ours}
    # The pipeline has pages.audio: redirect.
    assert {link: got for link, got in answers.items() if got != (302 if "/audio/" in link else 200)} == {}


def test_pages_need_no_other_server(airflow: Site, open_as: Open) -> None:
    asked: list[str] = []
    page = open_as("viewer", airflow.page(f"/days/{NIGHT}"))
    page.on("request", lambda request: asked.append(request.url))
    for address in airflow.pages().values():
        page.goto(address)
    assert [url for url in asked if not url.startswith((airflow.url, "data:"))] == []


@pytest.mark.parametrize("theme", THEMES)
def test_pages_fit_into_a_narrow_window(theme: Any, airflow: Site, open_as: Open) -> None:
    for kind, address in airflow.pages().items():
        page = open_as("viewer", address, color_scheme=theme, viewport={"width": WIDTH_PX, "height": 800})
        wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth]")
        assert max(wide) <= WIDTH_PX, kind


@pytest.mark.parametrize("theme", THEMES)
def test_pages_are_as_light_or_dark_as_airflow(theme: str, airflow: Site, open_as: Open) -> None:
    page = open_as("viewer", airflow.url)
    # Airflow keeps a user's choice here; what the system prefers is then of no account.
    page.evaluate("theme => localStorage.setItem('theme', theme)", theme)
    page.emulate_media(color_scheme="dark" if theme == "light" else "light")
    page.goto(run_address(airflow))
    view = tab(page, "Calls")
    expect(view.locator("main")).to_be_visible()
    expect(page.locator("html")).to_have_class(re.compile(rf"\b{theme}\b"))
    background, text = view.locator("html").evaluate(BRIGHTNESS)
    assert (background < text) == (theme == "dark")


def test_tab_of_a_dag_shows_its_pipeline(airflow: Site, open_as: Open) -> None:
    view = tab(open_as("viewer", f"{airflow.url}/dags/{DAG_ID}"), "Call phases")
    expect(view.locator("main")).to_contain_text(NIGHT)


def test_phase_is_chosen_with_the_keyboard(airflow: Site, open_as: Open) -> None:
    page = open_as("viewer", airflow.call_page(ORDINARY))
    phase_of(page, "Resolution").focus()
    page.keyboard.press("Enter")
    assert 5.4 <= playing_at(page.locator("audio")) <= 5.5 + LATE_S
