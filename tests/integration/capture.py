"""Frames as they are on a guest's device: to send them raw, and to see all that arrive, with their VLAN tags."""

from __future__ import annotations

import socket
import struct

from tests.integration.lab_host import Guest

_SOL_PACKET = 263
_ADD_MEMBERSHIP, _AUXDATA = 1, 8
_PROMISCUOUS = 1
_VLAN_VALID = 0x10
_ALL_PROTOCOLS = 0x0003
_VLAN = 0x8100


def open_raw(guest: Guest) -> socket.socket:
    """A raw socket on the guest's device that gets frames to any MAC."""

    def work() -> socket.socket:
        one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL_PROTOCOLS))
        one.bind(("eth0", 0))
        index = socket.if_nametoindex("eth0")
        one.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("IHH8s", index, _PROMISCUOUS, 0, b""))
        one.setsockopt(_SOL_PACKET, _AUXDATA, 1)
        one.settimeout(5)
        return one

    return guest.do(work)


def receive(ear: socket.socket) -> bytes:
    """The next frame. The kernel takes an outer tag off and tells it apart: it is put back here."""
    data, notes, _, _ = ear.recvmsg(4096, 200)
    for _, kind, note in notes:
        status, _, _, _, _, tag, protocol = struct.unpack("IIIHHHH", note[:20])
        if kind == _AUXDATA and status & _VLAN_VALID:
            return data[:12] + struct.pack("!HH", protocol or _VLAN, tag) + data[12:]
    return data


def receive_until(ear: socket.socket, last: bytes) -> list[bytes]:
    """All frames before ``last``."""
    got = []
    while (frame := receive(ear)) != last:
        got.append(frame)
    return got
