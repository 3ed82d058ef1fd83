"""The only place that turns errors into HTTP: RFC 9457 problems with a stable ``code``.

Covers our own errors, pydantic's, and those that Flask raises before any handler runs. What was not raised on purpose
is logged and answered as ``internal`` without its text, which might hold a secret.
"""

from __future__ import annotations

import logging

from flask import Flask, Response
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from ucloud.api.answers import Answer, render
from ucloud.errors import Error, InvalidInput
from ucloud.serving.problem import PROBLEM, problem

_log = logging.getLogger(__name__)
_HTTP_CODES = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
}
_HTTP_WORDS = {404: "the API has no such path", 405: "this path does not know the method; 'Allow' names those it knows"}
# What a value is, so that a mistyped one can be named in the words of JSON.
_MESSAGES = {
    "extra_forbidden": "there is no such field",
    "missing": "it is required",
    "bool_type": "should be true or false",
    "int_type": "should be a whole number, without quotes",
    "string_type": "should be a text",
    "enum": "should be {expected}",
}


class UnsupportedMediaType(InvalidInput):
    code = "unsupported_media_type"
    status = 415


def from_validation(error: ValidationError, where: str) -> InvalidInput:
    """The first of pydantic's complaints as InvalidInput; ``where`` is body, query, header."""
    first = error.errors(include_url=False, include_context=True)[0]
    if first["type"] == "json_invalid":
        return InvalidInput("failed to read the body: it is not JSON", code="bad_json")
    field = ".".join(str(part) for part in first["loc"] if part != "[key]")
    template = _MESSAGES.get(first["type"], first["msg"])
    text = template.format(**first.get("ctx", {})) if template in _MESSAGES.values() else template
    code = first["type"] if first["type"] == "subnet_too_small" else ""
    return InvalidInput(f"failed to read {where}: {f'{field}: ' if field else ''}{text}", field=field, code=code)


def install(app: Flask) -> None:
    app.register_error_handler(Error, _on_error)
    app.register_error_handler(HTTPException, _on_http)
    app.register_error_handler(Exception, _on_unexpected)


def _on_error(error: Error) -> Response:
    if error.status >= 500:
        _log.warning("request failed: %s: %s", error.code, error.message)
    return _render(error)


def _on_http(error: HTTPException) -> Response:
    status = error.code or 500
    known = Error(f"failed to handle the request: {_HTTP_WORDS.get(status, error.name)}")
    known.status, known.code = status, _HTTP_CODES.get(status, "internal" if status >= 500 else "bad_request")
    response = _render(known)
    for name, value in error.get_headers():
        if name.lower() == "allow":
            response.headers[name] = value
    return response


def _on_unexpected(error: Exception) -> Response:
    _log.error("request failed unexpectedly: %s", type(error).__name__, exc_info=error)
    return _render(Error("failed to handle the request: an internal error", hint="the log of the API has more"))


def _render(error: Error) -> Response:
    headers = {"WWW-Authenticate": 'Bearer realm="ucloud"'} if error.status == 401 else {}
    response = render(Answer(problem(error), error.status, headers))
    response.content_type = PROBLEM
    return response
