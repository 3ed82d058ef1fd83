"""What kind of file is this, by its first bytes. Pure.

Only qcow2 and raw are accepted. For anything else a person would mistake for an image, the answer names it and
says how to convert it: "raw" is never a guess of last resort, because every text file would then be a disk.
"""

from __future__ import annotations

from typing import Final

from ucloud.errors import InvalidInput
from ucloud.model.image import ImageFormat
from ucloud.storage import qcow2

PROBE_BYTES: Final = qcow2.HEADER_READ_BYTES
SECTOR_BYTES: Final = 512

_FOREIGN: Final = (
    (0, b"KDMV", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "a VMDK descriptor"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"conectix", "a VHD image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"QED\0", "a QED image"),
    (0, b"LUKS\xba\xbe", "an encrypted LUKS volume"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (257, b"ustar", "a tar archive"),
)
_DISK_SIGNATURES: Final = (
    (510, b"\x55\xaa"),  # MBR, also in front of every GPT
    (512, b"EFI PART"),
    (1024 + 56, b"\x53\xef"),  # ext2, 3 and 4 on the whole disk
    (0, b"XFSB"),
)


def detect_format(head: bytes) -> ImageFormat:
    """The format of a file that begins with ``head`` (its first PROBE_BYTES). Raises InvalidInput."""
    if not head:
        raise _no_image("it is empty")
    if head.startswith(qcow2.MAGIC):
        return ImageFormat.QCOW2
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise _no_image(f"it is {name}")
    if head[:1024].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise _no_image("it is a web page; the address may be that of a page about the image")
    if any(head[offset : offset + len(magic)] == magic for offset, magic in _DISK_SIGNATURES):
        return ImageFormat.RAW
    raise _no_image("it has neither the qcow2 magic nor a partition table or file system")


def check_raw_size(size_bytes: int) -> None:
    if size_bytes % SECTOR_BYTES:
        raise InvalidInput(
            f"failed to accept image: {size_bytes} bytes are not whole sectors, so the raw disk is truncated",
            code="image_damaged",
        )


def _no_image(cause: str) -> InvalidInput:
    return InvalidInput(
        f"failed to accept image: {cause}",
        code="not_an_image",
        hint="images are qcow2 or raw disks; unpack archives, convert others: qemu-img convert -O qcow2 OLD NEW",
    )
