"""The forwarding entries of a VXLAN device: which MAC is behind which other end, many of them in one message.

Entries are made like learned ones (``NUD_REACHABLE``): the first frame from elsewhere replaces them, and the kernel
drops those that were neither used nor made anew for its ageing time. Packed here and not by pyroute2: that always adds
``NUD_NOARP``, and with it the kernel drops the frames of a guest that has moved (vxlan_snoop) instead of learning.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from ucloud.errors import Error

AGEING_S = 300.0
_RTM_NEWNEIGH, _RTM_DELNEIGH, _RTM_GETNEIGH = 28, 29, 30
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _REPLACE, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x400, 0x300
_NUD_REACHABLE = 0x02
_NTF_USE, _NTF_SELF = 0x01, 0x02
_NDA_DST, _NDA_LLADDR = 1, 2
_ENOENT = 2
_HEADER = struct.Struct("=IHHII")
_NEIGHBOUR = struct.Struct("=BxxxiHBB")
_ATTRIBUTE = struct.Struct("=HH")
_BATCH = 100  # messages: about 5 KiB there, and as many answers of 36 bytes
_RECEIVE_BYTES = 1 << 18
_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Forward:
    """Frames for ``mac`` go to the IPv6 ``address``."""

    mac: str
    address: str


def list_forwards(index: int) -> list[Forward]:
    """All entries of one MAC and one other end each (the flooding entry is none)."""
    request = _HEADER.pack(_HEADER.size + _NEIGHBOUR.size, _RTM_GETNEIGH, _REQUEST | _DUMP, 1, 0)
    found = []
    with _open() as door:
        door.send(request + _NEIGHBOUR.pack(socket.AF_BRIDGE, index, 0, 0, 0))
        for kind, body in _answers(door):
            if kind == _NLMSG_DONE:
                break
            if kind == _RTM_NEWNEIGH:
                found += _parse(body, index)
    return found


def replace_forwards(index: int, forwards: Iterable[Forward]) -> None:
    """Make these entries, whatever is known of their MACs."""
    _change(_RTM_NEWNEIGH, _CREATE | _REPLACE, 0, index, forwards)


def keep_forwards(index: int, forwards: Iterable[Forward]) -> None:
    """Make those that are missing, and let the others age anew; what was learned meanwhile stays."""
    _change(_RTM_NEWNEIGH, _CREATE, _NTF_USE, index, forwards)


def remove_forwards(index: int, forwards: Iterable[Forward]) -> None:
    """Remove the entries of these MACs; those that are not there are no error."""
    _change(_RTM_DELNEIGH, 0, 0, index, forwards)


def _change(kind: int, how: int, flags: int, index: int, forwards: Iterable[Forward]) -> None:
    messages = [_message(kind, how, flags, index, forward) for forward in forwards]
    with _open() as door:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            door.send(b"".join(batch))
            _take_acks(door, len(batch), missing_is_fine=kind == _RTM_DELNEIGH)


def _message(kind: int, how: int, flags: int, index: int, forward: Forward) -> bytes:
    body = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, _NUD_REACHABLE, _NTF_SELF | flags, 0)
    body += _attribute(_NDA_LLADDR, bytes.fromhex(forward.mac.replace(":", "")))
    if kind == _RTM_NEWNEIGH:
        body += _attribute(_NDA_DST, ip_address(forward.address).packed)
    return _HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _ACK | how, 1, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def _open() -> socket.socket:
    door = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    door.settimeout(_TIMEOUT_S)
    door.bind((0, 0))
    return door


def _take_acks(door: socket.socket, count: int, *, missing_is_fine: bool) -> None:
    for kind, body in _answers(door):
        if kind != _NLMSG_ERROR:
            continue
        (number,) = struct.unpack_from("=i", body)
        if number and not (missing_is_fine and -number == _ENOENT):
            raise Error(f"failed to set a forwarding entry: {os.strerror(-number)}", code="network_failed")
        count -= 1
        if count == 0:
            return


def _answers(door: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Kind and body of each message, without end."""
    while True:
        try:
            data = door.recv(_RECEIVE_BYTES)
        except OSError as error:
            raise Error(f"failed to read forwarding entries: {error}", code="network_failed") from error
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, _, _, _ = _HEADER.unpack_from(data, offset)
            yield kind, data[offset + _HEADER.size : offset + length]
            offset += (max(length, _HEADER.size) + 3) & ~3


def _parse(body: bytes, index: int) -> list[Forward]:
    _, of_device, _, flags, _ = _NEIGHBOUR.unpack_from(body)
    if of_device != index or not flags & _NTF_SELF:
        return []
    found = dict(_attributes(body[_NEIGHBOUR.size :]))
    mac, address = found.get(_NDA_LLADDR, b""), found.get(_NDA_DST, b"")
    if not any(mac) or not address:
        return []
    return [Forward(mac.hex(":"), str(ip_address(address)))]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, offset)
        yield kind & 0x3FFF, data[offset + _ATTRIBUTE.size : offset + size]
        offset += (max(size, _ATTRIBUTE.size) + 3) & ~3
