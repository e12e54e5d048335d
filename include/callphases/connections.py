"""Opens what the command line talks to: S3, the speech service and the gateway.

With ASSEMBLYAI_API_KEY set everything comes from environment variables, else from the pipeline's Airflow connections. A
gateway of its own is at LLM_GATEWAY_URL, with its key in CALLPHASES_LLM_KEY.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from callphases.errors import ConfigurationError
from callphases.pipeline import Pipeline, load
from callphases.segmentation.gateway import Gateway, Settings, gateway_beside, wants_bearer
from callphases.state.s3 import client_from_environment
from callphases.state.storage import ObjectPrefix
from callphases.transcription.assemblyai import DEFAULT_URL, AssemblyAI

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def services_of(pipeline: Pipeline) -> tuple[AssemblyAI, Gateway]:
    """The clients of the speech service and the language model gateway.

    Raises:
        ConfigurationError: neither a key nor Airflow is there, or the connection is missing or has no key.
    """
    if key := os.environ.get("ASSEMBLYAI_API_KEY"):
        own = pipeline.connections.gateway
        if own is not None and not os.environ.get("LLM_GATEWAY_URL"):
            raise ConfigurationError(
                f"The pipeline's language models have a connection of their own, {own!r}: set LLM_GATEWAY_URL and "
                "CALLPHASES_LLM_KEY beside ASSEMBLYAI_API_KEY, or unset that to use Airflow's connections."
            )
        # The account's key is none of another gateway's business.
        return AssemblyAI(key, _speech_url()), _gateway(_gateway_url(), "" if own is not None else key)
    try:
        from callphases.airflow.hook import AssemblyAIHook
    except ImportError:
        raise ConfigurationError("Set ASSEMBLYAI_API_KEY, or install Airflow and define its connections.") from None
    return AssemblyAIHook(pipeline.connections.assemblyai).get_clients(pipeline.connections.gateway)


def s3_of(pipeline: Pipeline) -> S3Client:
    """The S3 client of a pipeline; without Airflow that of the environment.

    Raises:
        ConfigurationError: the environment does not configure a client.
    """
    if os.environ.get("ASSEMBLYAI_API_KEY"):
        return client_from_environment()
    try:
        from callphases.airflow.hook import s3_client
    except ImportError:
        return client_from_environment()
    return s3_client(pipeline.connections.aws)


def gateway_to_score(url: str | None) -> Gateway:
    """The gateway of a model to be scored: at ``url``, else at LLM_GATEWAY_URL or the account's.

    Raises:
        ConfigurationError: no key is set.
    """
    key = os.environ.get("ASSEMBLYAI_API_KEY", "").strip()
    if not (key or os.environ.get("CALLPHASES_LLM_KEY", "").strip()):
        raise ConfigurationError("Set CALLPHASES_LLM_KEY, or ASSEMBLYAI_API_KEY, to the gateway's key.")
    return _gateway(url or _gateway_url(), key, "--url or LLM_GATEWAY_URL")


def tables_at(place: str, setting: str) -> tuple[ObjectPrefix | Path, Pipeline | None]:
    """Published tables: those of a pipeline file, with its pipeline, or ``output.tables`` at S3 or in a local copy.

    ``setting`` is what errors tell the user to check.

    Raises:
        ConfigurationError: the pipeline file or the URI is invalid, or the environment does not configure an S3 client.
    """
    if "://" not in place and place.endswith((".yaml", ".yml")) and not Path(place).is_dir():
        pipeline = load(Path(place))
        return ObjectPrefix(client_from_environment(), pipeline.output.tables, "output.tables"), pipeline
    # One letter is a drive of Windows.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:|[sS]3//", place) is None or Path(place).exists():
        return Path(place), None
    if re.fullmatch(r"s3://[^/]+(/.*)?", place) is None:
        bucket = re.fullmatch(r"(?i)s3[an]?:?/*([^/]+(/.*)?)", place)
        meant = f"; did you mean s3://{bucket[1]}?" if bucket else ""
        raise ConfigurationError(f"{place}: expected s3://bucket/prefix/ for {setting}{meant}")
    return ObjectPrefix(client_from_environment(), place if place.endswith("/") else f"{place}/", setting), None


def _speech_url() -> str:
    return os.environ.get("ASSEMBLYAI_BASE_URL", DEFAULT_URL)


def _gateway(url: str, account_key: str, url_setting: str = "LLM_GATEWAY_URL") -> Gateway:
    """The gateway at ``url``, with the key in CALLPHASES_LLM_KEY or the account's, which is sent as it is.

    AssemblyAI's gateway takes no bearer tokens; those that speak OpenAI's API take nothing else.
    """
    own_key = os.environ.get("CALLPHASES_LLM_KEY", "").strip()
    settings = Settings("CALLPHASES_LLM_KEY" if own_key or not account_key else "ASSEMBLYAI_API_KEY", url_setting)
    return Gateway(own_key or account_key, url, bearer=bool(own_key) and wants_bearer(url), settings=settings)


def _gateway_url() -> str:
    return os.environ.get("LLM_GATEWAY_URL") or gateway_beside(_speech_url())
