"""Files that somebody else appends to for as long as it runs, kept within a size while it does.

Such a writer cannot be told to open another file, so the file itself is cut: a writer that opened it for appending
goes on at its new end. What is written in the very moment of the cut may be lost.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from ucloud.errors import Conflict


def keep_tail(path: Path, *, limit_bytes: int, keep_bytes: int = 0) -> bool:
    """Cut a file over ``limit_bytes`` to its last ``keep_bytes`` (half the limit if 0). Returns whether it cut.

    Raises Conflict if it is no regular file, and OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    with os.fdopen(descriptor, "r+b") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Conflict(f"failed to shorten {path}: it is no regular file")
        if status.st_size <= limit_bytes:
            return False
        file.seek(status.st_size - (keep_bytes or limit_bytes // 2))
        tail = file.read()
        file.truncate(0)
        file.write(tail)
        return True


def open_append(path: Path) -> int:
    """A descriptor for a writer whose file ``keep_tail`` keeps short; for its owner only, never through a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


@contextlib.contextmanager
def open_output(directory: Path, name: str) -> Iterator[int]:
    """Where a process that is about to be started writes what it says besides its log: ``<name>.out``."""
    descriptor = open_append(directory / f"{name}.out")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
