"""Elements of nftables sets, changed over netlink without starting a program: cheap enough for several times a second.

A batch is one transaction: all of it happens or nothing. In the network namespace of the thread that opened the door.
Source: include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h. Works on kernels from 5.10 on: there the timeout of an
element that exists cannot be changed, so ``refresh`` puts it anew within one transaction. The length of a message's
elements is a number of 16 bits: a change of many names becomes several messages of the same batch.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from ucloud.errors import Error, InvalidInput

_NETLINK_NETFILTER = 12
_SUBSYS_NFTABLES = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NLMSG_ERROR = 2
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NESTED = 0x8000
_LIST_TABLE, _LIST_SET, _LIST_ELEMENTS = 1, 2, 3
_LIST_ELEM = 1
_ELEM_KEY, _ELEM_TIMEOUT = 1, 4
_DATA_VALUE = 1
_NAME_BYTES = 16  # IFNAMSIZ, the length of a key of type ifname
_HEADER = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BB")
_ATTRIBUTE = struct.Struct("=HH")
_SOL_NETLINK, _CAP_ACK, _SNDBUFFORCE = 270, 10, 32
_TIMEOUT_S = 2.0
_NAMES_PER_MESSAGE = 512  # an element takes up to 40 bytes
# A batch is one datagram, and must fit into the socket's buffer: this is enough for the refresh of 60,000 names.
_BUFFER_BYTES = 8 << 20
_ANSWER_BYTES = 1 << 16


class _Verb(IntEnum):
    ADD = 12  # NFT_MSG_NEWSETELEM
    DELETE = 14  # NFT_MSG_DELSETELEM


class Family(IntEnum):
    INET = 1
    BRIDGE = 7


@dataclass(frozen=True, slots=True)
class Set:
    """A set whose keys are of type ``ifname``."""

    family: Family
    table: str
    name: str


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a batch. ``timeout_ms`` 0 leaves it to the set."""

    verb: _Verb
    of: Set
    names: tuple[str, ...]
    timeout_ms: int = 0


def put(of: Set, names: Sequence[str]) -> tuple[Change, ...]:
    """So that they are in it; nothing happens to those that are."""
    return (Change(_Verb.ADD, of, tuple(names)),)


def refresh(of: Set, names: Sequence[str], *, timeout_ms: int) -> tuple[Change, ...]:
    """So that they are in it for that long from now, whether they were or not."""
    words = tuple(names)
    again = Change(_Verb.ADD, of, words, timeout_ms)
    return (again, Change(_Verb.DELETE, of, words), again)


def drop(of: Set, names: Sequence[str]) -> tuple[Change, ...]:
    """So that they are not in it, whether they were or not."""
    words = tuple(names)
    return (Change(_Verb.ADD, of, words), Change(_Verb.DELETE, of, words))


class ElementsDoor:
    """One socket; used by one thread at a time."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.settimeout(_TIMEOUT_S)
        _enlarge(self._socket)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)  # else a refusal has the whole message in it
        self._socket.bind((0, 0))
        self._sequence = 0

    def apply(self, changes: Sequence[Change]) -> None:
        """All in one transaction. Raises Error with the kernel's reason; then nothing was changed."""
        changes = cut(changes)
        if not changes:
            return
        first = self._sequence + 1
        self._sequence += len(changes) + 2
        try:
            self._socket.send(render_batch(changes, first))
            self._confirm(set(range(first + 1, first + 1 + len(changes))))
        except OSError as error:
            raise Error(f"failed to change a set of nftables: {error.strerror or error}") from error

    def close(self) -> None:
        self._socket.close()

    def _confirm(self, awaited: set[int]) -> None:
        """Wait for the acknowledgement of each message. Answers to an earlier batch are passed over."""
        begin = min(awaited) - 1
        while awaited:
            for sequence, number in parse_answers(self._socket.recv(_ANSWER_BYTES)):
                if number and sequence >= begin:
                    raise OSError(number, os.strerror(number))
                awaited.discard(sequence)


def _enlarge(door: socket.socket) -> None:
    try:
        door.setsockopt(socket.SOL_SOCKET, _SNDBUFFORCE, _BUFFER_BYTES)
    except PermissionError:  # as far as the machine allows it to everybody
        door.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)


def cut(changes: Sequence[Change]) -> list[Change]:
    """The same in pieces that fit into a message each; those without a name are left out."""
    return [
        replace(change, names=change.names[begin : begin + _NAMES_PER_MESSAGE])
        for change in changes
        for begin in range(0, len(change.names), _NAMES_PER_MESSAGE)
    ]


def render_batch(changes: Sequence[Change], first_sequence: int) -> bytes:
    parts = [_message(_BATCH_BEGIN, _REQUEST, first_sequence, _family(0, _SUBSYS_NFTABLES))]
    for sequence, change in enumerate(changes, first_sequence + 1):
        flags = _REQUEST | _ACK | (_CREATE if change.verb is _Verb.ADD else 0)
        parts.append(_message(_SUBSYS_NFTABLES << 8 | change.verb, flags, sequence, _render(change)))
    end = first_sequence + 1 + len(changes)
    parts.append(_message(_BATCH_END, _REQUEST, end, _family(0, _SUBSYS_NFTABLES)))
    return b"".join(parts)


def parse_answers(data: bytes) -> list[tuple[int, int]]:
    """Sequence and error number (0: done) of each answer. Raises Error for what is none."""
    answers = []
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
        if kind != _NLMSG_ERROR or length < _HEADER.size + 4 or offset + length > len(data):
            raise Error("failed to change a set of nftables: the kernel gave an answer that is none")
        (number,) = struct.unpack_from("=i", data, offset + _HEADER.size)
        answers.append((sequence, -number))
        offset += (length + 3) & ~3
    return answers


def _render(change: Change) -> bytes:
    elements = b"".join(_nested(_LIST_ELEM, _element(name, change.timeout_ms)) for name in change.names)
    return (
        _family(change.of.family, 0)
        + _attribute(_LIST_TABLE, change.of.table.encode() + b"\0")
        + _attribute(_LIST_SET, change.of.name.encode() + b"\0")
        + _nested(_LIST_ELEMENTS, elements)
    )


def _element(name: str, timeout_ms: int) -> bytes:
    raw = name.encode()
    if not 0 < len(raw) < _NAME_BYTES:
        raise InvalidInput(f"failed to change a set of nftables: {name!r} is no name of a device", field="name")
    key = _nested(_ELEM_KEY, _attribute(_DATA_VALUE, raw.ljust(_NAME_BYTES, b"\0")))
    return key + (_attribute(_ELEM_TIMEOUT, struct.pack(">Q", timeout_ms)) if timeout_ms else b"")


def _family(family: int, resource: int) -> bytes:
    """struct nfgenmsg; its last field is in network byte order."""
    return _FAMILY.pack(family, 0) + struct.pack(">H", resource)


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _nested(kind: int, value: bytes) -> bytes:
    return _attribute(kind | _NESTED, value)
