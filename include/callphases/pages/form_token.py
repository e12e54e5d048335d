"""What a form must bring back, so that no other site can send it in a user's name.

A browser sends Airflow's cookie along with a form of another site on the same domain, too. Without a cookie there is no
telling who sent it either: where all are administrators, Airflow logs everybody in, and proxies add headers. So each
form brings the token: a keyed hash of who loaded the page, when, and for which Dag. The key is Airflow's. The session
is no part of it, as Airflow may renew its token between the page and the click.
"""

from __future__ import annotations

import hashlib
import hmac

VALID_S = 12 * 3600
"""How long a page can be used: a shift."""


def form_token(secret: str, user_id: str, dag_id: str, now_s: float) -> str:
    """A token for a page that is being sent: ``<seconds since 1970>.<hash>``."""
    loaded = str(int(now_s))
    return f"{loaded}.{_hash(secret, user_id, dag_id, loaded)}"


def loaded_at(token: str, secret: str, user_id: str, dag_id: str, now_s: float) -> int | None:
    """When the page was loaded that sends this token, in seconds since 1970; None if it is not of this user and Dag."""
    loaded, _, given = token.partition(".")
    # Any text may come: isdigit alone takes digits that int does not, and compare_digest wants ASCII or bytes.
    if not (loaded.isascii() and loaded.isdigit() and len(loaded) <= len("9999999999")):
        return None
    if not hmac.compare_digest(given.encode(), _hash(secret, user_id, dag_id, loaded).encode()):
        return None
    return int(loaded) if int(loaded) > now_s - VALID_S else None


def _hash(secret: str, user_id: str, dag_id: str, loaded: str) -> str:
    # Lengths, so that no other user and Dag make the same text.
    text = "".join(f"{len(part)}:{part}" for part in ("callphases form", user_id, dag_id, loaded))
    return hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
