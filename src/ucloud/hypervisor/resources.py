"""What other rooms prepare for a VM before it can start: its disk and its taps."""

from __future__ import annotations

from dataclasses import dataclass

from ucloud.model.seen import Fence


@dataclass(frozen=True, slots=True)
class DiskLayer:
    """``location`` is a path for the driver "file", and "host:port/export" for "nbd".

    ``format`` is qcow2 or raw, always said, never probed.
    """

    location: str
    format: str
    driver: str = "file"


@dataclass(frozen=True, slots=True)
class Disk:
    """The layer the guest writes to, and what lies below it, from top to bottom.

    ``direct``: the host's page cache holds nothing of the top layer, because other hosts write to it, too.
    """

    top: DiskLayer
    backing: tuple[DiskLayer, ...] = ()
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Tap:
    """An open tap of one NIC. The descriptor stays the caller's, who closes it after the start.

    ``device`` is its name on this host.
    """

    nic_id: str
    descriptor: int
    mtu: int
    device: str = ""


@dataclass(frozen=True, slots=True)
class Resources:
    """``incarnation`` is the guard's for which the run lock was taken (or, of a migration's target, which will need
    it); ``pool_fence`` is the second line of the disk's pool.
    """

    disk: Disk
    taps: tuple[Tap, ...] = ()
    incarnation: str = ""
    pool_fence: Fence = Fence.NONE
