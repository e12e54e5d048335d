"""Opens what the command line talks to: S3, the speech service and the gateway.

The speech service and the gateway: from environment variables if ASSEMBLYAI_API_KEY is set (a gateway of its own is at
LLM_GATEWAY_URL, with its key in CALLPHASES_LLM_KEY), else from the pipeline's Airflow connections.

S3: as boto3 is set up, if ASSEMBLYAI_API_KEY or AWS_PROFILE is set. Without them, the pipeline's Airflow connection if
there is one, else as boto3 is set up.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from callphases.errors import ConfigurationError
from callphases.inspection.findings import Finding, Health
from callphases.pipeline import Connections, Pipeline, load
from callphases.segmentation.gateway import Gateway, Settings, gateway_beside, wants_bearer
from callphases.state.s3 import client_from_environment
from callphases.state.storage import ObjectPrefix
from callphases.transcription.assemblyai import DEFAULT_URL, AssemblyAI

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

log = logging.getLogger(__name__)


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
    connections = pipeline.connections
    _has_connections(connections)  # makes those of Airflow's database known to its hooks
    try:
        from callphases.airflow.hook import AssemblyAIHook
    except ImportError:
        raise ConfigurationError("Set ASSEMBLYAI_API_KEY, or install Airflow and define its connections.") from None
    return AssemblyAIHook(connections.assemblyai).get_clients(connections.gateway)


def s3_of(pipeline: Pipeline | None) -> S3Client:
    """The S3 client of a pipeline; without one, of pipelines that name no connection.

    Raises:
        ConfigurationError: the environment does not configure a client.
    """
    conn_id = (Connections() if pipeline is None else pipeline.connections).aws
    if named := next((name for name in ("ASSEMBLYAI_API_KEY", "AWS_PROFILE") if os.environ.get(name)), None):
        log.info("S3 is configured as for boto3, since %s is set.", named)
        return client_from_environment()
    if not _has_connection(conn_id):
        log.info("S3 is configured as for boto3, since there is no Airflow connection %r.", conn_id)
        return client_from_environment()
    from callphases.airflow.hook import s3_client

    log.info("S3 is configured by the Airflow connection %r.", conn_id)
    try:
        return s3_client(conn_id)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"The Airflow connection {conn_id!r} needs a package that is not installed here ({error.name}): install "
            "apache-airflow-providers-amazon, or set AWS_PROFILE to use boto3's settings."
        ) from None


def _has_connections(connections: Connections) -> bool:
    """Whether Airflow has the connections of the speech service and, if it is another, of the gateway."""
    names = filter(None, (connections.assemblyai, connections.gateway))
    return min([_has_connection(name) for name in names])  # each is looked up


def channels_of(pipeline: Pipeline) -> Iterator[Finding]:
    """Whether the channels of ``notify`` can be told, as far as Airflow is set up here."""
    if not pipeline.notify.channels:
        return
    try:
        if not _is_airflow_set_up():
            raise ModuleNotFoundError
        from callphases.airflow.targets import examine_channels
    except ModuleNotFoundError:
        yield Finding(Health.UNSURE, "notify", "Airflow is not set up here, so its channels can't be checked.")
    else:
        yield from examine_channels(pipeline)


def _is_airflow_set_up() -> bool:
    home = Path(os.environ.get("AIRFLOW_HOME") or Path.home() / "airflow")
    return any(name.startswith("AIRFLOW_") for name in os.environ) or (home / "airflow.cfg").exists()


def _has_connection(conn_id: str) -> bool:
    """Whether Airflow is set up here and has a connection. Does not import Airflow where nothing speaks of it."""
    variable = f"AIRFLOW_CONN_{conn_id.upper()}"
    if not _is_airflow_set_up():
        return False
    try:
        from callphases.airflow.lookup import has_connection

        return has_connection(conn_id)
    except ModuleNotFoundError as error:
        if os.environ.get(variable):
            log.warning("%s is set, but Airflow is not installed here (no module %s).", variable, error.name)
    except Exception as error:  # whatever a configuration, a database or a secrets backend raises
        log.warning("Airflow can't be asked for the connection %r here (%s).", conn_id, type(error).__name__)
    return False


def gateway_to_score(url: str | None, pipeline: Pipeline | None = None) -> Gateway:
    """The gateway of a model to be scored: at ``url``, else at LLM_GATEWAY_URL, the account's or the pipeline's.

    Raises:
        ConfigurationError: no key is set, and there is no Airflow connection.
    """
    key = os.environ.get("ASSEMBLYAI_API_KEY", "").strip()
    if not (key or os.environ.get("CALLPHASES_LLM_KEY", "").strip()):
        connections = Connections() if pipeline is None else pipeline.connections
        if url is None and _has_connections(connections):
            from callphases.airflow.hook import AssemblyAIHook

            return AssemblyAIHook(connections.assemblyai).get_clients(connections.gateway)[1]
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
        return ObjectPrefix(s3_of(pipeline), pipeline.output.tables, "output.tables"), pipeline
    # One letter is a drive of Windows.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:|[sS]3//", place) is None or Path(place).exists():
        return Path(place), None
    if re.fullmatch(r"s3://[^/]+(/.*)?", place) is None:
        bucket = re.fullmatch(r"(?i)s3[an]?:?/*([^/]+(/.*)?)", place)
        meant = f"; did you mean s3://{bucket[1]}?" if bucket else ""
        raise ConfigurationError(f"{place}: expected s3://bucket/prefix/ for {setting}{meant}")
    return ObjectPrefix(s3_of(None), place if place.endswith("/") else f"{place}/", setting), None


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
