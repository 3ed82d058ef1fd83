"""What emptying hosts takes: whom to move, what cannot move and why, what to stop meanwhile. Pure.

Must hold: a VM that cannot go anywhere stays where it is and is named with the reason; draining the last host of a
cloud loses nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from ucloud.config import SchedulerSection
from ucloud.model.host import Drain
from ucloud.model.migration import Phase
from ucloud.model.vm import Power
from ucloud.scheduler.passes import snapshot_of
from ucloud.scheduler.snapshot import Snapshot
from ucloud.scheduler.targets import choose_target, find_obstacle, is_shared
from ucloud.store.view import View

RETRY_S = 60.0


def draining_hosts(view: View) -> tuple[str, ...]:
    hosts = (entry.value for entry in view.hosts.values())
    return tuple(sorted(host.meta.id for host in hosts if host.spec.drain is not Drain.NONE))


def vms_on(view: View, host_id: str) -> tuple[str, ...]:
    """VMs placed there, oldest first."""
    placed = [vm_id for vm_id, entry in view.placements.items() if entry.value.host_id == host_id and vm_id in view.vms]
    return tuple(sorted(placed, key=lambda vm_id: (view.vms[vm_id].value.meta.created_at, vm_id)))


def plan_drain(view: View, now: datetime.datetime) -> tuple[str, ...]:
    """The VMs that should begin to move now, as far as they themselves are concerned; the caller finds them room."""
    return tuple(
        vm_id
        for host_id in draining_hosts(view)
        for vm_id in vms_on(view, host_id)
        if not is_migrating(view, vm_id) and find_obstacle(view, vm_id) is None and not _rests(view, vm_id, now)
    )


def is_migrating(view: View, vm_id: str) -> bool:
    record = view.migrations.get(vm_id)
    return record is not None and not record.value.is_over


def _rests(view: View, vm_id: str, now: datetime.datetime) -> bool:
    """Its last migration went wrong a moment ago: what was in the way may still be there."""
    record = view.migrations.get(vm_id)
    if record is None or record.value.phase is Phase.DONE:
        return False
    return (now - datetime.datetime.fromisoformat(record.value.since)).total_seconds() < RETRY_S


def blocked(
    view: View, host_id: str, settings: SchedulerSection, *, silent: frozenset[str] = frozenset()
) -> Mapping[str, str]:
    """VMs of the host that cannot leave it now, with the reason of each. Those that are on their way are not in it."""
    found: dict[str, str] = {}
    snapshot = snapshot_of(view, settings, silent)
    for vm_id in vms_on(view, host_id):
        reason = _obstacle(view, snapshot, vm_id)
        if reason is not None:
            found[vm_id] = reason[0]
    return found


def must_stop(
    view: View, host_id: str, settings: SchedulerSection, *, silent: frozenset[str] = frozenset()
) -> frozenset[str]:
    """VMs that are to be stopped as long as this host drains with ``stop``: they should run, and cannot move."""
    host = view.hosts.get(host_id)
    if host is None or host.value.spec.drain is not Drain.STOP:
        return frozenset()
    found = set()
    snapshot = snapshot_of(view, settings, silent)
    for vm_id in vms_on(view, host_id):
        vm = view.vms[vm_id].value
        reason = _obstacle(view, snapshot, vm_id)
        stays = _rests_on_shared_disk(view, host_id, vm_id) or (reason is not None and not reason[1])
        if vm.spec.power is Power.RUNNING and stays:
            found.add(vm_id)
    return frozenset(found)


def _obstacle(view: View, snapshot: Snapshot, vm_id: str) -> tuple[str, bool] | None:
    """Why the VM stays, and whether that may be over in a moment; None if it is free to go or on its way."""
    if is_migrating(view, vm_id):
        return None
    obstacle = find_obstacle(view, vm_id)
    if obstacle is not None and not _rests_on_shared_disk(view, view.placements[vm_id].value.host_id, vm_id):
        return obstacle.reason, obstacle.passing
    choice = choose_target(view, snapshot, vm_id)
    if not choice.host_id:
        return choice.reason, False
    record = view.migrations.get(vm_id)
    if obstacle is None and record is not None and record.value.phase in (Phase.FAILED, Phase.CANCELLED):
        return f"its last migration ended: {record.value.reason}; it is tried again", True
    return None


def to_place_anew(view: View) -> frozenset[str]:
    """VMs of draining hosts of which nothing runs and whose disk other hosts have too: a new placement moves them.

    It must compare that the lock of the old host is absent, and is only worth while if another host takes the VM.
    """
    return frozenset(
        vm_id
        for host_id in draining_hosts(view)
        if host_id in view.alive
        for vm_id in vms_on(view, host_id)
        if _rests_on_shared_disk(view, host_id, vm_id)
    )


def _rests_on_shared_disk(view: View, host_id: str, vm_id: str) -> bool:
    """Nobody has it open, and it will not be opened in a moment."""
    if (host_id, vm_id) in view.locks:
        return False
    vm, placement = view.vms[vm_id].value, view.placements[vm_id].value
    obstacle = find_obstacle(view, vm_id)
    if vm.meta.deleted_at or is_migrating(view, vm_id) or obstacle is None or obstacle.passing:
        return False
    return any(is_shared(view, placement, other) for other in view.alive if other != host_id)


def left_running(view: View, host_id: str) -> tuple[str, ...]:
    """VMs that run on the host, or come to run there again by themselves: until there is none, it is not drained."""
    host = view.hosts.get(host_id)
    stops = host is not None and host.value.spec.drain is Drain.STOP
    return tuple(
        vm_id
        for vm_id in vms_on(view, host_id)
        if (host_id, vm_id) in view.locks or (view.vms[vm_id].value.spec.power is Power.RUNNING and not stops)
    )
