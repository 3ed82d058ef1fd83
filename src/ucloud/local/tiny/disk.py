"""From files to a bootable disk without mounting: a FAT boot partition, an ext4 root, an MBR around both.

Layout: MBR (syslinux' boot code, two entries) · from 1 MiB the boot partition (syslinux, kernel, initramfs) ·
after it the root partition, which the guest itself grows to the end of its disk. Identifiers and times are
fixed: equal input makes an equal disk.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from ucloud.errors import MissingPrerequisite
from ucloud.system.run import run

SECTOR_BYTES = 512
MIB = 1024 * 1024
BOOT_START_SECTOR = 2048
ROOT_SIZE_BYTES = 32 * MIB
# mke2fs keeps room for the tables of a file system of this size, so that growing to it works while mounted.
# More would need a larger journal: one step of growing is one transaction over all this room.
_GROWABLE_TO = "1T"
_ACTIVE, _FAT16, _LINUX = 0x80, 0x0E, 0x83
_FAT_ID = "75636c64"
_DISK_ID = 0x75636C64
_EXT4_UUID = "75636c6f-7564-4000-8000-74696e790001"
_TIME = "1700000000"
_MBR_CODE_PATHS = (Path("/usr/lib/syslinux/mbr/mbr.bin"), Path("/usr/lib/SYSLINUX/mbr.bin"))
_MBR_CODE_BYTES = 440


def render_mbr(code: bytes, *, boot_sectors: int, root_sectors: int) -> bytes:
    """The first sector. Addresses are given as sector numbers only; the CHS fields say "too large for CHS"."""
    if len(code) > _MBR_CODE_BYTES:
        raise ValueError(f"boot code has {len(code)} bytes, the MBR has room for {_MBR_CODE_BYTES}")
    root_start = BOOT_START_SECTOR + boot_sectors
    entries = (
        _render_entry(_ACTIVE, _FAT16, BOOT_START_SECTOR, boot_sectors),
        _render_entry(0, _LINUX, root_start, root_sectors),
    )
    table = b"".join(entries) + bytes(32)
    return code.ljust(_MBR_CODE_BYTES, b"\0") + struct.pack("<IH", _DISK_ID, 0) + table + b"\x55\xaa"


def _render_entry(flags: int, kind: int, start: int, sectors: int) -> bytes:
    no_chs = b"\xfe\xff\xff"
    return struct.pack("<B3sB3sII", flags, no_chs, kind, no_chs, start, sectors)


def build_boot_partition(path: Path, files: dict[str, bytes]) -> int:
    """Write a FAT file system with ``files`` and syslinux to ``path``. Returns its size in sectors."""
    content = sum(len(data) for data in files.values())
    size = (content + 2 * MIB) // MIB * MIB + MIB
    _make_empty(path, size)
    environment = {"SOURCE_DATE_EPOCH": _TIME, "MTOOLS_SKIP_CHECK": "1", "TZ": "UTC"}
    label = ["-n", "UCLOUDBOOT", "-F", "16", "-i", _FAT_ID, "-h", str(BOOT_START_SECTOR), "--invariant"]
    run(["mkfs.vfat", *label, path], env=environment)
    for name, data in files.items():
        source = path.with_name(f"{path.name}.{name}")
        source.write_bytes(data)
        run(["mcopy", "-o", "-i", path, source, f"::/{name}"], env=environment)
        source.unlink()
    run(["syslinux", "--install", path], env=environment)
    return size // SECTOR_BYTES


def build_root_partition(path: Path, root: Path) -> int:
    """Write an ext4 file system with the content of ``root`` to ``path``. Returns its size in sectors."""
    _make_empty(path, ROOT_SIZE_BYTES)
    options = ["-b", "4096", "-I", "256", "-m", "1", "-O", "^metadata_csum_seed", "-U", _EXT4_UUID]
    extended = f"resize={_GROWABLE_TO},hash_seed={_EXT4_UUID},root_owner=0:0,lazy_itable_init=1,nodiscard"
    environment = {"E2FSPROGS_FAKE_TIME": _TIME, "SOURCE_DATE_EPOCH": _TIME}
    options += ["-L", "ucloud-root", "-E", extended]
    run(["mke2fs", "-q", "-F", "-t", "ext4", *options, "-d", root, path], env=environment)
    names = sorted(str(member.relative_to(root)) for member in root.rglob("*"))
    run(["debugfs", "-w", "-f", "-", path], stdin=render_inode_script(names), env=environment)
    return ROOT_SIZE_BYTES // SECTOR_BYTES


def render_inode_script(names: Sequence[str]) -> str:
    """Commands for debugfs: everything belongs to root and has our fixed time, whoever built it and when."""
    fields = {"uid": "0", "gid": "0", "atime": f"@{_TIME}", "ctime": f"@{_TIME}", "mtime": f"@{_TIME}"}
    lines = [f"set_inode_field /{name} {field} {value}" for name in ("", *names) for field, value in fields.items()]
    return "\n".join(lines) + "\n"


def _make_empty(path: Path, size_bytes: int) -> None:
    with path.open("wb") as file:
        file.truncate(size_bytes)


def assemble_disk(path: Path, *, boot: Path, boot_sectors: int, root: Path, root_sectors: int) -> int:
    """Join MBR and partitions to the raw disk ``path``. Returns its size in bytes."""
    mbr = render_mbr(_read_boot_code(), boot_sectors=boot_sectors, root_sectors=root_sectors)
    size = (BOOT_START_SECTOR + boot_sectors + root_sectors) * SECTOR_BYTES
    _make_empty(path, size)
    with path.open("r+b") as disk:
        disk.write(mbr)
        disk.seek(BOOT_START_SECTOR * SECTOR_BYTES)
        disk.write(boot.read_bytes())
        disk.write(root.read_bytes())
    return size


def _read_boot_code() -> bytes:
    for path in _MBR_CODE_PATHS:
        if path.is_file():
            return path.read_bytes()
    raise MissingPrerequisite(
        "failed to find syslinux' boot code mbr.bin", hint="install the Debian package syslinux-common"
    )
