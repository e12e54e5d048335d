"""Installs what tests need and the machine lacks: Debian's packages."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

import pytest

from benchmarks.processes import say


def install(packages: Sequence[str], why: str) -> None:
    """Install packages, if this is root's Debian.

    Elsewhere, the tests that need them are skipped with ``why``, which says what to install, or fail in CI.

    Raises:
        AssertionError: they are missing in CI, or apt-get fails.
    """
    if not packages:
        return
    why = f"{why} Missing here: {', '.join(packages)}."
    if not (os.geteuid() == 0 and shutil.which("apt-get")):
        assert not os.environ.get("CI"), why
        pytest.skip(why)
    say(f"Installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=environment, check=False)
    done = subprocess.run(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], env=environment, check=False
    )
    assert done.returncode == 0, why
