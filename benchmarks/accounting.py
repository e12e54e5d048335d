"""Measures the CPU time of process trees and the largest process of each role.

Airflow's tasks live for seconds, so sampling misses most of their CPU time. The kernel accounts for it instead: once a
parent has waited for a child, the child's times (including those of its own children) are part of the parent's
``children_user`` and ``children_system``. Summed over a tree, own times and children's times include every process that
ever ran in it, so the difference of two sums is the CPU time used in between. This requires that the roots stay alive
and wait for their children, as Airflow's components and Postgres do.

Memory is sampled every ``INTERVAL_S`` seconds: resident bytes of each process, including pages shared with others.
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
    """Measures process trees inside its block.

    Args:
        roots: process IDs by role. Descendants have the role ``<role> child``; their time counts toward the root.

    Attributes:
        core_s: core-seconds by role of ``roots``.
        peak_bytes: resident bytes of the largest process by role.
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
            # children() lists parents before their children, so a parent's role is known by then.
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
        """Return the total core-seconds of some roles."""
        return sum(self.core_s.get(role, 0.0) for role in roles)

    def largest(self, *roles: str) -> tuple[str, float]:
        """Return which of some roles or their children had the largest process, and its peak in MB (2**20 bytes)."""
        named = [role for role in self.peak_bytes if role.removesuffix(" child") in roles]
        role = max(named, key=lambda name: self.peak_bytes[name], default="")
        return role, self.peak_bytes.get(role, 0) / MB


def _core_s(pid: int) -> float:
    """Return the core-seconds of a tree since its start.

    A child that exits during the summation may be missed, so take the larger of two sums.
    """
    return max(_sum(pid), _sum(pid))


def _sum(pid: int) -> float:
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        # The root comes last, because its times include children that exited meanwhile.
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
    return total
