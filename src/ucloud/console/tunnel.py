"""A raw two-way stream through an agent's door: an HTTP/1.1 Upgrade over mutual TLS, then bytes.

``GET <path>`` with ``Connection: Upgrade`` and ``Upgrade: ucloud-console`` (RFC 9110 section 7.8) is answered by 101;
any other answer is an error with the door's own words. Standard library only.
"""

from __future__ import annotations

import ssl
from urllib.parse import urlsplit

from ucloud.errors import Conflict, Error, InvalidInput, NotFound, Unavailable
from ucloud.system.door import door_cause, open_door

PROTOCOL = "ucloud-console"
_HEAD_LIMIT = 16384
_BODY_LIMIT = 4096
_READ_BYTES = 65536
_ERRORS: dict[int, type[Error]] = {400: InvalidInput, 404: NotFound, 409: Conflict}


class Tunnel:
    """An open stream. For one thread: an SSL connection must not be read and written at the same time."""

    def __init__(self, sock: ssl.SSLSocket, first: bytes, *, send_timeout_s: float) -> None:
        self._sock = sock
        self._first = first
        self._send_timeout_s = send_timeout_s

    def fileno(self) -> int:
        """For select; ask ``has_pending`` first."""
        return self._sock.fileno()

    def has_pending(self) -> bool:
        """Whether something was received that select does not see."""
        return bool(self._first) or self._sock.pending() > 0

    def receive(self) -> bytes | None:
        """What is there: b"" at the end of the stream, None if nothing has come (whole) yet."""
        if self._first:
            first, self._first = self._first, b""
            return first
        self._sock.settimeout(0)
        try:
            return self._sock.recv(_READ_BYTES)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return b""
        except OSError as error:
            raise Unavailable(f"failed to read from the host: {door_cause(error)}") from error

    def send(self, data: bytes) -> None:
        self._sock.settimeout(self._send_timeout_s)
        try:
            self._sock.sendall(data)
        except OSError as error:
            raise Unavailable(f"failed to write to the host: {door_cause(error)}") from error

    def close(self) -> None:
        self._sock.close()


def open_tunnel(door_url: str, path: str, context: ssl.SSLContext, *, timeout_s: float = 10.0) -> Tunnel:
    """Connect to ``path`` of the door. Raises NotFound, Conflict or Unavailable in the door's words."""
    sock = open_door(door_url, context, timeout_s=timeout_s)
    place = urlsplit(door_url).netloc
    try:
        sock.sendall(render_upgrade(path, place))
        return Tunnel(sock, _read_answer(sock), send_timeout_s=timeout_s)
    except OSError as error:
        sock.close()
        raise Unavailable(f"failed to talk to the host at {place}: {door_cause(error)}") from error
    except BaseException:
        sock.close()
        raise


def render_upgrade(path: str, host: str) -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: Upgrade", f"Upgrade: {PROTOCOL}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (names in lower case) of an HTTP answer. Raises Unavailable if it is none."""
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    status = rest[:3]
    if not version.startswith("HTTP/1.") or not status.isdigit():
        raise Unavailable("failed to talk to the host: its door does not speak HTTP")
    pairs = (line.partition(":") for line in lines[1:] if ":" in line)
    return int(status), {name.strip().lower(): value.strip() for name, _, value in pairs}


def _read_answer(sock: ssl.SSLSocket) -> bytes:
    """What came after the head of a 101."""
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = sock.recv(4096)
        if not chunk or len(data) > _HEAD_LIMIT:
            raise Unavailable("failed to talk to the host: its door gave no answer")
        data += chunk
    head, _, rest = data.partition(b"\r\n\r\n")
    status, headers = parse_head(head)
    if status != 101:
        raise _refusal(status, _read_body(sock, headers, rest))
    if headers.get("upgrade", "").lower() != PROTOCOL:
        raise Unavailable("failed to talk to the host: its door speaks another protocol")
    return rest


def _read_body(sock: ssl.SSLSocket, headers: dict[str, str], start: bytes) -> bytes:
    length = headers.get("content-length", "")
    wanted = min(int(length), _BODY_LIMIT) if length.isdigit() else 0
    while len(start) < wanted and (chunk := sock.recv(wanted - len(start))):
        start += chunk
    return start[:wanted]


def _refusal(status: int, body: bytes) -> Error:
    """The door says why in a line of text."""
    text = body.decode(errors="replace").strip() or f"the host answered {status}"
    return _ERRORS.get(status, Unavailable)(f"failed to open the console: {text}")
