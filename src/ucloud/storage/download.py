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
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from ucloud.errors import DeadlineExceeded, Forbidden, InvalidInput, Unavailable
from ucloud.storage.addresses import Network, check_address
from ucloud.system.clock import Clock, SystemClock

MAX_REDIRECTS: Final = 5
DEFAULT_STALL_TIMEOUT_S: Final = 20.0
DEFAULT_TOTAL_TIMEOUT_S: Final = 3600.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PORTS: Final = {"http": 80, "https": 443}
_MAX_URL_LENGTH: Final = 2048


@dataclass(frozen=True, slots=True)
class DownloadLimits:
    """``allowed_hosts`` are names (or "name:port") exempt from the address check: the test servers of a site.

    ``forbidden_networks`` are the cloud's own: hosts, underlay. ``stall_timeout_s`` bounds each wait for bytes.
    """

    allowed_hosts: frozenset[str] = frozenset()
    forbidden_networks: tuple[Network, ...] = ()
    stall_timeout_s: float = DEFAULT_STALL_TIMEOUT_S
    total_timeout_s: float = DEFAULT_TOTAL_TIMEOUT_S


class Download(io.RawIOBase):
    """The body of an answer. ``length_bytes`` is what the server announced, if it did; a shorter body is an error."""

    def __init__(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        *,
        ends_at_s: float,
        clock: Clock,
    ) -> None:
        super().__init__()
        self._connection = connection
        self._response = response
        self._ends_at_s = ends_at_s
        self._clock = clock
        self._received = 0
        self.length_bytes: int | None = response.length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self._clock.monotonic_s() > self._ends_at_s:
            raise DeadlineExceeded("failed to download: the whole took too long", code="download_timeout")
        try:
            count = self._response.readinto(buffer)
        except TimeoutError as error:
            raise DeadlineExceeded(
                "failed to download: the server sends nothing more", code="download_timeout"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"failed to download: {error}", code="download_failed") from error
        self._received += count
        if count == 0 and self.length_bytes is not None and self._received < self.length_bytes:
            raise Unavailable(
                f"failed to download: the connection ended after {self._received} of {self.length_bytes} bytes",
                code="download_truncated",
            )
        return count

    def close(self) -> None:
        if not self.closed:
            self._response.close()
            self._connection.close()
        super().close()


def open_url(url: str, *, limits: DownloadLimits, clock: Clock | None = None) -> Download:
    """Ask for ``url`` and hand back its body.

    Raises InvalidInput (``bad_url``), Forbidden (``address_forbidden``) or Unavailable (``download_…``).
    """
    clock = clock or SystemClock()
    ends_at_s = clock.monotonic_s() + limits.total_timeout_s
    for _ in range(MAX_REDIRECTS + 1):
        parts = parse_url(url)
        with contextlib.ExitStack() as undo:
            connection = _connect(parts, limits)
            undo.callback(connection.close)
            response = _ask(connection, parts)
            undo.callback(response.close)
            if response.status == http.client.OK:
                undo.pop_all()
                return Download(connection, response, ends_at_s=ends_at_s, clock=clock)
            url = _next_url(url, response)
    raise Unavailable(f"failed to download: more than {MAX_REDIRECTS} redirects", code="download_redirects")


def parse_url(url: str) -> SplitResult:
    """The parts of an http or https URL with a host and no credentials. Raises InvalidInput."""
    if len(url) > _MAX_URL_LENGTH or any(not 0x20 < ord(letter) < 0x7F for letter in url):
        raise _bad_url(url, "it is too long or has characters that must be %-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _bad_url(url, str(error)) from error
    if parts.scheme not in _PORTS:
        raise _bad_url(url, "only http and https are allowed")
    if not parts.hostname or port == 0:
        raise _bad_url(url, "it names no host")
    if parts.username is not None or parts.password is not None:
        raise _bad_url(url, "it contains a user name or password")
    return parts


def _bad_url(url: str, cause: str) -> InvalidInput:
    return InvalidInput(f"failed to use URL {url[:200]!r}: {cause}", code="bad_url", field="url")


def _connect(parts: SplitResult, limits: DownloadLimits) -> http.client.HTTPConnection:
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    stream = _dial(host, port, _vetted_addresses(host, port, limits), limits.stall_timeout_s)
    if parts.scheme == "https":
        try:
            stream = ssl.create_default_context().wrap_socket(stream, server_hostname=host)
        except OSError as error:  # includes ssl.SSLError
            stream.close()
            raise Unavailable(f"failed to connect to {host}: TLS: {error}", code="download_tls") from error
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(host, parts.port, timeout=limits.stall_timeout_s)
    connection.sock = stream  # so that it neither resolves nor connects by itself
    connection.auto_open = 0
    return connection


def _vetted_addresses(host: str, port: int, limits: DownloadLimits) -> list[str]:
    """Addresses of ``host`` that may be dialled. Raises Forbidden if none of them may."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unavailable(f"failed to resolve {host}: {error}", code="download_name") from error
    addresses = [str(answer[4][0]) for answer in answers]
    if not limits.allowed_hosts.isdisjoint({host.lower(), f"{host.lower()}:{port}"}):
        return addresses
    reasons = {
        text: check_address(ipaddress.ip_address(text.split("%", 1)[0]), limits.forbidden_networks)
        for text in addresses
    }
    vetted = [text for text, reason in reasons.items() if reason is None]
    if not vetted:
        found = ", ".join(f"{text} is {reason}" for text, reason in reasons.items())
        raise Forbidden(
            f"failed to download from {host}: {found}",
            code="address_forbidden",
            hint="the address must be public; an operator can allow a named test server in the configuration",
        )
    return vetted


def _dial(host: str, port: int, addresses: Collection[str], timeout_s: float) -> socket.socket:
    failures = []
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout=timeout_s)
        except OSError as error:
            failures.append(f"{address}: {error}")
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
