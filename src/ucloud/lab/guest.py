"""The smallest guest that obeys: a boot sector that halts until somebody presses the power button.

A lab's hosts share the machine's processors, so only a few guests can boot an operating system at once; of these,
hundreds run beside each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

IMAGE_NAME = "halt"
NETWORK_NAME = "main"
MEMORY_MIB = 64  # the least that the API takes
DISK_BYTES = 1 << 20
_CODE = bytes.fromhex(
    "ba0206 b80001 ef fb"  # mov dx,602h (PM1 enable); mov ax,100h (power button); out dx,ax; sti
    "f4 ba0006 ed f6c401 74f6"  # hlt (to the next tick); mov dx,600h (PM1 status); in ax,dx; test ah,1; jz back
    "ba0406 b80020 ef"  # mov dx,604h (PM1 control); mov ax,2000h (S5); out dx,ax
    "f4 ebfd"  # hlt; jmp back
)


def halting_disk() -> bytes:
    """A whole disk image, raw."""
    return (_CODE.ljust(510, b"\0") + b"\x55\xaa").ljust(DISK_BYTES, b"\0")


def vm_body(name: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the API gets for a new VM with this guest."""
    return {
        "name": name,
        "image": IMAGE_NAME,
        "networks": [{"network": NETWORK_NAME}],
        "cpus": 1,
        "memory_mib": MEMORY_MIB,
        "stop_timeout_s": 5,
        **fields,
    }
