"""Airflow's public API, as ``callphases backfill`` uses it: is the Dag there, and create a run of it.

The address is ``--airflow``, ``AIRFLOW_API_URL`` or Airflow's own setting ``[api] base_url``. The key is a token
(``AIRFLOW_API_TOKEN``), or comes from a user's name and password (``AIRFLOW_API_USERNAME``, ``AIRFLOW_API_PASSWORD``);
where everybody is an administrator, none is needed. In Airflow's own environment, without a key, runs are created as
the command ``airflow dags trigger`` creates them.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

import requests

from callphases.errors import ConfigurationError

TIMEOUT_S = 30
QUICK_TIMEOUT_S = 5
"""For finding out whether the address in Airflow's settings answers at all."""
URL, TOKEN = "AIRFLOW_API_URL", "AIRFLOW_API_TOKEN"
USERNAME, PASSWORD = "AIRFLOW_API_USERNAME", "AIRFLOW_API_PASSWORD"


class Airflow(Protocol):
    """An Airflow that runs can be created in."""

    def is_paused(self, dag_id: str) -> bool:
        """Whether a Dag is paused.

        Raises:
            ConfigurationError: there is no such Dag, or Airflow can't be asked.
        """

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> bool:
        """Create a run; False if there is one with this id.

        Raises:
            ConfigurationError: Airflow does not take it.
        """


def airflow(url: str | None = None) -> Airflow:
    """The Airflow at an address, else that of the environment.

    Raises:
        ConfigurationError: there is none, or it does not accept the key.
    """
    url = url or os.environ.get(URL)
    if url:
        return AirflowApi(url, _token(url, TIMEOUT_S))
    try:
        from airflow.configuration import conf
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "airflow":
            raise
        raise ConfigurationError(
            f"Airflow is not installed here: name its address with --airflow or {URL}, and a user with {USERNAME} and "
            f"{PASSWORD}, or {TOKEN}; or install callphases[airflow] and run this in Airflow's environment."
        ) from None
    url = conf.get("api", "base_url", fallback="") or f"http://localhost:{conf.get('api', 'port', fallback='8080')}"
    try:
        return AirflowApi(url, _token(url, QUICK_TIMEOUT_S))
    except ConfigurationError:
        if os.environ.get(TOKEN) or os.environ.get(USERNAME):
            raise
        return LocalAirflow()


class AirflowApi:
    """Airflow by its REST API, version 2.

    Args:
        url: of the API server.
        token: an access token.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url.rstrip('/')}/api/v2/dags"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def is_paused(self, dag_id: str) -> bool:
        """See ``Airflow``."""
        answer = self._request("GET", quote(dag_id))
        if answer.status_code == requests.codes.not_found and dag_id in answer.text:
            raise _no_dag(dag_id)
        return bool(_document(answer).get("is_paused"))

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> bool:
        """See ``Airflow``."""
        run = {"dag_run_id": run_id, "logical_date": None, "conf": dict(conf)}
        answer = self._request("POST", f"{quote(dag_id)}/dagRuns", json=run)
        if answer.status_code == requests.codes.conflict:
            return False
        _document(answer)
        return True

    def _request(self, method: str, path: str, **arguments: Any) -> requests.Response:
        url = f"{self._url}/{path}"
        # A redirected POST would become a GET, which creates nothing and is answered all the same.
        try:
            return self._session.request(method, url, timeout=TIMEOUT_S, allow_redirects=False, **arguments)
        except requests.RequestException as error:
            raise _silent(url, error) from None


class LocalAirflow:
    """The Airflow of this environment, by its database, as its own command line reaches it."""

    def is_paused(self, dag_id: str) -> bool:
        """See ``Airflow``."""
        from airflow.models.dag import DagModel
        from airflow.utils.session import create_session
        from sqlalchemy import select
        from sqlalchemy.exc import DBAPIError

        try:
            with create_session() as session:
                found = session.execute(
                    select(DagModel.is_paused).where(DagModel.dag_id == dag_id, DagModel.is_stale.is_(False))
                ).first()
        except DBAPIError as error:
            raise ConfigurationError(
                f"Airflow's database can't be used ({type(error).__name__}): run this where airflow db check succeeds, "
                f"and with the same settings (AIRFLOW_HOME, AIRFLOW__DATABASE__SQL_ALCHEMY_CONN), or name the address "
                f"of Airflow's API with --airflow."
            ) from None
        if found is None:
            raise _no_dag(dag_id)
        return bool(found[0])

    def trigger(self, dag_id: str, run_id: str, conf: Mapping[str, Any]) -> bool:
        """See ``Airflow``."""
        from airflow.cli.cli_parser import get_parser
        from airflow.exceptions import DagRunAlreadyExists

        command = ["dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(conf), "--output", "json"]
        arguments = get_parser().parse_args(command)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                arguments.func(arguments)
        except DagRunAlreadyExists:
            return False
        except (Exception, SystemExit) as error:
            raise ConfigurationError(
                f"Airflow did not create the run {run_id}: {type(error).__name__}: {error}"
            ) from None
        return True


def _no_dag(dag_id: str) -> ConfigurationError:
    return ConfigurationError(
        f"Airflow has no Dag {dag_id}: check that the file is in the folder that its Dag processor reads "
        "(CALLPHASES_PIPELINES), and wait until it has read the file."
    )


def _token(url: str, timeout_s: float) -> str:
    """An access token from the environment, or from the API."""
    if token := os.environ.get(TOKEN):
        return token
    user = {"username": os.environ.get(USERNAME), "password": os.environ.get(PASSWORD)}
    method, body = ("POST", user) if user["username"] else ("GET", None)
    address = f"{url.rstrip('/')}/auth/token"
    try:
        answer = requests.request(method, address, json=body, timeout=timeout_s, allow_redirects=False)
    except requests.RequestException as error:
        raise _silent(address, error) from None
    token = _document(answer).get("access_token")
    if not isinstance(token, str):
        raise ConfigurationError(f"{address} gives no token: set {TOKEN}.")
    return token


def _document(answer: requests.Response) -> dict[str, Any]:
    """The object that the API answers with.

    Raises:
        ConfigurationError: it answers with an error, or is no API of Airflow's.
    """
    status = answer.status_code
    if status in (requests.codes.unauthorized, requests.codes.forbidden):
        hint = f": set {USERNAME} and {PASSWORD}, or {TOKEN}, of a user who may trigger the Dag"
    elif answer.is_redirect or status == requests.codes.not_found:
        hint = ": check the address (--airflow, or " + URL + "), which is the one that the UI has"
    else:
        hint = ""
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        hint = hint or f": it is no API of Airflow's; check --airflow, or {URL}"
    elif answer.ok and not answer.is_redirect:
        return document
    detail = document.get("detail", "") if isinstance(document, dict) else ""
    said = f" ({detail if isinstance(detail, str) else json.dumps(detail)})" if detail else ""
    raise ConfigurationError(f"{_place(answer.url)} answers with HTTP {status}{said}{hint}.")


def _silent(url: str, error: requests.RequestException) -> ConfigurationError:
    return ConfigurationError(f"Airflow's API does not answer at {_place(url)}: {type(error).__name__}.")


def _place(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
