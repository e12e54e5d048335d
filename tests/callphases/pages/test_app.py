"""All routes of the pages, within Airflow's API server: who is answered what."""

from __future__ import annotations

import json
import re
import time
from typing import Any
from urllib.parse import quote, unquote

import pytest
from markupsafe import escape

from callphases.airflow import server
from callphases.pages.form_token import form_token
from doubles import DAY
from pages_app import AUDIO, DONE, ELSEWHERE, FAILED, LOST, SUMMARY, Site, replay, routes, token_of

pytestmark = pytest.mark.integration

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


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
    assert f'<a href="{site.path}/callphases/dags/{site.dag_id}/days/{DAY}/calls/{FAILED}">' in page.text


def test_replay_that_waits_is_shown_and_not_started_again(site: Site) -> None:
    first = replay(site, "user", call=FAILED)
    later = replay(site, "op", call=FAILED, token=token_of(site, "op", time.time() + 2))
    assert later.headers["location"] == first.headers["location"]
    page = site.ask("op", f"/dags/{site.dag_id}/days/{DAY}/calls/{FAILED}", headers=HTML)
    assert first.headers["location"] in page.text
    assert "Try this call again" not in page.text


def test_second_click_leads_to_the_run_of_the_first(site: Site) -> None:
    token, before = token_of(site, "op"), len(site.logged("trigger_dag_run"))
    first, second = (replay(site, "op", **{"class": "bad_audio", "token": token}) for _ in range(2))
    assert (first.status_code, second.status_code) == (303, 303)
    assert first.headers["location"] == second.headers["location"]
    assert len(site.logged("trigger_dag_run")) == before + 1


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


@pytest.mark.parametrize("method", METHODS)
def test_only_declared_methods_are_answered_and_none_without_a_user(site: Site, method: str) -> None:
    declared = routes(site)
    for path in {path for path, _ in declared} | {
        "/",
        "/docs",
        "/openapi.json",
        "/dags",
        "/static/x",
        "/dags/x/y/z",
    }:
        assert site.ask(None, path, method).status_code == 401, path
        assert site.ask(None, path, method, headers={"Authorization": "Bearer wrong"}).status_code == 403, path
        answer = site.ask("admin", path, method)
        assert_guarded(answer)
        if (path, method) not in declared:
            assert answer.status_code in (404, 405), path


def test_head_is_answered_as_get(site: Site) -> None:
    for path, method in routes(site):
        if method == "HEAD" and "/audio/" not in path:
            assert site.ask("viewer", path, "HEAD").status_code == site.ask("viewer", path).status_code, path


@pytest.mark.parametrize(
    ("user", "path", "status", "says"),
    [
        (None, f"/days/{DAY}", 401, "You are not logged in"),
        ("viewer", "/days/2026-02-30", 422, "The address or the form has a mistake"),
        ("viewer", "/days/0", 422, "The address or the form has a mistake"),
        ("viewer", "/runs/no-such?day=soon", 422, "The address or the form has a mistake"),
        ("viewer", "?until=soon", 422, "The address or the form has a mistake"),
        ("viewer", "/days/2026-11-19", 404, "is not published"),
        ("viewer", "/runs/no-such", 404, "No such run"),
        ("viewer", f"/days/{DAY}/calls/{'0' * 16}", 404, "There is no such call"),
        ("viewer", "/nothing/here", 404, "There is no such page"),
    ],
)
@pytest.mark.parametrize("site", ["/af"], indirect=True)
def test_errors_are_pages_in_a_browser_and_json_elsewhere(
    site: Site, user: str | None, path: str, status: int, says: str
) -> None:
    path = f"/dags/{site.dag_id}{path}"
    page, document = site.ask(user, path, headers=HTML), site.ask(user, path)
    assert (page.status_code, document.status_code) == (status, status)
    assert says in page.text
    assert "<html" in page.text
    assert document.json()["detail"]
    links = re.findall(r'href="([^"]+)"[^>]*>Log in', page.text)
    assert links == ([f"/af/api/v2/auth/login?next=%2Faf%2Fcallphases{quote(path, safe='')}"] if user is None else [])


def test_link_to_log_in_leads_to_airflows_login_and_back(site: Site) -> None:
    path = f"/dags/{site.dag_id}/days/{DAY}"
    page = site.ask(None, path, headers=HTML)
    link = re.search(r'href="([^"]+)"[^>]*>Log in', page.text)
    assert link is not None
    answer = site.open(link[1])
    assert answer.status_code == 307
    assert path in unquote(answer.headers["location"])  # 3.1 does not quote it


def test_what_a_user_sends_is_escaped_in_error_pages(site: Site) -> None:
    for path in ("/runs/<script>alert(1)</script>", "/days/<b>", f"/days/{DAY}/calls/<img src=x>"):
        page = site.ask("viewer", f"/dags/{site.dag_id}{path}", headers=HTML)
        assert not re.search("<script>alert|<b>|<img", page.text)


