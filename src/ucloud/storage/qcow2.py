"""The header of a qcow2 file, parsed without trusting a byte of it. Pure.

Format: docs/interop/qcow2.txt of QEMU. What makes QEMU open another file (backing file, external data file) is
recognised here, before any QEMU program touches the image.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ucloud.errors import InvalidInput

MAGIC: Final = b"QFI\xfb"
# More than any header with its extensions takes: QEMU wants it within the first cluster (at least 512 bytes),
# and real ones are below 1 KiB.
HEADER_READ_BYTES: Final = 65536
MAX_VIRTUAL_SIZE_BYTES: Final = 16 * 2**40

_V2_FIELDS: Final = struct.Struct(">4sIQIIQIIQQIIQ")
_V3_FIELDS: Final = struct.Struct(">QQQII")
_INCOMPATIBLE_DIRTY = 1 << 0
_INCOMPATIBLE_CORRUPT = 1 << 1
_INCOMPATIBLE_DATA_FILE = 1 << 2
_INCOMPATIBLE_KNOWN = 0b11111  # also the compression type and extended L2 entries, which harm nothing
_EXTENSION_END = 0
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_ENCRYPTION = 0x0537BE77
_MAX_EXTENSIONS = 64


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """The fields that decide whether an image is safe and whole. Offsets and sizes are in bytes."""

    version: int
    size_bytes: int
    cluster_bits: int
    backing_file_offset: int
    backing_file_size: int
    encryption: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    incompatible: int
    header_length: int
    extensions: tuple[int, ...]

    @property
    def cluster_bytes(self) -> int:
        return 1 << self.cluster_bits


def parse_qcow2_header(data: bytes) -> Qcow2Header:
    """The header at the start of ``data``. Raises InvalidInput (``image_damaged``) for anything malformed."""
    if len(data) < _V2_FIELDS.size:
        raise _damaged("it ends within the header")
    fields = _V2_FIELDS.unpack_from(data)
    magic, version, backing_offset, backing_size, cluster_bits, size, encryption, l1_entries = fields[:8]
    l1_offset, refcount_offset, refcount_clusters = fields[8:11]
    if magic != MAGIC:
        raise _damaged("it does not begin with the qcow2 magic")
    if version not in (2, 3):
        raise _damaged(f"version {version} is unknown")
    if not 9 <= cluster_bits <= 21:
        raise _damaged(f"its cluster size 2^{cluster_bits} is out of range")
    incompatible, header_length = (0, _V2_FIELDS.size) if version == 2 else _parse_version_3(data)
    return Qcow2Header(
        version=version,
        size_bytes=size,
        cluster_bits=cluster_bits,
        backing_file_offset=backing_offset,
        backing_file_size=backing_size,
        encryption=encryption,
        l1_entries=l1_entries,
        l1_offset=l1_offset,
        refcount_offset=refcount_offset,
        refcount_clusters=refcount_clusters,
        incompatible=incompatible,
        header_length=header_length,
        extensions=_parse_extensions(data, header_length, 1 << cluster_bits),
    )


def _parse_version_3(data: bytes) -> tuple[int, int]:
    least = _V2_FIELDS.size + _V3_FIELDS.size
    if len(data) < least:
        raise _damaged("it ends within the header")
    incompatible, _, _, _, header_length = _V3_FIELDS.unpack_from(data, _V2_FIELDS.size)
    if header_length < least or header_length % 8 or header_length > len(data):
        raise _damaged(f"its header length {header_length} is impossible")
    return incompatible, header_length


def _parse_extensions(data: bytes, start: int, cluster_bytes: int) -> tuple[int, ...]:
    """Types of the header extensions: each is type, length, and data padded to 8 bytes."""
    kinds: list[int] = []
    offset = start
    end = min(len(data), cluster_bytes)
    while offset + 8 <= end:
        kind, length = struct.unpack_from(">II", data, offset)
        if kind == _EXTENSION_END:
            return tuple(kinds)
        kinds.append(kind)
        offset += 8 + (length + 7) // 8 * 8
        if len(kinds) > _MAX_EXTENSIONS or offset > end:
            raise _damaged("its header extensions do not end")
    # Version 2 files of old may have no extensions at all, and nothing that says so.
    return tuple(kinds)


def check_qcow2_header(header: Qcow2Header, *, file_bytes: int, what: str = "image") -> None:
    """Refuse what could reach beyond the file, or cannot be whole. Raises InvalidInput."""
    if reason := _reason_unsafe(header):
        raise InvalidInput(
            f"failed to accept {what}: {reason}",
            code="image_refused",
            hint="make a self-contained copy: qemu-img convert -O qcow2 OLD NEW",
        )
    if not 0 < header.size_bytes <= MAX_VIRTUAL_SIZE_BYTES:
        raise InvalidInput(
            f"failed to accept {what}: its disk size of {header.size_bytes} bytes is not between 1 byte and 16 TiB",
            code="image_refused",
        )
    tables = (
        (header.l1_offset, header.l1_entries * 8),
        (header.refcount_offset, header.refcount_clusters * header.cluster_bytes),
    )
    if any(offset + size > file_bytes or offset < header.header_length for offset, size in tables):
        raise _damaged("its tables lie outside the file: it is truncated or corrupt")


def _reason_unsafe(header: Qcow2Header) -> str:
    if header.backing_file_offset or header.backing_file_size:
        return "it names a backing file, so it would read files of the host"
    if header.incompatible & _INCOMPATIBLE_DATA_FILE or _EXTENSION_DATA_FILE in header.extensions:
        return "it keeps its data in another file, so it would read files of the host"
    if header.encryption or _EXTENSION_ENCRYPTION in header.extensions:
        return "it is encrypted"
    if header.incompatible & (_INCOMPATIBLE_DIRTY | _INCOMPATIBLE_CORRUPT):
        return "it is marked as in use or corrupt; repair it with: qemu-img check -r all"
    if header.incompatible & ~_INCOMPATIBLE_KNOWN:
        return f"it needs unknown features (bits {header.incompatible:#x})"
    return ""


def parse_backing_name(data: bytes) -> str:
    """The backing file that a volume of ours names, or an empty text. Only for our own overlays."""
    header = parse_qcow2_header(data)
    end = header.backing_file_offset + header.backing_file_size
    if header.backing_file_size > 1023 or end > len(data):
        raise _damaged("its backing file name is out of range")
    return data[header.backing_file_offset : end].decode(errors="replace")


def _damaged(cause: str) -> InvalidInput:
    return InvalidInput(f"failed to read qcow2 image: {cause}", code="image_damaged")
