"""Tests that no library stores or sends telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FIND_SPEECH = """
import speechbox, numpy
from faster_whisper.vad import get_speech_timestamps
get_speech_timestamps(numpy.zeros(16000, dtype="float32"))
"""


def files_left_by(code: str, home: Path) -> list[Path]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    }
    subprocess.run([sys.executable, "-c", code], env={**environment, "HOME": str(home)}, check=True)
    return [path for path in home.rglob("*") if path.is_file()]


def test_speech_detection_stores_no_telemetry(tmp_path: Path) -> None:
    assert files_left_by(FIND_SPEECH, tmp_path) == []
