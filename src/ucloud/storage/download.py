"""HTTP(S) to the outside world, for image URLs that users give.

The name is resolved once, each address is checked, and the connection goes to a checked address: what the name
says a moment later (DNS rebinding) does not matter. Each redirect is checked in the same way. Certificates are
verified against the name. No proxy, no cookies, no credentials.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import socket
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, cast
from urllib.parse import SplitResult, urljoin, urlsplit

from ucloud.errors import DeadlineExceeded, Forbidden, InvalidInput, Unavailable
from ucloud.storage.addresses import Network, check_address
from ucloud.system.clock import Clock, SystemClock

MAX_REDIRECTS: Final = 5
DEFAULT_STALL_TIMEOUT_S: Final = 20.0
DEFAULT_OPEN_TIMEOUT_S: Final = 20.0
DEFAULT_TOTAL_TIMEOUT_S: Final = 3600.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_MAX_URL_LENGTH: Final = 2048
_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """``allowed_hosts`` are names (or "name:port") exempt from the address check: the test servers of a site.

    ``forbidden_networks`` are the cloud's own: hosts, underlay. ``stall_timeout_s`` bounds each wait for bytes,
    ``open_timeout_s`` all that comes before the body, redirects included, ``total_timeout_s`` everything.
    """

    allowed_hosts: frozenset[str] = frozenset()
    forbidden_networks: tuple[Network, ...] = ()
    stall_timeout_s: float = DEFAULT_STALL_TIMEOUT_S
    open_timeout_s: float = DEFAULT_OPEN_TIMEOUT_S
    total_timeout_s: float = DEFAULT_TOTAL_TIMEOUT_S


class _Patience:
    """How long the next wait may be: a byte now and then does not make it longer."""

    def __init__(self, limits: DownloadLimits, clock: Clock) -> None:
        self._stall_s = limits.stall_timeout_s
        self._clock = clock
        self._total_until_s = clock.monotonic_s() + limits.total_timeout_s
        self._until_s = min(clock.monotonic_s() + limits.open_timeout_s, self._total_until_s)

    def opened(self) -> None:
        """The body begins."""
        self._until_s = self._total_until_s

    def wait_s(self) -> float:
        """Raises DeadlineExceeded when the time is over."""
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise DeadlineExceeded("failed to download: it took too long", code="download_timeout")
        return min(left_s, self._stall_s)


class _Stream(socket.socket):
    """Asks for patience before each read; what reads it (http.client) knows only a timeout for each."""

    patience: _Patience

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(self.patience.wait_s())
        return super().recv_into(*arguments, **options)


class _TlsStream(ssl.SSLSocket):
    """The same over TLS, where one read may take many from the network: all of them within the timeout."""

    patience: _Patience

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        self.settimeout(self.patience.wait_s())
        return super().recv_into(*arguments, **options)


class Download(io.RawIOBase):
    """The body of an answer. ``length_bytes`` is what the server announced, if it did; a shorter body is an error."""

    def __init__(self, stream: socket.socket, response: http.client.HTTPResponse, patience: _Patience) -> None:
        super().__init__()
        self._stream = stream
        self._response = response
        self._patience = patience
        self._received = 0
        self.length_bytes: int | None = response.length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """What has come, at least a byte: filling the buffer could take for ever."""
        try:
            self._patience.wait_s()
            data = self._response.read1(min(len(buffer), _READ_BYTES))
        except TimeoutError as error:
            raise DeadlineExceeded(
                "failed to download: the server sends nothing more", code="download_timeout"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"failed to download: {error}", code="download_failed") from error
        buffer[: len(data)] = data
        self._received += len(data)
        if not data and self.length_bytes is not None and self._received < self.length_bytes:
            raise Unavailable(
                f"failed to download: the connection ended after {self._received} of {self.length_bytes} bytes",
                code="download_truncated",
            )
        return len(data)

    def abort(self) -> None:
        """From any thread: whoever reads is told at once that the connection has ended."""
        with contextlib.suppress(OSError):  # it may be closed just now
            socket.socket.shutdown(self._stream, socket.SHUT_RDWR)  # not TLS's: that is not for two threads

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._stream.close()
        super().close()


def open_url(url: str, *, limits: DownloadLimits, clock: Clock | None = None) -> Download:
    """Ask for ``url`` and hand back its body.

    Raises InvalidInput (``bad_url``), Forbidden (``address_forbidden``) or Unavailable (``download_…``).
    """
    patience = _Patience(limits, clock or SystemClock())
    for _ in range(MAX_REDIRECTS + 1):
        parts = parse_url(url)
        with contextlib.ExitStack() as undo:
            connection = _connect(parts, limits, patience)
            stream: socket.socket = connection.sock  # http.client drops it with the answer
            undo.callback(stream.close)
            response = _ask(connection, parts)
            undo.callback(response.close)
            if response.status == http.client.OK:
                undo.pop_all()
                patience.opened()
                return Download(stream, response, patience)
            url = _next_url(url, response)
    raise Unavailable(f"failed to download: more than {MAX_REDIRECTS} redirects", code="download_redirects")


def shown_url(url: str) -> str:
    """``url`` for people: without credentials and without the query, which in a presigned URL is one."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def parse_url(url: str) -> SplitResult:
    """The parts of an http or https URL with a host and no credentials. Raises InvalidInput."""
    if len(url) > _MAX_URL_LENGTH or any(not 0x20 < ord(letter) < 0x7F for letter in url):
        raise _bad_url("it is too long or has characters that must be %-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url("its host or port is malformed") from error
    if parts.scheme not in _PORTS:
        raise _bad_url("only http and https are allowed")
    if not parts.hostname or port == 0:
        raise _bad_url("it names no host")
    if parts.username is not None or parts.password is not None:
        raise _bad_url("it contains a user name or password")
    return parts


def _bad_url(cause: str) -> InvalidInput:
    """The URL is not repeated: it may hold a secret anywhere."""
    return InvalidInput(f"failed to use the URL: {cause}", code="bad_url", field="url")


def _connect(parts: SplitResult, limits: DownloadLimits, patience: _Patience) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    plain = _dial(host, _vetted_addresses(host, port, limits), patience)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, parts.port)
    # So that it neither resolves nor connects by itself.
    connection.sock = _start_tls(plain, host, patience) if parts.scheme == "https" else plain
    connection.auto_open = 0
    return connection


