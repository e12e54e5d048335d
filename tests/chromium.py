"""A real browser: the machine's Chromium, without a window, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from debian import install

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MISSING = "The pages are tested in Chromium. Install the package chromium, or Google Chrome."

SLOW_MS = 20_000
"""How long a busy machine may take to show something."""
Open = Callable[..., Page]
"""``open_as(user, address, …)``: a page in a window of a user's own."""


def program() -> str:
    """The path of Chromium; on Debian it is installed where it is missing and the user is root."""
    if not _found():
        install(["chromium"], MISSING)
    path = _found()
    assert path is not None, MISSING
    return path


def _found() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run it while the block lasts. As root it has no sandbox, without which it would not start."""
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=options)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Noticed:
    """What must not happen on a page: dialogs, errors of scripts, violations of a page's policy."""

    unwanted: list[str] = field(default_factory=list)

    def watch(self, page: Page) -> None:
        page.on("dialog", self._dialog)
        page.on("pageerror", lambda error: self.unwanted.append(f"error: {error}"))
        page.on("console", lambda message: self._console(message.text))

    def _dialog(self, dialog: Any) -> None:
        self.unwanted.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def _console(self, text: str) -> None:
        if "Content Security Policy" in text or "Mixed Content" in text:
            self.unwanted.append(f"console: {text}")
