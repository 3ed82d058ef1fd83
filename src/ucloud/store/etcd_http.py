"""One HTTP/1.1 connection to an etcd member: plain or TLS, with deadlines for whole answers, and for streams.

Owns the socket. Must hold: a failure says whether the request may have been carried out (``maybe_done``),
because a transaction must never be sent twice; one connection is used by one thread at a time, only ``cut``
may come from another.

Not ``http.client``: its time-outs are per read, so a slow peer stretches them without end, and an answer whose
read timed out once cannot be read on, which a quiet watch stream needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from ucloud.errors import InvalidInput
from ucloud.system.clock import Clock

_READ_BYTES = 1 << 16
_MAX_HEAD_BYTES = 1 << 16
# Seconds (and counts) after which the kernel gives up on a peer that sends no acknowledgements.
_KEEPALIVE = (("TCP_KEEPIDLE", 3), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
_USER_TIMEOUT_S = 10.0
# The kernel repeats a lost first packet after 1 s, and again after 2 s: too late after a short cut.
_ANOTHER_AFTER_S = 0.25
_AT_ONCE = 8


class TransportError(Exception):
    """A connection failed. ``maybe_done``: the request was sent, so it may have been carried out."""

    def __init__(self, cause: str, *, maybe_done: bool) -> None:
        super().__init__(cause)
        self.maybe_done = maybe_done


class Silence(TransportError):
    """Nothing came until the deadline; the connection is still whole, a stream may be read on."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a member listens for clients."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse_endpoint(url: str) -> Endpoint:
    """``https://127.0.0.1:2379``, ``https://[::1]:2379``, ``https://name:2379``; without a port 2379."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 2379
    except ValueError as error:
        raise InvalidInput(f"failed to read the etcd endpoint: {error}", field="endpoints") from error
    # The text of a bad one is not repeated: it may hold a password.
    if parts.scheme not in ("http", "https") or not host or parts.username or parts.path.strip("/"):
        raise InvalidInput("failed to read the etcd endpoint: it must look like https://HOST:PORT", field="endpoints")
    return Endpoint(host, port, parts.scheme == "https")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer. ``length`` is None for a chunked or unbounded body."""

    status: int
    chunked: bool
    length: int | None
    keep_open: bool


def parse_head(text: str) -> Head:
    """Status line and header lines; raises ValueError on what is not HTTP/1."""
    lines = text.split("\r\n")
    version, _, rest = lines[0].partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("no HTTP/1 status line")
    fields = {}
    for line in lines[1:]:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    chunked = fields.get("transfer-encoding", "").lower() == "chunked"
    length = None if chunked or "content-length" not in fields else int(fields["content-length"])
    keep_open = (chunked or length is not None) and fields.get("connection", "").lower() != "close"
    return Head(int(rest[:3]), chunked, length, keep_open)


class Connection:
    """An open connection to one member."""

    def __init__(self, endpoint: Endpoint, sock: socket.socket, clock: Clock) -> None:
        self.endpoint = endpoint
        self._socket = sock
        self._clock = clock
        self._buffer = bytearray()

    def is_idle(self) -> bool:
        """False if the peer closed it or sent something unasked: then it must not be used again."""
        if self._buffer:
            return False
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLHUP | select.POLLERR)
        return not poll.poll(0)

    def send(
        self, path: str, body: bytes, headers: Mapping[str, str], *, deadline_s: float, method: str = "POST"
    ) -> None:
        """Send ``body``. Whatever fails here may have reached the member."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {str(self.endpoint).partition('//')[2]}",
            f"Content-Length: {len(body)}",
        ]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join([*lines, "", ""])).encode("latin-1")
        try:
            self._socket.settimeout(self._left_s(deadline_s))
            self._socket.sendall(head + body)
        except OSError as error:
            raise TransportError(_cause(error), maybe_done=True) from error

    def read_head(self, *, deadline_s: float) -> Head:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _MAX_HEAD_BYTES:
                raise TransportError("the answer's head is too long", maybe_done=True)
            self._fill(deadline_s)
        text = self._take(end + 4, deadline_s)[:-4].decode("latin-1")
        try:
            return parse_head(text)
        except ValueError as error:
            raise TransportError(f"no HTTP answer: {error}", maybe_done=True) from error

    def read_body(self, head: Head, *, deadline_s: float) -> bytes:
        if head.length is not None:
            return self._take(head.length, deadline_s)
        if head.chunked:
            return b"".join(iter(lambda: self.read_chunk(deadline_s=deadline_s), b""))
        return b"".join(self._until_closed(deadline_s))

    def read_chunk(self, *, deadline_s: float) -> bytes:
        """The next chunk, empty at the end. After Silence it may be asked for again: nothing is lost."""
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._fill(deadline_s)
        try:
            size = int(self._buffer[:end].split(b";")[0], 16)
        except ValueError as error:
            raise TransportError("a broken chunk", maybe_done=True) from error
        whole = end + 2 + size + 2
        while len(self._buffer) < whole:
            self._fill(deadline_s)
        return self._take(whole, deadline_s)[end + 2 : -2]

    def cut(self) -> None:
        """End it for a reader in another thread: that one sees the stream's end at once."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: it drops the TLS layer under the reader's feet.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def _left_s(self, deadline_s: float) -> float:
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise Silence("no answer in time", maybe_done=True)
        return left_s

    def _fill(self, deadline_s: float) -> None:
        try:
            self._socket.settimeout(self._left_s(deadline_s))
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError as error:
            raise Silence("no answer in time", maybe_done=True) from error
        except OSError as error:
            # It refuses our certificate only during the handshake, before it reads any request.
            raise TransportError(_cause(error), maybe_done=not _is_certificate_alert(error)) from error
        if not data:
            raise TransportError("the member closed the connection", maybe_done=True)
        self._buffer += data

    def _take(self, size: int, deadline_s: float) -> bytes:
        while len(self._buffer) < size:
            self._fill(deadline_s)
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return data

    def _until_closed(self, deadline_s: float) -> Iterator[bytes]:
        while True:
            try:
                self._fill(deadline_s)
            except Silence:
                raise
            except TransportError:
                yield bytes(self._buffer)
                self._buffer.clear()
                return


