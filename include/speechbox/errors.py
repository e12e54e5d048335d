"""Error responses in the formats of both APIs: the speech API has one, the gateway three."""

import uuid
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

UNAUTHORIZED = "Authentication error, API token missing/invalid"
INVALID_JSON = "Invalid JSON in the request body"
TOO_MANY = "Too Many Requests"
#: The gateway's formats of errors.
SHAPES = ("nested", "flat", "status")


def is_of_gateway(path: str) -> bool:
    """Whether the path belongs to the gateway rather than the speech API."""
    return path.startswith("/v1/")


def error(shape: str, status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Create an error in one of the gateway's formats, or in the speech API's, `plain`."""
    request_id = str(uuid.uuid4())
    bodies: dict[str, dict[str, Any]] = {
        "plain": {"error": message},
        "nested": {"error": {"code": status, "message": message}, "request_id": request_id},
        "flat": {"code": status, "message": message, "request_id": request_id, "metadata": {"errors": [message]}},
        "status": {"error": message, "status": "error", "request_id": request_id},
    }
    return JSONResponse(bodies[shape], status, headers)
