"""A pool in a directory: blobs, and ``volumes/<id>/root.qcow2``. Several hosts may share the directory.

A volume is a qcow2 overlay that names its blob and the blob's format explicitly, belongs to the VM's uid and is closed
to all others. It is made under a name that no other host uses and then linked, so that what has the final name is
whole, and a host that comes late (it may have lost the VM meanwhile) replaces nothing. QEMU's tools touch a volume only
with the rights of its VM: a guest that broke out of QEMU could have written anything into it. QEMU's own lock on the
file keeps a second writer out, on file systems where it works between hosts (``proof``).
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
from pathlib import Path
from typing import Final

from ucloud.errors import CommandFailed, InvalidInput, NotFound
from ucloud.model.image import ImageFormat
from ucloud.storage import qcow2
from ucloud.storage.blob_directory import (
    BLOB_NAME,
    DEFAULT_RESERVE_PERCENT,
    MIN_RESERVE_BYTES,
    TRAVERSE_ONLY,
    BlobDirectory,
    age_s,
    publish,
)
from ucloud.storage.pool import DiskSource, LayerSource, check_room, check_volume_id
from ucloud.system.files import ensure_directory
from ucloud.system.run import Limits, run

_log = logging.getLogger(__name__)
SECTOR_BYTES: Final = 512
_ROOT_DISK = "root.qcow2"
_VOLUME_MODE = 0o600
_TOOL_MEMORY_BYTES = 2 * 2**30
_TOOL_CPU_S = 60
_LEFT_BEHIND_AGE_S = 3600.0


class DirectoryPool(BlobDirectory):
    """``shared`` with other hosts: then guests write past the page cache, if the file system takes that."""

    def __init__(
        self,
        path: Path,
        *,
        shared: bool = False,
        reserve_percent: float = DEFAULT_RESERVE_PERCENT,
        min_reserve_bytes: int = MIN_RESERVE_BYTES,
    ) -> None:
        super().__init__(path, reserve_percent=reserve_percent, min_reserve_bytes=min_reserve_bytes)
        self._direct = shared and self.takes_direct_io()

    def acquire(self, volume_id: str, *, incarnation: str, moved_from: str = "") -> None:
        """QEMU locks its file by itself."""

    def release(self, volume_id: str, *, incarnation: str) -> None:
        """QEMU's lock ends with it."""

    def volume_path(self, volume_id: str) -> Path:
        return self.path / "volumes" / check_volume_id(volume_id) / _ROOT_DISK

    def ensure_volume(
        self, volume_id: str, *, image_digest: str, image_format: ImageFormat, size_bytes: int, uid: int
    ) -> str:
        path = self.volume_path(volume_id)
        if not path.exists():
            self._make_volume(path, self.blob_path(image_digest, image_format), image_format, size_bytes)
        if path.stat().st_uid != uid:
            os.chown(path, uid, uid)
        return str(path)

    def disk(
        self, volume_id: str, image_digest: str, image_format: ImageFormat, *, incarnation: str = ""
    ) -> DiskSource:
        top = LayerSource("file", str(self.volume_path(volume_id)), ImageFormat.QCOW2)
        blob = LayerSource("file", str(self.blob_path(image_digest, image_format)), image_format)
        return DiskSource(top, (blob,), self._direct)

    def _make_volume(self, path: Path, blob: Path, image_format: ImageFormat, size_bytes: int) -> None:
        what = f"make volume {path.parent.name}"
        check_new_size(size_bytes, blob_size_bytes(blob, image_format, what), what)
        check_room(self.usage(), what=what)
        ensure_directory(path.parent, mode=TRAVERSE_ONLY).chmod(TRAVERSE_ONLY)
        beside = new_name_beside(path)
        # Relative, so that the pool can be moved or mounted elsewhere.
        backing = Path("../../images") / blob.name
        overlay: list[str | Path] = ["-f", "qcow2", "-b", backing, "-F", image_format, "-o", "compat=1.1"]
        run(["qemu-img", "create", "-q", *overlay, beside, str(size_bytes)])
        beside.chmod(_VOLUME_MODE)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        publish(beside, path)

    def volume_size_bytes(self, volume_id: str) -> int:
        """The size of the disk that the guest sees. Raises NotFound."""
        return qcow2.parse_qcow2_header(self._read_header(volume_id)).size_bytes

    def _read_header(self, volume_id: str) -> bytes:
        try:
            with self.volume_path(volume_id).open("rb") as file:
                return file.read(qcow2.HEADER_READ_BYTES)
        except FileNotFoundError as error:
            raise NotFound(f"failed to read volume {volume_id}: it is not in this pool") from error

    def grow_volume(self, volume_id: str, size_bytes: int) -> None:
        current = self.volume_size_bytes(volume_id)
        what = f"grow volume {volume_id}"
        if not check_growth(size_bytes, current, what):
            return
        check_room(self.usage(), what=what)
        path = self.volume_path(volume_id)
        limits = Limits(_TOOL_MEMORY_BYTES, _TOOL_CPU_S, uid=path.stat().st_uid)
        try:
            run(["qemu-img", "resize", "-q", "-f", "qcow2", path, str(size_bytes)], limits=limits)
        except CommandFailed as error:
            raise CommandFailed(
                f"failed to {what}: {error.message}",
                exit_code=error.exit_code,
                stderr=error.stderr,
                hint="stop its VM first: a running QEMU holds the disk's lock",
            ) from error

    def delete_volume(self, volume_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.volume_path(volume_id).parent)

    def list_volumes(self) -> tuple[str, ...]:
        """Ids of all volumes, whole or half made, so that each can be deleted."""
        return tuple(sorted(path.name for path in (self.path / "volumes").iterdir() if path.is_dir()))

    def blobs_in_use(self) -> frozenset[str] | None:
        used = set()
        for volume_id in self.list_volumes():
            try:
                name = qcow2.parse_backing_name(self._read_header(volume_id))
            except NotFound:
                continue  # half made: it takes its blob when it is made
            except InvalidInput as error:
                _log.warning("no blob is collected: volume %s cannot be read: %s", volume_id, error.message)
                return None
            if (blob := BLOB_NAME.fullmatch(name.rsplit("/", 1)[-1])) is None:
                _log.warning("no blob is collected: volume %s names a backing file that is none of ours", volume_id)
                return None
            used.add(blob["digest"])
        return frozenset(used)


