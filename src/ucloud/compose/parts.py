"""What each host of a live migration is told to do for it, from the scheduler's record. Pure.

Must hold: a record that the VM's placement has overtaken (its host was taken over) tells nobody anything.
"""

from __future__ import annotations

from ucloud.config import SchedulerSection
from ucloud.model.migration import Migration, Phase, Role, WantedMigration
from ucloud.model.placement import Placement
from ucloud.store.view import View

DOWNTIME_MS = 100  # how long QEMU may let the guest stand at the end, by its own estimate


def parts_by_place(view: View, settings: SchedulerSection) -> dict[tuple[str, str], WantedMigration]:
    """By (host id, VM id), of all migrations that go on."""
    parts = {}
    for vm_id, entry in view.migrations.items():
        placement = view.placements.get(vm_id)
        if placement is None or not _goes_on(entry.value, placement.value):
            continue
        parts[entry.value.source, vm_id] = _part(view, entry.value, Role.SOURCE, settings)
        parts[entry.value.target, vm_id] = _part(view, entry.value, Role.TARGET, settings)
    return parts


def part_of_target(
    view: View, record: Migration, placement: Placement, settings: SchedulerSection
) -> WantedMigration | None:
    """The part of a host on which the VM is not placed yet; None if it has none."""
    if record.phase is Phase.MOVED or not _goes_on(record, placement):
        return None
    return _part(view, record, Role.TARGET, settings)


def sizes_on_source(view: View, record: Migration) -> tuple[int, int] | None:
    """CPUs and memory (MiB) of the guest that is moving, whatever its spec says by now; None if nobody knows.

    What the target was told once for this migration stands: its QEMU was started with that.
    """
    told = view.wanted_vms.get((record.target, record.vm_id))
    if told and told.value.migration and told.value.migration.id == record.id:
        return told.value.cpus, told.value.memory_mib
    report = view.seen_vms.get((record.source, record.vm_id))
    if report is None or report.value.generation != record.generation or not report.value.cpus:
        return None
    return report.value.cpus, report.value.memory_mib


def _goes_on(record: Migration, placement: Placement) -> bool:
    """Whether the placement is the one that this migration began with, or the one that it has made."""
    if record.is_over:
        return False
    if record.phase is Phase.MOVED:
        return (placement.host_id, placement.generation) == (record.target, record.generation + 1)
    return (placement.host_id, placement.generation) == (record.source, record.generation)


def _part(view: View, record: Migration, role: Role, settings: SchedulerSection) -> WantedMigration:
    peer = record.target if role is Role.SOURCE else record.source
    report = view.seen_hosts.get(peer)
    return WantedMigration(
        id=record.id,
        role=role,
        phase=record.phase,
        peer_host_id=peer,
        peer_door=report.value.door if report else "",
        bandwidth_mib_s=settings.migration_bandwidth_mib_s,
        downtime_ms=DOWNTIME_MS,
        until=record.until,
    )
