"""All routes of the pages with the roles of Airflow's FAB auth manager, and with roles for one Dag."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from callphases.pages.airflow_rights import AUDIO, TRANSCRIPTS
from doubles import DAY, Store
from pages_app import DONE, FAILED, SUMMARY, Site, replay, routes, served

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        find_spec("airflow.providers.fab") is None, reason="apache-airflow-providers-fab is not installed"
    ),
]

DAG_ID = "call_phases_support"
ROLES: dict[str, list[tuple[str, str]] | None] = {
    "Public": None,
    "Viewer": None,
    "User": None,
    "Op": None,
    "Admin": None,
    "readers": [("can_read", f"DAG:{DAG_ID}")],
    "editors": [("can_read", f"DAG:{DAG_ID}"), ("can_edit", f"DAG:{DAG_ID}"), ("can_create", "DAG Runs")],
    "of_another": [("can_read", "DAG:another"), ("can_edit", "DAG:another"), ("can_create", "DAG Runs")],
    "auditors": [("can_read", f"DAG:{DAG_ID}"), ("can_read", AUDIO), ("can_read", TRANSCRIPTS)],
}
"""Each has a user of the same name. None: as Airflow makes it."""


@pytest.fixture
def fab(airflow_database: None, s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """The site with FAB's users."""
    from airflow.api_fastapi import app as api
    from airflow.providers.fab.auth_manager.models.db import FABDBManager
    from airflow.utils.session import create_session

    name = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", name)
    with create_session() as session:
        FABDBManager(session).initdb()
    with served("", s3, tmp_path, monkeypatch) as site:
        manager: Any = api.get_auth_manager()
        users = {role: user_of(manager, role, rights) for role, rights in ROLES.items()}
        site.token = lambda role: manager.generate_jwt(users[role])
        site.user_id = lambda role: str(users[role].id)
        yield site


def user_of(manager: Any, role: str, rights: list[tuple[str, str]] | None) -> Any:
    of = manager.security_manager
    with manager.flask_app.app_context():
        made = of.add_role(role)
        for action, resource in rights or []:
            of.add_permission_to_role(made, of.create_permission(action, resource))
        return of.find_user(username=role) or of.add_user(role, role, role, f"{role}@example.com", made, "password")


READERS = {"Viewer", "User", "Op", "Admin", "readers", "editors", "auditors"}
TRIGGERERS = {"User", "Op", "Admin", "editors"}


def test_every_route_is_for_roles_with_the_right_to_the_dag(fab: Site) -> None:
    for path, method in routes(fab):
        assert fab.ask(None, path, method).status_code == 401
        assert fab.ask(None, path, method, headers={"Authorization": "Bearer wrong"}).status_code == 403
        for role in ROLES:
            allowed = role in (TRIGGERERS if method == "POST" else READERS)
            status = fab.ask(role, path, method).status_code
            if method == "POST":  # without a form
                assert status == (422 if allowed else 403), (role, path)
            else:
                assert (status == 403) != allowed, (role, path, method)
                assert status != 401


def test_replay_is_for_who_may_trigger(fab: Site) -> None:
    answers = {role: replay(fab, role, call=FAILED) for role in ROLES}
    assert {role for role, answer in answers.items() if answer.status_code == 303} == TRIGGERERS
    assert {answer.status_code for answer in answers.values()} == {303, 403}
    run_id = answers["editors"].headers["location"].rpartition("/")[2].replace("%3A", ":")
    assert fab.run(run_id).triggering_user_name


@pytest.mark.parametrize(("rule", "who"), [("read", READERS), ("edit", TRIGGERERS), ("view", {"auditors"})])
def test_words_and_voices_are_for_whom_the_pipeline_file_says(fab: Site, rule: str, who: set[str]) -> None:
    fab.write(listening=rule, transcripts=rule, audio="stream")
    call, audio = f"/dags/{fab.dag_id}/days/{DAY}/calls/{DONE}", f"/audio/{fab.dag_id}/{DAY}/{DONE}"
    assert {role for role in ROLES if SUMMARY in fab.ask(role, call).text} == who
    assert {role for role in ROLES if fab.ask(role, audio).status_code == 200} == who


def test_custom_views_can_be_given_to_roles_once_the_pages_are_served(fab: Site) -> None:
    fab.ask(None, "/")
    from airflow.api_fastapi.app import get_auth_manager

    resources: Any = get_auth_manager()
    resources = resources.security_manager
    assert [resources.get_resource(view).name for view in (AUDIO, TRANSCRIPTS)] == [AUDIO, TRANSCRIPTS]
