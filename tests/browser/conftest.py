"""One installation for all tests of a browser, and pages in it that notice what should not happen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from chromium import SLOW_MS, Noticed, Open, chromium, program
from pages_site import NIGHT, RUN_ID, Site, password_of, site


@pytest.fixture(scope="session")
def airflow(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An installation whose scheduler has run the night."""
    program()  # first, as without a browser nothing else is of use
    with site(tmp_path_factory.mktemp("pages"), s3_url) as made:
        made.run(RUN_ID, date=NIGHT)
        yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # Of a module, not of the session: while Playwright runs, no other test can run an event loop.
    with chromium() as running:
        expect.set_options(timeout=SLOW_MS)
        yield running


@pytest.fixture(scope="module")
def signed_in(browser: Browser, airflow: Site) -> Callable[[str], Any]:
    """The cookies of a user who has signed in, as a person does, in Airflow's own form."""
    known: dict[str, Any] = {}

    def of(user: str) -> Any:
        if user not in known:
            context = browser.new_context(ignore_https_errors=True)
            page = context.new_page()
            page.goto(airflow.url)
            page.get_by_label("Username").fill(user)
            page.get_by_label("Password").fill(password_of(user))
            page.get_by_role("button", name="Sign in").click()
            page.get_by_role("button", name="Sign in").wait_for(state="detached")
            page.wait_for_url(lambda url: "/auth/" not in url)
            known[user] = context.storage_state()
            context.close()
        return known[user]

    return of


@pytest.fixture
def noticed() -> Iterator[Noticed]:
    """Fails the test if something happened that must not."""
    noticed = Noticed()
    yield noticed
    assert noticed.unwanted == []


@pytest.fixture
def open_as(airflow: Site, browser: Browser, signed_in: Callable[[str], Any], noticed: Noticed) -> Iterator[Open]:
    """``open_as(user, address, …)``: a page in a window of a user's own, with Playwright's options of a context."""
    contexts: list[BrowserContext] = []

    def opened(user: str, address: str, **options: Any) -> Page:
        context = browser.new_context(ignore_https_errors=True, storage_state=signed_in(user), **options)
        contexts.append(context)
        context.set_default_timeout(SLOW_MS)
        page = context.new_page()
        noticed.watch(page)
        answer = page.goto(address)
        assert answer is not None
        assert answer.ok, f"{answer.status} {answer.url}: {answer.text()[:1000]}\n{airflow.logs()}"
        return page

    yield opened
    for context in contexts:
        context.close()
