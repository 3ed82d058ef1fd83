"""The kernel's answers to questions about its rules."""

from __future__ import annotations

import errno
import struct

import pytest

from ucloud.errors import Error
from ucloud.system.nft import _parse_attribute


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_an_attribute() -> None:
    attributes = struct.pack("=HH", 8, 2) + bytes(4) + struct.pack("=HH", 8, 1) + struct.pack(">I", 77)
    assert _parse_attribute(message(10 << 8 | 15, bytes(4) + attributes), 1) == struct.pack(">I", 77)


def test_what_is_not_there() -> None:
    assert _parse_attribute(message(2, struct.pack("=i", -errno.ENOENT)), 1) is None
    assert _parse_attribute(message(10 << 8 | 15, bytes(4)), 1) is None


def test_a_refusal() -> None:
    with pytest.raises(Error, match="not permitted"):
        _parse_attribute(message(2, struct.pack("=i", -errno.EPERM)), 1)
