"""Starts the server: `speechbox` or `python -m speechbox`."""

import logging
import signal
import socket
import sys

import uvicorn
import yaml

from speechbox import faults
from speechbox.api import Api
from speechbox.chat import LocalResponder, Responder, ScriptedResponder
from speechbox.engines import Engine
from speechbox.engines.scripted import Script, ScriptedEngine
from speechbox.fetch import AudioSource
from speechbox.jobs import Jobs
from speechbox.limits import Limits
from speechbox.misbehaving import Protocol
from speechbox.settings import Settings, parse
from speechbox.store import Store


class _Server(uvicorn.Server):
    """A server that prints its URL once it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            sys.stdout.write(f"speechbox listening on http://{f'[{host}]' if ':' in host else host}:{port}\n")
            sys.stdout.flush()


def build(settings: Settings) -> Api:
    """Build the application from its parts."""
    settings.data.mkdir(parents=True, exist_ok=True)
    misbehaviour = faults.Faults(faults.load(settings.faults) if settings.faults else None)
    source = AudioSource(settings.data)
    store = Store(settings.data / "speechbox.sqlite")
    script = Script.load(settings.script)
    engine: Engine
    responder: Responder
    if settings.engine == "scripted":
        engine = ScriptedEngine(source, script, settings.jobs)
        responder = ScriptedResponder(script.chat)
    else:
        # Imported here so that the scripted engine starts without loading a decoder and a model.
        from speechbox.engines.whisper import WhisperEngine

        engine = WhisperEngine(source, settings.model, settings.jobs)
        responder = LocalResponder()
    return Api(
        source=source,
        store=store,
        jobs=Jobs(store, engine, misbehaviour),
        responder=responder,
        faults=misbehaviour,
        limits=Limits(
            chats_at_once=settings.chats_at_once or script.chat.at_once,
            chat_requests_per_minute=settings.chat_requests_per_minute or script.chat.requests_per_minute,
            requests_per_5_minutes=settings.requests_per_5_minutes or script.requests_per_5_minutes,
        ),
        engine_name=engine.name,
        key=settings.key,
        public_url=settings.public_url,
    )


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = parse()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # it logs every file
    # Uvicorn raises the signal that stopped it again after shutdown; ignore it so that the process exits with 0.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        api = build(settings)
    except (OSError, ValueError, yaml.YAMLError) as error:
        sys.exit(f"speechbox: {error}")
    config = uvicorn.Config(
        api.application(),
        host=settings.host,
        port=settings.port,
        http=Protocol,
        log_config=None,
        log_level="warning",
        access_log=False,  # it would contain query strings
        timeout_graceful_shutdown=5,
    )
    _Server(config).run(sockets=[config.bind_socket()])


if __name__ == "__main__":
    main()
