"""Network namespaces with a name, as ``ip netns`` keeps them: a bind mount below /run/netns.

A thread that enters a namespace never comes back into use: the work is done in a short-lived thread of its own, so the
rest of the process stays where it was, whatever happens. What is opened or started inside (sockets, programs) stays in
the namespace after the thread has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ucloud.errors import Error, NotFound

NAMESPACES = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise Error(f"failed to {what}: {os.strerror(number)}", code="namespace_failed")


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread, whatever it is
            errors.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def in_namespace(name: str, work: Callable[[], T]) -> T:
    """Do ``work`` inside namespace ``name`` and return its result. Raises NotFound if there is none."""

    def body() -> T:
        try:
            descriptor = os.open(NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFound(f"failed to enter namespace {name}: there is none", code="no_namespace") from error
        try:
            _check(_libc.setns(descriptor, _CLONE_NEWNET), f"enter namespace {name}")
        finally:
            os.close(descriptor)
        return work()

    return _in_thread(body)


def namespace_inode(name: str) -> int:
    """What tells a namespace from a later one of the same name; 0 if there is none."""
    try:
        found = (NAMESPACES / name).stat()
    except FileNotFoundError:
        return 0
    # A file that is no mount was left by a creation cut short.
    return found.st_ino if found.st_dev == Path("/proc/self/ns/net").stat().st_dev else 0


def list_namespaces(prefix: str) -> list[str]:
    if not NAMESPACES.is_dir():
        return []
    return sorted(path.name for path in NAMESPACES.iterdir() if path.name.startswith(prefix))


def ensure_namespace(name: str) -> None:
    if namespace_inode(name):
        return
    NAMESPACES.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = NAMESPACES / name
    path.touch(mode=0o444)

    def body() -> None:
        _check(_libc.unshare(_CLONE_NEWNET), f"make namespace {name}")
        source = f"/proc/self/task/{threading.get_native_id()}/ns/net"
        _check(_libc.mount(source.encode(), os.fsencode(path), b"none", _MS_BIND, None), f"mount namespace {name}")

    _in_thread(body)


def remove_namespace(name: str) -> None:
    """Take the name away; the namespace ends with the last process or socket in it."""
    path = NAMESPACES / name
    with contextlib.suppress(Error):
        _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"unmount namespace {name}")
    path.unlink(missing_ok=True)
