"""What a file is, by its first bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.errors import InvalidInput
from ucloud.model.image import ImageFormat
from ucloud.storage.formats import check_raw_size, detect_format

_MBR = b"\0" * 510 + b"\x55\xaa"
_EXT4 = b"\0" * 1080 + b"\x53\xef" + b"\0" * 100


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"QFI\xfb\0\0\0\3", ImageFormat.QCOW2),
        (_MBR, ImageFormat.RAW),
        (b"\0" * 512 + b"EFI PART", ImageFormat.RAW),
        (_EXT4, ImageFormat.RAW),
        (b"XFSB" + b"\0" * 600, ImageFormat.RAW),
    ],
)
def test_disks_are_recognised(head: bytes, expected: ImageFormat) -> None:
    assert detect_format(head) is expected


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "empty"),
        (b"hello\n" * 200, "neither"),
        (b"\0" * 4096, "neither"),
        (b"KDMV\1\0\0\0" + _MBR[8:], "VMDK"),
        (b"vhdxfile", "VHDX"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\x03\x04", "zip"),
        (b"  \n<!DOCTYPE html><html>", "web page"),
        (b"\0" * 0x40 + b"\x7f\x10\xda\xbe" + b"\0" * 900, "VDI"),
    ],
)
def test_others_are_named_and_refused(head: bytes, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        detect_format(head)
    assert caught.value.code == "not_an_image"
    assert "qemu-img convert" in caught.value.hint


@given(st.binary(max_size=2048))
def test_any_bytes_are_a_format_or_no_image(head: bytes) -> None:
    try:
        assert detect_format(head) in ImageFormat
    except InvalidInput as error:
        assert error.code == "not_an_image"


def test_a_raw_disk_has_whole_sectors() -> None:
    check_raw_size(1024)
    with pytest.raises(InvalidInput):
        check_raw_size(1025)