def new_name_beside(path: Path) -> Path:
    """For a file on its way to being ``path``; what died on that way long ago is removed."""
    for old in path.parent.glob(f".{path.name}.*.new"):
        with contextlib.suppress(FileNotFoundError):
            if age_s(old.stat()) > _LEFT_BEHIND_AGE_S:
                old.unlink()
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")


def blob_size_bytes(blob: Path, image_format: ImageFormat, what: str) -> int:
    """The size of the disk in a blob. Raises NotFound."""
    try:
        if image_format is ImageFormat.RAW:
            return blob.stat().st_size
        with blob.open("rb") as file:
            return qcow2.parse_qcow2_header(file.read(qcow2.HEADER_READ_BYTES)).size_bytes
    except FileNotFoundError as error:
        raise NotFound(f"failed to {what}: the blob {blob.stem} is not in this pool") from error


def check_new_size(size_bytes: int, image_bytes: int, what: str) -> None:
    if size_bytes < image_bytes or size_bytes % SECTOR_BYTES:
        raise InvalidInput(
            f"failed to {what}: {size_bytes} bytes are no whole sectors, or less than the image's {image_bytes}",
            code="disk_too_small",
            hint=f"ask for a disk of at least {image_bytes} bytes",
        )


def check_growth(size_bytes: int, current_bytes: int, what: str) -> bool:
    """Whether there is something to grow. Raises InvalidInput."""
    if size_bytes < current_bytes or size_bytes % SECTOR_BYTES:
        raise InvalidInput(
            f"failed to {what}: {size_bytes} bytes are less than its {current_bytes}, or no whole sectors",
            code="disk_shrink",
            hint="disks only grow",
        )
    return size_bytes > current_bytes
