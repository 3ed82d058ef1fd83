"""Bodies of hosts."""

from __future__ import annotations

from ucloud.api.schemas.fields import Body, Labels, Name, Shown, left_out
from ucloud.api.schemas.objects import DryRunShown, ListShown, ObjectShown


class HostCreate(Body):
    name: Name
    id: Name = left_out()


class HostUpdate(Body):
    schedulable: bool = left_out()
    labels: Labels = left_out()


class HostSpecShown(Shown):
    schedulable: bool


class ClaimedShown(Shown):
    cpus: int
    memory_mib: int
    disk_gib: int


class HostStatusShown(Shown):
    word: str
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


class HostShown(ObjectShown[HostSpecShown, HostStatusShown]):
    pass


class HostPlanned(ObjectShown[HostSpecShown, HostStatusShown]):
    """Without an id if it is not made yet."""

    id: str = ""


class HostList(ListShown[HostShown]):
    pass


class HostDryRun(DryRunShown[HostPlanned]):
    pass
