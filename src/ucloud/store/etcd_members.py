"""The members of an etcd cluster as a client sees them: idle connections, and who is left alone for a while.

Owns all idle connections. Must hold: a connection handed out belongs to that caller alone until it is given
back; a member that failed is tried last until its rest is over, but it is tried if nobody else is left.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ucloud.errors import InvalidInput
from ucloud.store.etcd_http import Connection, Endpoint, connect, parse_endpoint
from ucloud.system.clock import Clock

_REST_S = 5.0
_IDLE_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class Tls:
    """Paths of the authority's certificate and of this client's certificate and key (PEM)."""

    ca_file: Path | str
    cert_file: Path | str
    key_file: Path | str


def client_context(tls: Tls) -> ssl.SSLContext:
    """Checks the member's certificate by its alternative names (ours have no common name) and shows our own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    try:
        context.load_verify_locations(cafile=str(tls.ca_file))
        context.load_cert_chain(str(tls.cert_file), str(tls.key_file))
    except OSError as error:
        raise InvalidInput(
            f"failed to load the etcd client certificate: {error.strerror or type(error).__name__}",
            field="tls",
            hint=f"check {tls.ca_file}, {tls.cert_file} and {tls.key_file}",
        ) from error
    return context


class Members:
    """Thread-safe. ``lost_after_s`` is how long a member's machine may acknowledge nothing."""

    def __init__(self, endpoints: Sequence[str], tls: Tls | None, clock: Clock, *, lost_after_s: float) -> None:
        if not endpoints:
            raise InvalidInput("failed to use etcd: no endpoint is configured", field="endpoints")
        self._endpoints = tuple(parse_endpoint(url) for url in endpoints)
        self._context = client_context(tls) if tls else None
        self._clock = clock
        self._lost_after_s = lost_after_s
        self._lock = threading.Lock()
        self._idle: dict[Endpoint, list[Connection]] = {endpoint: [] for endpoint in self._endpoints}
        self._rest_until_s: dict[Endpoint, float] = {}
        self._preferred = self._endpoints[0]
        self._closed = False

    def in_order(self) -> list[Endpoint]:
        """All of them: the one that answered last, the others, then those that rest, the longest rested first."""
        with self._lock:
            now_s = self._clock.monotonic_s()

            def rank(endpoint: Endpoint) -> tuple[float, bool]:
                until_s = self._rest_until_s.get(endpoint, 0.0)
                return (until_s if until_s > now_s else 0.0, endpoint != self._preferred)

            return sorted(self._endpoints, key=rank)

    def take(self, endpoint: Endpoint, *, deadline_s: float, fresh: bool = False) -> Connection:
        """An idle connection that is still whole, else a new one. Raises TransportError."""
        while not fresh:
            with self._lock:
                idle = self._idle[endpoint]
                connection = idle.pop() if idle else None
            if connection is None:
                break
            if connection.is_idle():
                return connection
            connection.close()
        return connect(endpoint, self._context, self._clock, deadline_s=deadline_s, lost_after_s=self._lost_after_s)

    def give_back(self, connection: Connection) -> None:
        """After a whole answer: the connection may be used again, and its member is the first choice."""
        with self._lock:
            self._preferred = connection.endpoint
            self._rest_until_s.pop(connection.endpoint, None)
            idle = self._idle[connection.endpoint]
            if not self._closed and len(idle) < _IDLE_CONNECTIONS:
                idle.append(connection)
                return
        connection.close()

    def leave_alone(self, endpoint: Endpoint) -> None:
        """It failed: others first for a while, and none of its idle connections is trusted."""
        with self._lock:
            self._rest_until_s[endpoint] = self._clock.monotonic_s() + _REST_S
            idle, self._idle[endpoint] = self._idle[endpoint], []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle = {endpoint: [] for endpoint in self._endpoints}
        for connection in idle:
            connection.close()
