"""The qcow2 header: what is read, what is refused, and that no bytes whatever do anything else."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.errors import InvalidInput
from ucloud.storage.qcow2 import (
    MAGIC,
    MAX_VIRTUAL_SIZE_BYTES,
    check_qcow2_header,
    parse_backing_name,
    parse_qcow2_header,
)

_FILE_BYTES = 1 << 20


def render(
    *,
    version: int = 3,
    backing: tuple[int, int] = (0, 0),
    cluster_bits: int = 16,
    size_bytes: int = 1 << 30,
    encryption: int = 0,
    l1: tuple[int, int] = (2, 0x30000),
    refcounts: tuple[int, int] = (0x10000, 1),
    incompatible: int = 0,
    header_length: int = 104,
    extensions: bytes = b"",
) -> bytes:
    head = struct.pack(">4sIQIIQII", MAGIC, version, *backing, cluster_bits, size_bytes, encryption, l1[0])
    head += struct.pack(">QQIIQ", l1[1], *refcounts, 0, 0)
    if version == 3:
        head += struct.pack(">QQQII", incompatible, 0, 0, 4, header_length)
    return (head + extensions).ljust(4096, b"\0")


def code_of(data: bytes, file_bytes: int = _FILE_BYTES) -> str:
    with pytest.raises(InvalidInput) as caught:
        check_qcow2_header(parse_qcow2_header(data), file_bytes=file_bytes)
    return caught.value.code


@pytest.mark.parametrize("version", [2, 3])
def test_a_plain_header_is_accepted(version: int) -> None:
    header = parse_qcow2_header(render(version=version))
    check_qcow2_header(header, file_bytes=_FILE_BYTES)
    assert (header.version, header.size_bytes, header.cluster_bytes) == (version, 1 << 30, 65536)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (render(backing=(512, 11)), "image_refused"),
        (render(backing=(0, 11)), "image_refused"),
        (render(backing=(512, 0)), "image_refused"),
        (render(incompatible=0b100), "image_refused"),
        (render(extensions=struct.pack(">II8s", 0x44415441, 8, b"/etc/pwd")), "image_refused"),
        (render(extensions=struct.pack(">II16s", 0x0537BE77, 16, b"")), "image_refused"),
        (render(encryption=2), "image_refused"),
        (render(incompatible=0b1), "image_refused"),
        (render(incompatible=0b10), "image_refused"),
        (render(incompatible=1 << 40), "image_refused"),
        (render(size_bytes=0), "image_refused"),
        (render(size_bytes=MAX_VIRTUAL_SIZE_BYTES + 1), "image_refused"),
        (render(l1=(2, _FILE_BYTES)), "image_damaged"),
        (render(l1=(2**32 - 1, 0x30000)), "image_damaged"),
        (render(l1=(2, 8)), "image_damaged"),
        (render(refcounts=(_FILE_BYTES, 1)), "image_damaged"),
        (render(version=4), "image_damaged"),
        (render(cluster_bits=63), "image_damaged"),
        (render(header_length=2**31), "image_damaged"),
        (render(header_length=8), "image_damaged"),
        (render(extensions=struct.pack(">II", 1, 2**32 - 1)), "image_damaged"),
        (render(extensions=struct.pack(">II", 1, 0) * 100), "image_damaged"),
        (render()[:80], "image_damaged"),
        (b"", "image_damaged"),
        (b"\0" * 4096, "image_damaged"),
    ],
)
def test_dangerous_and_broken_headers_are_refused(data: bytes, code: str) -> None:
    assert code_of(data) == code


def test_compression_type_and_extended_l2_are_known() -> None:
    check_qcow2_header(parse_qcow2_header(render(incompatible=0b11000)), file_bytes=_FILE_BYTES)


@given(st.binary(max_size=400))
def test_any_bytes_parse_or_are_invalid_input(data: bytes) -> None:
    with contextlib.suppress(InvalidInput):
        parse_qcow2_header(MAGIC + b"\0\0\0\3" + data)


@given(st.lists(st.tuples(st.integers(4, 4095), st.integers(0, 255)), max_size=20))
def test_changed_bytes_never_hide_a_backing_file(changes: list[tuple[int, int]]) -> None:
    data = bytearray(render(backing=(512, 11)))
    for offset, value in changes:
        if not 8 <= offset < 20:
            data[offset] = value
    with pytest.raises(InvalidInput):
        check_qcow2_header(parse_qcow2_header(bytes(data)), file_bytes=_FILE_BYTES)


def test_the_backing_name_of_a_volume_is_read() -> None:
    data = render(backing=(512, 11))
    assert parse_backing_name(data[:512] + b"../blob.raw" + data[523:]) == "../blob.raw"
    with pytest.raises(InvalidInput):
        parse_backing_name(render(backing=(2**40, 11)))
