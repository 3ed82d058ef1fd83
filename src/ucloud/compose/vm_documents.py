"""The wanted documents of all VMs as a pure function of the view: one for its host, tombstones where it was before.

Must hold: a document becomes a tombstone only by a deleted VM, a newer placement or an aborting migration; a tombstone
stays until its host has answered, and until the machine that it carries has arrived in another document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ucloud.compose.parts import part_of_target, parts_by_place, sizes_on_source
from ucloud.config import SchedulerSection
from ucloud.model.machine import Machine
from ucloud.model.migration import Phase, Role, WantedMigration
from ucloud.model.placement import Placement
from ucloud.model.seen import Fence, GuestState, SeenVm
from ucloud.model.vm import Failover, Power, Vm
from ucloud.model.wanted import WantedImage, WantedNic, WantedVm
from ucloud.store.view import Entry, View

Place = tuple[str, str]
Carriers = Mapping[str, set[str]]


def vm_documents(view: View, settings: SchedulerSection, must_stop: frozenset[str]) -> dict[Place, WantedVm]:
    """By (host id, VM id). ``must_stop`` are VMs that do not run as long as their host is emptied."""
    parts = parts_by_place(view, settings)
    machines = newest_machines(view)
    documents: dict[Place, WantedVm] = {}
    for vm_id, entry in view.placements.items():
        vm = view.vms.get(vm_id)
        if vm is None or not entry.value.host_id:
            continue
        document = compose_vm(vm.value, entry.value, view, machine=machines.get(vm_id))
        if document is None:
            continue
        place = entry.value.host_id, vm_id
        stopped = vm_id in must_stop
        documents[place] = replace(
            document, migration=parts.get(place), power=Power.STOPPED if stopped else document.power
        )
        documents |= _target_documents(view, document, vm.value, settings)
    carriers = carriers_of_machines(view)
    for place, old in view.wanted_vms.items():
        if place not in documents and not _is_finished(view, place, old, carriers):
            documents[place] = _old_document(view, place, old.value, parts, machines)
    return documents


def _target_documents(view: View, source: WantedVm, vm: Vm, settings: SchedulerSection) -> dict[Place, WantedVm]:
    """The document of the host that the VM is moving to, if it is. It says of failover and sizes what the running
    process was born with, because the lock that moves says that, too, and QEMU takes no guest of another size.
    """
    entry = view.migrations.get(source.vm_id)
    placement = view.placements[source.vm_id].value
    if entry is None:
        return {}
    record = entry.value
    part = part_of_target(view, record, placement, settings)
    if part is None:
        return {}
    lock = view.locks.get((record.source, record.vm_id))
    ends = record.phase is Phase.ABORTING or bool(vm.meta.deleted_at)
    sizes = sizes_on_source(view, record) or (source.cpus, source.memory_mib)
    document = replace(
        source,
        generation=record.generation + 1,
        cpus=sizes[0],
        memory_mib=sizes[1],
        failover=lock.value.failover if lock else source.failover,
        migration=part,
        gone=ends,
        keep_disk=ends,
    )
    return {(record.target, record.vm_id): document}


def _old_document(
    view: View, place: Place, old: WantedVm, parts: Mapping[Place, WantedMigration], machines: Mapping[str, Machine]
) -> WantedVm:
    """What becomes of a document that nothing calls for: a tombstone by a positive sign, else it stays as it is."""
    if old.gone:
        return replace(old, keep_disk=old.keep_disk and not _is_disk_left(view, place[1]))
    if not _is_elsewhere(view, place, old) or _is_target(parts.get(place)):
        return old
    machine = machines.get(place[1], old.machine)
    return replace(old, gone=True, keep_disk=True, machine=machine, migration=parts.get(place))


def _is_elsewhere(view: View, place: Place, old: WantedVm) -> bool:
    """The positive sign that a host must give up a VM: a placement elsewhere, or a newer one that names no host.

    A placement that is not there says nothing.
    """
    placement = view.placements.get(place[1])
    if placement is None or placement.value.host_id == place[0]:
        return False
    return bool(placement.value.host_id) or placement.value.generation > old.generation


def _is_target(part: WantedMigration | None) -> bool:
    """A VM is on its way there. Its document could not be composed now, which is no sign of anything."""
    return part is not None and part.role is Role.TARGET and part.phase in (Phase.PREPARING, Phase.SENDING)


def _is_disk_left(view: View, vm_id: str) -> bool:
    """The VM is deleted and on no host, so that a former one has to delete its disk."""
    vm, placement = view.vms.get(vm_id), view.placements.get(vm_id)
    return vm is not None and bool(vm.value.meta.deleted_at) and placement is not None and not placement.value.host_id


def _is_finished(view: View, place: Place, tombstone: Entry[WantedVm], carriers: Carriers) -> bool:
    """The host has reported, after the tombstone was written, that nothing is left; and nothing is lost with it."""
    seen = view.seen_vms.get(place)
    if seen is None or not tombstone.value.gone:
        return False
    answered = seen.value.state is GuestState.GONE and seen.value.wanted_revision >= tombstone.mod_revision
    return answered and not is_needed_elsewhere(view, place, tombstone.value, carriers)


def carriers_of_machines(view: View) -> Carriers:
    """By VM id, the hosts whose documents carry its machine: made once, asked for every document."""
    carriers: dict[str, set[str]] = {}
    for (host_id, vm_id), entry in view.wanted_vms.items():
        if entry.value.machine is not None:
            carriers.setdefault(vm_id, set()).add(host_id)
    return carriers


def is_needed_elsewhere(view: View, place: Place, document: WantedVm, carriers: Carriers) -> bool:
    """It carries the only copy of the machine of a VM that lives on."""
    vm = view.vms.get(place[1])
    if document.machine is None or vm is None or vm.value.meta.deleted_at:
        return False
    return not carriers.get(place[1], set()) - {place[0]}


def compose_vm(vm: Vm, placement: Placement, view: View, *, machine: Machine | None = None) -> WantedVm | None:
    """The document of one placed VM; its sizes are what the placement granted.

    None if its image is unknown: then the host is told nothing new.
    """
    image = view.images.get(vm.spec.image_id)
    if image is None:
        return None
    old = view.wanted_vms.get((placement.host_id, vm.meta.id))
    key_entries = [view.keys[key_id] for key_id in vm.spec.key_ids if key_id in view.keys]
    digest = image.value.spec.digest
    return WantedVm(
        vm_id=vm.meta.id,
        name=vm.meta.name,
        project=vm.meta.project,
        generation=placement.generation,
        spec_generation=vm.meta.generation,
        gone=bool(vm.meta.deleted_at),
        power=vm.spec.power,
        boots=vm.spec.boots,
        restart=vm.spec.restart,
        failover=effective_failover(vm, placement, view),
        stop_timeout_s=vm.spec.stop_timeout_s,
        cpus=placement.cpus,
        memory_mib=placement.memory_mib,
        disk_gib=placement.disk_gib,
        image=WantedImage(digest, image.value.spec.format, view.blob_sources(digest)),
        nics=_nics(vm, view, old.value if old else None),
        keys=tuple(entry.value.spec.public_key for entry in key_entries),
        has_user_data=vm.spec.user_data_bytes > 0,
        machine=machine,
        pool_id=placement.pool_id,
    )


def effective_failover(vm: Vm, placement: Placement, view: View) -> Failover:
    """What can be kept: "restart" only where another host has proved that the disk has a second line.

    Once told to a host it stands, although the other one may be gone and its proof grow old.
    """
    old = view.wanted_vms.get((placement.host_id, vm.meta.id))
    report = view.seen_hosts.get(placement.host_id)
    pool = report.value.pool if report else None
    if vm.spec.failover is Failover.NONE or pool is None or not placement.pool_id or pool.id != placement.pool_id:
        return Failover.NONE
    proved = pool.fence is not Fence.NONE and bool(pool.proved_with)
    was_told = old is not None and old.value.failover is Failover.RESTART and old.value.pool_id == placement.pool_id
    return Failover.RESTART if proved or was_told else Failover.NONE


def newest_machines(view: View) -> dict[str, Machine]:
    """By VM id: that of the highest generation; of one generation, what a host reports before what it was told."""
    found: dict[str, tuple[tuple[int, bool], Machine]] = {}

    def offer(source: WantedVm | SeenVm, *, reported: bool) -> None:
        age = source.generation, reported
        known = found.get(source.vm_id)
        if source.machine is not None and (known is None or known[0] < age):
            found[source.vm_id] = age, source.machine

    for wanted in view.wanted_vms.values():
        offer(wanted.value, reported=False)
    for seen in view.seen_vms.values():
        offer(seen.value, reported=True)
    return {vm_id: machine for vm_id, (_, machine) in found.items()}


def _nics(vm: Vm, view: View, old: WantedVm | None) -> tuple[WantedNic, ...]:
    """With the network's VNI; should the network be gone already, the one that the host was told before."""
    before = {nic.id: nic for nic in old.nics} if old else {}
    nics = []
    for nic in vm.spec.nics:
        network = view.networks.get(nic.network_id)
        if network:
            vni = network.value.spec.vni
            nics.append(WantedNic(nic.id, nic.network_id, vni, nic.mac, nic.ipv6, nic.ipv4))
        elif nic.id in before:
            nics.append(before[nic.id])
    return tuple(nics)
