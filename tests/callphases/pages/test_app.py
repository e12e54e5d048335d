"""All routes of the pages, within Airflow's API server: who is answered what."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from callphases.airflow import server
from callphases.pages.form_token import form_token
from doubles import DAY
from pages_app import AUDIO, DONE, ELSEWHERE, FAILED, LOST, Site

pytestmark = pytest.mark.integration

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def token_of(site: Site, user: str, at_s: float | None = None) -> str:
    """What the form of a page brings that the user has loaded."""
    return form_token(server.signing_key(), user, site.dag_id, time.time() if at_s is None else at_s)


def replay(site: Site, user: str | None, **fields: str) -> Any:
    form = {"day": str(DAY), "token": token_of(site, user or "nobody"), **fields}
    return site.ask(user, f"/dags/{site.dag_id}/replay", "POST", data=form, cookie=True)


def routes(site: Site) -> list[tuple[str, str]]:
    """Each route with each of its methods, as a path that exists."""
    values = {"dag_id": site.dag_id, "run_id": "no-such-run", "day": str(DAY), "call_id": DONE}
    found = []
    for route in site.pages.routes:
        path = re.sub(r"{(\w+)(:path)?}", lambda name: values[name[1]], route.path)
        found += [(path, method) for method in sorted(route.methods)]
    return found


def assert_guarded(answer: Any) -> None:
    """The headers that every answer has."""
    assert "frame-ancestors 'self'" in answer.headers["content-security-policy"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "private, no-store"


def test_every_route_needs_a_user_with_the_right_to_the_dag(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.api_fastapi.app import get_auth_manager

    found = routes(site)
    assert len(found) >= 7
    for path, method in found:
        nobody = site.ask(None, path, method)
        assert nobody.status_code == 401, (path, method)
        assert_guarded(nobody)
        for headers in ({"Authorization": "Bearer wrong"}, {"Cookie": "_token=wrong"}):
            wrong = site.ask(None, path, method, headers=headers)
            assert wrong.status_code == 403, (path, method, headers)
            assert_guarded(wrong)
        assert site.ask("admin", path, method).status_code not in (401, 405, 500), (path, method)
    # SimpleAuthManager lets each of its roles read each Dag.
    monkeypatch.setattr(type(get_auth_manager()), "is_authorized_dag", lambda *_, **__: False)
    for path, method in found:
        denied = site.ask("admin", path, method)
        assert denied.status_code == 403, (path, method)
        assert_guarded(denied)


@pytest.mark.parametrize("site", ["", "/af"], indirect=True)
def test_replay_of_a_call_creates_a_run_in_the_users_name(site: Site) -> None:
    answer = replay(site, "user", call=FAILED)
    assert answer.status_code == 303, answer.text
    assert_guarded(answer)
    run_id = answer.headers["location"].rpartition("/")[2].replace("%3A", ":")
    assert answer.headers["location"].startswith(f"{site.path}/callphases/dags/{site.dag_id}/runs/")
    assert run_id.startswith(f"replay__{DAY}__{FAILED}__20")
    run = site.run(run_id)
    assert run.conf == {"date": str(DAY), "calls": [FAILED]}
    assert (run.triggering_user_name, str(run.triggered_by.value), str(run.state)) == ("user", "ui", "queued")
    line = site.logged("trigger_dag_run")[-1]
    assert (line.owner, line.run_id) == ("user", run_id)
    assert json.loads(line.extra)["conf"] == run.conf
    page = site.ask("user", answer.headers["location"].removeprefix(f"{site.path}/callphases"), headers=HTML)
    assert page.status_code == 200
    assert "the Dag is paused" in page.text


def test_second_click_leads_to_the_run_of_the_first(site: Site) -> None:
    token = token_of(site, "op")
    first, second = (replay(site, "op", **{"class": "bad_audio", "token": token}) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    assert len(site.logged("trigger_dag_run")) == len({line.run_id for line in site.logged("trigger_dag_run")})


def test_viewer_may_not_replay(site: Site) -> None:
    assert replay(site, "viewer", call=FAILED).status_code == 403


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "no call and no failure class"),
        ({"call": FAILED, "class": "bad_audio"}, "or both"),
        ({"call": DONE}, "has not failed"),
        ({"call": "0" * 16}, "has no call"),
        ({"class": "timeout_of_mine"}, "There is no failure class"),
        ({"class": "wrong_key"}, "There is no failure class"),
        ({"class": "too_short"}, "has failed with too_short"),
        ({"call": FAILED, "day": "2026-11-19"}, "is not published"),
        ({"call": FAILED, "day": "soon"}, "expected a date"),
    ],
)
def test_form_that_asks_for_what_is_not_there_is_told_so(site: Site, fields: dict[str, str], says: str) -> None:
    answer = replay(site, "user", **fields)
    assert answer.status_code == 422
    assert says in answer.json()["detail"]


def test_form_of_another_site_user_dag_or_week_starts_nothing(site: Site) -> None:
    key = server.signing_key()
    for token in (
        "",
        "x",
        "1.x",
        "٣.x",
        token_of(site, "admin"),
        form_token(key, "user", "call_phases_another", time.time()),
        form_token("another key", "user", site.dag_id, time.time()),
        token_of(site, "user", time.time() - 7 * 24 * 3600),
    ):
        answer = replay(site, "user", call=FAILED, token=token)
        assert answer.status_code == 403, token
        assert "Load it again" in answer.json()["detail"]


@pytest.mark.parametrize("how", ["redirect", "stream"])
def test_audio_is_played_and_each_play_is_logged_once(site: Site, how: str, caplog: pytest.LogCaptureFixture) -> None:
    site.write(audio=how)
    path = f"/audio/{site.dag_id}/{DAY}/{DONE}"
    before = len(site.logged("callphases_listen"))
    with caplog.at_level("INFO"):
        answers = [
            site.ask("viewer", path, headers={"Range": asked}, cookie=True)
            for asked in ("bytes=0-1", "bytes=0-", "bytes=3000-", "bytes=4000-4100")
        ]
    assert [answer.status_code for answer in answers] == ([302] * 4 if how == "redirect" else [206] * 4)
    for answer in answers:
        assert_guarded(answer)
    if how == "redirect":
        assert "X-Amz-Expires=300" in answers[0].headers["location"]
    else:
        assert answers[3].content == AUDIO[4000:4101]
    lines = site.logged("callphases_listen")[before:]
    assert [(line.owner, json.loads(line.extra)) for line in lines] == [("viewer", {"day": str(DAY), "call_id": DONE})]
    said = [record.getMessage() for record in caplog.records if "listens" in record.getMessage()]
    assert len(said) == 1
    assert f'user="viewer" dag_id="{site.dag_id}" day="{DAY}" call_id="{DONE}"' in said[0]
    assert "X-Amz" not in caplog.text


@pytest.mark.parametrize(
    ("call_id", "status", "says"),
    [
        (LOST, 404, "no longer in the bucket"),
        (ELSEWHERE, 404, "not in recordings.bucket"),
        ("0" * 16, 404, "has no call"),
        ("..", 404, ""),
    ],
)
def test_audio_that_can_not_be_played_is_told_and_not_logged(site: Site, call_id: str, status: int, says: str) -> None:
    before = len(site.logged("callphases_listen"))
    answer = site.ask("viewer", f"/audio/{site.dag_id}/{DAY}/{call_id}")
    assert answer.status_code == status
    assert says in answer.json()["detail"]
    assert_guarded(answer)
    assert len(site.logged("callphases_listen")) == before
