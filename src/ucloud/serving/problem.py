"""An error as an RFC 9457 problem document with a stable ``code``. Pure."""

from __future__ import annotations

from typing import Any

from ucloud.errors import Error, InUse, InvalidInput
from ucloud.system import logs

PROBLEM = "application/problem+json"
_TITLES = {
    400: "Bad request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    412: "Precondition failed",
    413: "Too large",
    415: "Unsupported media type",
    500: "Internal error",
    503: "Unavailable",
}


def problem(error: Error) -> dict[str, Any]:
    """The body of an error's answer."""
    document: dict[str, Any] = {
        "type": f"urn:ucloud:problem:{error.code}",
        "title": _TITLES.get(error.status, "Error"),
        "status": error.status,
        "code": error.code,
        "detail": error.message,
        "hint": error.hint,
        "request_id": logs.request_id.get(),
    }
    if isinstance(error, InvalidInput) and error.field:
        document["field"] = error.field
    if isinstance(error, InUse):
        document["users"] = list(error.users)
    return document
