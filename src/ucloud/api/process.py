"""The API process: gunicorn with one worker of threads; store, cache and application are made after the fork.

One worker, because each would need a cache of its own; more capacity is more API processes. SIGTERM lets running
requests end (``_GRACEFUL_S``), then stops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from ucloud.api.app import create_app
from ucloud.api.auth import read_token
from ucloud.api.door import AgentDoor, make_tls
from ucloud.api.site import make_cache
from ucloud.config import Config
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.store.connect import open_store
from ucloud.system.clock import SystemClock

_GRACEFUL_S = 10
_REQUEST_LINE_BYTES = 8190


class _Logs(Logger):  # type: ignore[misc]
    """Gunicorn's own messages go where all of ours go; its access log is replaced by ours."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)

    def access(self, *_: Any) -> None:
        return


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, config: Config, make_app: Callable[[Config], Flask], bind: str) -> None:
        self._config = config
        self._make_app = make_app
        self._bind = bind
        super().__init__()

    def load_config(self) -> None:
        api = self._config.api
        settings = {
            "bind": [self._bind],
            "workers": 1,
            "worker_class": "gthread",
            "threads": api.threads,
            "graceful_timeout": _GRACEFUL_S,
            "limit_request_line": _REQUEST_LINE_BYTES,
            "logger_class": _Logs,
            "control_socket_disable": True,
            "proc_name": "ucloud api",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """Runs in the worker, after the fork."""
        return self._make_app(self._config)


def make_app(config: Config) -> Flask:
    """The application on etcd, its cache running."""
    clock = SystemClock()
    store = open_store(config.store)
    cache = make_cache(store, clock)
    cache.start()
    pool = DirectoryPool(config.host.pool_directory, reserve_percent=config.host.pool_reserve_percent)
    return create_app(config, store, cache, pool=pool, clock=clock, door=AgentDoor(config.store))


def serve(config: Config, make_app: Callable[[Config], Flask], *, bind: str = "") -> int:
    """Serve until SIGTERM what ``make_app`` makes in the worker. ``bind`` may name a socket as ``fd://N``."""
    try:
        _Server(config, make_app, bind or config.api.listen).run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(config: Config) -> int:
    """The API on etcd. Returns its exit code; what is missing on this machine is raised before any fork."""
    read_token(config.api.token_file)
    make_tls(config.store)
    return serve(config, make_app)
