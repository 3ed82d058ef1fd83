"""Tap devices by file descriptor.

The device is not persistent: it lives exactly as long as somebody holds a descriptor of it. QEMU gets one, so the
device outlives an agent's restart, and it vanishes with QEMU and the agent's own copy, with no one to clean up.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from ucloud.errors import Conflict, Error, MissingPrerequisite

_TUNSETIFF = 0x400454CA
_IFF_TAP = 0x0002
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000


def open_tap_device(name: str) -> int:
    """Make tap ``name``, down and attached to nothing, and return its descriptor (not inherited by children)."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"failed to open tap {name}: /dev/net/tun is missing", hint="load the kernel module 'tun'"
        ) from error
    try:
        fcntl.ioctl(
            descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        )
    except OSError as error:
        os.close(descriptor)
        if error.errno == errno.EBUSY:
            raise Conflict(
                f"failed to open tap {name}: another process holds it", hint="an earlier QEMU has not ended yet"
            ) from error
        raise Error(f"failed to open tap {name}: {error.strerror}", code="tap_failed") from error
    return descriptor
