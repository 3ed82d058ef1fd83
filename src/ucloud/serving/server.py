"""gunicorn with one worker of threads; the application is made in the worker, after the fork.

One worker, because each would need a cache of its own; more capacity is more processes. SIGTERM lets running requests
end (``_GRACEFUL_S``), then stops.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]

from ucloud.serving.worker import CONNECTIONS, PatientWorker

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
    def __init__(self, make_app: Callable[[], Any], bind: str, threads: int) -> None:
        self._make_app = make_app
        self._bind = bind
        self._threads = threads
        super().__init__()

    def load_config(self) -> None:
        settings = {
            "bind": [self._bind],
            "workers": 1,
            "worker_class": PatientWorker,
            "worker_connections": CONNECTIONS + 1,  # the worker drops connections before gunicorn stops accepting
            "threads": self._threads,
            "graceful_timeout": _GRACEFUL_S,
            "limit_request_line": _REQUEST_LINE_BYTES,
            "logger_class": _Logs,
            "control_socket_disable": True,
            "proc_name": "ucloud api",
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Runs in the worker, after the fork."""
        return self._make_app()


def serve(make_app: Callable[[], Any], *, bind: str, threads: int) -> int:
    """Serve until SIGTERM the WSGI application that ``make_app`` makes in the worker. The exit code."""
    try:
        _Server(make_app, bind, threads).run()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
