"""Documents of a cloud of several hosts: who is where, what can be kept, and what each side of a migration is told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.world import key_of
from ucloud.compose.documents import compose_documents
from ucloud.compose.parts import DOWNTIME_MS
from ucloud.compose.vm_documents import newest_machines
from ucloud.config import SchedulerSection
from ucloud.model.migration import Migration, Phase, Role
from ucloud.model.seen import Fence, GuestState, SeenPool
from ucloud.model.vm import Failover, Power
from ucloud.model.wanted import WantedPeer, WantedVm
from ucloud.store import keys
from ucloud.store.view import View, build_view

SHARED = SeenPool("pool-1", Fence.LOCK, ("host-1", "host-2"))
PLACED = replace(samples.PLACEMENT, pool_id="pool-1")
BASE = (
    samples.VM,
    samples.NETWORK,
    samples.IMAGE,
    samples.KEY,
    samples.host(1),
    samples.host(2),
    samples.report(1, pool=SHARED, underlay_address="fd00::1", door="https://h1"),
    samples.report(2, pool=SHARED, underlay_address="fd00::2", door="https://h2"),
)


def view_of(*values: Any, told: dict[tuple[str, str], WantedVm] | None = None) -> View:
    """Later values replace earlier ones of the same key."""
    stored = {key_of(value): value for value in values}
    for (host_id, vm_id), document in (told or {}).items():
        stored[keys.wanted(host_id, "vm", vm_id)] = document
    return build_view(9, [(key, value, 5) for key, value in stored.items()])


def told_vms(view: View, **options: Any) -> dict[tuple[str, str], WantedVm]:
    documents = compose_documents(view, **options)
    return {
        (keys.host_of_wanted(key), document.vm_id): document
        for key, document in documents.items()
        if isinstance(document, WantedVm)
    }


@pytest.mark.parametrize(
    ("pool", "pool_id", "wish", "kept"),
    [
        (SHARED, "pool-1", Failover.RESTART, Failover.RESTART),
        (SHARED, "pool-1", Failover.NONE, Failover.NONE),
        (SHARED, "", Failover.RESTART, Failover.NONE),
        (SHARED, "pool-2", Failover.RESTART, Failover.NONE),
        (replace(SHARED, fence=Fence.NONE), "pool-1", Failover.RESTART, Failover.NONE),
        (replace(SHARED, proved_with=()), "pool-1", Failover.RESTART, Failover.NONE),
        (None, "pool-1", Failover.RESTART, Failover.NONE),
    ],
)
def test_failover_is_what_the_pool_can_keep(
    pool: SeenPool | None, pool_id: str, wish: Failover, kept: Failover
) -> None:
    vm = replace(samples.VM, spec=replace(samples.VM.spec, failover=wish))
    view = view_of(*BASE, vm, samples.report(1, pool=pool), replace(PLACED, pool_id=pool_id))
    assert told_vms(view)["host-1", "vm-1"].failover is kept


def test_what_was_told_of_failover_stands_when_the_proof_grows_old() -> None:
    before = told_vms(view_of(*BASE, PLACED))
    (document,) = before.values()
    assert document.failover is Failover.RESTART
    alone = samples.report(1, pool=replace(SHARED, proved_with=()))
    assert told_vms(view_of(*BASE, PLACED, alone, told=before)) == before
    wish = replace(samples.VM, spec=replace(samples.VM.spec, failover=Failover.NONE))
    (document,) = told_vms(view_of(*BASE, PLACED, alone, wish, told=before)).values()
    assert document.failover is Failover.NONE


def test_the_machine_goes_with_the_vm() -> None:
    old, new = replace(samples.MACHINE, uid=1), replace(samples.MACHINE, uid=2)
    document = replace(samples.WANTED_VM, generation=2, machine=old)
    seen = replace(samples.SEEN_VM, generation=2, machine=new)
    placed = replace(PLACED, host_id="host-2", generation=3)
    view = view_of(*BASE, placed, seen, told={("host-1", "vm-1"): document})
    assert newest_machines(view) == {"vm-1": new}
    assert told_vms(view)["host-2", "vm-1"].machine == new
    outdated = view_of(*BASE, placed, replace(seen, generation=1), told={("host-1", "vm-1"): document})
    assert newest_machines(outdated) == {"vm-1": old}


def test_nics_on_other_hosts_are_peers() -> None:
    nic = replace(samples.NIC, id="other", mac="02:00:00:00:00:02", ipv6="fd00::2")
    other = replace(samples.vm(2), spec=replace(samples.VM.spec, nics=(nic,)))
    elsewhere = replace(PLACED, vm_id="vm-2", host_id="host-2")
    documents = compose_documents(view_of(*BASE, PLACED, other, elsewhere))
    first = documents[keys.wanted("host-1", "network", "network-1")]
    second = documents[keys.wanted("host-2", "network", "network-1")]
    assert first.peers == (WantedPeer(nic.mac, "fd00::2"),)
    assert second.peers == (WantedPeer(samples.NIC.mac, "fd00::1"),)


def test_a_host_without_an_underlay_is_nobodys_peer() -> None:
    view = view_of(*BASE, PLACED, replace(PLACED, vm_id="vm-2", host_id="host-2"), samples.vm(2), samples.report(1))
    documents = compose_documents(view)
    assert all(not getattr(document, "peers", ()) for document in documents.values())


def test_a_host_that_is_emptied_by_stopping_is_told_so() -> None:
    document = told_vms(view_of(*BASE, PLACED), must_stop=frozenset({"vm-1"}))["host-1", "vm-1"]
    assert document.power is Power.STOPPED


def moving(phase: Phase, **fields: object) -> Migration:
    return replace(samples.MIGRATION, **{"phase": phase, **fields})


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.SENDING])
def test_both_sides_of_a_migration_are_told_their_part(phase: Phase) -> None:
    lock = samples.lock(1)
    settings = SchedulerSection(migration_bandwidth_mib_s=7)
    told = told_vms(view_of(*BASE, PLACED, lock, moving(phase)), settings=settings)
    source, target = told["host-1", "vm-1"], told["host-2", "vm-1"]
    assert (source.generation, target.generation, source.gone, target.gone) == (1, 2, False, False)
    assert source.migration is not None
    assert target.migration is not None
    assert (source.migration.role, source.migration.peer_door) == (Role.SOURCE, "https://h2")
    assert (target.migration.role, target.migration.peer_door) == (Role.TARGET, "https://h1")
    told = target.migration
    assert (told.phase, told.bandwidth_mib_s, told.downtime_ms) == (phase, 7, DOWNTIME_MS)


def test_the_targets_process_is_born_as_the_lock_says() -> None:
    vm = replace(samples.VM, spec=replace(samples.VM.spec, failover=Failover.NONE))
    told = told_vms(view_of(*BASE, vm, PLACED, samples.lock(1), moving(Phase.PREPARING)))
    assert told["host-2", "vm-1"].failover is Failover.RESTART
    assert told["host-1", "vm-1"].failover is Failover.NONE


def test_the_targets_process_has_the_size_of_what_runs_not_of_a_newer_spec() -> None:
    grown = replace(PLACED, cpus=8, memory_mib=4096)
    runs = replace(samples.SEEN_VM, cpus=2, memory_mib=512)
    told = told_vms(view_of(*BASE, grown, runs, moving(Phase.PREPARING)))
    source, target = told["host-1", "vm-1"], told["host-2", "vm-1"]
    assert (source.cpus, source.memory_mib, target.cpus, target.memory_mib) == (8, 4096, 2, 512)
    for phase in (Phase.SENDING, Phase.ABORTING):
        ended = replace(runs, state=GuestState.STOPPED, cpus=0, memory_mib=0)
        again = told_vms(view_of(*BASE, grown, ended, moving(phase), told=told))["host-2", "vm-1"]
        assert (again.cpus, again.memory_mib) == (2, 512), "what was told for this migration stands"
    moved = replace(grown, host_id="host-2", generation=2)
    arrived = told_vms(view_of(*BASE, moved, moving(Phase.MOVED), told=told))["host-2", "vm-1"]
    assert (arrived.cpus, arrived.memory_mib) == (8, 4096), "at its next boot"


@pytest.mark.parametrize(
    "told", [{}, {("host-2", "vm-1"): replace(samples.WANTED_VM, cpus=7, memory_mib=7)}], ids=["nothing", "another"]
)
def test_without_a_report_the_target_gets_what_was_granted(told: dict[tuple[str, str], WantedVm]) -> None:
    other = replace(samples.SEEN_VM, generation=7, cpus=9)
    target = told_vms(view_of(*BASE, PLACED, other, moving(Phase.PREPARING), told=told))["host-2", "vm-1"]
    assert (target.cpus, target.memory_mib) == (PLACED.cpus, PLACED.memory_mib)


def test_after_the_move_the_target_has_the_vm_and_the_source_gives_it_up() -> None:
    before = told_vms(view_of(*BASE, PLACED, moving(Phase.SENDING)))
    placed = replace(PLACED, host_id="host-2", generation=2)
    told = told_vms(view_of(*BASE, placed, moving(Phase.MOVED), told=before))
    source, target = told["host-1", "vm-1"], told["host-2", "vm-1"]
    assert (source.gone, source.keep_disk, target.gone, target.generation) == (True, True, False, 2)
    assert target.migration is not None
    assert target.migration.phase is Phase.MOVED
    over = told_vms(view_of(*BASE, placed, moving(Phase.DONE), told=told))
    assert over["host-2", "vm-1"].migration is None
    assert over["host-1", "vm-1"] == source, "a tombstone that was answered is not written again"


def test_an_abort_is_a_tombstone_for_the_target_only() -> None:
    before = told_vms(view_of(*BASE, PLACED, moving(Phase.SENDING)))
    told = told_vms(view_of(*BASE, PLACED, moving(Phase.ABORTING), told=before))
    source, target = told["host-1", "vm-1"], told["host-2", "vm-1"]
    assert (target.gone, target.keep_disk) == (True, True)
    assert source.gone is False
    assert source.migration is not None
    assert source.migration.phase is Phase.ABORTING
    over = told_vms(view_of(*BASE, PLACED, moving(Phase.FAILED), told=told))
    assert over["host-2", "vm-1"].gone
    assert over["host-1", "vm-1"].migration is None


def test_an_image_that_cannot_be_read_ends_no_migration() -> None:
    before = told_vms(view_of(*BASE, PLACED, moving(Phase.SENDING)))
    without = tuple(value for value in BASE if value is not samples.IMAGE)
    assert told_vms(view_of(*without, PLACED, moving(Phase.SENDING), told=before)) == before


@pytest.mark.parametrize("phase", [Phase.PREPARING, Phase.SENDING, Phase.ABORTING, Phase.MOVED])
def test_a_migration_that_a_takeover_has_overtaken_tells_nobody_anything(phase: Phase) -> None:
    before = told_vms(view_of(*BASE, PLACED, moving(Phase.SENDING)))
    placed = replace(PLACED, host_id="host-2", generation=3)
    told = told_vms(view_of(*BASE, placed, moving(phase), told=before))
    target = told["host-2", "vm-1"]
    assert (target.migration, target.generation, target.gone) == (None, 3, False)
    assert told["host-1", "vm-1"].gone


def test_a_vm_that_is_deleted_while_it_moves_ends_on_both_sides() -> None:
    vm = replace(samples.VM, meta=replace(samples.VM.meta, deleted_at=samples.AT))
    told = told_vms(view_of(*BASE, vm, PLACED, moving(Phase.SENDING)))
    assert (told["host-1", "vm-1"].gone, told["host-1", "vm-1"].keep_disk) == (True, False)
    assert (told["host-2", "vm-1"].gone, told["host-2", "vm-1"].keep_disk) == (True, True)


@pytest.mark.parametrize(
    ("host_id", "generation", "given_up"),
    [("host-1", 1, False), ("host-2", 2, True), ("", 1, False), ("", 2, True)],
)
def test_only_a_newer_placement_is_a_sign(host_id: str, generation: int, given_up: bool) -> None:
    placed = replace(PLACED, host_id=host_id, generation=generation)
    told = told_vms(view_of(*BASE, placed, told={("host-1", "vm-1"): samples.WANTED_VM}))
    assert told["host-1", "vm-1"].gone is given_up


def test_a_deleted_vm_without_a_host_has_its_disk_deleted_by_a_former_one() -> None:
    vm = replace(samples.VM, meta=replace(samples.VM.meta, deleted_at=samples.AT))
    left = replace(samples.WANTED_VM, gone=True, keep_disk=True)
    placed = replace(PLACED, host_id="", generation=2)
    view = view_of(*BASE, vm, placed, told={("host-1", "vm-1"): left})
    assert told_vms(view)["host-1", "vm-1"].keep_disk is False
    answered = replace(samples.SEEN_VM, state=GuestState.GONE, wanted_revision=5)
    assert told_vms(view_of(*BASE, placed, answered, told={("host-1", "vm-1"): left})) == {}
