"""The initramfs as bytes: a "newc" cpio archive, rendered here so that device nodes need no root.

Pure. Equal input gives equal bytes: no times, no inode numbers of this machine.
Format: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member. ``mode`` includes the file type; ``data`` is a file's content or a symlink's target."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, *, executable: bool = False) -> Entry:
    return Entry(path, stat.S_IFREG | (0o755 if executable else 0o644), data)


def symlink(path: str, target: str) -> Entry:
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def render_cpio(entries: Iterable[Entry]) -> bytes:
    """The archive, with parents listed before their members by the caller."""
    members = [*entries, Entry(_TRAILER, 0)]
    return b"".join(_render(inode, entry) for inode, entry in enumerate(members, start=1))


def _render(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    fields = (
        inode,
        entry.mode,
        0,  # uid
        0,  # gid
        2 if stat.S_ISDIR(entry.mode) else 1,  # links
        0,  # time of change
        len(entry.data),
        0,  # device that holds it
        0,
        *entry.device,
        len(name),
        0,  # checksum: none in this format
    )
    header = b"070701" + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
