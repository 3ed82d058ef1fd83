"""Bodies of hosts."""

from __future__ import annotations

from ucloud.api.schemas.failover import TakeoverShown
from ucloud.api.schemas.fields import Body, Labels, Name, Shown, left_out
from ucloud.api.schemas.objects import DryRunShown, ListShown, ObjectShown
from ucloud.model.host import Drain
from ucloud.model.seen import Fence


class HostCreate(Body):
    name: Name
    id: Name = left_out()


class HostUpdate(Body):
    schedulable: bool = left_out()
    labels: Labels = left_out()


class HostDrain(Body):
    """``stop``: what cannot move is stopped until the drain is over."""

    stop: bool = False


class HostUndrain(Body):
    """Nothing can be said about how to end a drain."""


class HostConfirmOff(Body):
    """Nothing can be said about how the host came to be off."""


class HostSpecShown(Shown):
    schedulable: bool
    drain: Drain
    confirmed_off: str
    confirmed_revision: int


class PoolShown(Shown):
    id: str
    fence: Fence
    proved_with: list[str]
    has_verb: bool


class BlockedShown(Shown):
    vm_id: str
    reason: str


class DrainShown(Shown):
    """``left`` are VMs that run on the host or will; ``moving`` are on their way, ``blocked`` cannot go now."""

    left: list[str]
    moving: list[str]
    blocked: list[BlockedShown]


class ClaimedShown(Shown):
    cpus: int
    memory_mib: int
    disk_gib: int


class HostStatusShown(Shown):
    word: str
    reason: str
    cpus: int
    memory_mib: int
    disk_mib: int
    disk_free_mib: int
    claimed: ClaimedShown
    vms: int
    accelerator: str
    version: str
    qemu_version: str
    system: str
    architecture: str
    problems: list[str]
    last_report_at: str
    underlay_address: str
    pool: PoolShown | None
    fence_s: float
    longest_gap_s: float
    members_version: int
    drain: DrainShown | None
    takeover: TakeoverShown | None


class HostShown(ObjectShown[HostSpecShown, HostStatusShown]):
    pass


class HostPlanned(ObjectShown[HostSpecShown, HostStatusShown]):
    """Without an id if it is not made yet."""

    id: str = ""


class HostList(ListShown[HostShown]):
    pass


class HostDryRun(DryRunShown[HostPlanned]):
    pass
