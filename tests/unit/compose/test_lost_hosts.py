"""What ends without a host's answer, and what never does: deleted VMs on dead hosts, removed hosts, old marks."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.clock import ManualClock
from tests.unit.world import World
from ucloud.compose.cleaner import plan_cleaning
from ucloud.compose.hosts import DELETES_LIMIT, plan_host_endings
from ucloud.compose.vm_documents import vm_documents
from ucloud.config import SchedulerSection
from ucloud.model.guard import Fenced, Takeover, TakeoverPhase
from ucloud.model.host import HostSpec
from ucloud.model.seen import Fence, GuestState, SeenPool
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.claims import claims_of
from ucloud.store.view import Entry, View

DONE = Takeover("host-1", "inc-1", TakeoverPhase.DONE, "taken over", samples.AT, samples.AT)
MARK = Fenced("host-1", "inc-1", samples.AT)


@pytest.fixture
def world() -> Iterator[World]:
    """vm-1 is on host-1, which then is lost; there is no other host."""
    with World(ManualClock()) as made:
        made.put(samples.IMAGE, samples.NETWORK, samples.KEY, samples.host(1), samples.report(1))
        made.register(samples.sign(1))
        made.put(samples.VM)
        made.run_pass()
        made.lose("host-1")
        yield made


def delete_vm(world: World) -> None:
    world.put(replace(samples.VM, meta=replace(samples.VM.meta, deleted_at=samples.AT, generation=2)))


def delete_host(world: World, *, confirmed_off: str = "") -> None:
    meta = replace(samples.host(1).meta, deleted_at=samples.AT)
    revision = world.view().registered["host-1"].mod_revision if confirmed_off else 0
    spec = HostSpec(confirmed_off=confirmed_off, confirmed_revision=revision)
    world.put(replace(samples.host(1), meta=meta, spec=spec))


def take_over(world: World) -> None:
    world.put(MARK, DONE)


def test_a_deleted_vm_waits_for_a_host_that_is_only_lost(world: World) -> None:
    delete_vm(world)
    assert "vm-1" in world.run_pass().vms


def test_a_deleted_vm_ends_without_a_host_that_was_taken_over(world: World) -> None:
    for key in claims_of(samples.VM):
        world.write(key, b"{}")
    delete_vm(world)
    take_over(world)
    view = world.run_pass()
    assert (view.vms, view.placements) == ({}, {})
    assert not world.store.list(keys.claims("nic")).items
    document = view.wanted_vms["host-1", "vm-1"]
    assert (document.value.gone, document.value.keep_disk) == (True, False)
    assert world.run_pass().revision == view.revision
    world.register(samples.sign(1, incarnation="inc-2"))
    world.put(replace(samples.SEEN_VM, state=GuestState.GONE, wanted_revision=document.mod_revision))
    assert not world.run_pass().wanted_vms


def test_a_vm_that_only_its_host_may_run_ends_on_somebodys_word(world: World) -> None:
    world.put(samples.lock(1, failover=Failover.NONE))
    delete_vm(world)
    take_over(world)
    assert "vm-1" in world.run_pass().vms
    revision = world.view().registered["host-1"].mod_revision
    world.put(replace(samples.host(1), spec=HostSpec(confirmed_off="inc-0", confirmed_revision=revision)))
    assert "vm-1" in world.run_pass().vms, "that was said of an earlier incarnation"
    world.put(replace(samples.host(1), spec=HostSpec(confirmed_off="inc-1", confirmed_revision=revision - 1)))
    assert "vm-1" in world.run_pass().vms, "it has registered since"
    world.put(replace(samples.host(1), spec=HostSpec(confirmed_off="inc-1", confirmed_revision=revision)))
    view = world.run_pass()
    assert (view.vms, view.locks) == ({}, {})


class CountedLooks(dict[tuple[str, str], Any]):
    """Says how often somebody went through all of it."""

    looks = 0

    def items(self) -> ItemsView[tuple[str, str], Any]:
        self.looks += 1
        return super().items()


def test_all_documents_are_looked_at_once_however_many_vms_end() -> None:
    looks = []
    for count in (2, 20):
        ending = {f"vm-{n}": replace(samples.VM, meta=samples.meta(f"vm-{n}", f"w{n}")) for n in range(count)}
        ended = {
            vm_id: Entry(vm_id, replace(vm, meta=replace(vm.meta, deleted_at=samples.AT)), 1)
            for vm_id, vm in ending.items()
        }
        tombstone = replace(samples.WANTED_VM, gone=True, machine=samples.MACHINE)
        documents = CountedLooks(
            {("host-1", vm_id): Entry(vm_id, replace(tombstone, vm_id=vm_id), 1) for vm_id in ending}
        )
        gone = replace(samples.SEEN_VM, state=GuestState.GONE, wanted_revision=9)
        seen = {place: Entry("s", replace(gone, vm_id=place[1]), 2) for place in documents}
        assert len(plan_cleaning(View(9, vms=ended, wanted_vms=documents, seen_vms=seen))) == count
        live = {vm_id: Entry(vm_id, vm, 1) for vm_id, vm in ending.items()}
        kept = vm_documents(View(9, vms=live, wanted_vms=documents, seen_vms=seen), SchedulerSection(), frozenset())
        assert len(kept) == count, "each carries the only copy of a machine"
        looks.append(documents.looks)
    assert looks[0] == looks[1]


def test_a_removed_host_that_is_only_lost_stays(world: World) -> None:
    world.delete(keys.placement("vm-1"))
    world.delete(keys.spec("vm", "vm-1"))
    delete_host(world)
    assert "host-1" in world.run_pass().hosts


def test_a_removed_host_ends_after_its_takeover(world: World) -> None:
    for key in (*claims_of(samples.host(1)), keys.secret_user_data("host-1", "vm-1"), keys.budget("host-1")):
        world.write(key, b"{}")
    delete_host(world, confirmed_off="inc-1")
    take_over(world)
    world.put(replace(samples.VM, spec=replace(samples.VM.spec, failover=Failover.NONE)))
    assert "host-1" in world.run_pass().hosts, "a VM is placed there"
    delete_vm(world)
    view = world.run_pass()
    view = world.run_pass()
    assert (view.hosts, view.registered, view.takeovers, view.seen_hosts) == ({}, {}, {}, {})
    left = [item.key for item in world.store.list(keys.ROOT).items if "host-1" in item.key and "event" not in item.key]
    assert left == [keys.fenced("host-1", "inc-1")], "its guard must find it, should the machine ever be switched on"


def test_a_living_host_that_is_removed_ends_when_nothing_is_left_there(world: World) -> None:
    world.register(samples.sign(1))
    delete_host(world)
    assert "host-1" in world.run_pass().hosts
    delete_vm(world)
    document = world.run_pass().wanted_vms["host-1", "vm-1"]
    world.put(replace(samples.SEEN_VM, state=GuestState.GONE, wanted_revision=document.mod_revision))
    network = world.run_pass().wanted_networks["host-1", "network-1"]
    assert "host-1" in world.view().hosts
    world.put(replace(samples.SEEN_NETWORK, gone=True, wanted_revision=network.mod_revision + 9))
    world.run_pass()
    assert "host-1" not in world.run_pass().hosts


def test_a_removed_host_stays_while_it_knows_what_nobody_else_does(world: World) -> None:
    """vm-1 has a disk that another host could have, but there is none now."""
    pool = SeenPool("pool-1", Fence.LOCK, ("host-2",))
    world.put(samples.report(1, pool=pool), samples.report(2, pool=pool))
    world.put(replace(world.view().placements["vm-1"].value, pool_id="pool-1"))
    world.report("host-1", replace(samples.SEEN_VM, machine=samples.MACHINE))
    delete_host(world)
    take_over(world)
    view = world.run_pass()
    view = world.run_pass()
    assert view.placements["vm-1"].value.host_id == ""
    assert "host-1" in view.hosts
    world.put(samples.host(2))
    world.register(samples.sign(2))
    world.run_pass()
    view = world.run_pass()
    assert set(view.hosts) == {"host-2"}
    assert view.wanted_vms["host-2", "vm-1"].value.machine == samples.MACHINE


def test_a_host_that_never_registered_ends_at_once(world: World) -> None:
    world.put(replace(samples.host(7), meta=replace(samples.host(7).meta, deleted_at=samples.AT)))
    assert "host-7" not in world.run_pass().hosts


def test_a_host_with_much_left_is_emptied_in_several_steps(world: World) -> None:
    take_over(world)
    delete_vm(world)
    world.run_pass()
    delete_host(world)
    for number in range(DELETES_LIMIT + 10):
        world.report("host-1", replace(samples.SEEN_VM, vm_id=f"vm-{number}"))
    assert [ending.is_whole for ending in plan_host_endings(world.view())] == [False]
    assert "host-1" in world.run_pass().hosts
    assert "host-1" not in world.run_pass().hosts


def test_marks_are_kept_until_a_newer_guard_lives(world: World) -> None:
    take_over(world)
    assert world.run_pass().fenced
    world.register(samples.sign(1, incarnation="inc-2"))
    world.lose("host-1")
    assert ("host-1", "inc-1") in world.run_pass().fenced
    world.register(samples.sign(1, incarnation="inc-2"))
    assert not world.run_pass().fenced
