"""The most memory that this process has had, as it knows itself."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from benchmarks.processes import MB


def peak_mb() -> float:
    """Resident memory at its peak, in MB (2**20 bytes).

    On Linux from the account of this program alone: ``ru_maxrss``, also as a parent sees it, is that of the process
    before it became this program, where that was larger.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 / MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MB
