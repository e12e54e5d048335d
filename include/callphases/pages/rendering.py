"""Pages as HTML: each a whole document with its styles and script inside, and the Content-Security-Policy for it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from callphases.pages.strips import Mark, Phase, phase_marks, segments, ticks
from callphases.recordings import counted

if TYPE_CHECKING:
    from callphases.pages.call_page import Line


@dataclass(frozen=True)
class Page:
    """A page: the document, and the policy that a browser is to hold it to."""

    html: str
    policy: str


def render(template: str, *, media_origins: Sequence[str] = (), **values: Any) -> Page:
    """Fill a template. Everything in ``values`` is escaped.

    Args:
        template: a file in ``templates``, without its suffix.
        media_origins: where audio may come from, besides the server itself.
        values: for the template.
    """
    policy = _policy(" ".join(["media-src 'self'", *media_origins]), "form-action 'self'", "frame-ancestors 'self'")
    return Page(_document(template, policy=None, **values), policy)


def render_file(template: str, **values: Any) -> str:
    """A page that is complete without a server, with its policy inside. It has no links; values as in ``render``."""
    return _document(template, policy=_policy("form-action 'none'"), links=None, **values)


def _policy(*more: str) -> str:
    sources = [f"style-src '{_hash(_text('pages.css'))}'", f"script-src '{_hash(_text('pages.js'))}'"]
    return "; ".join(["default-src 'none'", *sources, "base-uri 'none'", *more])


def _document(template: str, **values: Any) -> str:
    styles, script = Markup(_text("pages.css")), Markup(_text("pages.js"))  # noqa: S704 - our own
    return _environment().get_template(f"{template}.html").render(styles=styles, script=script, **values)


def clock(seconds: float) -> str:
    """Seconds as ``m:ss``, or ``h:mm:ss`` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def usd(amount: float) -> str:
    """Dollars: with cents, or four decimals below ten cents."""
    return f"${amount:,.2f}" if amount >= 0.1 or amount == 0 else f"${amount:.4f}"


def percent(value: float) -> str:
    """Percent, as SVG has lengths."""
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"


def spoken(phases: Sequence[Phase], duration_s: float | None = None) -> str:
    """What a strip shows, in words, for who can't see it."""
    if not phases:
        return "No phases" if duration_s is None else f"No phases, {clock(duration_s)}"
    return "; ".join(f"{one.name} {clock(one.start_s)} to {clock(one.end_s)}" for one in phases)


def drawn(phases: Sequence[Phase], axis_s: float, marks: Mapping[str, Mark], playable: bool = False) -> Markup:
    """The phases of a strip as SVG; with ``playable`` each is a button. In Python, as a page has hundreds of them."""
    found = []
    for one in segments(phases, axis_s, marks):
        says = escape(f"{one.phase.name}, {clock(one.phase.start_s)} to {clock(one.phase.end_s)}")
        summary = escape(f": {said}") if (said := getattr(one.phase, "summary", None)) else ""
        button, plays = (' role="button" tabindex="0"', "Play from ") if playable else ("", "")
        place = f'x="{percent(one.x)}" width="{percent(one.width)}" height="100%"'
        pattern = f'<rect class="q{one.mark.pattern}" {place}/>' if one.mark.pattern else ""
        letter = f'<text x="{percent(one.middle)}" y="50%">{escape(one.mark.letter)}</text>' if one.lettered else ""
        found.append(
            f'<g class="{one.mark.classes}" data-phase="{one.index}" data-start="{one.phase.start_s}"{button}>'
            f"<title>{plays}{says}{summary}</title><rect {place}/>{pattern}{letter}</g>"
        )
    return Markup("".join(found))  # noqa: S704 - names and letters are escaped


def lines(cues: Sequence[Line]) -> Markup:
    """Cues as items of a list. In Python, as a call of some hours has thousands of them."""
    return Markup("".join(map(_line, cues)))  # noqa: S704 - speakers and texts are escaped


def _line(cue: Line) -> str:
    number, cut = cue.number, ""
    if cue.interrupts:
        cut = ' <span class="cut" title="starts before another speaker has finished">interrupts</span>'
    return (
        f'<li id="cue-{number}" class="cue lane-{cue.lane % 8}" data-cue="{number}" data-start="{cue.start_s}" '
        f'data-end="{cue.end_s}" tabindex="-1"><a href="#cue-{number}" class="number">{clock(cue.start_s)}</a>\n'
        f'<span class="who">{escape(cue.speaker or "–")}{cut}</span>\n'
        f'<span class="said" dir="auto">{escape(cue.text)}</span></li>\n'
    )


def words(name: str) -> str:
    """A status or a failure class as words: ``no_speech`` as ``no speech``."""
    return name.replace("_", " ")


_FILTERS: dict[str, Callable[..., Any]] = {
    "clock": clock,
    "count": "{:,}".format,
    "counted": counted,
    "drawn": drawn,
    "lines": lines,
    "marks": phase_marks,
    "percent": percent,
    "spoken": spoken,
    "ticks": ticks,
    "usd": usd,
    "words": words,
}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("callphases.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment


@cache
def _text(name: str) -> str:
    return (files("callphases.pages") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