def _start_tls(plain: _Stream, host: str, patience: _Patience) -> _TlsStream:
    context = ssl.create_default_context()
    context.sslsocket_class = _TlsStream
    try:
        plain.settimeout(patience.wait_s())
        stream = cast(_TlsStream, context.wrap_socket(plain, server_hostname=host))
    except OSError as error:  # includes ssl.SSLError
        plain.close()
        raise Unavailable(f"failed to connect to {host}: TLS: {error}", code="download_tls") from error
    stream.patience = patience
    return stream


def _vetted_addresses(host: str, port: int, limits: DownloadLimits) -> list[tuple[str, int]]:
    """Addresses of ``host`` that may be dialled. Raises Forbidden if none of them may."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"failed to resolve {host}: {error}", code="download_name") from error
    addresses = [str(answer[4][0]) for answer in answers]
    if not limits.allowed_hosts.isdisjoint({host.lower(), f"{host.lower()}:{port}"}):
        return [(text, port) for text in addresses]
    reasons = {
        text: check_address(ipaddress.ip_address(text.split("%", 1)[0]), limits.forbidden_networks)
        for text in addresses
    }
    vetted = [(text, port) for text, reason in reasons.items() if reason is None]
    if not vetted:
        found = ", ".join(f"{text} is {reason}" for text, reason in reasons.items())
        raise Forbidden(
            f"failed to download from {host}: {found}",
            code="address_forbidden",
            hint="the address must be public; an operator can allow a named test server in the configuration",
        )
    return vetted


def _dial(host: str, addresses: Collection[tuple[str, int]], patience: _Patience) -> _Stream:
    failures = []
    for address, port in addresses:
        stream = _Stream(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        stream.patience = patience
        try:
            stream.settimeout(patience.wait_s())
            stream.connect((address, port))
        except OSError as error:
            stream.close()
            failures.append(f"{address}: {error}")
        except DeadlineExceeded:
            stream.close()
            raise
        else:
            return stream
    raise Unavailable(f"failed to connect to {host}: {'; '.join(failures)}", code="download_connect")


def _ask(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"User-Agent": "ucloud", "Accept-Encoding": "identity", "Connection": "close"}
    try:
        connection.request("GET", target, headers=headers)
        return connection.getresponse()
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"failed to download from {parts.hostname}: no answer in time", code="download_timeout"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"failed to download from {parts.hostname}: {error}", code="download_failed") from error


def _next_url(url: str, response: http.client.HTTPResponse) -> str:
    """Where a redirect leads. Raises Unavailable for any other answer."""
    location = response.getheader("Location")
    if response.status not in _REDIRECTS or not location:
        raise Unavailable(
            f"failed to download: the server answered {response.status} {response.reason}"[:300], code="download_status"
        )
    target = urljoin(url, location)
    if url.startswith("https:") and not target.startswith("https:"):
        raise Unavailable("failed to download: https redirects to http", code="download_redirects")
    return target
