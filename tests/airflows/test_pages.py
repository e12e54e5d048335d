"""Tests of the pages in the API server of the environment's Airflow, asked over HTTP by users of several roles.

``make test-airflows`` runs them on each supported minor version. The tests share one Airflow, whose scheduler has run a
night, and run in order.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from pages_site import BROKEN, DAG_ID, MU_LAW, NIGHT, ORDINARY, PATH, ROOT, RUN_ID, Site, site, tone_wav

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def airflow(s3_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    # In the clone's folder of plugins, and by the entry point of the installed package, is the same plugin.
    with site(tmp_path_factory.mktemp("pages"), s3_url, AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins")) as made:
        made.run(RUN_ID, date=NIGHT)
        yield made


def audio(airflow: Site, name: str) -> str:
    return f"{airflow.url}/callphases/audio/{DAG_ID}/{NIGHT}/{airflow.call(name)['call_id']}"


def try_again(airflow: Site, user: str | None, token: str = "") -> Any:
    """Send the form that tries the failed call again."""
    form = {"day": NIGHT, "call": airflow.call(BROKEN)["call_id"], "token": token}
    return airflow.request("POST", airflow.page("/replay"), user, data=form)


def logged(airflow: Site, event: str) -> list[dict[str, Any]]:
    """The lines of Airflow's audit log, oldest first."""
    return list(airflow.api("GET", f"/eventLogs?dag_id={DAG_ID}&event={event}&order_by=event_log_id")["event_logs"])


def test_pages_show_the_night_to_a_viewer(airflow: Site) -> None:
    shown = {kind: airflow.request("GET", address, "viewer") for kind, address in airflow.pages().items()}
    assert {kind: answer.status_code for kind, answer in shown.items()} == dict.fromkeys(shown, 200)
    names = {html.escape(row["recording_uri"].rpartition("/")[2], quote=False) for row in airflow.rows("calls")}
    for kind in ("run", "day"):
        text = html.escape(html.unescape(shown[kind].text), quote=False)
        assert {name for name in names if name not in text} == set()
    assert f"{ORDINARY}.wav" in shown["call"].text
    assert "My invoice is wrong." in html.unescape(shown["call"].text)
    assert f"{BROKEN}.wav" in shown["failed call"].text
    assert NIGHT in shown["pipeline"].text


def test_pages_are_for_who_is_logged_in(airflow: Site) -> None:
    for address in (*airflow.pages().values(), audio(airflow, ORDINARY)):
        assert airflow.request("GET", address).status_code == 401
        assert airflow.request("GET", address, headers={"Authorization": "Bearer wrong"}).status_code == 403
    assert try_again(airflow, None).status_code == 401


def test_tabs_are_in_the_list_of_plugins_that_the_ui_reads(airflow: Site) -> None:
    listed = airflow.request("GET", f"{airflow.url}/api/v2/plugins", "viewer").json()["plugins"]
    [plugin] = [plugin for plugin in listed if plugin["name"] == "callphases_pages"]
    assert [(view["name"], view["destination"], view["href"]) for view in plugin["external_views"]] == [
        ("Calls", "dag_run", f"{PATH}/callphases/dags/{{DAG_ID}}/runs/{{RUN_ID}}"),
        ("Call phases", "dag", f"{PATH}/callphases/dags/{{DAG_ID}}"),
    ]
    assert airflow.api("GET", "/plugins/importErrors")["import_errors"] == []


def test_audio_is_redirected_or_converted_and_logged(airflow: Site) -> None:
    redirect = airflow.request("GET", audio(airflow, ORDINARY), "viewer")
    assert redirect.status_code == 302
    assert requests.get(redirect.headers["location"], timeout=60).content == tone_wav()
    piece = airflow.request("GET", audio(airflow, MU_LAW), "viewer", headers={"Range": "bytes=0-99"})
    assert (piece.status_code, piece.content[:4], len(piece.content)) == (206, b"RIFF", 100)
    calls = [(line["owner"], json.loads(line["extra"])["call_id"]) for line in logged(airflow, "callphases_listen")]
    assert calls == [("viewer", airflow.call(name)["call_id"]) for name in (ORDINARY, MU_LAW)]


def test_replay_is_for_who_may_trigger_and_in_their_name(airflow: Site) -> None:
    assert try_again(airflow, "viewer").status_code == 403
    assert len(airflow.runs()) == 1
    page = airflow.request("GET", airflow.call_page(BROKEN), "user").text
    token = re.search(r'name="token" value="([^"]+)"', page)
    assert token is not None
    answer = try_again(airflow, "user", token[1])
    assert answer.status_code == 303, answer.text
    [run] = airflow.runs()[1:]
    run_id = run["dag_run_id"]
    assert run["triggering_user_name"] == "user"
    assert [line["owner"] for line in logged(airflow, "trigger_dag_run") if line["run_id"] == run_id] == ["user"]
    assert airflow.ended(run_id) == "success"
    assert airflow.call(BROKEN)["status"] == "completed"
    started = airflow.request("GET", f"{airflow.proxy.url}{answer.headers['location']}", "user")
    assert (started.status_code, run_id in started.text) == (200, True)


def test_api_server_logs_no_problem(airflow: Site) -> None:
    problem = re.compile(r"\[(error|critical) *\]|Traceback|\[warning .*\[(callphases|airflow\.plugins)")
    problems = [line for line in (airflow.folder / "api-server.log").read_text().splitlines() if problem.search(line)]
    assert [line for line in problems if "JWT token is not valid" not in line] == []  # a test sends a wrong one
