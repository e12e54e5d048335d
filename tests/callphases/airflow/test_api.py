"""Airflow's public API: how a token is obtained, what is asked for, and what each refusal is called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from callphases.airflow.api import PASSWORD, TOKEN, URL, USERNAME, Airflow, LocalAirflow, airflow
from callphases.errors import ConfigurationError
from doubles import Answer, Request, Web, answer, text_answer

DAG = "call_phases_support"
RUN = {"from": "2026-11-01", "to": "2026-11-30"}


class Api:
    """What Airflow 3.1 to 3.3 answer, with one user, or none where everybody is an administrator."""

    def __init__(self, web: Web) -> None:
        self.web = web
        self.users: dict[str, str] = {"admin": "secret-password"}
        self.may_trigger = True
        self.runs: dict[str, Any] = {}
        web.respond = self.respond

    def respond(self, request: Request) -> Answer:
        if request.path == "/auth/token":
            return self.token(request)
        if request.headers.get("authorization") != "Bearer token-1":
            return answer({"detail": "Invalid JWT token"}, 403)
        if request.path == f"/api/v2/dags/{DAG}":
            return answer({"dag_id": DAG, "is_paused": False, "is_stale": False})
        if request.path == f"/api/v2/dags/{DAG}/dagRuns" and request.method == "POST":
            return self.trigger(request.json)
        if request.path.startswith("/api/v2/dags/"):
            return answer({"detail": f"The Dag with ID: `{request.path.rpartition('/')[2]}` was not found"}, 404)
        return answer({"detail": "Not Found"}, 404)

    def token(self, request: Request) -> Answer:
        if request.method == "GET":
            only = "This method is only allowed if ``[core] simple_auth_manager_all_admins`` is True"
            return answer({"detail": only}, 403) if self.users else answer({"access_token": "token-1"}, 201)
        user = request.json
        if self.users.get(user["username"]) != user["password"]:
            return answer({"detail": "Invalid credentials"}, 401)
        return answer({"access_token": "token-1"}, 201)

    def trigger(self, body: dict[str, Any]) -> Answer:
        if "logical_date" not in body:
            return answer({"detail": [{"type": "missing", "loc": ["body", "logical_date"]}]}, 422)
        if not self.may_trigger:
            return answer({"detail": "Forbidden"}, 403)
        if body["conf"].get("again") == "perhaps":
            return answer({"detail": "Invalid input for param again"}, 400)
        if body["dag_run_id"] in self.runs:
            return answer({"detail": {"reason": "Unique constraint violation", "message": "…"}}, 409)
        self.runs[body["dag_run_id"]] = body
        return answer({"dag_run_id": body["dag_run_id"], "dag_id": DAG, "state": "queued"})


@pytest.fixture
def api(web: Web, monkeypatch: pytest.MonkeyPatch) -> Api:
    for name in (URL, TOKEN, USERNAME, PASSWORD):
        monkeypatch.delenv(name, raising=False)
    return Api(web)


@pytest.fixture
def admin(api: Api, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    """The API, with a user's name and password in the environment."""
    monkeypatch.setenv(USERNAME, "admin")
    monkeypatch.setenv(PASSWORD, "secret-password")
    return airflow(api.web.url + "/")


def test_run_is_created_once_with_its_params(api: Api, admin: Airflow) -> None:
    assert not admin.is_paused(DAG)
    assert admin.trigger(DAG, "archive__1", RUN)
    assert not admin.trigger(DAG, "archive__1", RUN)
    assert api.runs == {"archive__1": {"dag_run_id": "archive__1", "logical_date": None, "conf": RUN}}


def test_paused_dag_is_said_to_be(api: Api, admin: Airflow) -> None:
    api.web.respond = lambda request: answer({"is_paused": True})
    assert admin.is_paused(DAG)


def test_address_and_token_may_be_in_the_environment(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, api.web.url)
    monkeypatch.setenv(TOKEN, "token-1")
    assert airflow().trigger(DAG, "archive__1", RUN)
    assert [request.path for request in api.web.requests] == [f"/api/v2/dags/{DAG}/dagRuns"]


def test_no_key_is_needed_where_everybody_is_an_administrator(api: Api) -> None:
    api.users = {}
    assert airflow(api.web.url).trigger(DAG, "archive__1", RUN)


def test_missing_key_is_named(api: Api) -> None:
    with pytest.raises(ConfigurationError, match=rf"HTTP 403 .*: set {USERNAME} and {PASSWORD}, or {TOKEN}"):
        airflow(api.web.url)


