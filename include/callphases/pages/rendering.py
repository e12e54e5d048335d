"""Pages as HTML: each a whole document with its styles and script inside, and the Content-Security-Policy for it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


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
    styles, script = _text("pages.css"), _text("pages.js")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"style-src '{_hash(styles)}'",
            f"script-src '{_hash(script)}'",
            " ".join(["media-src 'self'", *media_origins]),
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'self'",
        ]
    )
    document = _environment().get_template(f"{template}.html")
    return Page(document.render(styles=Markup(styles), script=Markup(script), **values), policy)  # noqa: S704 - our own


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("callphases.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _text(name: str) -> str:
    return (files("callphases.pages") / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
