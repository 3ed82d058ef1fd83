"""Reading requests: path, query, headers and body, each by the model in the handler's signature.

Everything is refused that the model's JSON schema refuses: unknown or repeated query parameters, broken or repeated
JSON keys, NaN, another content type, more bytes than the route's limit.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from flask import request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from ucloud.api.problems import UnsupportedMediaType, from_validation
from ucloud.errors import BodyTooLarge, InvalidInput
from ucloud.serving.sockets import ClientSocket, TooSlow

M = TypeVar("M", bound=BaseModel)
_CHUNK_BYTES = 65_536
_JSON_S = 30.0  # for a whole body of JSON
_PIECE_S = 60.0  # for each piece of an upload, of the size that its reader asks for


@dataclass(frozen=True, slots=True)
class Preconditions:
    """``if_match`` are the acceptable ETags, None for any; ``repeat`` is the digest of an idempotency key."""

    if_match: frozenset[str] | None = None
    repeat: str = ""
    body_digest: str = ""


def read_query(model: type[M]) -> M:
    lists = {name for name, part in model.model_fields.items() if str(part.annotation).startswith("list")}
    values: dict[str, Any] = {}
    for name in request.args:
        given = request.args.getlist(name)
        if name not in lists and len(given) > 1:
            raise InvalidInput(f"failed to read the query: {name}: it is given twice", field=name)
        values[name] = given if name in lists else given[0]
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise from_validation(error, "the query") from error


def read_headers(model: type[M]) -> M:
    names = {part.alias or name for name, part in model.model_fields.items()}
    values = {name: request.headers[name] for name in names if name in request.headers}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise from_validation(error, "the headers") from error


def read_body(model: type[M], *, limit_bytes: int, required: bool) -> M:
    """The JSON body. Raises BodyTooLarge, UnsupportedMediaType or InvalidInput."""
    data = _read_bytes(limit_bytes)
    if not data and not required:
        return model()
    if request.mimetype != "application/json":
        raise UnsupportedMediaType(
            f"failed to read the body: it is {request.mimetype or 'of no type'}", hint="send application/json"
        )
    _check_json(data)
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise from_validation(error, "the body") from error


def read_preconditions(idempotency_key: str | None, project: str, extra: bytes = b"") -> Preconditions:
    """What the headers of a write demand. ``extra`` is what else makes two requests the same."""
    if not idempotency_key:
        return Preconditions(if_match=_if_match())
    route = f"{request.method} {request.path}"
    repeat = hashlib.sha256("\n".join([project, idempotency_key, route]).encode()).hexdigest()
    body = hashlib.sha256(request.query_string + b"\n" + extra).hexdigest()
    return Preconditions(_if_match(), repeat, body)


def _if_match() -> frozenset[str] | None:
    """The entity tags of ``If-Match``; None if there is none or it is ``*``."""
    header = request.headers.get("If-Match")
    if header is None or header.strip() == "*":
        return None
    return frozenset(tag.strip() for tag in header.split(","))


def _read_bytes(limit_bytes: int) -> bytes:
    if request.content_length is not None and request.content_length > limit_bytes:
        raise _too_large(limit_bytes)
    chunks: list[bytes] = []
    left = limit_bytes + 1
    body = _Body()
    body.wait(_JSON_S)
    while left > 0 and (chunk := body.read(min(left, _CHUNK_BYTES))):
        chunks.append(chunk)
        left -= len(chunk)
    if left <= 0:
        raise _too_large(limit_bytes)
    return b"".join(chunks)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"failed to read the body: it is larger than {limit_bytes // 1024} KiB")


def _check_json(data: bytes) -> None:
    """What pydantic's parser would let through: repeated keys, NaN, other encodings, no object at all."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"failed to read the body: it is not JSON: {error}", code="bad_json") from error
    if not isinstance(document, dict):
        raise InvalidInput("failed to read the body: it is not a JSON object")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        raise ValueError("a key is repeated")
    return document


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def body_stream() -> BinaryIO:
    """The request's body, to be read once; it ends where the request says so, also if that came in chunks.

    Raises InvalidInput while it is read, if the client goes away before its end or is too slow.
    """
    return cast(BinaryIO, _Upload())


class _Body:
    """Counts, because gunicorn does not: a body cut short would look like a whole one (tried)."""

    def __init__(self) -> None:
        self._stream = request.stream
        self._connection = request.environ.get("gunicorn.socket")
        self._missing = request.content_length  # None for a body in chunks, whose end the server knows

    def wait(self, duration_s: float) -> None:
        """How long what is read from now on may take: each client that stalls would hold a thread for ever."""
        if isinstance(self._connection, ClientSocket):
            self._connection.read_within(duration_s)

    def read(self, size: int) -> bytes:
        try:
            data = self._stream.read(size)
        except TooSlow as error:
            raise InvalidInput("failed to read the body: it comes too slowly", code="body_too_slow") from error
        except (OSError, HTTPException) as error:
            raise _cut_short() from error
        if self._missing is not None:
            self._missing -= len(data)
            if not data and self._missing > 0:
                raise _cut_short()
        return data


class _Upload(_Body):
    """Of any length, as long as it makes progress."""

    def read(self, size: int) -> bytes:
        self.wait(_PIECE_S)
        return super().read(size)


def _cut_short() -> InvalidInput:
    return InvalidInput("failed to read the body: it ended too early", code="body_truncated")
