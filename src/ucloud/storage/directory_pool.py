"""A pool in a directory: ``images/<digest>.<format>``, ``volumes/<id>/root.qcow2``, ``parts/<random>.part``.

Blobs are read-only files that every VM's uid may read and nobody may write. A volume is a qcow2 overlay that
names its blob and the blob's format explicitly, belongs to the VM's uid and is closed to all others. Everything is
made beside its final name and renamed, so that what has a final name is whole. QEMU's tools touch a volume only
with the rights of its VM: a guest that broke out of QEMU could have written anything into it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ucloud.errors import CommandFailed, InvalidInput, NotFound
from ucloud.model.image import ImageFormat
from ucloud.storage import qcow2
from ucloud.storage.pool import (
    BlobInfo,
    DiskSource,
    LayerSource,
    Part,
    PoolUsage,
    StoredBlob,
    check_digest,
    check_room,
    check_volume_id,
)
from ucloud.system.files import ensure_directory
from ucloud.system.run import Limits, run

_log = logging.getLogger(__name__)
DEFAULT_RESERVE_PERCENT: Final = 5.0
MIN_RESERVE_BYTES: Final = 256 * 2**20
_ROOT_DISK = "root.qcow2"
_TRAVERSE_ONLY = 0o711
_PART_MODE = 0o644  # its directory is closed; the image inspector reads it without rights of its own
_BLOB_MODE = 0o444
_VOLUME_MODE = 0o600
_SECTOR_BYTES = 512
_TOOL_MEMORY_BYTES = 2 * 2**30
_TOOL_CPU_S = 60
_BLOB_NAME = re.compile(r"(?P<digest>[0-9a-f]{64})\.(?P<format>qcow2|raw)")


class DirectoryPool:
    """The pool below ``path``. ``path`` and its parents must let the VMs' uids pass (mode x for others)."""

    def __init__(
        self,
        path: Path,
        *,
        reserve_percent: float = DEFAULT_RESERVE_PERCENT,
        min_reserve_bytes: int = MIN_RESERVE_BYTES,
    ) -> None:
        self._path = path
        self._reserve_percent = reserve_percent
        self._min_reserve_bytes = min_reserve_bytes
        for name, mode in (("images", _TRAVERSE_ONLY), ("volumes", _TRAVERSE_ONLY), ("parts", 0o700)):
            ensure_directory(path / name, mode=mode).chmod(mode)
        path.chmod(_TRAVERSE_ONLY)

    def usage(self) -> PoolUsage:
        state = os.statvfs(self._path)
        total = state.f_blocks * state.f_frsize
        reserve = max(self._min_reserve_bytes, int(total * self._reserve_percent / 100))
        return PoolUsage(total, state.f_bavail * state.f_frsize, reserve)

    # Parts and blobs.

    @contextlib.contextmanager
    def new_part(self) -> Iterator[Part]:
        path = self._path / "parts" / f"{secrets.token_hex(8)}.part"
        with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _PART_MODE), "w+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.fchmod(file.fileno(), _PART_MODE)  # whatever the umask
            try:
                yield Part(path, file)
            finally:
                path.unlink(missing_ok=True)
                # A failed write stays in the buffer and would fail once more when the file is closed.
                with contextlib.suppress(OSError):
                    file.flush()
                with contextlib.suppress(OSError):
                    file.close()

    def publish(self, part: Part, info: BlobInfo) -> None:
        part.file.flush()
        os.fchmod(part.file.fileno(), _BLOB_MODE)
        os.fsync(part.file.fileno())
        target = self.blob_path(info.digest, info.format)
        part.path.rename(target)
        _sync_directory(target.parent)

    def clean_parts(self, older_than_s: float) -> tuple[str, ...]:
        removed = []
        for path in sorted((self._path / "parts").glob("*.part")):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                if _age_s(os.fstat(file.fileno())) < older_than_s:
                    continue
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed.append(path.name)
        return tuple(removed)

    def blob_path(self, digest: str, image_format: ImageFormat) -> Path:
        return self._path / "images" / f"{check_digest(digest)}.{image_format}"

    def has_blob(self, digest: str, image_format: ImageFormat) -> bool:
        return self.blob_path(digest, image_format).is_file()

    def open_blob(self, digest: str, image_format: ImageFormat) -> BinaryIO:
        try:
            return self.blob_path(digest, image_format).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"failed to open image blob {digest}: this host does not have it") from error

    def list_blobs(self) -> tuple[StoredBlob, ...]:
        found = []
        for path in sorted((self._path / "images").iterdir()):
            name = _BLOB_NAME.fullmatch(path.name)
            if name is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                kind = ImageFormat(name["format"])
                found.append(StoredBlob(name["digest"], kind, state.st_size, _age_s(state)))
        return tuple(found)

    def delete_blob(self, digest: str, image_format: ImageFormat) -> None:
        self.blob_path(digest, image_format).unlink(missing_ok=True)

    # Volumes.

    def volume_path(self, volume_id: str) -> Path:
        return self._path / "volumes" / check_volume_id(volume_id) / _ROOT_DISK

    def ensure_volume(
        self, volume_id: str, *, image_digest: str, image_format: ImageFormat, size_bytes: int, uid: int
    ) -> str:
        path = self.volume_path(volume_id)
        if not path.exists():
            self._make_volume(path, self.blob_path(image_digest, image_format), image_format, size_bytes)
        if path.stat().st_uid != uid:
            os.chown(path, uid, uid)
        return str(path)

    def disk(self, volume_id: str, image_digest: str, image_format: ImageFormat) -> DiskSource:
        top = LayerSource("file", str(self.volume_path(volume_id)), ImageFormat.QCOW2)
        return DiskSource(top, (LayerSource("file", str(self.blob_path(image_digest, image_format)), image_format),))

    def _make_volume(self, path: Path, blob: Path, image_format: ImageFormat, size_bytes: int) -> None:
        what = f"make volume {path.parent.name}"
        image_bytes = self._virtual_size(blob, image_format, what)
        if size_bytes < image_bytes or size_bytes % _SECTOR_BYTES:
            raise InvalidInput(
                f"failed to {what}: {size_bytes} bytes are no whole sectors, or less than the image's {image_bytes}",
                code="disk_too_small",
                hint=f"ask for a disk of at least {image_bytes} bytes",
            )
        check_room(self.usage(), what=what)
        ensure_directory(path.parent, mode=_TRAVERSE_ONLY).chmod(_TRAVERSE_ONLY)
        beside = path.with_name(f".{path.name}.new")
        beside.unlink(missing_ok=True)
        # Relative, so that the pool can be moved or mounted elsewhere.
        backing = Path("../../images") / blob.name
        overlay: list[str | Path] = ["-f", "qcow2", "-b", backing, "-F", image_format, "-o", "compat=1.1"]
        run(["qemu-img", "create", "-q", *overlay, beside, str(size_bytes)])
        beside.chmod(_VOLUME_MODE)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.rename(path)
        _sync_directory(path.parent)

    def _virtual_size(self, blob: Path, image_format: ImageFormat, what: str) -> int:
        try:
            if image_format is ImageFormat.RAW:
                return blob.stat().st_size
            with blob.open("rb") as file:
                return qcow2.parse_qcow2_header(file.read(qcow2.HEADER_READ_BYTES)).size_bytes
        except FileNotFoundError as error:
            raise NotFound(f"failed to {what}: the blob {blob.stem} is not in this pool") from error

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
        if size_bytes < current or size_bytes % _SECTOR_BYTES:
            raise InvalidInput(
                f"failed to {what}: {size_bytes} bytes are less than its {current}, or no whole sectors",
                code="disk_shrink",
                hint="disks only grow",
            )
        if size_bytes == current:
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
        return tuple(sorted(path.name for path in (self._path / "volumes").iterdir() if path.is_dir()))

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
            if (blob := _BLOB_NAME.fullmatch(name.rsplit("/", 1)[-1])) is None:
                _log.warning("no blob is collected: volume %s names a backing file that is none of ours", volume_id)
                return None
            used.add(blob["digest"])
        return frozenset(used)


def _age_s(state: os.stat_result) -> float:
    """By the wall clock, as files are; a file from the future counts as new."""
    return max(0.0, time.time() - state.st_mtime)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
