"""Who may ask: until there are users, whoever has the token of the state directory."""

from __future__ import annotations

import hmac
from pathlib import Path

from ucloud.errors import MissingPrerequisite, Unauthorized

_HINT = "send the header 'Authorization: Bearer TOKEN' with the content of the API's token file"


def read_token(path: Path) -> bytes:
    """Raises MissingPrerequisite if there is none, so that no API ever runs without."""
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise MissingPrerequisite(
            f"failed to read the token {path}: {error.strerror}", hint="run 'ucloud up'"
        ) from error
    if not token:
        raise MissingPrerequisite(f"failed to read the token {path}: it is empty", hint="run 'ucloud up'")
    return token


def check_token(authorization: str, token: bytes) -> None:
    """Of the ``Authorization`` header. Raises Unauthorized; takes the same time for every wrong token."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token):
        raise Unauthorized("failed to accept the request: its token is missing or wrong", hint=_HINT)
