"""Fixtures: the pages within Airflow's API server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from doubles import Store

if TYPE_CHECKING:
    from pages_app import Site


@pytest.fixture(scope="session")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    logging.getLogger("alembic").setLevel(logging.WARNING)
    initdb()


@pytest.fixture
def site(
    request: pytest.FixtureRequest,
    airflow_database: None,
    s3: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Site]:
    """With SimpleAuthManager; users have the names of their roles. The parameter is the path Airflow is served at."""
    from airflow.api_fastapi import app as api
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    from pages_app import served

    path = getattr(request, "param", "")
    roles = ("viewer", "user", "op", "admin")
    monkeypatch.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS", ",".join(f"{role}:{role}" for role in roles))
    with served(path, s3, tmp_path, monkeypatch) as site:
        site.token = lambda role: api.get_auth_manager().generate_jwt(SimpleAuthManagerUser(username=role, role=role))
        yield site
