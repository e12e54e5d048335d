"""Airflow's connections → the clients of the speech service and of the language model gateway."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from callphases.airflow.provider import get_provider_info
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
        return self._speech(self._connection(self.assemblyai_conn_id))

    async def aget_conn(self) -> assemblyai.AssemblyAI:
        """The same for the event loop of a trigger, where the connection must be awaited."""
        return self._speech(await self.aget_connection(self.assemblyai_conn_id))

    def get_clients(self, gateway_conn_id: str | None = None) -> tuple[assemblyai.AssemblyAI, gateway.Gateway]:
        """The clients of the speech service and of the language model gateway; raises as ``get_conn``.

        Args:
            gateway_conn_id: the gateway's own connection, if it has one.
        """
        connection = self._connection(self.assemblyai_conn_id)
        if gateway_conn_id is not None:
            return self._speech(connection), own_gateway(self._connection(gateway_conn_id), gateway_conn_id)
        name = f"the connection {self.assemblyai_conn_id!r}"
        settings = gateway.Settings(f"the password of {name}", f"llm_gateway_url of {name}")
        client = gateway.Gateway(self._key(connection), gateway_url(connection), settings=settings)
        return self._speech(connection), client

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """The form's own fields; before 3.3 Airflow asks the hook, later versions read the provider's metadata."""
        behaviour = get_provider_info()["connection-types"][0]["ui-field-behaviour"]
        return {name.replace("-", "_"): value for name, value in behaviour.items()}

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """The form's fields for the extra; for the versions before 3.3, too."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from flask_babel import lazy_gettext
        from wtforms import StringField

        fields = get_provider_info()["connection-types"][0]["conn-fields"].items()
        return {
            name: StringField(
                lazy_gettext(field["label"]), description=field["description"], widget=BS3TextFieldWidget()
            )
            for name, field in fields
        }

    def test_connection(self) -> tuple[bool, str]:
        """Whether the speech service answers and takes the key; costs nothing."""
        try:
            service = self.get_conn()
            service.check()
        except CallphasesError as error:
            return False, str(error)
        return True, f"The speech service at {service.url} answers and takes the key."

    def _connection(self, conn_id: str) -> Connection:
        try:
            return self.get_connection(conn_id)
        except Exception as error:
            # Which exception means "not defined" differs between a worker, `dags test` and the API server.
            if type(error).__name__ not in ("AirflowNotFoundException", "AirflowRuntimeError"):
                raise
            is_speech = conn_id == self.assemblyai_conn_id
            form = "of type assemblyai with" if is_speech else "with the gateway's URL as its host, and"
            raise ConfigurationError(
                f"There is no connection {conn_id!r}: add one {form} the API key as its password, "
                f"or set AIRFLOW_CONN_{conn_id.upper()}."
            ) from None

    def _speech(self, connection: Connection) -> assemblyai.AssemblyAI:
        return assemblyai.AssemblyAI(self._key(connection), speech_url(connection))

    def _key(self, connection: Connection) -> str:
        key = _key(connection, self.assemblyai_conn_id)
        if not key:
            raise ConfigurationError(
                f"The connection {self.assemblyai_conn_id!r} has no password: the API key belongs there."
            )
        return key


def s3_client(conn_id: str, *, someone_waits: bool = False) -> S3Client:
    """The S3 client of an AWS connection; the connection's own ``config_kwargs`` win over ``client_config``.

    Args:
        conn_id: the connection's id.
        someone_waits: as ``client_config`` takes it.
    """
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    from callphases.state.s3 import client_config

    config = client_config(someone_waits=someone_waits)
    hook = S3Hook(aws_conn_id=conn_id)
    own = hook.conn_config.botocore_config
    client: S3Client = hook.get_client_type(hook.region_name, config.merge(own) if own else config)
    return client


def own_gateway(connection: Connection, conn_id: str) -> gateway.Gateway:
    """The gateway of a connection of its own, of any type.

    Its host is the base URL of a server that speaks OpenAI's API, its password the key, which is sent as a bearer
    token; no password for a server without keys. In the extra, ``key_header`` names another header for the key, which
    is then sent as it is (``api-key`` for Azure), and ``headers`` holds more headers.

    Raises:
        ConfigurationError: it has no host, or something in it is invalid.
    """
    name = f"the connection {conn_id!r}"
    if not (connection.host or "").strip():
        raise ConfigurationError(f"The connection {conn_id!r} has no host: the gateway's URL belongs there.")
    extra = connection.extra_dejson
    header, headers = extra.get("key_header"), extra.get("headers") or {}
    if not (isinstance(headers, dict) and all(map(_is_header, [*headers.items(), (header or "x", "")]))):
        raise ConfigurationError(
            f"The extra of {name} is invalid: headers holds names and values, and key_header a name, such as "
            '{"key_header": "api-key", "headers": {"X-Team": "calls"}}.'
        )
    url = _url(connection) + _path(connection)
    return gateway.Gateway(
        _key(connection, conn_id),
        url,
        bearer=header is None and gateway.wants_bearer(url),
        key_header=header or "authorization",
        headers=headers,
        settings=gateway.Settings(f"the password of {name}", f"the host of {name}"),
    )


def _key(connection: Connection, conn_id: str) -> str:
    key = (connection.password or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ConfigurationError(f"The password of the connection {conn_id!r} holds characters that no API key has.")
    return key


def _is_header(header: tuple[object, object]) -> bool:
    name, value = header
    return (
        isinstance(name, str)
        and re.fullmatch(r"[\w!#$%&'*+.^`|~-]+", name, re.ASCII) is not None
        and isinstance(value, str)
        and value.isascii()
        and (value.isprintable() and value == value.strip())
    )


def speech_url(connection: Connection) -> str:
    """The base URL of the speech API."""
    return _url(connection) if (connection.host or "").strip() else assemblyai.DEFAULT_URL


def _url(connection: Connection) -> str:
    """The URL in a connection. One that is written as a URI has scheme and port apart from the host."""
    scheme, has_scheme, host = (connection.host or "").strip().rstrip("/").rpartition("://")
    if not has_scheme:
        named = next((one for one in (connection.schema, connection.conn_type) if one == "https"), connection.schema)
        is_plain = named == "http" or (named != "https" and connection.port not in (None, 443))
        scheme = "http" if is_plain else "https"
    name, slash, path = host.partition("/")
    port = f":{connection.port}" if connection.port and not re.search(r":\d+$", name) else ""
    return f"{scheme}://{name}{port}{slash}{path}"


def _path(connection: Connection) -> str:
    """The path of a connection that is written as a URI: Airflow keeps it as the schema."""
    path = (connection.schema or "").strip("/")
    return f"/{path}" if path and path not in ("http", "https") else ""


def gateway_url(connection: Connection) -> str:
    """The base URL of the language model gateway."""
    named = (connection.extra_dejson.get("llm_gateway_url") or "").strip().rstrip("/")
    if named:
        return str(named)
    return gateway.gateway_beside(speech_url(connection))
