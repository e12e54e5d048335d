"""Fixtures: servers as real processes, recordings, and a web server that serves them."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from servers import Box, running

Start = Callable[..., Box]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start servers that stop with the test: `start("--engine", "scripted", script={…}, data=…)`."""
    with ExitStack() as stack:

        def start_box(*arguments: str, data: Path = tmp_path, script: Any = None, **environment: str) -> Box:
            if script is not None:
                path = tmp_path / "script.yaml"
                path.write_text(yaml.safe_dump(script))
                arguments = (*arguments, "--engine", "scripted", "--script", str(path))
            return stack.enter_context(running(data, *arguments, **environment))

        yield start_box


SCRIPT = {
    "files": [
        {"match": "*/silent.wav", "no_speech": True, "audio_duration_s": 12},
        {"match": "*/broken.wav", "error": "Transcoding failed. File type application/octet-stream"},
        {"match": "*/slow.wav", "latency_s": 30},
    ],
    "chat": {
        "phases": [
            {"match": "thank you for calling", "name": "Introduction"},
            {"match": "charged|broken", "name": "Complaint"},
            {"match": "refund", "name": "Resolution"},
            {"match": "bye", "name": "Goodbye"},
        ]
    },
}


@pytest.fixture(scope="session")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A server with the scripted engine for tests that other transcripts do not disturb."""
    folder = tmp_path_factory.mktemp("scripted")
    (folder / "script.yaml").write_text(yaml.safe_dump(SCRIPT))
    with running(folder / "data", "--engine", "scripted", "--script", str(folder / "script.yaml")) as box:
        yield box


@pytest.fixture(scope="session")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """A server with the packaged Whisper model."""
    with running(tmp_path_factory.mktemp("whisper")) as box:
        yield box


@dataclass
class Files:
    """A web server with files by unmodified request target."""

    url: str
    content: dict[str, bytes]
    redirects: dict[str, str]
    requested: list[str]
    posted: list[tuple[str, dict[str, str], bytes]]


@pytest.fixture
def files() -> Iterator[Files]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            # self.path is modified: the library collapses leading slashes.
            target = self.requestline.split(" ")[1]
            served.requested.append(target)
            if target in served.redirects:
                self.send_response(302)
                self.send_header("Location", served.redirects[target])
                self.end_headers()
                return
            body = served.content.get(target)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            served.posted.append((self.path, dict(self.headers), body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Files(f"http://127.0.0.1:{server.server_port}", {}, {}, [], [])
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield served
    server.shutdown()
    server.server_close()


def encode_wav(*channels: np.ndarray, rate_hz: int = 16_000) -> bytes:
    import io
    import wave

    samples = (np.stack(channels, axis=1).clip(-1, 1) * 32767).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(len(channels))
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    """A function that encodes one float waveform per channel as a WAV file."""
    return encode_wav


@pytest.fixture(scope="session")
def conversation() -> tuple[np.ndarray, np.ndarray]:
    """Two people who take turns, one waveform each, 16 kHz."""
    from hibari import Hibari

    voice = Hibari()

    def say(text: str, slower: float) -> np.ndarray:
        spoken = voice(text, seed=0)
        size = int(len(spoken) * 16_000 / 24_000 * slower)
        return np.interp(np.linspace(0, len(spoken) - 1, size), np.arange(len(spoken)), spoken)

    lines = [
        (0, "Thank you for calling, how can I help you today?"),
        (1, "Hello, I was charged twice for my bill last month."),
        (0, "I am sorry, I have refunded the second payment."),
        (1, "Thank you very much, goodbye."),
    ]
    pause = np.zeros(8_000)
    channels: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for speaker, text in lines:
        spoken = say(text, 1.2 if speaker else 1.0)
        for channel, parts in enumerate(channels):
            parts += [spoken if channel == speaker else np.zeros_like(spoken), pause]
    return np.concatenate(channels[0]), np.concatenate(channels[1])
