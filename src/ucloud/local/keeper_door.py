"""The keeper's door: ``GET /v1/leader`` over TLS, for those who show a certificate of the cloud's CA.

Answers ``{"cluster_id", "member_id", "state"}``, or 503 if it cannot tell. Must hold: each connection is over soon, and
there are only so many, whatever its other side does; silence is never an answer. Of one address only few at a time may
have yet to show a certificate, so that a stranger cannot take all the room.
"""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from ucloud.config.sections import EtcdSection
from ucloud.errors import Conflict, MissingPrerequisite
from ucloud.guard.keepers import LEADER_PATH
from ucloud.guard.rules import KeeperAnswer
from ucloud.system.clock import Clock

logger = logging.getLogger(__name__)

CONNECTIONS_LIMIT = 64
STRANGERS_LIMIT = 4
_HANDSHAKE_S = 0.5
_CONNECTION_S = 1.0
_REQUEST_LIMIT_BYTES = 4096
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


class Strangers:
    """How many of each address have not shown a certificate yet. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._count: dict[str, int] = {}

    def enter(self, address: str) -> bool:
        """Whether one more may try; then it must leave."""
        with self._lock:
            count = self._count.get(address, 0)
            if count >= STRANGERS_LIMIT:
                return False
            self._count[address] = count + 1
            return True

    def leave(self, address: str) -> None:
        with self._lock:
            count = self._count.pop(address) - 1
            if count:
                self._count[address] = count


class KeeperDoor:
    """``answer`` says what is so now, None for what cannot be told. It is called in threads of the door."""

    def __init__(
        self, etcd: EtcdSection, ca_file: Path, answer: Callable[[], KeeperAnswer | None], clock: Clock
    ) -> None:
        self._answer = answer
        self._clock = clock
        self._context = _context(ca_file, etcd.cert_file, etcd.key_file)
        self._listener = _listen(etcd.keeper_listen)
        self._room = threading.BoundedSemaphore(CONNECTIONS_LIMIT)
        self._strangers = Strangers()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="door", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._listener.close()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def _accept(self) -> None:
        self._listener.settimeout(0.2)
        while not self._closed.is_set():
            try:
                accepted, address = self._listener.accept()
            except TimeoutError:
                continue
            except OSError as error:
                if not self._closed.wait(0.1):  # else it was closed
                    logger.warning("failed to accept a connection: %s", error)
                continue
            if not self._strangers.enter(address[0]):
                accepted.close()
                continue
            if not self._room.acquire(blocking=False):
                self._strangers.leave(address[0])
                accepted.close()
                continue
            threading.Thread(target=self._serve, args=(accepted, address[0]), name="guest", daemon=True).start()

    def _serve(self, accepted: socket.socket, address: str) -> None:
        until_s = self._clock.monotonic_s() + _CONNECTION_S
        try:
            with accepted, self._shake_hands(accepted, address) as connection:
                request = self._read(connection, until_s)
                if request:
                    connection.settimeout(_CONNECTION_S)
                    connection.sendall(self._respond(request))
        except (OSError, ValueError):  # ssl.SSLError is an OSError; whoever it was asks again
            pass
        finally:
            self._room.release()

    def _shake_hands(self, accepted: socket.socket, address: str) -> ssl.SSLSocket:
        """Returns once the other side has shown a certificate. Raises OSError if it has none, or is too slow."""
        try:
            accepted.settimeout(_HANDSHAKE_S)
            return self._context.wrap_socket(accepted, server_side=True)
        finally:
            self._strangers.leave(address)

    def _read(self, connection: ssl.SSLSocket, until_s: float) -> bytes:
        """The head of a request; b"" if it does not come in time."""
        request = b""
        while b"\r\n\r\n" not in request:
            left_s = until_s - self._clock.monotonic_s()
            if left_s <= 0 or len(request) > _REQUEST_LIMIT_BYTES:
                return b""
            connection.settimeout(left_s)
            data = connection.recv(_REQUEST_LIMIT_BYTES)
            if not data:
                return b""
            request += data
        return request

    def _respond(self, request: bytes) -> bytes:
        words = request.split(b"\r\n", 1)[0].split(b" ")
        if len(words) != 3 or words[0] != b"GET":
            return _render(400, {"error": "only GET is understood"})
        if words[1] != LEADER_PATH.encode():
            return _render(404, {"error": "there is only " + LEADER_PATH})
        answer = self._answer()
        if answer is None:
            return _render(503, {"error": "it cannot be told whether the member has a leader"})
        return _render(
            200, {"cluster_id": answer.cluster_id, "member_id": answer.member_id, "state": answer.state.value}
        )


def _render(status: int, body: dict[str, str]) -> bytes:
    data = json.dumps(body).encode() + b"\n"
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    return head.encode() + data


def _context(ca_file: Path, cert_file: Path, key_file: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cafile=str(ca_file))
        context.load_cert_chain(str(cert_file), str(key_file))
    except OSError as error:
        raise MissingPrerequisite(
            f"failed to load the keeper's certificate: {error.strerror or type(error).__name__}",
            hint=f"check {ca_file}, {cert_file} and {key_file}",
        ) from error
    return context


def _listen(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family, backlog=CONNECTIONS_LIMIT)
    except (OSError, ValueError) as error:
        raise Conflict(
            f"failed to listen at {place}: {error}", hint="change etcd.keeper_listen", code="port_taken"
        ) from error
