"""What every object of the API has: identity, owner, labels, and the generation of its spec."""

from __future__ import annotations

import base64
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


def mac_of_nic(nic_id: str) -> str:
    """The NIC's MAC: ``02:`` (locally administered) and the 40 bits of its id, so neither needs a counter."""
    return ":".join(f"{byte:02x}" for byte in b"\x02" + base64.b32decode(nic_id.upper()))