def test_unexpected_error_tells_nothing_of_the_inside(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr("callphases.pages.app.day_page", fail)
    for headers in ({}, HTML):
        answer = site.ask("viewer", f"/dags/{site.dag_id}/days/{DAY}", headers=headers)
        assert answer.status_code == 500
        assert "hunter2" not in answer.text
        assert "Traceback" not in answer.text
        assert_guarded(answer)
    assert "hunter2" in caplog.text


def test_unreadable_tables_are_told_with_the_setting(site: Site) -> None:
    site.s3.client.put_object(Bucket=site.s3.warehouse, Key=f"tables/calls/dt={DAY}/calls.parquet", Body=b"no table")
    answer = site.ask("viewer", f"/dags/{site.dag_id}/days/{DAY}")
    assert answer.status_code in (500, 503)
    assert "Traceback" not in answer.text


def test_run_is_shown_when_its_tables_can_not_be_read(site: Site) -> None:
    site.create_run("night", "failed", date=str(DAY))
    name = f"tables/calls/dt={DAY}/calls.parquet"
    site.s3.client.put_object(Bucket=site.s3.warehouse, Key=name, Body=b"no table")
    answer = site.ask("viewer", f"/dags/{site.dag_id}/runs/night", headers=HTML)
    assert answer.status_code == 200
    assert "The calls can’t be shown." in answer.text
    assert "not published" in answer.text  # what the run came to


@pytest.mark.parametrize(
    ("rule", "who"),
    [
        ("read", {"viewer", "user", "op", "admin"}),
        ("edit", {"user", "op", "admin"}),
        ("view", {"viewer", "user", "op", "admin"}),
    ],
)
def test_listening_is_for_whom_the_pipeline_file_says(
    site: Site, rule: str, who: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    site.write(listening=rule, audio="stream")
    path = f"/audio/{site.dag_id}/{DAY}/{DONE}"
    with caplog.at_level("INFO"):
        answers = {user: site.ask(user, path) for user in ("viewer", "user", "op", "admin")}
    assert {user for user, answer in answers.items() if answer.status_code == 200} == who
    assert {answer.status_code for answer in answers.values()} <= {200, 403}
    assert caplog.text.count("audit: audio refused") == 4 - len(who)
    shown = {user for user in answers if 'id="player"' in call_of(site, user)}
    assert shown == who


def call_of(site: Site, user: str) -> str:
    answer = site.ask(user, f"/dags/{site.dag_id}/days/{DAY}/calls/{DONE}", headers=HTML)
    assert answer.status_code == 200
    return str(answer.text)


def test_transcripts_and_summaries_are_for_whom_the_pipeline_file_says(site: Site) -> None:
    site.write(transcripts="edit")
    assert SUMMARY in call_of(site, "user")
    assert SUMMARY not in call_of(site, "viewer")
    for user, found in (("user", 1), ("viewer", 0)):
        page = site.ask(user, f"/dags/{site.dag_id}/days/{DAY}?q=moonlight", headers=HTML)
        assert page.text.count("data-call=") == found
        assert SUMMARY not in page.text


def test_form_to_replay_is_for_who_may_trigger_and_works(site: Site) -> None:
    path = f"/dags/{site.dag_id}/days/{DAY}/calls/{FAILED}"
    assert "<form" not in site.ask("viewer", path, headers=HTML).text
    page = site.ask("op", path, headers=HTML, cookie=True).text
    form = dict(re.findall(r'name="(day|call|token)" value="([^"]+)"', page))
    answer = site.ask("op", f"/dags/{site.dag_id}/replay", "POST", data=form, cookie=True)
    assert answer.status_code == 303


def test_media_come_from_the_server_and_from_where_redirects_lead(site: Site) -> None:
    answer = site.ask("viewer", f"/dags/{site.dag_id}/days/{DAY}/calls/{DONE}", headers=HTML)
    assert f"media-src 'self' {site.s3.url};" in answer.headers["content-security-policy"]
    site.write(audio="stream")
    answer = site.ask("viewer", f"/dags/{site.dag_id}/days/{DAY}/calls/{DONE}", headers=HTML)
    assert "media-src 'self';" in answer.headers["content-security-policy"]


def test_body_that_is_no_short_form_is_refused_unread(site: Site) -> None:
    path = f"/dags/{site.dag_id}/replay"
    assert site.ask("op", path, "POST", json={"call": FAILED}).status_code == 422
    assert site.ask("op", path, "POST", content=b"day=" + b"x" * 100_000, headers=FORM).status_code == 413
    assert site.ask("op", path, "POST", files={"day": b"x"}).status_code == 422
    assert site.ask(None, path, "POST", content=b"x" * 100_000, headers=FORM).status_code == 401


@pytest.mark.parametrize("site", ["", "/af"], indirect=True)
def test_addresses_are_paths_whatever_a_proxy_says(site: Site) -> None:
    headers = {**HTML, "X-Forwarded-Proto": "https", "X-Forwarded-Host": "calls.example", "X-Forwarded-Prefix": "/else"}
    pipeline = f"/dags/{site.dag_id}"
    for path in (pipeline, f"{pipeline}/days/{DAY}", f"{pipeline}/days/{DAY}/calls/{FAILED}"):
        page = site.ask("op", path, headers=headers).text
        found = set(re.findall(r'(?:href|action|src)="([^"]*)"', page))
        assert found
        assert [one for one in found if not one.startswith((f"{site.path}/", "?", "#")) and one] == []


@pytest.mark.parametrize("run_id", ["manual__2026-11-20T00:00:00+00:00", "a/b c", "späte Nacht", "100%", "a?b#c"])
def test_run_of_any_id_has_its_page(site: Site, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__ALLOWED_RUN_ID_PATTERN", ".*")
    site.create_run(run_id)
    page = site.ask("viewer", f"/dags/{site.dag_id}/runs/{quote(run_id, safe='')}", headers=HTML)
    assert page.status_code == 200
    assert escape(run_id) in page.text
    if not set(run_id) & set("?#%"):
        # Airflow 3.1 puts it into the address as it is.
        assert site.ask("viewer", f"/dags/{site.dag_id}/runs/{run_id}", headers=HTML).status_code == 200
