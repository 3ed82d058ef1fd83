"""What other rooms prepare for a VM before it can start: its disk and its taps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class DiskLayer:
    """``format`` is qcow2 or raw, always said, never probed."""

    path: Path
    format: str


@dataclass(frozen=True, slots=True)
class Disk:
    """The layer the guest writes to, and what lies below it, from top to bottom."""

    top: DiskLayer
    backing: tuple[DiskLayer, ...] = ()


@dataclass(frozen=True, slots=True)
class Tap:
    """An open tap of one NIC. The descriptor stays the caller's, who closes it after the start."""

    nic_id: str
    descriptor: int
    mtu: int


@dataclass(frozen=True, slots=True)
class Resources:
    disk: Disk
    taps: tuple[Tap, ...] = ()
