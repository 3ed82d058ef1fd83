"""A stream of bytes from somewhere becomes a blob, or an error and nothing.

Nothing is believed: the size is counted, the digest computed, the format looked up in the bytes, and both we and
QEMU look through the result before it gets its name. What was written before an error is removed.
"""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, Final

from ucloud.errors import BodyTooLarge, Exhausted, InvalidInput
from ucloud.model.image import ImageFormat
from ucloud.storage import formats, qcow2
from ucloud.storage.inspect import inspect_image
from ucloud.storage.pool import BlobInfo, Part, Pool, check_digest, check_room

CHUNK_BYTES: Final = 1024 * 1024
_ROOM_CHECK_EVERY_BYTES: Final = 64 * CHUNK_BYTES
_OUT_OF_SPACE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def import_stream(
    pool: Pool,
    source: BinaryIO | Iterable[bytes],
    *,
    expected_sha256: str | None,
    max_bytes: int,
    progress: Callable[[int], None],
) -> BlobInfo:
    """Read ``source`` to its end into ``pool``. ``progress`` hears the number of bytes so far.

    Raises InvalidInput (``not_an_image``, ``image_refused``, ``image_damaged``, ``checksum_mismatch``),
    BodyTooLarge (``image_too_large``) or Exhausted (``pool_near_full``, ``pool_full``).
    """
    expected = check_digest(expected_sha256.lower()) if expected_sha256 else None
    check_room(pool.usage(), what="import image")
    try:
        with pool.new_part() as part:
            digest, size_bytes = _receive(pool, part, read_chunks(source), max_bytes, progress)
            if expected is not None and digest != expected:
                raise InvalidInput(
                    f"failed to import image: its SHA-256 is {digest}, expected was {expected}",
                    code="checksum_mismatch",
                    hint="the file is damaged or not the one you meant; compare with its publisher's checksum",
                )
            info = examine(part.file, digest, size_bytes)
            pool.publish(part, info)
            return info
    except OSError as error:
        if error.errno in _OUT_OF_SPACE:
            raise Exhausted(
                "failed to import image: the pool is full", code="pool_full", hint="delete unused images or VMs"
            ) from error
        raise


def read_chunks(source: BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a file or of an iterable, piece by piece."""
    if isinstance(source, Iterable) and not hasattr(source, "read"):
        yield from source
        return
    while chunk := source.read(CHUNK_BYTES):
        yield chunk


def _receive(
    pool: Pool, part: Part, chunks: Iterator[bytes], max_bytes: int, progress: Callable[[int], None]
) -> tuple[str, int]:
    """Write all to the part. Returns digest and size. Refuses a wrong kind of file after its first bytes."""
    hasher = hashlib.sha256()
    received = 0
    next_check = _ROOM_CHECK_EVERY_BYTES
    head = bytearray()
    for chunk in chunks:
        received += len(chunk)
        if received > max_bytes:
            raise BodyTooLarge(
                f"failed to import image: it is larger than the allowed {max_bytes} bytes", code="image_too_large"
            )
        if len(head) < formats.PROBE_BYTES:
            head += chunk[: formats.PROBE_BYTES - len(head)]
            if len(head) == formats.PROBE_BYTES:
                _check_head(bytes(head))
        hasher.update(chunk)
        part.file.write(chunk)
        progress(received)
        if received >= next_check:
            next_check += _ROOM_CHECK_EVERY_BYTES
            check_room(pool.usage(), what="import image")
    part.file.flush()
    return hasher.hexdigest(), received


def _check_head(head: bytes) -> None:
    """Stop early: nobody should upload gigabytes to hear that they are no image."""
    if formats.detect_format(head) is ImageFormat.QCOW2:
        # The tables may lie anywhere in a file whose size is not known yet.
        qcow2.check_qcow2_header(qcow2.parse_qcow2_header(head), file_bytes=2**63)


def examine(file: BinaryIO, digest: str, size_bytes: int) -> BlobInfo:
    """What the complete file is. Raises InvalidInput if it may not become a blob."""
    file.seek(0)
    head = file.read(formats.PROBE_BYTES)
    image_format = formats.detect_format(head)
    if image_format is ImageFormat.QCOW2:
        header = qcow2.parse_qcow2_header(head)
        qcow2.check_qcow2_header(header, file_bytes=size_bytes)
        virtual_size_bytes = header.size_bytes
    else:
        formats.check_raw_size(size_bytes)
        virtual_size_bytes = size_bytes
    seen_bytes = inspect_image(file, image_format)
    if seen_bytes != virtual_size_bytes:
        raise InvalidInput(
            f"failed to accept image: we read a disk of {virtual_size_bytes} bytes, QEMU one of {seen_bytes}",
            code="image_refused",
        )
    return BlobInfo(digest, image_format, size_bytes, virtual_size_bytes)
