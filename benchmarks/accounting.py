"""What processes use: core-seconds of whole trees, and the largest process that each role ever had.

A task of Airflow lives for seconds, so whoever only looks at what runs misses most of it. The system keeps the account:
when a parent has waited for a child, the child's time (and what the child had waited for itself) is in the parent's
``children_user`` and ``children_system``. The sum of a living tree's own and children's times therefore holds all that
ever ran in it, and the difference of two sums is what a span of time took, whatever came and went in between. That
holds as long as the roots live and wait for their children, which Airflow's components and Postgres do.

Memory is looked at every ``INTERVAL_S``: resident bytes of each process, pages that it shares with others included.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType

import psutil

from benchmarks.processes import MB

INTERVAL_S = 0.5


@dataclass
class Accounting:
    """Watches trees of processes while its block lasts.

    Args:
        roots: process ids by role. What a root starts has the role ``<role> child``, but counts to the root's time.

    Attributes:
        core_s: core-seconds by the roles of ``roots``.
        peak_bytes: of the largest process by role.
    """

    roots: Mapping[str, int]
    core_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __enter__(self) -> Accounting:
        self._before = {role: _core_s(pid) for role, pid in self.roots.items()}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        self.core_s = {role: _core_s(pid) - self._before[role] for role, pid in self.roots.items()}

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._over.wait(INTERVAL_S):
            role_of = {pid: role for role, pid in self.roots.items()}
            # Parents come before their children, so that each finds its parent's role.
            for process in own.children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    role = role_of.get(process.pid)
                    if role is None:
                        above = role_of.get(process.ppid())
                        if above is None:
                            continue
                        role = above if above.endswith(" child") else f"{above} child"
                        role_of[process.pid] = role
                    self.peak_bytes[role] = max(self.peak_bytes[role], process.memory_info().rss)

    def of(self, *roles: str) -> float:
        """Core-seconds of some roles together."""
        return sum(self.core_s.get(role, 0.0) for role in roles)

    def largest(self, *roles: str) -> tuple[str, float]:
        """The role whose process, or whose child, was the largest of some roles, and its peak in MB (2**20 bytes)."""
        named = [role for role in self.peak_bytes if role.removesuffix(" child") in roles]
        role = max(named, key=lambda name: self.peak_bytes[name], default="")
        return role, self.peak_bytes.get(role, 0) / MB


def _core_s(pid: int) -> float:
    """Core-seconds of a tree since it began. A child that ends while it is counted is in no sum: so it is twice."""
    return max(_sum(pid), _sum(pid))


def _sum(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:  # the root last: it has what ended meanwhile
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
