"""The OpenAPI 3.1 document, made from the routes, the signatures of their handlers and the models named there.

The schemas are pydantic's own, word for word, so that what the document refuses is what the handlers refuse. Every
error answer is documented for every route that can give it.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

import ucloud
from ucloud.api.routes import ROUTES, Route
from ucloud.api.schemas.objects import ObjectShown, ProblemShown
from ucloud.serving.problem import PROBLEM

REFERENCE = "#/components/schemas/"
SECURITY = "token"
_READ_ERRORS = (400, 401, 405, 500, 503)
_WRITE_ERRORS = (403, 409, 412, 413, 415)
_WORDS = {
    200: "done",
    201: "created",
    202: "accepted",
    400: "the request makes no sense",
    401: "the token is missing or wrong",
    403: "not allowed",
    404: "there is no such object",
    405: "the method is not allowed here",
    409: "the world is not as the request assumes",
    412: "the If-Match is stale",
    413: "the request is larger than the limit",
    415: "the content type is not supported",
    500: "an internal error",
    503: "a part behind the API does not answer",
}
_IF_MATCH = "\n\nWith an `If-Match` header the change is only made if the object's `ETag` is still that one."
Json = dict[str, Any]


class _Schemas(GenerateJsonSchema):
    """Without titles, and without the null that stands for a field left out."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def default_schema(self, schema: Any) -> Json:
        described = super().default_schema(schema)
        if described.get("default", "") is None:
            del described["default"]
        return described


def _schemas() -> Json:
    """The JSON schemas of all bodies and answers by name."""
    models = {model for route in ROUTES for model in _models(route)} | {ProblemShown}
    ordered = sorted(models, key=lambda model: model.__name__)
    _, document = models_json_schema(
        [(model, "validation") for model in ordered],
        ref_template=REFERENCE + "{model}",
        schema_generator=_Schemas,
    )
    return typing.cast(Json, document["$defs"])


@cache
def openapi() -> Json:
    """The whole document. It never changes, so nobody may change it."""
    paths: Json = {}
    for route in ROUTES:
        path = route.path.replace("<", "{").replace(">", "}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ucloud", "version": ucloud.__version__, "license": {"name": "GPL-3.0-or-later"}},
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {SECURITY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route) -> Json:
    words = (route.handler.__doc__ or "").strip()
    operation: Json = {
        "operationId": route.handler.__name__,
        "tags": [route.path.split("/")[2]],
        "summary": words,
        "description": words + (_IF_MATCH if _takes_if_match(route) else ""),
        "security": [] if route.open else [{SECURITY: []}],
        "parameters": _parameters(route),
        "responses": {str(status): response for status, response in _responses(route)},
    }
    body = _hints(route).get("body")
    if route.octets:
        content: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        operation["requestBody"] = {"required": True, "content": content}
    elif body is not None:
        operation["requestBody"] = {"required": route.body_required, "content": _json(REFERENCE + body.__name__)}
    return operation


def _parameters(route: Route) -> list[Json]:
    """Query, path and headers with pydantic's schemas."""
    found: list[Json] = []
    for place, kind in (("path", "path"), ("query", "query"), ("header", "header")):
        model = _hints(route).get(place)
        if model is None:
            continue
        schema = model.model_json_schema(schema_generator=_Schemas)
        for name, part in schema.get("properties", {}).items():
            inlined = schema["$defs"][part["$ref"].rsplit("/", 1)[-1]] if "$ref" in part else part
            plain = {key: value for key, value in inlined.items() if key not in ("title", "description")}
            required = place == "path" or name in schema.get("required", ())
            found.append({"name": name, "in": kind, "required": required, "schema": plain})
    return found


def _takes_if_match(route: Route) -> bool:
    return route.method in ("PATCH", "DELETE") or "/actions/" in route.path


def _hints(route: Route) -> dict[str, Any]:
    return typing.get_type_hints(route.handler)


def _models(route: Route) -> Iterable[type[BaseModel]]:
    yield from (model for model in (route.shows, route.tries, _hints(route).get("body")) if model is not None)


def _responses(route: Route) -> Iterable[tuple[int, Json]]:
    headers: Json = {"X-Request-Id": _header("names the request in the logs")}
    done: dict[int, list[str]] = {route.status: [route.shows.__name__] if route.shows else []}
    if route.tries:
        done.setdefault(200, []).append(route.tries.__name__)
    for status, names in done.items():
        yield (
            status,
            {
                "description": _WORDS[status],
                "headers": {**headers, **_headers_of(route, status)},
                "content": _content(route, names),
            },
        )
    for status in _errors(route):
        if status in done:
            continue
        extra = {"WWW-Authenticate": _header("Bearer")} if status == 401 else {}
        content = {PROBLEM: {"schema": {"$ref": REFERENCE + ProblemShown.__name__}}}
        if route.path == "/v1/health" and status == 503:
            content = _json(REFERENCE + "HealthShown")
        yield status, {"description": _WORDS[status], "headers": {**headers, **extra}, "content": content}


def _links(route: Route) -> Json:
    """What can be done with what was made."""
    items = route.path.removesuffix("/upload") + "/<id>"
    followers = [other.handler.__name__ for other in ROUTES if other.path.startswith(items)]
    return {name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in followers}


def _headers_of(route: Route, status: int) -> Json:
    headers: Json = {}
    if route.shows is not None and issubclass(route.shows, ObjectShown):
        headers["ETag"] = _header("the generation, in quotes")
    if status == 201:
        headers["Location"] = _header("the path of what was made")
    return headers


def _content(route: Route, names: list[str]) -> Json:
    plain: Json = {route.content_type.split(";")[0]: {"schema": {"type": "string"}}}
    if not names:
        return plain
    if route.shows is None:  # a stream of lines, or the object of a dry run
        return plain | _json(REFERENCE + names[0])
    if len(names) == 1:
        return _json(REFERENCE + names[0])
    return {"application/json": {"schema": {"anyOf": [{"$ref": REFERENCE + name} for name in names]}}}


def _json(reference: str) -> Json:
    return {"application/json": {"schema": {"$ref": reference}}}


def _header(words: str) -> Json:
    return {"description": words, "schema": {"type": "string"}}


def _errors(route: Route) -> list[int]:
    errors = [*_READ_ERRORS]
    if "<id>" in route.path or route.method != "GET":
        errors.append(404)
    if route.path.endswith("/log"):
        errors.append(409)
    if route.method != "GET":
        errors += _WRITE_ERRORS
    return sorted(errors)
