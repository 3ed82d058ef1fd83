"""What every object of the API has: identity, owner, labels, and the generation of its spec."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Meta:
    """``generation`` counts changes of the spec (and is the ETag); ``deleted_at`` is the tombstone, "" if none.

    Times are RFC 3339 in UTC.
    """

    id: str
    name: str
    project: str
    created_at: str
    generation: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)
    delete_protection: bool = False
    deleted_at: str = ""


def new_id(noun: str) -> str:
    """A fresh id such as ``vm-k3v9t2m4xq7a``: 60 random bits in lower-case base32 behind the noun."""
    return f"{noun}-{base64.b32encode(os.urandom(8)).decode().lower()[:12]}"


def new_nic_id() -> str:
    """Eight base32 letters (40 random bits): short enough for a device name, and its MAC is made of them."""
    return base64.b32encode(os.urandom(5)).decode().lower()


def mac_of_nic(nic_id: str) -> str:
    """The NIC's MAC: ``02:`` (locally administered) and the 40 bits of its id, so neither needs a counter."""
    return ":".join(f"{byte:02x}" for byte in b"\x02" + base64.b32decode(nic_id.upper()))
