"""A pool behind a storage service that can be told to refuse a host: blobs in a directory, raw volumes by NBD.

The directory is shared by the hosts and the service. Volumes are made there as whole files (``volumes/<id>/root.raw``)
before anybody may open them, and then only the service touches them: it does what the holder asks, and nobody else.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

from ucloud.errors import NotFound
from ucloud.model.image import ImageFormat
from ucloud.storage.blob_directory import (
    DEFAULT_RESERVE_PERCENT,
    MIN_RESERVE_BYTES,
    TRAVERSE_ONLY,
    BlobDirectory,
    publish,
)
from ucloud.storage.directory_pool import blob_size_bytes, check_growth, check_new_size, new_name_beside
from ucloud.storage.pool import DiskSource, LayerSource, check_room, check_volume_id
from ucloud.storage.service.access import Client, export_name
from ucloud.storage.service.client import ServiceClient
from ucloud.storage.service.volumes import RAW_DISK
from ucloud.system.files import ensure_directory
from ucloud.system.run import run

_CONVERT_TIMEOUT_S: Final = 600.0
_VOLUME_MODE: Final = 0o600


class FencedPool(BlobDirectory):
    """The pool of host ``host_id``; the service is at ``service`` (``host:port``)."""

    def __init__(
        self,
        path: Path,
        service: str,
        host_id: str,
        *,
        reserve_percent: float = DEFAULT_RESERVE_PERCENT,
        min_reserve_bytes: int = MIN_RESERVE_BYTES,
    ) -> None:
        super().__init__(path, reserve_percent=reserve_percent, min_reserve_bytes=min_reserve_bytes)
        self._client = ServiceClient(service)
        self._service = service
        self._host_id = host_id

    def volume_path(self, volume_id: str) -> Path:
        return self.path / "volumes" / check_volume_id(volume_id) / RAW_DISK

    def ensure_volume(
        self, volume_id: str, *, image_digest: str, image_format: ImageFormat, size_bytes: int, uid: int
    ) -> str:
        """QEMU needs no right on the file, so ``uid`` does not matter."""
        path = self.volume_path(volume_id)
        if not path.exists():
            self._make_volume(path, self.blob_path(image_digest, image_format), image_format, size_bytes)
        return str(path)

    def disk(
        self, volume_id: str, image_digest: str, image_format: ImageFormat, *, incarnation: str = ""
    ) -> DiskSource:
        export = export_name(check_volume_id(volume_id), Client(self._host_id, incarnation))
        return DiskSource(LayerSource("nbd", f"{self._service}/{export}", ImageFormat.RAW))

    def acquire(self, volume_id: str, *, incarnation: str, moved_from: str = "") -> None:
        self._client.acquire(check_volume_id(volume_id), self._host_id, incarnation, moved_from=moved_from)

    def release(self, volume_id: str, *, incarnation: str) -> None:
        self._client.release(volume_id, self._host_id, incarnation)

    def _make_volume(self, path: Path, blob: Path, image_format: ImageFormat, size_bytes: int) -> None:
        what = f"make volume {path.parent.name}"
        image_bytes = blob_size_bytes(blob, image_format, what)
        check_new_size(size_bytes, image_bytes, what)
        check_room(self.usage(), needed_bytes=blob.stat().st_size, what=what)
        ensure_directory(path.parent, mode=TRAVERSE_ONLY).chmod(TRAVERSE_ONLY)
        beside = new_name_beside(path)
        try:
            run(["qemu-img", "convert", "-f", image_format, "-O", "raw", blob, beside], timeout_s=_CONVERT_TIMEOUT_S)
            beside.chmod(_VOLUME_MODE)
            with beside.open("r+b") as file:
                file.truncate(size_bytes)
                os.fsync(file.fileno())
            publish(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def volume_size_bytes(self, volume_id: str) -> int:
        """Raises NotFound."""
        try:
            return self.volume_path(volume_id).stat().st_size
        except FileNotFoundError as error:
            raise NotFound(f"failed to read volume {volume_id}: it is not in this pool") from error

    def grow_volume(self, volume_id: str, size_bytes: int) -> None:
        """Only ever longer, so that it cannot take anything from a host that still writes."""
        what = f"grow volume {volume_id}"
        if check_growth(size_bytes, self.volume_size_bytes(volume_id), what):
            check_room(self.usage(), what=what)
            with self.volume_path(volume_id).open("r+b") as file:
                file.truncate(size_bytes)
                os.fsync(file.fileno())

    def delete_volume(self, volume_id: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.volume_path(volume_id).parent)

    def list_volumes(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in (self.path / "volumes").iterdir() if path.is_dir()))

    def blobs_in_use(self) -> frozenset[str] | None:
        """None of them: a volume is a whole copy."""
        return frozenset()
