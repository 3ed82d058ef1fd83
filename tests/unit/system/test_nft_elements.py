"""Batches and acknowledgements as bytes; the kernel's own view is in the tests of the traffic gate."""

from __future__ import annotations

import struct

import pytest

from ucloud.errors import Error, InvalidInput
from ucloud.system.nft_elements import Family, Set, cut, drop, parse_answers, put, refresh, render_batch

LIVE = Set(Family.BRIDGE, "t", "live")


def answer(sequence: int, number: int, *, kind: int = 2) -> bytes:
    """struct nlmsgerr with the header of the message that it answers."""
    body = struct.pack("=i", -number) + bytes(16)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, sequence, 0) + body


def messages(batch: bytes) -> list[tuple[int, int]]:
    """Kind and sequence of each."""
    found, offset = [], 0
    while offset < len(batch):
        length, kind, _, sequence, _ = struct.unpack_from("=IHHII", batch, offset)
        found.append((kind, sequence))
        offset += length
    assert offset == len(batch)
    return found


def test_a_batch_is_framed_and_numbered() -> None:
    changes = (*put(LIVE, ["a"]), *refresh(LIVE, ["a", "b"], timeout_ms=5), *drop(LIVE, ["c"]))
    kinds = [0x10, 0xA0C, 0xA0C, 0xA0E, 0xA0C, 0xA0C, 0xA0E, 0x11]
    assert messages(render_batch(changes, 7)) == list(zip(kinds, range(7, 15), strict=True))


def test_a_timeout_and_a_name_are_where_the_kernel_looks_for_them() -> None:
    batch = render_batch(refresh(LIVE, ["tap1"], timeout_ms=1500), 1)
    assert batch.count(b"tap1".ljust(16, b"\0")) == 3
    assert batch.count(struct.pack(">Q", 1500)) == 2


@pytest.mark.parametrize("name", ["", "x" * 16])
def test_what_is_no_device_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput):
        render_batch(put(LIVE, [name]), 1)


def test_answers() -> None:
    assert parse_answers(answer(3, 0) + answer(4, 2)) == [(3, 0), (4, 2)]
    for bad in (answer(3, 0, kind=3), answer(3, 0)[:-4], struct.pack("=IHHII", 4, 2, 0, 1, 0)):
        with pytest.raises(Error):
            parse_answers(bad)


def test_many_names_become_several_messages_of_the_same_step() -> None:
    names = [f"tap{number}" for number in range(3000)]
    pieces = cut(refresh(LIVE, names, timeout_ms=5))
    assert [name for piece in pieces for name in piece.names] == names * 3
    assert [piece.verb.name for piece in pieces] == ["ADD"] * 6 + ["DELETE"] * 6 + ["ADD"] * 6
    assert len(messages(render_batch(pieces, 1))) == 20
