"""A route's handler as a Flask view: reads the request by the models in its signature, renders its answer."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import wraps
from typing import Any

from flask import Response

from ucloud.api.answers import Answer, render
from ucloud.api.requests import read_body, read_headers, read_query
from ucloud.api.routes import Route
from ucloud.api.schemas.parameters import NoQuery
from ucloud.api.site import Site


def bind(route: Route, site: Site) -> Callable[..., Response]:
    """The view of ``route``."""
    handler: Callable[..., Answer] = route.handler
    hints = typing.get_type_hints(handler)
    query, header, body, path = (hints.get(name) for name in ("query", "header", "body", "path"))
    limit_bytes = site.config.api.body_limit_kib * 1024

    @wraps(handler)
    def view(**path_values: str) -> Response:
        parts: dict[str, Any] = {}
        if path is not None:
            parts["path"] = path(**path_values)
        asked = read_query(query or NoQuery)
        if query is not None:
            parts["query"] = asked
        if header is not None:
            parts["header"] = read_headers(header)
        if body is not None:
            parts["body"] = read_body(body, limit_bytes=limit_bytes, required=route.body_required)
        return render(handler(site, **parts))

    return view
