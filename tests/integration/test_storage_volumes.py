"""Root disks as overlays in a pool in a directory, made by the real qemu-img."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import require
from ucloud.errors import Exhausted, InvalidInput, NotFound
from ucloud.model.image import ImageFormat
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.images import import_stream
from ucloud.storage.pool import BlobInfo, LayerSource

MIB = 2**20


@pytest.fixture
def pool(tmp_path: Path) -> DirectoryPool:
    require("qemu")
    return DirectoryPool(tmp_path / "pool", min_reserve_bytes=0, reserve_percent=0)


@pytest.fixture
def blob(pool: DirectoryPool) -> BlobInfo:
    content = b"\0" * 510 + b"\x55\xaa" + b"data" * 1024 + b"\0" * (4 * MIB - 512 - 4096)
    return import_stream(pool, [content], expected_sha256=None, max_bytes=64 * MIB, progress=lambda _: None)


def make(pool: DirectoryPool, blob: BlobInfo, size_bytes: int = 16 * MIB) -> Path:
    path = pool.ensure_volume(
        "vm-1", image_digest=blob.digest, image_format=blob.format, size_bytes=size_bytes, uid=os.getuid()
    )
    return Path(path)


def info_of(path: Path) -> dict[str, object]:
    done = subprocess.run(["qemu-img", "info", "--output=json", str(path)], check=True, capture_output=True)
    parsed: dict[str, object] = json.loads(done.stdout)
    return parsed


def test_a_volume_is_an_overlay_that_names_blob_and_format(pool: DirectoryPool, blob: BlobInfo) -> None:
    path = make(pool, blob)
    info = info_of(path)
    assert info["virtual-size"] == 16 * MIB
    assert info["backing-filename-format"] == "raw"
    assert Path(str(info["full-backing-filename"])).resolve() == pool.blob_path(blob.digest, blob.format)
    assert path.stat().st_mode & 0o777 == 0o600
    assert pool.list_volumes() == ("vm-1",)
    assert pool.blobs_in_use() == {blob.digest}
    subprocess.run(["qemu-img", "compare", "-F", "raw", path, pool.blob_path(blob.digest, blob.format)], check=True)


def test_a_second_ensure_changes_nothing(pool: DirectoryPool, blob: BlobInfo) -> None:
    path = make(pool, blob)
    before = path.stat().st_ino, path.read_bytes()
    assert make(pool, blob, 32 * MIB) == path
    assert (path.stat().st_ino, path.read_bytes()) == before


def test_a_crash_between_making_and_naming_is_repaired(pool: DirectoryPool, blob: BlobInfo) -> None:
    path = pool.volume_path("vm-1")
    path.parent.mkdir()
    dead, alive = (path.with_name(f".{path.name}.{name}.new") for name in ("dead", "alive"))
    for half in (dead, alive):
        half.write_bytes(b"half")
    os.utime(dead, (0, 0))
    assert pool.list_volumes() == ("vm-1",)
    assert pool.blobs_in_use() == frozenset()
    assert info_of(make(pool, blob))["virtual-size"] == 16 * MIB
    assert {file.name for file in path.parent.iterdir()} == {path.name, alive.name}, "another host may be making it"


def test_the_disk_belongs_to_its_vm_which_can_read_the_blob(
    pool: DirectoryPool, blob: BlobInfo, tmp_path: Path
) -> None:
    require("root")
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    path = pool.ensure_volume(
        "vm-1", image_digest=blob.digest, image_format=blob.format, size_bytes=16 * MIB, uid=54321
    )
    assert Path(path).stat().st_uid == 54321
    read = ["qemu-io", "-f", "qcow2", "-c", "write 0 4k", "-c", "read 1M 4k", path]
    subprocess.run(read, check=True, user=54321, group=54321, extra_groups=(), capture_output=True)
    with pytest.raises(PermissionError):
        os.close(_open_as(54322, path))
    pool.grow_volume("vm-1", 32 * MIB)
    assert pool.volume_size_bytes("vm-1") == 32 * MIB


def _open_as(uid: int, path: str) -> int:
    os.seteuid(uid)
    try:
        return os.open(path, os.O_RDONLY)
    finally:
        os.seteuid(0)


def test_growth_and_no_shrinking(pool: DirectoryPool, blob: BlobInfo, tmp_path: Path) -> None:
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)
    make(pool, blob)
    pool.grow_volume("vm-1", 16 * MIB)
    pool.grow_volume("vm-1", 64 * MIB)
    assert pool.volume_size_bytes("vm-1") == 64 * MIB
    for size_bytes in (32 * MIB, 64 * MIB + 1, -512):
        with pytest.raises(InvalidInput):
            pool.grow_volume("vm-1", size_bytes)
    with pytest.raises(NotFound):
        pool.grow_volume("vm-2", MIB)


def test_a_disk_smaller_than_its_image_is_refused(pool: DirectoryPool, blob: BlobInfo) -> None:
    with pytest.raises(InvalidInput) as caught:
        make(pool, blob, MIB)
    assert caught.value.code == "disk_too_small"
    assert pool.list_volumes() == ()


def test_a_volume_needs_its_blob(pool: DirectoryPool) -> None:
    with pytest.raises(NotFound):
        make(pool, BlobInfo("0" * 64, ImageFormat.QCOW2, 1, 1))


def test_delete_may_be_repeated(pool: DirectoryPool, blob: BlobInfo) -> None:
    path = make(pool, blob)
    pool.delete_volume("vm-1")
    pool.delete_volume("vm-1")
    assert not path.parent.exists()
    pool.delete_blob(blob.digest, blob.format)
    pool.delete_blob(blob.digest, blob.format)
    assert pool.list_blobs() == ()


def test_a_pool_near_full_refuses_new_volumes_but_keeps_the_old(
    tmp_path: Path, blob: BlobInfo, pool: DirectoryPool
) -> None:
    old = make(pool, blob)
    tight = DirectoryPool(tmp_path / "pool", min_reserve_bytes=2**62)
    with pytest.raises(Exhausted) as caught:
        tight.ensure_volume(
            "vm-2", image_digest=blob.digest, image_format=blob.format, size_bytes=16 * MIB, uid=os.getuid()
        )
    assert caught.value.code == "pool_near_full"
    assert make(tight, blob) == old


def test_an_unreadable_volume_hides_what_is_in_use(
    pool: DirectoryPool, blob: BlobInfo, caplog: pytest.LogCaptureFixture
) -> None:
    make(pool, blob).write_bytes(b"garbage")
    assert pool.blobs_in_use() is None
    assert "volume vm-1 cannot be read" in caplog.text


def test_what_qemu_opens(pool: DirectoryPool, blob: BlobInfo) -> None:
    path = make(pool, blob)
    disk = pool.disk("vm-1", blob.digest, blob.format)
    assert disk.top == LayerSource("file", str(path), ImageFormat.QCOW2)
    assert disk.backing == (LayerSource("file", str(pool.blob_path(blob.digest, blob.format)), blob.format),)
