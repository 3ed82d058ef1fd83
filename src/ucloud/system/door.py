"""How to reach the door of an agent: TLS in which both sides show a certificate of the cloud's CA.

The name in the certificate is checked instead of the address, because addresses change: every certificate of the
cloud has ``SERVER_NAME``. Owns nothing. Whoever opens a door closes it.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from ucloud.errors import MissingPrerequisite, Unavailable

SERVER_NAME = "ucloud"
_HTTPS_PORT = 443


def door_context(ca_file: Path, cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """Our certificate, and whom to trust. Raises MissingPrerequisite if a file is missing or broken."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(ca_file))
        context.load_cert_chain(cert_file, key_file)
    except OSError as error:  # ssl.SSLError is one
        raise MissingPrerequisite(
            f"failed to load the certificates {cert_file} and {ca_file}: {door_cause(error)}", hint="run 'ucloud up'"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def open_door(url: str, context: ssl.SSLContext, *, timeout_s: float) -> ssl.SSLSocket:
    """A connection to the door ``https://address:port``, whatever its path; each step may last ``timeout_s``.

    Raises Unavailable (``agent_unavailable``).
    """
    place = urlsplit(url)
    if place.scheme != "https" or not place.hostname:
        raise _unreachable(url, "its door is no https URL")
    try:
        plain = socket.create_connection((place.hostname, place.port or _HTTPS_PORT), timeout=timeout_s)
    except OSError as error:
        raise _unreachable(place.netloc, door_cause(error)) from error
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return context.wrap_socket(plain, server_hostname=SERVER_NAME)
    except OSError as error:
        plain.close()
        raise _unreachable(place.netloc, door_cause(error)) from error


class DoorConnection(http.client.HTTPConnection):
    """HTTP through a door. ``connect`` raises Unavailable; the rest raises OSError or HTTPException."""

    def __init__(self, url: str, context: ssl.SSLContext, *, timeout_s: float) -> None:
        super().__init__(urlsplit(url).netloc)
        self._url = url
        self._context = context
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = open_door(self._url, self._context, timeout_s=self._timeout_s)


def door_cause(error: Exception) -> str:
    """What went wrong, in few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not of this cloud: {error.verify_message}"
    text = error.strerror if isinstance(error, OSError) else ""
    return text or str(error) or type(error).__name__


def _unreachable(place: str, cause: str) -> Unavailable:
    return Unavailable(
        f"failed to reach the host at {place}: {cause}", hint="is that host's agent running?", code="agent_unavailable"
    )
