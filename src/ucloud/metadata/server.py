"""The server of the metadata process: one thread, one loop, all networks.

Each network has two listening sockets inside its gateway's namespace (IPv4 and IPv6). A connection carries one request,
has a deadline as a whole, and a caller may have few at once, so that no guest can take the service from another.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ucloud.errors import Error
from ucloud.metadata.catalogue import Caller, Catalogue
from ucloud.metadata.documents import find_document
from ucloud.metadata.http import HEAD_LIMIT_BYTES, Request, parse_request, render_response
from ucloud.model.devices import METADATA_PORT
from ucloud.system.clock import Clock
from ucloud.system.namespace import in_namespace, namespace_inode
from ucloud.system.unix_socket import listen_unix

log = logging.getLogger(__name__)

CONNECTION_TIMEOUT_S = 5.0
CONNECTIONS_PER_CALLER = 16
CONNECTIONS_LIMIT = 2000
RESCAN_EVERY_S = 5.0
_BACKLOG = 128
_ACCEPTS_AT_ONCE = 64


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    caller: Caller
    deadline: float
    received: bytearray = field(default_factory=bytearray)
    to_send: memoryview | None = None


@dataclass(frozen=True, slots=True)
class _Listener:
    """``inode`` tells a namespace from one that was made again under the same name."""

    namespace: str
    inode: int
    sockets: tuple[socket.socket, ...]


class MetadataServer:
    """Answers until ``stop`` is readable. ``control`` is where ``notify`` knocks; both sockets belong to the caller."""

    def __init__(self, catalogue: Catalogue, *, control: socket.socket, stop: socket.socket, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._control = control
        self._stop = stop
        self._selector = selectors.DefaultSelector()
        self._listeners: dict[str, _Listener] = {}
        self._connections: dict[int, _Connection] = {}
        self._per_caller: Counter[Caller] = Counter()

    def serve(self) -> None:
        self._selector.register(self._control, selectors.EVENT_READ, self._answer_notify)
        self._selector.register(self._stop, selectors.EVENT_READ)
        next_scan = 0.0
        try:
            while True:
                now = self._clock.monotonic_s()
                if now >= next_scan:
                    self._rescan()
                    next_scan = now + RESCAN_EVERY_S
                self._close_overdue(now)
                for key, _ in self._selector.select(self._patience(now, next_scan)):
                    if key.fileobj is self._stop:
                        return
                    work: Callable[[], None] = key.data
                    work()
        finally:
            self._close_all()

    def _patience(self, now: float, next_scan: float) -> float:
        """Connections are in the order of their deadlines, for all have the same time."""
        first = next((one.deadline for one in self._connections.values()), next_scan)
        return max(0.0, min(first, next_scan) - now)

    def _rescan(self) -> None:
        self._catalogue.rescan()
        wanted = {one: (name, namespace_inode(name)) for one, name in self._catalogue.networks.items()}
        for network_id, listener in list(self._listeners.items()):
            if wanted.get(network_id) != (listener.namespace, listener.inode):
                self._close_listener(network_id)
        for network_id, (namespace, inode) in wanted.items():
            if inode and network_id not in self._listeners:
                self._open_listener(network_id, namespace, inode)

    def _open_listener(self, network_id: str, namespace: str, inode: int) -> None:
        try:
            sockets = in_namespace(namespace, _listen)
        except (OSError, Error) as error:
            log.error("failed to listen in namespace %s: %s", namespace, error)
            return
        for one in sockets:
            self._selector.register(one, selectors.EVENT_READ, lambda one=one: self._accept(one, network_id))
        self._listeners[network_id] = _Listener(namespace, inode, sockets)

    def _close_listener(self, network_id: str) -> None:
        for one in self._listeners.pop(network_id).sockets:
            self._selector.unregister(one)
            one.close()

    def _answer_notify(self) -> None:
        with contextlib.suppress(OSError):
            peer, _ = self._control.accept()
            with peer:
                self._rescan()
                peer.settimeout(1.0)
                peer.sendall(b"seen\n")

    def _accept(self, listening: socket.socket, network_id: str) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                peer, address = listening.accept()
            except OSError:
                return
            caller = (network_id, str(ip_address(address[0].partition("%")[0])))
            if self._per_caller[caller] >= CONNECTIONS_PER_CALLER or len(self._connections) >= CONNECTIONS_LIMIT:
                peer.close()
                continue
            peer.setblocking(False)
            connection = _Connection(peer, caller, self._clock.monotonic_s() + CONNECTION_TIMEOUT_S)
            self._connections[peer.fileno()] = connection
            self._per_caller[caller] += 1
            self._selector.register(peer, selectors.EVENT_READ, lambda connection=connection: self._receive(connection))

    def _receive(self, connection: _Connection) -> None:
        try:
            data = connection.socket.recv(HEAD_LIMIT_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        request = parse_request(bytes(connection.received))
        if request is not None:
            connection.to_send = memoryview(self._answer(connection.caller, request))
            work = lambda: self._send(connection)  # noqa: E731 - the selector keeps it
            self._selector.modify(connection.socket, selectors.EVENT_WRITE, work)
            self._send(connection)

    def _answer(self, caller: Caller, request: Request) -> bytes:
        if request.status:
            return render_response(request.status)
        vms = self._catalogue.find(*caller)
        if len(vms) > 1:
            log.error("failed to answer %s on %s: %s claim it", caller[1], caller[0], ", ".join(vm.vm_id for vm in vms))
            return render_response(503)
        document = find_document(vms[0].documents, request.path) if vms else None
        return render_response(200 if document else 404, document, head_only=request.head_only)

    def _send(self, connection: _Connection) -> None:
        assert connection.to_send is not None  # noqa: S101 - set with the registration for writing
        try:
            sent = connection.socket.send(connection.to_send)
        except BlockingIOError:
            return
        except OSError:
            self._close(connection)
            return
        connection.to_send = connection.to_send[sent:]
        if not connection.to_send:
            self._close(connection)

    def _close_overdue(self, now: float) -> None:
        for connection in list(self._connections.values()):
            if connection.deadline > now:
                return
            self._close(connection)

    def _close(self, connection: _Connection) -> None:
        descriptor = connection.socket.fileno()
        self._selector.unregister(connection.socket)
        connection.socket.close()
        del self._connections[descriptor]
        self._per_caller[connection.caller] -= 1
        if not self._per_caller[connection.caller]:
            del self._per_caller[connection.caller]

    def _close_all(self) -> None:
        for connection in list(self._connections.values()):
            self._close(connection)
        for network_id in list(self._listeners):
            self._close_listener(network_id)
        self._selector.close()


def _listen() -> tuple[socket.socket, ...]:
    """The gateway's own rules let in only what comes from guests."""
    return _bind(socket.AF_INET, "0.0.0.0"), _bind(socket.AF_INET6, "::")


def _bind(family: int, address: str) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, METADATA_PORT))
        one.listen(_BACKLOG)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def open_control(path: Path) -> socket.socket:
    """The listening socket of ``notify``, for root alone."""
    control = listen_unix(path, backlog=16)
    control.setblocking(False)
    return control
