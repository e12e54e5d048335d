"""Tests of the pages: their links lead somewhere, the index has them all, the runbook has every failure class."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callphases import __version__
from callphases.errors import failure_classes

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        if link.startswith("http"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pictures_of_a_page_are_there_and_are_small(page: Path) -> None:
    for picture in re.findall(r'(?:src|srcset)="([^"]+)"', prose(page)):
        assert 0 < (page.parent / picture).stat().st_size < 200_000, picture


def test_index_has_every_page() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in DOCS.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index] == []


def test_runbook_says_what_to_do_about_every_failure_class() -> None:
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert failure_classes() <= set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_pages_name_the_wheel_of_this_version() -> None:
    for page in PAGES:
        assert set(re.findall(r"callphases-(\d+\.\d+\.\d+)-py3", page.read_text(encoding="utf-8"))) <= {__version__}
