"""Looks at a bounded part of a bucket: folders of each level, and keys of the oldest, the newest and some between."""

from __future__ import annotations

import datetime as dt
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from callphases.pipeline import Recordings
from callphases.starting.layout import Seen
from callphases.starting.readings import readings
from callphases.state.bucket import ListedObject, RecordingBucket

REQUESTS = 100
"""LIST requests for a bucket at most; $0.0005 at S3's list price of $0.005 for a thousand."""
KEYS = 200
"""Objects of one folder that are kept."""
MOST_KEYS = 2000
"""Recordings that are kept in all."""
FEW = 30
"""This many folders that are no numbers are all looked into: each may be a tenant."""
_PAGE = 1000
_PAGES = 4
DEFAULT_SUFFIXES: tuple[str, ...] = tuple(Recordings.model_fields["suffixes"].get_default())
# fmt: off
OTHER_SUFFIXES = frozenset((
    ".3ga", ".8svx", ".aac", ".ac3", ".aif", ".aiff", ".alac", ".amr", ".ape", ".au", ".dss", ".flv", ".m2ts", ".m4b",
    ".m4p", ".m4v", ".mogg", ".mov", ".mp2", ".mpga", ".mts", ".mxf", ".oga", ".qcp", ".tta", ".voc", ".wma", ".wv",
))
# fmt: on
"""Of other formats that the speech service accepts: its documentation's list of supported file types, 2026-11."""


@dataclass
class Sample:
    """What was seen of a bucket.

    Attributes:
        objects: in the order in which they were seen.
        folders: prefixes up to a slash; of more of them than ``objects`` are from.
        requests: how many were sent.
    """

    objects: list[ListedObject] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    requests: int = 0

    def endings(self) -> Counter[str]:
        """How many objects have which suffix, in lower case; empty for those without one."""
        return Counter(_suffix(one.key) for one in self.objects if not one.key.endswith("/"))

    def suffixes(self) -> list[str] | None:
        """Suffixes of recordings beside the default ones, with these; None if the default ones will do."""
        others = sorted(suffix for suffix in self.endings() if suffix in OTHER_SUFFIXES)
        return [*DEFAULT_SUFFIXES, *others] if others else None

    def recordings(self, suffixes: Sequence[str] | None = None) -> list[ListedObject]:
        """The objects that have one of ``suffixes``, from all over the sample."""
        wanted = tuple(suffixes or DEFAULT_SUFFIXES)
        found = {one.key: one for one in self.objects if one.key.lower().endswith(wanted) and not one.key.endswith("/")}
        step = max(1, -(-len(found) // MOST_KEYS))
        return list(found.values())[::step]

    def seen(self, suffixes: Sequence[str] | None = None) -> list[Seen]:
        """The same with what a proposal is made of."""
        return [Seen(one.key, one.last_modified) for one in self.recordings(suffixes)]


def look_at(bucket: RecordingBucket, prefix: str = "", *, requests: int = REQUESTS) -> Sample:
    """Look at what is below a prefix, with no more than ``requests`` requests.

    Raises:
        ConfigurationError, ServiceUnavailable: as ``RecordingBucket``.
    """
    looker = _Looker(bucket)
    looker.visit(prefix, requests)
    return looker.sample


class _Looker:
    def __init__(self, bucket: RecordingBucket) -> None:
        self.bucket = bucket
        self.sample = Sample()

    def visit(self, prefix: str, budget: int) -> None:
        """Look at a folder and at some of those in it."""
        if budget <= 1:
            if budget == 1:
                self._below(prefix)
            return
        before = self.sample.requests
        objects, folders = self._folder(prefix, min(_PAGES, budget))
        self.sample.folders += folders
        self._keep(objects)
        if len(objects) >= _PAGE:
            self._newest(prefix, objects)
        chosen = _chosen(folders, max(5, min(12, budget // 8)))
        for number, folder in enumerate(chosen):
            left = budget - (self.sample.requests - before)
            # What a folder does not need is for those after it.
            self.visit(folder, left // (len(chosen) - number))

    def _folder(self, prefix: str, pages: int) -> tuple[list[ListedObject], list[str]]:
        """What is directly in a folder: of very many folders the first thousands."""
        objects: list[ListedObject] = []
        folders: list[str] = []
        after = ""
        for _ in range(pages):
            more, inner = self.bucket.look(prefix, after=after, most=_PAGE)
            self.sample.requests += 1
            objects += more
            folders += inner
            if len(more) + len(inner) < _PAGE or len(more) > len(inner):
                break
            after = max([*(one.key for one in more), *(f"{one}\U0010ffff" for one in inner)])
        return objects, folders

    def _below(self, prefix: str) -> None:
        self._keep(self.bucket.look_below(prefix, most=KEYS))
        self.sample.requests += 1

    def _newest(self, prefix: str, objects: Sequence[ListedObject]) -> None:
        """Look at newer keys in a folder with very many, if their names begin with a date."""
        key = objects[0].key
        today = dt.datetime.now(dt.UTC).replace(tzinfo=None)
        for reading in readings(key, today + dt.timedelta(days=2)):
            head = key[: reading.start]
            if reading.parts[0].directive == "%Y" and all(one.key.startswith(head) for one in objects):
                for days in (2, 30, 180, 720):
                    after = f"{head}{today - dt.timedelta(days=days):{reading.format}}"
                    self._keep(self.bucket.look_below(prefix, after=after, most=KEYS))
                    self.sample.requests += 1
                return

    def _keep(self, objects: Sequence[ListedObject]) -> None:
        """Keep some of the objects of a folder: the first, the last, and some between."""
        step = max(1, -(-len(objects) // KEYS))
        self.sample.objects += objects[::step]


def _chosen(folders: Sequence[str], most: int) -> list[str]:
    """The folders to look into: of those with names all that may be tenants; of those with numbers ``most``.

    The newest come first, then the oldest, then some between.
    """
    names = {folder: PurePosixPath(folder).name for folder in folders}
    numbered = [folder for folder in folders if re.search(r"\d", names[folder])]
    plain = [folder for folder in folders if folder not in set(numbered)]
    if len({re.sub(r"\d+", "", names[folder]) for folder in numbered}) > 3:
        plain, numbered = list(folders), []  # such as identifiers, or agents with numbers
    return [*_spread(plain, FEW), *_spread(numbered, most)]


def _spread(items: Sequence[str], most: int) -> list[str]:
    if len(items) <= most:
        return list(items)
    positions = {round(number * (len(items) - 1) / (most - 1)) for number in range(most)}
    return [items[position] for position in sorted(positions, key=lambda at: (at != len(items) - 1, at))]


def _suffix(key: str) -> str:
    return PurePosixPath(key.rpartition("/")[2].strip()).suffix.lower()
