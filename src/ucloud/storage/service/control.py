"""The service's other door: who may write, who is fenced, and what goes wrong, as JSON over HTTP.

On TCP for hosts and takeovers (the port after that of NBD), and on a unix socket for whoever runs the service. A lab's
storage network is trusted: there is no proof of who asks.
"""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import BaseServer, TCPServer, ThreadingMixIn, UnixStreamServer
from typing import Any, cast

from ucloud.errors import Error, InvalidInput, NotFound
from ucloud.storage.service.access import Client, export_name
from ucloud.storage.service.faults import Faults
from ucloud.storage.service.room import Room
from ucloud.storage.service.volumes import Volumes
from ucloud.system.unix_socket import listen_unix

logger = logging.getLogger(__name__)

BODY_LIMIT_BYTES = 64 * 1024
REQUEST_TIMEOUT_S = 10.0
CONNECTIONS_LIMIT = 256

Plain = Mapping[str, Any]


class Control:
    """What can be asked; each method takes the request's body and gives the answer's."""

    def __init__(self, volumes: Volumes) -> None:
        self._volumes = volumes
        self._routes: Mapping[str, Callable[[Plain], Plain]] = {
            "POST /v1/acquire": self._acquire,
            "POST /v1/release": self._release,
            "POST /v1/fence": self._fence,
            "POST /v1/hello": self._hello,
            "POST /v1/faults": self._set_faults,
            "GET /v1/status": lambda _: self._volumes.status(),
        }

    def answer(self, method: str, path: str, body: Plain) -> Plain:
        """Raises Error."""
        route = self._routes.get(f"{method} {path}")
        if route is None:
            raise NotFound(f"failed to answer {method} {path[:80]}: there is no such route")
        return route(body)

    def _acquire(self, body: Plain) -> Plain:
        volume, client = _volume(body), _client(body)
        export_name(volume, client)
        self._volumes.acquire(volume, client, moved_from=_text(body, "moved_from", ""))
        return {}

    def _release(self, body: Plain) -> Plain:
        self._volumes.release(_volume(body), _client(body))
        return {}

    def _fence(self, body: Plain) -> Plain:
        client = _client(body)
        export_name("any", client)
        self._volumes.fence(client)
        return {}

    def _hello(self, body: Plain) -> Plain:
        return {"hosts": self._volumes.hello(_text(body, "host"), proved=body.get("proved") is True)}

    def _set_faults(self, body: Plain) -> Plain:
        names = ("linger_s", "late_write_s", "hang_s")
        values = {name: body.get(name, 0.0) for name in names}
        for name, value in values.items():
            if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 3600:
                raise InvalidInput(f"failed to set {name}: it is not from 0 to 3600 seconds", field=name)
        self._volumes.set_faults(Faults(**values))
        return {}


def _text(body: Plain, name: str, default: str | None = None) -> str:
    value = body.get(name, default)
    if not isinstance(value, str):
        raise InvalidInput(f"failed to read the request: {name} is missing or no text", field=name)
    return value


def _volume(body: Plain) -> str:
    return _text(body, "volume")


def _client(body: Plain) -> Client:
    return Client(_text(body, "host"), _text(body, "incarnation"))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = REQUEST_TIMEOUT_S
    control: Control

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def address_string(self) -> str:
        return "client"  # a unix socket's has no address

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the base class calls it so
        logger.debug(format, *arguments)

    def _answer(self, method: str) -> None:
        try:
            status, plain = 200, self.control.answer(method, self.path, self._read())
        except Error as error:
            status = error.status
            plain = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        data = json.dumps(plain).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _read(self) -> Plain:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > BODY_LIMIT_BYTES:
            self.close_connection = True
            raise InvalidInput("failed to read the request: its length is missing or too large")
        data = self.rfile.read(int(length))
        try:
            plain = json.loads(data) if data else {}
        except (ValueError, RecursionError) as error:
            raise InvalidInput("failed to read the request: it is not JSON") from error
        if not isinstance(plain, dict):
            raise InvalidInput("failed to read the request: it is no JSON object")
        return plain


class _Bounded(ThreadingMixIn):
    """A thread per connection, as long as there is room."""

    daemon_threads = True
    room: Room

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.room.enter():
            cast(BaseServer, self).shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.leave()


class _TcpServer(_Bounded, TCPServer):
    allow_reuse_address = True


class _TcpServer6(_TcpServer):
    address_family = socket.AF_INET6


class _UnixServer(_Bounded, UnixStreamServer):
    """In place of what was at ``path``, which may be of any length."""

    def __init__(self, path: Path, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__("", handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listen_unix(path)


class ControlServer:
    """Serves on ``host`` and ``port`` (0: any), and at ``socket_path``, which is replaced."""

    def __init__(self, control: Control, host: str, port: int, socket_path: Path) -> None:
        handler = type("Handler", (_Handler,), {"control": control})
        tcp = (_TcpServer6 if ":" in host else _TcpServer)((host, port), handler)
        own = _UnixServer(socket_path, handler)
        # Each has its own: whoever runs the service gets in although the network's is full.
        tcp.room, own.room = Room(CONNECTIONS_LIMIT, "control"), Room(CONNECTIONS_LIMIT, "control socket")
        self._servers: tuple[BaseServer, ...] = (tcp, own)
        self.port: int = tcp.server_address[1]
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(0.1,), name="storage-control")
            for server in self._servers
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()
        for thread in self._threads:
            thread.join()