def connect(
    endpoint: Endpoint,
    context: ssl.SSLContext | None,
    clock: Clock,
    *,
    deadline_s: float,
    lost_after_s: float = _USER_TIMEOUT_S,
) -> Connection:
    """Open a connection, with the TLS handshake if the endpoint wants one. Nothing is sent yet if it fails.

    It ends when the other machine has acknowledged nothing for ``lost_after_s``, however slow its program may be.
    """
    try:
        addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TransportError(_cause(error), maybe_done=False) from error
    failure = TransportError("no answer in time", maybe_done=False)
    for index, (family, _kind, _protocol, _name, address) in enumerate(addresses):
        now_s = clock.monotonic_s()
        share_end_s = now_s + (deadline_s - now_s) / (len(addresses) - index)
        if share_end_s <= now_s:
            break
        try:
            sock = _dial(family, address, clock, share_end_s)
        except OSError as error:
            failure = TransportError(_cause(error), maybe_done=False)
            continue
        try:
            sock.settimeout(max(share_end_s - clock.monotonic_s(), 0.001))
            return Connection(endpoint, _prepare(sock, endpoint, context, lost_after_s), clock)
        except OSError as error:
            sock.close()
            failure = TransportError(_cause(error), maybe_done=False)
    raise failure


def _dial(family: int, address: tuple[object, ...], clock: Clock, deadline_s: float) -> socket.socket:
    """A connected socket: as long as nobody answers, more are tried beside the first. Raises OSError."""
    tried: list[socket.socket] = []
    poll = select.poll()
    connected = None
    try:
        while connected is None:
            if len(tried) < _AT_ONCE:
                sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                tried.append(sock)
                _raise_for(sock.connect_ex(address))
                poll.register(sock, select.POLLOUT)
            left_s = deadline_s - clock.monotonic_s()
            if left_s <= 0:
                raise TimeoutError
            ready = {descriptor for descriptor, _ in poll.poll(min(left_s, _ANOTHER_AFTER_S) * 1000)}
            connected = next((sock for sock in tried if sock.fileno() in ready), None)
        _raise_for(connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        tried.remove(connected)
        return connected
    finally:
        for sock in tried:
            sock.close()


def _raise_for(number: int) -> None:
    if number not in (0, errno.EINPROGRESS):
        raise OSError(number, os.strerror(number))


def _prepare(
    sock: socket.socket, endpoint: Endpoint, context: ssl.SSLContext | None, lost_after_s: float
) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(lost_after_s * 1000))
    if endpoint.tls:
        return (context or ssl.create_default_context()).wrap_socket(sock, server_hostname=endpoint.host)
    return sock


def _cause(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was refused: {error.verify_message}"
    if _is_certificate_alert(error):
        return "it refused our certificate"
    return error.strerror or str(error) or type(error).__name__


def _is_certificate_alert(error: OSError) -> bool:
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    return "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason)
