"""The application factory: routes, the token, request ids, the access log and the headers of every answer."""

from __future__ import annotations

import logging
import re
import secrets
from typing import Any

from flask import Flask, Response, g, request
from werkzeug.routing import BaseConverter

from ucloud.api import problems
from ucloud.api.answers import Answer, render
from ucloud.api.binding import bind
from ucloud.api.documents import openapi
from ucloud.api.probe import StoreProbe
from ucloud.api.routes import ROUTES
from ucloud.api.site import Door, Site
from ucloud.api.transfers import Transfers
from ucloud.config import Config
from ucloud.serving.token import check_token, read_token
from ucloud.storage.pool import Pool
from ucloud.store.api import Store
from ucloud.store.cache import Cache
from ucloud.system import logs
from ucloud.system.clock import Clock

OPENAPI_PATH = "/v1/openapi.json"
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_access = logging.getLogger("ucloud.api.access")


class _Id(BaseConverter):
    """An object's id; ``upload`` is a route beside ``<id>``, so that its other methods are not those of an id."""

    regex = r"(?!upload\Z)[^/]+"
    part_isolating = True  # Werkzeug would conclude from the "/" that it spans segments


def create_app(config: Config, store: Store, cache: Cache[Any], *, pool: Pool, clock: Clock, door: Door) -> Flask:
    """``cache`` is one of ``site.make_cache``; whoever made it starts and stops it."""
    site = Site(
        config=config,
        store=store,
        cache=cache,
        pool=pool,
        clock=clock,
        door=door,
        token=read_token(config.api.token_file),
        probe=StoreProbe(store, clock),
        transfers=Transfers(config.api.threads),
    )
    app = Flask("ucloud.api", static_folder=None)
    app.url_map.strict_slashes = True
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.url_map.converters["id"] = _Id
    problems.install(app)
    _add_hooks(app, site)
    for route in ROUTES:
        app.add_url_rule(
            route.path.replace("<id>", "<id:id>"),
            f"{route.method} {route.path}",
            bind(route, site),
            methods=[route.method],
            provide_automatic_options=False,
        )
    document = openapi()
    app.add_url_rule(
        OPENAPI_PATH, "openapi", lambda: render(Answer(document)), methods=["GET"], provide_automatic_options=False
    )
    return app


def _add_hooks(app: Flask, site: Site) -> None:
    open_paths = {route.path for route in ROUTES if route.open} | {OPENAPI_PATH}

    def before() -> None:
        given = request.headers.get("X-Request-Id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        g.log_token = logs.request_id.set(request_id)
        g.started_s = site.clock.monotonic_s()
        if request.path not in open_paths:
            check_token(request.headers.get("Authorization", ""), site.token)

    def after(response: Response) -> Response:
        response.headers["X-Request-Id"] = logs.request_id.get()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        took_ms = (site.clock.monotonic_s() - g.started_s) * 1000
        _access.info("%s %s %d %.1f ms", request.method, _printable(request.path), response.status_code, took_ms)
        return response

    def teardown(_: BaseException | None) -> None:
        if (token := g.pop("log_token", None)) is not None:
            logs.request_id.reset(token)

    app.before_request(before)
    app.after_request(after)
    app.teardown_request(teardown)


def _printable(path: str) -> str:
    """Without the query, which is the client's business, and bounded."""
    return path[:200].encode("unicode_escape").decode()
