"""A real API process on a free port, and asking it without any library of ours."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ucloud.system.run import spawn

TOKEN = "a token of the tests"
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 15.0


class Api:
    """The process listens on a socket that was opened before it, so no port is ever guessed."""

    def __init__(self, directory: Path, script: Path) -> None:
        self.directory = directory
        self._script = script
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.set_inheritable(True)
        self.port = int(self._listening.getsockname()[1])
        (directory / "token").write_text(TOKEN)
        self.start()

    @property
    def log(self) -> str:
        return (self.directory / "api.log").read_text()

    def start(self) -> None:
        descriptor = self._listening.fileno()
        argv = [sys.executable, self._script, self.directory, str(descriptor)]
        with (self.directory / "api.log").open("ab") as log:
            self.process = spawn(argv, log=log, pass_fds=[descriptor])
        until = time.monotonic() + _START_TIMEOUT_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", "/v1/health")[0] == 200 and self.ask("GET", "/v1/vms")[0] == 200:
                    return
            assert time.monotonic() < until, self.log[-4000:]
            assert self.process.poll() is None, self.log[-4000:]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(_STOP_TIMEOUT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.stop()
        self._listening.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout_s: float = 20
    ) -> tuple[int, Any]:
        """Status and body. A dict is sent as JSON, bytes as a stream of octets, an iterator in chunks."""
        sent = {"Authorization": f"Bearer {TOKEN}", **(headers or {})}
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        sent.setdefault("Content-Type", "application/json" if isinstance(body, dict) else "application/octet-stream")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)) as connection:
            connection.request(method, path, data, sent)
            answer = connection.getresponse()
            text = answer.read()
            is_json = answer.headers.get_content_type() in ("application/json", "application/problem+json")
            return answer.status, json.loads(text) if is_json else text


@contextlib.contextmanager
def running(directory: Path, script: Path) -> Iterator[Api]:
    api = Api(directory, script)
    try:
        yield api
    finally:
        api.close()
