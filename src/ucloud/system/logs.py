"""Logs as JSON lines, bounded in size, with the request id of the work at hand.

A line is ``{"at", "level", "process", "logger", "message", "request_id"?, "error"?}``. Secrets are never passed to a
logger; exceptions are logged by type and text only, with the traceback at level debug.
"""

from __future__ import annotations

import contextvars
import json
import logging
import sys
import time
from pathlib import Path

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")


class _JsonLines(logging.Formatter):
    default_msec_format = "%s.%03d"

    def __init__(self, process: str) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self.process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": f"{self.formatTime(record, self.datefmt)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if current := request_id.get():
            line["request_id"] = current
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _BoundedFile(logging.FileHandler):
    """A file that is turned over at its limit, keeping one old one.

    The standard library's handler does so too, but its module costs each of our processes a megabyte of memory.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        super().__init__(path, encoding="utf-8")
        self._path = path
        self._limit_bytes = limit_bytes

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if self.stream and self.stream.tell() > self._limit_bytes:
            self.stream.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self.stream = self._open()


def setup_logs(process: str, *, directory: Path | None, level: str, limit_kib: int) -> None:
    """Send this process's logs to ``directory/process.log``, or to standard error if there is none."""
    logging.Formatter.converter = time.gmtime
    handler: logging.Handler
    if directory is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        handler = _BoundedFile(directory / f"{process}.log", limit_kib * 1024)
    handler.setFormatter(_JsonLines(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
