"""What QEMU says of a live migration, as a small value. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

_MIB = 1 << 20
_REASON_LIMIT = 200


class Transfer(StrEnum):
    """What QEMU says of the last migration in or out of it. ``none``: there was none."""

    NONE = "none"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


_TRANSFERS = {
    "none": Transfer.NONE,
    "completed": Transfer.COMPLETED,
    "failed": Transfer.FAILED,
    "cancelled": Transfer.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class MigrationStatus:
    """``sent_mib`` of ``total_mib`` counts on the source; ``downtime_ms`` is QEMU's own count, 0 until the end."""

    transfer: Transfer = Transfer.NONE
    reason: str = ""
    sent_mib: int = 0
    total_mib: int = 0
    downtime_ms: int = 0


def parse_migration(answer: Any) -> MigrationStatus:
    """The answer of ``query-migrate``. A word of QEMU that is not known means that it is at it."""
    if not isinstance(answer, Mapping) or not isinstance(answer.get("status"), str):
        return MigrationStatus()
    ram = answer.get("ram")
    memory = ram if isinstance(ram, Mapping) else {}
    return MigrationStatus(
        transfer=_TRANSFERS.get(answer["status"], Transfer.ACTIVE),
        reason=str(answer.get("error-desc", ""))[:_REASON_LIMIT],
        sent_mib=_count(memory, "total") // _MIB - _count(memory, "remaining") // _MIB,
        total_mib=_count(memory, "total") // _MIB,
        downtime_ms=_count(answer, "downtime"),
    )


def _count(plain: Mapping[str, Any], name: str) -> int:
    value = plain.get(name)
    return value if isinstance(value, int) else 0