def test_wrong_password_is_named_and_in_no_message(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USERNAME, "admin")
    monkeypatch.setenv(PASSWORD, "wrong-password")
    with pytest.raises(ConfigurationError, match=rf"HTTP 401 \(Invalid credentials\): set {USERNAME}") as error:
        airflow(api.web.url)
    assert "wrong-password" not in str(error.value)


def test_wrong_token_and_missing_right_are_named(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "token-0")
    with pytest.raises(ConfigurationError, match=rf"HTTP 403 \(Invalid JWT token\): set .*{TOKEN}"):
        airflow(api.web.url).is_paused(DAG)
    monkeypatch.setenv(TOKEN, "token-1")
    api.may_trigger = False
    with pytest.raises(ConfigurationError, match=r"HTTP 403 \(Forbidden\): .*who may trigger the Dag"):
        airflow(api.web.url).trigger(DAG, "archive__1", RUN)


def test_dag_that_is_not_there_is_named(admin: Airflow) -> None:
    with pytest.raises(ConfigurationError, match="Airflow has no Dag call_phases_other"):
        admin.is_paused("call_phases_other")


def test_params_that_airflow_refuses_are_named(admin: Airflow) -> None:
    with pytest.raises(ConfigurationError, match=r"HTTP 400 \(Invalid input for param again\)\."):
        admin.trigger(DAG, "archive__1", {"again": "perhaps"})


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (text_answer("<html>Sign in</html>", kind="text/html"), "HTTP 200: it is no API of Airflow's; check --airflow"),
        (text_answer("", 302) , "HTTP 302: it is no API"),
        ((302, {"location": "https://elsewhere.example/?token=secret"}, b""), "HTTP 302: check the address"),
        (answer({"detail": "Not Found"}, 404), r"HTTP 404 \(Not Found\): check the address"),
        (answer(["token-1"]), "HTTP 200: it is no API"),
        (answer({"detail": [{"loc": ["body"]}]}, 422), r'HTTP 422 \(\[\{"loc": \["body"\]\}\]\)\.'),
        (text_answer("Bad gateway", 502), "HTTP 502: it is no API"),
    ],
)  # fmt: skip
def test_address_of_something_else_is_named(
    api: Api, monkeypatch: pytest.MonkeyPatch, other: Answer, message: str
) -> None:
    api.web.respond = lambda request: other
    with pytest.raises(ConfigurationError, match=message) as error:
        airflow(api.web.url)
    assert "secret" not in str(error.value)
    monkeypatch.setenv(TOKEN, "token-1")
    calls: list[Callable[[], object]] = [
        lambda: airflow(api.web.url).is_paused(DAG),
        lambda: airflow(api.web.url).trigger(DAG, "archive__1", RUN),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match=message):
            call()


def test_token_endpoint_without_a_token_is_named(api: Api) -> None:
    api.web.respond = lambda request: answer({"jwt": "token-1"})
    with pytest.raises(ConfigurationError, match=f"/auth/token gives no token: set {TOKEN}"):
        airflow(api.web.url)


def test_address_that_does_not_answer_is_named_without_its_password(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"does not answer at http://127\.0\.0\.1:9/auth/token: Connection"):
        airflow("http://user:secret@127.0.0.1:9")
    monkeypatch.setenv(TOKEN, "token-1")
    with pytest.raises(ConfigurationError, match=r"does not answer at http://127\.0\.0\.1:9/api/v2/dags/"):
        airflow("http://127.0.0.1:9").is_paused(DAG)


def test_without_an_address_airflows_own_settings_count(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", api.web.url)
    assert isinstance(airflow(), LocalAirflow)  # no key is set
    monkeypatch.setenv(USERNAME, "admin")
    monkeypatch.setenv(PASSWORD, "wrong")
    with pytest.raises(ConfigurationError, match="Invalid credentials"):
        airflow()
    monkeypatch.setenv(PASSWORD, "secret-password")
    assert airflow().trigger(DAG, "archive__1", RUN)
    assert list(api.runs) == ["archive__1"]


def test_server_of_airflows_default_address_is_the_one_on_its_port(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("airflow")
    api.users = {}
    monkeypatch.setenv("AIRFLOW__API__PORT", api.web.url.rpartition(":")[2])
    assert airflow().trigger(DAG, "archive__1", RUN)


def test_missing_airflow_is_named(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "airflow.configuration", None)
    with pytest.raises(
        ConfigurationError, match=f"Airflow is not installed here: name its address with --airflow or {URL}"
    ):
        airflow()
