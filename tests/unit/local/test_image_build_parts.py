"""The pure parts of the tiny image's recipe."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ucloud.errors import MissingPrerequisite
from ucloud.local.tiny import cpio, disk, modules, packages, tree


def test_the_kernel_is_found_behind_the_meta_package() -> None:
    shown = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n  Suggests: x\n"
    assert packages.parse_kernel_package(shown) == "linux-image-6.1.0-56-cloud-amd64"
    with pytest.raises(MissingPrerequisite):
        packages.parse_kernel_package("linux-image-cloud-amd64\n")


def test_versions_and_file_names() -> None:
    shown = (
        "Package: zlib1g\nSource: zlib\nVersion: 1:1.2.13.dfsg-1\nDescription: a\n b: c\n\nPackage: x\nVersion: 2+b~1\n"
    )
    assert packages.parse_versions(shown) == {"zlib1g": "1:1.2.13.dfsg-1", "x": "2+b~1"}
    assert packages.deb_name("zlib1g", "1:1.2.13.dfsg-1") == "zlib1g_1%3a1.2.13.dfsg-1"
    assert packages.deb_name("x", "2+b~1") == "x_2+b~1"


def test_modules_load_after_what_they_need() -> None:
    content = {
        "virtio_net": b"x\0depends=net-failover,virtio\0y",
        "net_failover": b"\0depends=failover\0",
        "failover": b"\0depends=\0",
        "virtio": b"\0license=GPL\0",
    }
    available = {name: Path(name) for name in content}
    order = modules.plan_load_order(
        ["virtio_net", "ext4", "virtio"], available, frozenset({"ext4"}), lambda path: content[path.name]
    )
    assert order == ("failover", "net_failover", "virtio", "virtio_net")
    with pytest.raises(MissingPrerequisite, match="absent"):
        modules.plan_load_order(["absent"], available, frozenset(), lambda path: content[path.name])


def test_a_ring_of_modules_ends() -> None:
    content = {"a": b"\0depends=b\0", "b": b"\0depends=a\0"}
    available = {name: Path(name) for name in content}
    assert set(modules.plan_load_order(["a"], available, frozenset(), lambda path: content[path.name])) == {"a", "b"}


def test_module_names_ignore_dashes_paths_and_compression() -> None:
    assert modules.module_name("kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"


def test_the_archive_is_aligned_and_ends_with_the_trailer() -> None:
    archive = cpio.render_cpio([cpio.directory("d"), cpio.file("d/f", b"12345"), cpio.character_device("c", 5, 1)])
    assert len(archive) % 4 == 0
    assert archive.startswith(b"070701")
    assert b"TRAILER!!!\0" in archive[-20:]
    assert b"12345\0\0\0" in archive
    assert archive == cpio.render_cpio(
        [cpio.directory("d"), cpio.file("d/f", b"12345"), cpio.character_device("c", 5, 1)]
    )


def test_the_partition_table() -> None:
    mbr = disk.render_mbr(b"code", boot_sectors=1000, root_sectors=2000)
    assert len(mbr) == 512
    assert mbr[510:] == b"\x55\xaa"
    boot, root = (struct.unpack("<B3sB3sII", mbr[offset : offset + 16]) for offset in (446, 462))
    assert (boot[0], boot[4], boot[5]) == (0x80, 2048, 1000)
    assert (root[0], root[2], root[4], root[5]) == (0, 0x83, 3048, 2000)
    # The guest's initramfs rewrites exactly this field when the disk is larger.
    assert struct.unpack_from("<I", mbr, 474) == (2000,)
    with pytest.raises(ValueError, match="boot code"):
        disk.render_mbr(b"x" * 441, boot_sectors=1, root_sectors=1)


def test_the_guest_grows_the_field_that_the_table_has() -> None:
    assert "ROOT_ENTRY_OFFSET=474" in (tree.GUEST_FILES / "initramfs-init").read_text()


def test_every_guest_file_is_used() -> None:
    placed = {*tree.SCRIPTS, *tree.SETTINGS, "shadow", "initramfs-init", "syslinux.cfg"}
    assert placed == {path.name for path in tree.GUEST_FILES.iterdir()}


def test_inode_script_covers_the_root_itself() -> None:
    lines = disk.render_inode_script(["bin"]).splitlines()
    assert "set_inode_field / uid 0" in lines
    assert "set_inode_field /bin gid 0" in lines
