"""Who may see what: asked from Airflow's auth manager for the user who is logged in.

Airflow does not authenticate the apps of plugins. What can't be asked is denied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from callphases.pipeline import WhoMay

logger = logging.getLogger(__name__)

TRANSCRIPTS = "callphases transcripts"
AUDIO = "callphases audio"
"""Custom views, as auth managers know them: with FAB the permissions ``can_read`` on these resources."""


def _denied(*_: Any, **__: Any) -> Any:
    raise HTTPException(403, "Airflow's security can't be asked here, so nothing is shown.")


async def _nobody(*_: Any, **__: Any) -> Any:
    _denied()


# Any exception: a part that is missing, or another signature, must not open the pages.
try:
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import bearer_scheme, get_user, requires_access_dag

    _asks_to_read = requires_access_dag("GET")
    _asks_to_edit = requires_access_dag("PUT")
    _asks_to_trigger = requires_access_dag("POST", DagAccessEntity.RUN)
except Exception:
    logger.exception("Airflow's security can't be imported: the pages of callphases deny everything.")
    _asks_to_read = _asks_to_edit = _asks_to_trigger = get_auth_manager = _denied
    get_user = bearer_scheme = _nobody  # type: ignore[assignment]


async def user_of(request: Request) -> Any:
    """Dependency: the user who is logged in, by the cookie of Airflow's UI or the header Authorization.

    Raises:
        HTTPException: 401 without a token or with one that has expired, 403 with a wrong one.
    """
    try:
        user = await get_user(request, None, await bearer_scheme(request))
    except HTTPException:
        raise
    except Exception:
        logger.exception("Airflow can't say who the user is.")
        _denied()
    if user is None:
        raise HTTPException(401, "Not authenticated")
    return user


User = Annotated[Any, Depends(user_of)]


def see_dag(request: Request, user: User) -> None:
    """Dependency: the user may read the Dag in the path; otherwise 403."""
    _ask(_asks_to_read, request, user, "read this Dag")


def trigger_dag(request: Request, user: User) -> None:
    """Dependency: the user may read and trigger the Dag in the path; otherwise 403."""
    see_dag(request, user)
    _ask(_asks_to_trigger, request, user, "trigger this Dag")


def may_trigger(request: Request, user: Any) -> bool:
    """Whether a user who may read the Dag in the path may trigger it."""
    return _may(_asks_to_trigger, request, user)


def may(rule: WhoMay, view: str, request: Request, user: Any) -> bool:
    """Whether a user who may read the Dag in the path may see what a pipeline restricts by ``rule``.

    Args:
        rule: ``pages.transcripts`` or ``pages.listening``.
        view: ``TRANSCRIPTS`` or ``AUDIO``.
        request: with ``dag_id`` in its path.
        user: as ``user_of`` has it.
    """
    if rule == "read":
        return True
    if rule == "edit":
        return _may(_asks_to_edit, request, user)
    return _may(lambda _, user: _ask_view(view, user), request, user)


def declare_views() -> None:
    """Make the custom views known to Airflow's FAB auth manager, which gives roles only rights to what it knows."""
    try:
        manager = getattr(get_auth_manager(), "security_manager", None)
        if manager is not None:
            for view in (TRANSCRIPTS, AUDIO):
                manager.create_permission("can_read", view)
    except Exception:
        logger.exception("The custom views %r and %r can't be given to roles.", TRANSCRIPTS, AUDIO)


def _ask_view(view: str, user: Any) -> None:
    if get_auth_manager().is_authorized_custom_view(method="GET", resource_name=view, user=user) is not True:
        raise HTTPException(403, "Forbidden")


def _ask(right: Callable[[Request, Any], Any], request: Request, user: Any, to_do: str) -> None:
    try:
        right(request, user)
    except HTTPException as error:
        if error.detail == "Forbidden":  # Airflow's own, which says no more
            raise HTTPException(403, f"This needs the right to {to_do}. Ask who gives rights in Airflow.") from None
        raise
    except Exception:
        logger.exception("Airflow can't say whether the user has the right.")
        _denied()


def _may(right: Callable[[Request, Any], Any], request: Request, user: Any) -> bool:
    try:
        _ask(right, request, user, "do this")
    except HTTPException:
        return False
    return True
