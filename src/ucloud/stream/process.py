"""The stream process: consoles as WebSockets, apart from the API so that open ones cannot use up its threads.

Owns nothing that lasts. A console's bytes go browser or CLI ↔ WebSocket ↔ tunnel to the door of the VM's host. What is
wrong before the upgrade is an HTTP problem; afterwards it is a close code: 4404 no such VM, 4408 idle, 4409 the VM is
on no host, 4503 the host or the store does not answer.

Must hold: nothing is looked up or opened before the token was checked; a page in a browser cannot connect (no origin is
accepted); at most ``api.streams_limit`` consoles at once.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from ucloud.config import Config
from ucloud.console.tunnel import Tunnel, open_tunnel
from ucloud.errors import Conflict, Error, Forbidden, NotFound, Unavailable
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost
from ucloud.model.vm import Vm
from ucloud.serving.problem import PROBLEM, problem
from ucloud.serving.token import check_token, read_token
from ucloud.store import keys
from ucloud.store.api import Store
from ucloud.store.codec import decode_as
from ucloud.store.connect import open_store
from ucloud.stream.pump import IdleEnd, pump
from ucloud.system.door import door_context

_PATH = re.compile(r"/v1/vms/([A-Za-z0-9._~-]{1,128})/console")
_MESSAGE_LIMIT = 1 << 20
_REASON_BYTES = 123
_IDLE_S = 4 * 3600.0
_PHRASES = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 503: "Service Unavailable"}
_log = logging.getLogger(__name__)

OpenConsole = Callable[[str], Tunnel]
"""From a VM's id to its console. Raises NotFound, Conflict or Unavailable."""


def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT."""
    store = open_store(config.store)
    with make_server(config, store) as server:
        for number in (signal.SIGTERM, signal.SIGINT):
            # shutdown waits for serve_forever, which this very thread runs.
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, name="shutdown").start())
        server.serve_forever()
    store.close()
    return 0


def make_server(config: Config, store: Store) -> Server:
    """A bound server; ``serve_forever`` runs it, ``shutdown`` (from another thread) ends it."""
    address, _, port = config.api.stream_listen.rpartition(":")
    host = address.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    files = config.store
    consoles = _Consoles(store, door_context(files.ca_file, files.cert_file, files.key_file))
    token = read_token(config.api.token_file)
    sock = socket.create_server((host, int(port)), family=family)
    return make_stream_server(sock, token, config.api.streams_limit, consoles.open)


def make_stream_server(sock: socket.socket, token: bytes, limit: int, open_console: OpenConsole) -> Server:
    consoles = threading.BoundedSemaphore(limit)

    def check(connection: ServerConnection, request: Request) -> Response | None:
        try:
            check_request(request.path, request.headers, token)
        except Error as error:
            return _refuse(error)
        return None

    def handle(connection: ServerConnection) -> None:
        if not consoles.acquire(blocking=False):
            _close(connection, 4503, f"all {limit} consoles are in use")
            return
        try:
            _serve_console(connection, open_console)
        finally:
            consoles.release()

    return serve(
        handle, sock=sock, process_request=check, compression=None, max_size=_MESSAGE_LIMIT, server_header=None
    )


def check_request(path: str, headers: Headers, token: bytes) -> str:
    """The id of the VM whose console is wanted. Raises Unauthorized, Forbidden or NotFound."""
    check_token(headers.get("Authorization", ""), token)
    if headers.get("Origin"):
        raise Forbidden("failed to open the stream: pages in a browser may not")
    match = _PATH.fullmatch(path.partition("?")[0])
    if match is None:
        raise NotFound(f"failed to open the stream {path[:200]}: there is none")
    return match[1]


def _serve_console(connection: ServerConnection, open_console: OpenConsole) -> None:
    vm_id = _vm_id(connection)
    try:
        tunnel = open_console(vm_id)
    except Error as error:
        _log.info("console of %s refused: %s", vm_id, error.message)
        _close(connection, close_code(error), error.message)
        return
    _log.info("console of %s opened", vm_id)
    try:
        pump(connection, tunnel, idle_s=_IDLE_S)
        _close(connection, 1000, "the console ended")
    except IdleEnd:
        _close(connection, 4408, f"nothing was said for {_IDLE_S / 3600:g} h")
    except Unavailable as error:
        _close(connection, 4503, error.message)
    except ConnectionClosed:
        pass
    finally:
        tunnel.close()
        _log.info("console of %s closed", vm_id)


def close_code(error: Error) -> int:
    if isinstance(error, NotFound):
        return 4404
    return 4409 if isinstance(error, Conflict) else 4503


@dataclass(frozen=True, slots=True)
class _Consoles:
    """Finds where a VM runs, and opens its console there."""

    store: Store
    tls: ssl.SSLContext

    def open(self, vm_id: str) -> Tunnel:
        return open_tunnel(find_door(self.store, vm_id), f"/vms/{vm_id}/console", self.tls)


def find_door(store: Store, vm_id: str) -> str:
    """The URL of the door of the VM's host, from fresh reads."""
    if (item := store.get(keys.spec("vm", vm_id))) is None or decode_as(Vm, item.value).meta.deleted_at:
        raise NotFound(f"failed to open the console: there is no vm {vm_id}")
    placed = store.get(keys.placement(vm_id))
    host_id = decode_as(Placement, placed.value).host_id if placed else ""
    if not host_id:
        raise Conflict(f"failed to open the console: vm {vm_id} is on no host", code="not_placed")
    reports = store.list(keys.seen(host_id, "host", "")).items
    if not reports:
        raise Unavailable(f"failed to open the console: host {host_id} has not reported yet")
    return decode_as(SeenHost, reports[0].value).door


def _vm_id(connection: ServerConnection) -> str:
    match = _PATH.fullmatch(connection.request.path.partition("?")[0]) if connection.request else None
    return match[1] if match else ""


def _refuse(error: Error) -> Response:
    body = json.dumps(problem(error)).encode()
    headers = Headers([("Content-Type", PROBLEM), ("Content-Length", str(len(body))), ("Connection", "close")])
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="ucloud"'
    return Response(error.status, _PHRASES.get(error.status, "Error"), headers, body)


def _close(connection: ServerConnection, code: int, reason: str) -> None:
    """RFC 6455 leaves 123 bytes for the reason, which must be whole characters."""
    connection.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
