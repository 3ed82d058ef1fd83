"""What a pool can do, as a Protocol that directories fill today and Ceph RBD can fill later, and its nouns.

A pool keeps blobs (images, named by digest, never changed) and volumes (root disks, one writer each). All
``ensure_`` and ``delete_`` methods may be repeated and interrupted.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from ucloud.errors import Exhausted, InvalidInput
from ucloud.model.image import ImageFormat

_DIGEST = re.compile(r"[0-9a-f]{64}")
_VOLUME_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """``size_bytes`` is what it takes in the pool, ``virtual_size_bytes`` the disk that a guest sees."""

    digest: str
    format: ImageFormat
    size_bytes: int
    virtual_size_bytes: int


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as a listing finds it. ``age_s`` counts from its arrival."""

    digest: str
    format: ImageFormat
    size_bytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """``reserve_bytes`` is kept free for the volumes that are there already: overlays grow as guests write."""

    total_bytes: int
    free_bytes: int
    reserve_bytes: int

    @property
    def near_full(self) -> bool:
        return self.free_bytes < self.reserve_bytes

    @property
    def usable_bytes(self) -> int:
        """What may still be promised to something new."""
        return max(0, self.free_bytes - self.reserve_bytes)


@dataclass(frozen=True, slots=True)
class Part:
    """An import under way: an open file that becomes a blob, or nothing. ``path`` is its name in the pool."""

    path: Path
    file: BinaryIO


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One layer of a disk, for QEMU's block driver ``driver``: of "file", ``location`` is a path; of "nbd", it is
    ``<host>:<port>/<export>``, an IPv6 address in brackets.

    ``format`` is qcow2 or raw, always said, never probed.
    """

    driver: str
    location: str
    format: ImageFormat


@dataclass(frozen=True, slots=True)
class DiskSource:
    """The layer that the guest writes to, and what lies below it, from top to bottom.

    ``direct``: the top layer is written past the host's page cache, for other hosts may open it next.
    """

    top: LayerSource
    backing: tuple[LayerSource, ...] = ()
    direct: bool = False


class Pool(Protocol):
    """Blobs and volumes on one storage. Sizes are in bytes; errors are InvalidInput, NotFound, Exhausted."""

    def usage(self) -> PoolUsage: ...

    def new_part(self) -> AbstractContextManager[Part]:
        """A fresh part, locked while inside; gone afterwards unless ``publish`` took it."""
        ...

    def publish(self, part: Part, info: BlobInfo) -> None:
        """Make the part the blob ``info.digest``. Harmless if that is there already."""
        ...

    def clean_parts(self, older_than_s: float) -> tuple[str, ...]:
        """Remove what crashed imports left; parts of living importers stay. Returns their names."""
        ...

    def has_blob(self, digest: str, image_format: ImageFormat) -> bool: ...

    def open_blob(self, digest: str, image_format: ImageFormat) -> BinaryIO:
        """For handing it to another host. Raises NotFound."""
        ...

    def list_blobs(self) -> tuple[StoredBlob, ...]: ...

    def delete_blob(self, digest: str, image_format: ImageFormat) -> None: ...

    def ensure_volume(
        self, volume_id: str, *, image_digest: str, image_format: ImageFormat, size_bytes: int, uid: int
    ) -> str:
        """The volume, made as an overlay of the blob if it is not there. Returns what QEMU opens."""
        ...

    def disk(
        self, volume_id: str, image_digest: str, image_format: ImageFormat, *, incarnation: str = ""
    ) -> DiskSource:
        """What QEMU opens for a volume that was made of that blob, born under that guard. Looks at nothing."""
        ...

    def acquire(self, volume_id: str, *, incarnation: str, moved_from: str = "") -> None:
        """Be the only one that may write the volume, where the storage must be asked for that.

        Only with its run lock. ``moved_from``: the host from which a live migration has taken that lock, whose guest
        stands still for good. Raises Conflict (``volume_locked``) while another holds it: wait, it cannot be forced.
        """
        ...

    def release(self, volume_id: str, *, incarnation: str) -> None:
        """The opposite; harmless if it is not ours. The end of QEMU is enough."""
        ...

    def grow_volume(self, volume_id: str, size_bytes: int) -> None:
        """Make the volume at least this large. Never shrinks. The VM must not run."""
        ...

    def delete_volume(self, volume_id: str) -> None: ...

    def list_volumes(self) -> tuple[str, ...]: ...

    def blobs_in_use(self) -> frozenset[str] | None:
        """Digests below the volumes, or None if one volume cannot be read: then nobody knows."""
        ...


def check_digest(digest: str) -> str:
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidInput(f"failed to use digest {digest[:80]!r}: it is not a SHA-256 in lower-case hex")
    return digest


def check_volume_id(volume_id: str) -> str:
    if _VOLUME_ID.fullmatch(volume_id) is None:
        raise InvalidInput(f"failed to use volume {volume_id[:80]!r}: not an id")
    return volume_id


def check_room(usage: PoolUsage, *, needed_bytes: int = 0, what: str) -> None:
    """Refuse something new while the pool is near full, so that what already runs can go on writing."""
    if usage.near_full or needed_bytes > usage.usable_bytes:
        raise Exhausted(
            f"failed to {what}: of {usage.free_bytes} free bytes in the pool {usage.reserve_bytes} are a reserve",
            code="pool_near_full",
            hint="delete unused images or VMs, or give the pool more space",
        )
