"""Fresh ids from the machine's randomness: nothing counts, so nothing has to be asked."""

from __future__ import annotations

import base64
import os


def new_id(noun: str) -> str:
    """A fresh id such as ``vm-k3v9t2m4xq7a``: 60 random bits in lower-case base32 behind the noun."""
    return f"{noun}-{base64.b32encode(os.urandom(8)).decode().lower()[:12]}"


def new_nic_id() -> str:
    """Eight base32 letters (40 random bits): short enough for a device name, and its MAC is made of them."""
    return base64.b32encode(os.urandom(5)).decode().lower()
