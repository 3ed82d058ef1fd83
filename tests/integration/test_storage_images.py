"""Importing real images and real non-images into a pool in a directory."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from ucloud.errors import BodyTooLarge, Exhausted, InvalidInput, Unavailable
from ucloud.model.image import ImageFormat
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.fetch import fetch_blob
from ucloud.storage.images import import_stream
from ucloud.storage.pool import BlobInfo

MIB = 2**20


@pytest.fixture(autouse=True)
def _qemu() -> None:
    require("qemu")


@pytest.fixture
def pool(tmp_path: Path) -> DirectoryPool:
    return DirectoryPool(tmp_path / "pool", min_reserve_bytes=0, reserve_percent=0)


def qemu_img(*words: str | Path) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def write_raw(path: Path, size_bytes: int = 4 * MIB) -> Path:
    """A disk with an MBR and data that does not compress away."""
    with path.open("wb") as file:
        file.write(b"\0" * 510 + b"\x55\xaa" + os.urandom(2 * MIB))
        file.truncate(size_bytes)
    return path


def write_qcow2(directory: Path) -> Path:
    raw, image = write_raw(directory / "source.raw"), directory / "good.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, image)
    return image


def take(pool: DirectoryPool, path: Path, *, sha256: str | None = None, max_bytes: int = 64 * MIB) -> BlobInfo:
    with path.open("rb") as source:
        return import_stream(pool, source, expected_sha256=sha256, max_bytes=max_bytes, progress=lambda _: None)


def left_in(pool: DirectoryPool, tmp_path: Path) -> list[str]:
    assert not list((tmp_path / "pool/parts").iterdir())
    return [blob.digest for blob in pool.list_blobs()]


@pytest.mark.parametrize("image_format", list(ImageFormat))
def test_a_good_image_becomes_a_blob(pool: DirectoryPool, tmp_path: Path, image_format: ImageFormat) -> None:
    path = write_raw(tmp_path / "x.raw") if image_format is ImageFormat.RAW else write_qcow2(tmp_path)
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    seen: list[int] = []
    chunks = (content[start : start + 100_000] for start in range(0, len(content), 100_000))
    info = import_stream(pool, chunks, expected_sha256=digest.upper(), max_bytes=64 * MIB, progress=seen.append)
    assert info == BlobInfo(digest, image_format, len(content), 4 * MIB)
    assert seen[-1] == len(content)
    assert pool.has_blob(digest, image_format)
    assert pool.blob_path(digest, image_format).stat().st_mode & 0o777 == 0o444
    assert take(pool, path) == info  # once more: the same blob
    assert left_in(pool, tmp_path) == [digest]


def make_backing(directory: Path) -> Path:
    base = write_raw(directory / "base.raw")
    qemu_img("create", "-f", "qcow2", "-b", base, "-F", "raw", directory / "bad")
    return directory / "bad"


def make_data_file(directory: Path) -> Path:
    option = f"data_file={directory / 'data'},data_file_raw=on"
    qemu_img("create", "-f", "qcow2", "-o", option, directory / "bad", "4M")
    return directory / "bad"


def make_encrypted(directory: Path) -> Path:
    image = write_qcow2(directory)
    with image.open("r+b") as file:
        file.seek(32)
        file.write((1).to_bytes(4, "big"))
    return image


def make_truncated(directory: Path) -> Path:
    image = write_qcow2(directory)
    os.truncate(image, image.stat().st_size // 2)
    return image


def make_cut_header(directory: Path) -> Path:
    image = write_qcow2(directory)
    os.truncate(image, 60)
    return image


def make_corrupt(directory: Path) -> Path:
    """The first L1 entry points far outside."""
    image = write_qcow2(directory)
    with image.open("r+b") as file:
        file.seek(40)
        file.seek(int.from_bytes(file.read(8), "big"))
        file.write((0x8000_0000_0000_0000 | 1 << 45).to_bytes(8, "big"))
    return image


def make_vmdk(directory: Path) -> Path:
    qemu_img("create", "-f", "vmdk", directory / "bad", "4M")
    return directory / "bad"


def make_text(directory: Path) -> Path:
    (directory / "bad").write_text("root:x:0:0\n" * 9000)
    return directory / "bad"


def make_empty(directory: Path) -> Path:
    (directory / "bad").touch()
    return directory / "bad"


def make_cut_raw(directory: Path) -> Path:
    return write_raw(directory / "bad", 4 * MIB - 100)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (make_backing, "image_refused"),
        (make_data_file, "image_refused"),
        (make_encrypted, "image_refused"),
        (make_truncated, "image_damaged"),
        (make_cut_header, "image_damaged"),
        (make_corrupt, "image_damaged"),
        (make_vmdk, "not_an_image"),
        (make_text, "not_an_image"),
        (make_empty, "not_an_image"),
        (make_cut_raw, "image_damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_bad_images_are_refused_and_leave_nothing(pool: DirectoryPool, tmp_path: Path, make, code: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InvalidInput) as caught:
        take(pool, make(tmp_path))
    assert caught.value.code == code
    assert left_in(pool, tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(pool: DirectoryPool, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        take(pool, write_qcow2(tmp_path), sha256="0" * 64)
    assert caught.value.code == "checksum_mismatch"
    assert left_in(pool, tmp_path) == []


def test_a_too_large_image_is_stopped_early(pool: DirectoryPool, tmp_path: Path) -> None:
    seen: list[int] = []
    endless = iter(lambda: b"\0" * 510 + b"\x55\xaa" + b"\0" * (MIB - 512), None)
    with pytest.raises(BodyTooLarge) as caught:
        import_stream(pool, endless, expected_sha256=None, max_bytes=3 * MIB, progress=seen.append)
    assert caught.value.code == "image_too_large"
    assert seen[-1] == 3 * MIB
    assert left_in(pool, tmp_path) == []


def test_no_image_is_refused_before_it_is_received(pool: DirectoryPool) -> None:
    def endless_text() -> Iterator[bytes]:
        while True:
            yield b"hello\n" * 10_000

    with pytest.raises(InvalidInput) as caught:
        import_stream(pool, endless_text(), expected_sha256=None, max_bytes=2**50, progress=lambda _: None)
    assert caught.value.code == "not_an_image"


def test_a_source_that_breaks_off_leaves_nothing(pool: DirectoryPool, tmp_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield b"\0" * 510 + b"\x55\xaa"
        raise Unavailable("failed to download: gone")

    with pytest.raises(Unavailable):
        import_stream(pool, broken(), expected_sha256=None, max_bytes=MIB, progress=lambda _: None)
    assert left_in(pool, tmp_path) == []


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    require("root")
    mount = tmp_path / "pool"
    mount.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], check=True)
    try:
        pool = DirectoryPool(mount, min_reserve_bytes=0, reserve_percent=0)
        with pytest.raises(Exhausted) as caught:
            take(pool, write_raw(tmp_path / "x.raw"))
        assert caught.value.code == "pool_full"
        assert left_in(pool, tmp_path) == []
        assert pool.usage().free_bytes > MIB
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_pool_near_full_takes_no_image(tmp_path: Path) -> None:
    pool = DirectoryPool(tmp_path / "pool", min_reserve_bytes=2**62)
    with pytest.raises(Exhausted) as caught:
        take(pool, write_raw(tmp_path / "x.raw"))
    assert caught.value.code == "pool_near_full"


def test_leftover_parts_go_but_not_those_of_a_living_import(pool: DirectoryPool, tmp_path: Path) -> None:
    leftover = tmp_path / "pool/parts/dead.part"
    leftover.write_bytes(b"x")
    with pool.new_part() as part:
        assert pool.clean_parts(older_than_s=3600) == ()
        assert pool.clean_parts(older_than_s=0) == ("dead.part",)
        assert part.path.exists()
    assert left_in(pool, tmp_path) == []


def test_a_blob_comes_from_whichever_host_has_it(pool: DirectoryPool, tmp_path: Path) -> None:
    origin = DirectoryPool(tmp_path / "origin", min_reserve_bytes=0, reserve_percent=0)
    info = take(origin, write_qcow2(tmp_path))
    asked = []

    def opener(source: str):  # type: ignore[no-untyped-def]
        asked.append(source)
        if source == "dead":
            raise ConnectionRefusedError("refused")
        if source == "liar":
            return io.BytesIO(b"\0" * 510 + b"\x55\xaa" + b"\0" * 512)
        return origin.open_blob(info.digest, info.format)

    def fetch(*sources: str) -> BlobInfo:
        return fetch_blob(
            pool,
            info.digest,
            info.format,
            sources=sources,
            opener=opener,
            max_bytes=64 * MIB,
            progress=lambda _: None,
        )

    with pytest.raises(Unavailable, match="dead: refused; liar: failed to import image: its SHA-256"):
        fetch("dead", "liar")
    assert left_in(pool, tmp_path) == []
    assert fetch("dead", "liar", "honest") == info
    asked.clear()
    assert fetch("dead") == info
    assert asked == []
