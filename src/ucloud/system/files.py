"""Files that are whole or not there: written beside, synced, then renamed over the old one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ucloud.errors import Conflict, InvalidInput


def write_atomic(path: Path, data: bytes | str, *, mode: int = 0o600) -> None:
    """Replace ``path`` by ``data``; a reader sees the old file or the new one, also after a power cut."""
    payload = data.encode() if isinstance(data, str) else data
    beside = path.with_name(f".{path.name}.{os.urandom(4).hex()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def write_if_changed(path: Path, data: bytes | str, *, mode: int = 0o600) -> bool:
    """Like write_atomic, but leaves an equal file alone. Returns whether it wrote."""
    payload = data.encode() if isinstance(data, str) else data
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == payload:
            return False
    write_atomic(path, payload, mode=mode)
    return True


def write_json(path: Path, value: Any, *, mode: int = 0o600) -> None:
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n", mode=mode)


def read_json(path: Path) -> Any:
    """The decoded file, or None if there is none."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None


def ensure_directory(path: Path, *, mode: int = 0o700) -> Path:
    """Make the directory and its parents. Raises InvalidInput if something else is in the way or it is not allowed."""
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInput(f"failed to make directory {path}: {error.strerror}", code="bad_directory") from error
    return path


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold ``path`` as this machine's lock while inside. Raises Conflict if another process holds it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"failed to lock {path}: another process holds it", code="locked") from error
        yield descriptor
    finally:
        os.close(descriptor)
