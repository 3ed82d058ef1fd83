"""Refusals of the API (problem+json, RFC 9457) as exceptions: each is a ClientError and the class of its status.

So ``except NotFound`` works for a local and a remote "no such object" alike, and ``except ClientError`` catches
whatever the API refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ucloud.errors import (
    Conflict,
    Error,
    Forbidden,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    Unauthorized,
    Unavailable,
)


class ClientError(Error):
    """The API said no. ``field`` is the offending field, ``users`` the ids of those that use the object."""

    def __init__(self, problem: Mapping[str, Any], *, status: int) -> None:
        detail = str(problem.get("detail") or problem.get("title") or f"the API answered {status}")
        Error.__init__(self, detail, hint=str(problem.get("hint") or ""), code=str(problem.get("code") or ""))
        self.status = status
        self.field = str(problem.get("field") or "")
        self.users = tuple(str(user) for user in problem.get("users") or ())
        self.request_id = str(problem.get("request_id") or "")
        self.problem = dict(problem)


class RefusedInput(ClientError, InvalidInput):
    """Also for 405, 413, 415 and the like: asked in a way that makes no sense to the API."""


class RefusedUnauthorized(ClientError, Unauthorized):
    pass


class RefusedForbidden(ClientError, Forbidden):
    pass


class RefusedNotFound(ClientError, NotFound):
    pass


class RefusedConflict(ClientError, Conflict):
    pass


class RefusedPrecondition(ClientError, PreconditionFailed):
    pass


class RefusedUnavailable(ClientError, Unavailable):
    pass


_BY_STATUS: Mapping[int, type[ClientError]] = {
    401: RefusedUnauthorized,
    403: RefusedForbidden,
    404: RefusedNotFound,
    409: RefusedConflict,
    412: RefusedPrecondition,
    429: RefusedUnavailable,
    502: RefusedUnavailable,
    503: RefusedUnavailable,
    504: RefusedUnavailable,
}


def problem_error(problem: Mapping[str, Any], *, status: int) -> ClientError:
    cls = _BY_STATUS.get(status, RefusedInput if 400 <= status < 500 else ClientError)
    return cls(problem, status=status)


def parse_problem(status: int, body: bytes, *, request_id: str = "") -> ClientError:
    """The exception for an answer with an error status, whether or not its body is a problem document."""
    try:
        problem = json.loads(body)
    except ValueError:
        problem = None
    if not isinstance(problem, dict) or "code" not in problem:
        text = body.decode(errors="replace").strip()[:200]
        problem = {"detail": f"the API answered {status}: {text}" if text else f"the API answered {status}"}
    return problem_error({"request_id": request_id, **problem}, status=status)
