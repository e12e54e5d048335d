"""The connection ``assemblyai`` → the clients of the speech service and of the language model gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseHook

from callphases.errors import CallphasesError, ConfigurationError
from callphases.segmentation import gateway
from callphases.transcription import assemblyai

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from mypy_boto3_s3.client import S3Client


class AssemblyAIHook(BaseHook):
    """Opens an AssemblyAI account, or a server that speaks its API.

    The connection's host is the base URL of the speech API (empty: the vendor's), its password the key, and its extra
    ``llm_gateway_url`` the base URL of the gateway (empty: the vendor's of the same region; for any other host, that
    host itself).

    Args:
        assemblyai_conn_id: the connection's id.
    """

    conn_name_attr = "assemblyai_conn_id"
    default_conn_name = "assemblyai_default"
    conn_type = "assemblyai"
    hook_name = "AssemblyAI"

    def __init__(self, assemblyai_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.assemblyai_conn_id = assemblyai_conn_id

    def get_conn(self) -> assemblyai.AssemblyAI:
        """The client of the speech service.

        Raises:
            ConfigurationError: there is no such connection, or it has no key.
        """
        return self._speech(self._connection())

    async def aget_conn(self) -> assemblyai.AssemblyAI:
        """The same for the event loop of a trigger, where the connection must be awaited."""
        return self._speech(await self.aget_connection(self.assemblyai_conn_id))

    def get_clients(self) -> tuple[assemblyai.AssemblyAI, gateway.Gateway]:
        """The clients of the speech service and of the language model gateway; raises as ``get_conn``."""
        connection = self._connection()
        return self._speech(connection), gateway.Gateway(self._key(connection), gateway_url(connection))

    def test_connection(self) -> tuple[bool, str]:
        """Whether the speech service answers and takes the key; costs nothing."""
        try:
            service = self.get_conn()
            service.check()
        except CallphasesError as error:
            return False, str(error)
        return True, f"The speech service at {service.url} answers and takes the key."

    def _connection(self) -> Connection:
        try:
            return self.get_connection(self.assemblyai_conn_id)
        except Exception as error:
            # Which exception means "not defined" differs between a worker, `dags test` and the API server.
            if type(error).__name__ not in ("AirflowNotFoundException", "AirflowRuntimeError"):
                raise
            raise ConfigurationError(
                f"There is no connection {self.assemblyai_conn_id!r}: add one of type assemblyai with the API key as "
                f"its password, or set AIRFLOW_CONN_{self.assemblyai_conn_id.upper()}."
            ) from None

    def _speech(self, connection: Connection) -> assemblyai.AssemblyAI:
        return assemblyai.AssemblyAI(self._key(connection), speech_url(connection))

    def _key(self, connection: Connection) -> str:
        key = (connection.password or "").strip()
        if not key:
            raise ConfigurationError(
                f"The connection {self.assemblyai_conn_id!r} has no password: the API key belongs there."
            )
        if not (key.isascii() and key.isprintable()):
            raise ConfigurationError(
                f"The password of the connection {self.assemblyai_conn_id!r} holds characters that no API key has."
            )
        return key


def s3_client(conn_id: str) -> S3Client:
    """The S3 client of an AWS connection; the connection's own ``config_kwargs`` win over ``client_config``."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from callphases.state.s3 import client_config

    config = client_config()
    own = S3Hook(aws_conn_id=conn_id).conn_config.botocore_config
    return S3Hook(aws_conn_id=conn_id, config=config.merge(own) if own else config).get_conn()


def speech_url(connection: Connection) -> str:
    """The base URL of the speech API. A connection written as a URI has scheme and port apart from the host."""
    host = (connection.host or "").strip().rstrip("/")
    if not host:
        return assemblyai.DEFAULT_URL
    if "://" in host:
        return host
    scheme = connection.schema if connection.schema in ("http", "https") else None
    if scheme is None:
        scheme = "http" if connection.port not in (None, 443) else "https"
    return f"{scheme}://{host}" + (f":{connection.port}" if connection.port else "")


def gateway_url(connection: Connection) -> str:
    """The base URL of the language model gateway."""
    named = (connection.extra_dejson.get("llm_gateway_url") or "").strip().rstrip("/")
    if named:
        return str(named).removesuffix("/v1")
    return gateway.gateway_beside(speech_url(connection))
