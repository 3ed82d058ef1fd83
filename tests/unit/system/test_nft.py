"""The kernel's answer to the question for its generation."""

from __future__ import annotations

import struct

import pytest

from ucloud.errors import Error
from ucloud.system.nft import _parse_generation


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


def test_generation() -> None:
    attributes = struct.pack("=HH", 8, 2) + bytes(4) + struct.pack("=HH", 8, 1) + struct.pack(">I", 77)

    assert _parse_generation(message(10 << 8 | 15, bytes(4) + attributes)) == 77


@pytest.mark.parametrize("answer", [message(2, struct.pack("=i", -1)), message(10 << 8 | 15, bytes(4))])
def test_no_generation(answer: bytes) -> None:
    with pytest.raises(Error, match="generation"):
        _parse_generation(answer)
