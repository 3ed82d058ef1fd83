"""Tells a network where a MAC is by now: the broadcast that QEMU itself sends for a guest that has arrived (RARP).

Sent by the host before the guest goes on, so that what is meant for it waits here already. Whoever hears it learns the
place from the frame's sender; nobody answers it.
"""

from __future__ import annotations

import socket
import struct

from ucloud.errors import NotFound

_RARP = 0x8035
_REQUEST_REVERSE = 3
_SHORTEST_BYTES = 60


def render_announcement(mac: str) -> bytes:
    own = bytes.fromhex(mac.replace(":", ""))
    head = b"\xff" * 6 + own + struct.pack("!H", _RARP)
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, _REQUEST_REVERSE) + own + bytes(4) + own + bytes(4)
    return (head + body).ljust(_SHORTEST_BYTES, b"\0")


def announce(device: str, mac: str) -> None:
    """Send it once. Raises NotFound if there is no such device, or it is down."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as door:
            door.bind((device, 0))
            door.send(render_announcement(mac))
    except OSError as error:
        raise NotFound(f"failed to announce {mac} on {device}: {error.strerror or error}", code="no_device") from error
