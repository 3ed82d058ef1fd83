"""Image blobs in a directory, maybe shared by several hosts: ``images/<digest>.<format>``, ``parts/<random>.part``.

Blobs are read-only files that every VM's uid may read and nobody may write. A part becomes a blob by a link, which
fails where there is one already: a blob that is open on some host is never replaced by another file of the same content
(on NFS its readers would lose it). The file system must know hard links.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from ucloud.errors import NotFound
from ucloud.model.image import ImageFormat
from ucloud.storage.pool import BlobInfo, Part, PoolUsage, StoredBlob, check_digest
from ucloud.system.files import ensure_directory

DEFAULT_RESERVE_PERCENT: Final = 5.0
MIN_RESERVE_BYTES: Final = 256 * 2**20
TRAVERSE_ONLY: Final = 0o711
BLOB_NAME: Final = re.compile(r"(?P<digest>[0-9a-f]{64})\.(?P<format>qcow2|raw)")
_PART_MODE = 0o644  # its directory is closed; the image inspector reads it without rights of its own
_BLOB_MODE = 0o444
_DIRECT_BYTES = 4096


class BlobDirectory:
    """Below ``path``, which with its parents must let the VMs' uids pass (mode x for others)."""

    def __init__(
        self,
        path: Path,
        *,
        reserve_percent: float = DEFAULT_RESERVE_PERCENT,
        min_reserve_bytes: int = MIN_RESERVE_BYTES,
    ) -> None:
        self.path: Final = path
        self._reserve_percent = reserve_percent
        self._min_reserve_bytes = min_reserve_bytes
        for name, mode in (("images", TRAVERSE_ONLY), ("volumes", TRAVERSE_ONLY), ("parts", 0o700)):
            ensure_directory(path / name, mode=mode).chmod(mode)
        path.chmod(TRAVERSE_ONLY)

    def usage(self) -> PoolUsage:
        state = os.statvfs(self.path)
        total = state.f_blocks * state.f_frsize
        reserve = max(self._min_reserve_bytes, int(total * self._reserve_percent / 100))
        return PoolUsage(total, state.f_bavail * state.f_frsize, reserve)

    def takes_direct_io(self) -> bool:
        """Whether files here can be read and written past the page cache; tried, and left without a trace."""
        path = self.path / "parts" / f"{secrets.token_hex(8)}.part"
        with contextlib.ExitStack() as stack:
            page = stack.enter_context(mmap.mmap(-1, _DIRECT_BYTES))
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_DIRECT, 0o600)
                stack.callback(os.close, descriptor)
                return os.write(descriptor, page) == _DIRECT_BYTES
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                    raise
                return False
            finally:
                path.unlink(missing_ok=True)  # some file systems make the file and refuse to open it

    # Parts and blobs.

    @contextlib.contextmanager
    def new_part(self) -> Iterator[Part]:
        path = self.path / "parts" / f"{secrets.token_hex(8)}.part"
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
        publish(part.path, self.blob_path(info.digest, info.format))

    def clean_parts(self, older_than_s: float) -> tuple[str, ...]:
        removed = []
        for path in sorted((self.path / "parts").glob("*.part")):
            with (
                contextlib.suppress(FileNotFoundError),
                path.open("r+b") as file,
            ):  # NFS locks exclusively only what may be written
                if age_s(os.fstat(file.fileno())) < older_than_s:
                    continue
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()
                    removed.append(path.name)
        return tuple(removed)

    def blob_path(self, digest: str, image_format: ImageFormat) -> Path:
        return self.path / "images" / f"{check_digest(digest)}.{image_format}"

    def has_blob(self, digest: str, image_format: ImageFormat) -> bool:
        return self.blob_path(digest, image_format).is_file()

    def open_blob(self, digest: str, image_format: ImageFormat) -> BinaryIO:
        try:
            return self.blob_path(digest, image_format).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"failed to open image blob {digest}: this host does not have it") from error

    def list_blobs(self) -> tuple[StoredBlob, ...]:
        found = []
        for path in sorted((self.path / "images").iterdir()):
            name = BLOB_NAME.fullmatch(path.name)
            if name is None:
                continue
            with contextlib.suppress(FileNotFoundError):
                state = path.stat()
                kind = ImageFormat(name["format"])
                found.append(StoredBlob(name["digest"], kind, state.st_size, age_s(state)))
        return tuple(found)

    def delete_blob(self, digest: str, image_format: ImageFormat) -> None:
        self.blob_path(digest, image_format).unlink(missing_ok=True)


def publish(beside: Path, target: Path) -> bool:
    """Give a finished file its final name, unless some host was faster: then its file stays. ``beside`` goes."""
    try:
        os.link(beside, target)
        first = True
    except FileExistsError:
        first = False
    beside.unlink(missing_ok=True)
    sync_directory(target.parent)
    return first


def age_s(state: os.stat_result) -> float:
    """By the wall clock, as files are; a file from the future counts as new."""
    return max(0.0, time.time() - state.st_mtime)


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
