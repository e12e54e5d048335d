"""The server's settings, from the command line and environment variables."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ENGINES = ("whisper", "scripted")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a server."""

    host: str
    port: int
    engine: str
    model: str | None
    script: Path | None
    faults: Path | None
    jobs: int | None
    requests_per_5_minutes: int | None
    chats_at_once: int | None
    chat_requests_per_minute: int | None
    data: Path
    key: str | None
    public_url: str | None
    log_level: str


def parse(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Parse the command line; missing options come from SPEECHBOX_… variables, then from the defaults."""
    parser = argparse.ArgumentParser(
        prog="speechbox",
        description="Serves AssemblyAI's API and its LLM Gateway's chat completions with local models, on one port.",
        epilog="Every option is also an environment variable: --public-url is SPEECHBOX_PUBLIC_URL, --key is "
        "SPEECHBOX_API_KEY. Prefer the variable for the key: other users of the machine can read command lines.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def option(name: str, default: str | None, text: str, **more: object) -> None:
        variable = "SPEECHBOX_" + name.upper().replace("-", "_")
        parser.add_argument(f"--{name}", default=environment.get(variable) or default, help=text, **more)  # type: ignore[arg-type]

    option("host", "127.0.0.1", "address to listen on")
    option("port", "8008", "port to listen on; 0 picks a free one", type=int)
    option("engine", "whisper", "whisper: faster-whisper on the CPU; scripted: answers from a file",
           choices=ENGINES)  # fmt: skip
    option("model", None, "Whisper model, a folder or a name on the Hugging Face hub; unset: the packaged tiny.en")
    option("script", None, "YAML or JSON file with the scripted engine's answers", type=Path)
    option("faults", None, "YAML or JSON file with faults to inject; unset: none", type=Path)
    option("jobs", None, "jobs at a time; unset: one per core for whisper, 200 for scripted", type=int)
    option(
        "requests-per-5-minutes",
        None,
        "requests to the speech API in 5 minutes; unset: the script's limit, or none",
        type=int,
    )
    option("chats-at-once", None, "chat completions at a time; unset: the script's limit, or none", type=int)
    option(
        "chat-requests-per-minute",
        None,
        "chat completions per model and minute; unset: the script's limit, or none",
        type=int,
    )
    option("data", "speechbox-data", "folder for uploads and transcripts", type=Path)
    option("public-url", None, "base of the URLs in responses; unset: the URL of the request")
    option("log-level", "info", "debug, info, warning or error", choices=LOG_LEVELS)
    # Without a default in argparse, so that --help does not show the key.
    parser.add_argument("--key", default=argparse.SUPPRESS, help="API key to accept; unset: any non-empty key")
    values = vars(parser.parse_args(arguments))
    values.setdefault("key", environment.get("SPEECHBOX_API_KEY") or None)
    settings = Settings(**values)
    # argparse validates arguments, but not defaults from the environment.
    if settings.engine not in ENGINES:
        parser.error(f"SPEECHBOX_ENGINE must be one of {', '.join(ENGINES)}")
    if settings.log_level not in LOG_LEVELS:
        parser.error(f"SPEECHBOX_LOG_LEVEL must be one of {', '.join(LOG_LEVELS)}")
    for name in ("jobs", "requests_per_5_minutes", "chats_at_once", "chat_requests_per_minute"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if settings.engine == "scripted" and settings.model:
        parser.error("--model is for --engine whisper")
    if settings.engine == "whisper" and settings.script:
        parser.error("--script is for --engine scripted")
    return settings
