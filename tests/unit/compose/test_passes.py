"""The elected process's passes on a memory store: place, compose, end; each a fixed point, each safe to interrupt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit import samples
from tests.unit.world import World
from ucloud.compose.apply import BATCH_BYTES, Prepared, batches, plan_changes
from ucloud.compose.cleaner import plan_cleaning
from ucloud.compose.documents import compose_documents
from ucloud.config import SchedulerSection
from ucloud.model.seen import GuestState
from ucloud.model.vm import Power, Vm
from ucloud.scheduler.commit import commit_pass
from ucloud.scheduler.passes import plan_pass
from ucloud.store import keys
from ucloud.store.api import Put, created_at
from ucloud.store.claims import claims_of
from ucloud.store.codec import encode
from ucloud.store.view import View
from ucloud.system.clock import SystemClock


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        made.put(samples.HOST, samples.SEEN_HOST, samples.LIFE_SIGN, samples.IMAGE, samples.NETWORK, samples.KEY)
        yield made


def deleted(vm: Vm) -> Vm:
    return replace(vm, meta=replace(vm.meta, deleted_at=samples.AT, generation=2))


def test_a_new_vm_is_placed_and_its_host_told(world: World) -> None:
    world.put(samples.VM)
    view = world.run_pass()
    assert view.placements["vm-1"].value.host_id == "host-1"
    document = view.wanted_vms["host-1", "vm-1"].value
    assert (document.memory_mib, document.gone, document.nics) == (512, False, (samples.WANTED_NIC,))
    assert document.keys == (samples.KEY.spec.public_key,)
    network = view.wanted_networks["host-1", "network-1"].value
    assert [name.name for name in network.names] == ["web1"]


def test_a_second_pass_changes_nothing(world: World) -> None:
    world.put(samples.VM)
    before = world.run_pass()
    after = world.run_pass()
    assert after.revision == before.revision


def test_user_data_reaches_the_host_and_no_document(world: World) -> None:
    world.write(keys.secret_user_data_source("vm-1"), b"#!/bin/sh\n")
    world.put(samples.VM)
    world.run_pass()
    copy = world.item(keys.secret_user_data("host-1", "vm-1"))
    assert copy is not None
    assert copy.value == b"#!/bin/sh\n"


def test_a_vm_wanted_stopped_from_the_start_is_not_placed(world: World) -> None:
    world.put(samples.vm(1, power=Power.STOPPED))
    assert not world.run_pass().placements


def test_a_vm_too_large_waits_with_a_reason_and_starts_when_a_host_can_take_it(world: World) -> None:
    world.put(samples.vm(1, memory_mib=1_000_000))
    view = world.run_pass()
    assert view.placements["vm-1"].value.host_id == ""
    assert "1000000 needed" in view.placements["vm-1"].value.decision.reason
    assert world.run_pass().revision == view.revision, "the same refusal is not written again"
    world.put(samples.host(2), samples.report(2, memory_mib=2_000_000), replace(samples.LIFE_SIGN, host_id="host-2"))
    assert world.run_pass().placements["vm-1"].value.host_id == "host-2"


def test_one_that_cannot_be_placed_delays_nobody(world: World) -> None:
    world.put(samples.vm(1, cpus=4000), samples.vm(2))
    assert world.run_pass().placements["vm-2"].value.host_id == "host-1"


def test_the_end_of_a_vm_waits_for_its_host(world: World) -> None:
    world.put(samples.VM)
    world.run_pass()
    world.put(deleted(samples.VM))
    view = world.run_pass()
    document = view.wanted_vms["host-1", "vm-1"]
    assert document.value.gone
    assert "vm-1" in view.vms
    stale = replace(samples.SEEN_VM, state=GuestState.GONE, wanted_revision=document.mod_revision - 1)
    world.put(stale)
    assert "vm-1" in world.run_pass().vms, "an answer to an earlier wish counts for nothing"
    world.put(replace(stale, wanted_revision=document.mod_revision))
    view = world.run_pass()
    assert not view.vms
    assert not view.placements
    assert not view.wanted_vms


def test_the_end_gives_back_all_claims_and_secrets(world: World) -> None:
    for key in (*claims_of(samples.VM), keys.secret_user_data_source("vm-1")):
        world.write(key, b"{}")
    world.put(deleted(samples.VM))
    world.run_pass()
    left = [item.key for item in world.store.list(keys.ROOT).items if "claim/" in item.key or "secret/" in item.key]
    assert left == []


def test_a_held_run_lock_delays_the_end(world: World) -> None:
    world.put(samples.VM)
    world.run_pass()
    world.put(deleted(samples.VM))
    document = world.run_pass().wanted_vms["host-1", "vm-1"]
    world.write(keys.lock("host-1", "vm-1"), encode(samples.RUN_LOCK))
    world.put(replace(samples.SEEN_VM, state=GuestState.GONE, wanted_revision=document.mod_revision))
    assert "vm-1" in world.run_pass().vms


def test_a_network_leaves_the_host_after_its_last_vm(world: World) -> None:
    test_the_end_of_a_vm_waits_for_its_host(world)
    view = world.run_pass()
    document = view.wanted_networks["host-1", "network-1"]
    assert document.value.gone
    world.put(replace(samples.SEEN_NETWORK, ready=False, gone=True, wanted_revision=document.mod_revision))
    assert not world.run_pass().wanted_networks
    assert "network-1" in world.view().networks


def test_a_deleted_network_goes_when_no_host_carries_it(world: World) -> None:
    world.put(replace(samples.NETWORK, meta=replace(samples.NETWORK.meta, deleted_at=samples.AT)))
    assert "network-1" not in world.run_pass().networks


def test_a_deleted_image_waits_for_its_users(world: World) -> None:
    world.put(samples.VM, replace(samples.IMAGE, meta=replace(samples.IMAGE.meta, deleted_at=samples.AT)))
    assert "image-1" in world.run_pass().images


def test_the_end_of_an_image_is_the_sign_for_its_blob(world: World) -> None:
    assert not world.run_pass().wanted_blobs
    world.put(replace(samples.IMAGE, meta=replace(samples.IMAGE.meta, deleted_at=samples.AT)))
    view = world.run_pass()
    assert set(view.wanted_blobs) == {("host-1", samples.DIGEST)}
    world.put(replace(samples.SEEN_HOST, images=()))
    assert not world.run_pass().wanted_blobs


def test_a_blob_that_no_image_names_is_left_alone(world: World) -> None:
    """Absence is no tombstone: a restored backup may not know an image that is there."""
    world.delete(keys.spec("image", "image-1"))
    assert not world.run_pass().wanted_blobs


def test_a_blob_that_another_image_names_stays(world: World) -> None:
    other = replace(samples.IMAGE, meta=samples.meta("image-2", "other"))
    world.put(other, replace(samples.IMAGE, meta=replace(samples.IMAGE.meta, deleted_at=samples.AT)))
    view = world.run_pass()
    assert set(view.images) == {"image-2"}
    assert not view.wanted_blobs


def test_documents_too_large_for_one_request_are_written_in_several(world: World) -> None:
    """etcd refuses requests over 1.5 MiB; one pass must not build one of them, nor stop at one."""
    for number in range(30):
        world.write(keys.secret_user_data_source(f"vm-{number}"), b"x" * 65_536)
        world.put(samples.vm(number, user_data_bytes=65_536, cpus=0, memory_mib=1, disk_gib=0))
    view = world.run_pass()
    assert len(view.wanted_vms) == 30
    prepared = [
        Prepared(change, (Put(change.key, b"x" * 65_536), Put(change.key, encode(change.document))))
        for change in plan_changes(View(1), compose_documents(view))
    ]
    sizes = [sum(one.size_bytes for one in batch) for batch in batches(prepared)]
    assert len(sizes) > 1
    assert max(sizes) <= BATCH_BYTES


def test_a_view_that_does_not_know_the_last_placements_writes_none(world: World) -> None:
    """Two leaders, one of them behind, must not give one host to both (law 12)."""
    world.put(samples.vm(1))
    view = world.view()
    world.run_pass()
    world.put(samples.vm(2))
    late = plan_pass(replace(world.view(), revision=view.revision, placements={}), SchedulerSection(), at=samples.AT)
    planned = tuple(one for one in late if one.vm.value.meta.id == "vm-2")
    leader = world.election.guard()
    commit_pass(world.store, planned, view_revision=view.revision, leader=leader, clock=SystemClock())
    assert "vm-2" not in world.view().placements


def test_a_host_with_a_silent_agent_gets_nothing_new(world: World) -> None:
    world.put(samples.VM)
    planned = plan_pass(world.view(), SchedulerSection(), at=samples.AT, silent=frozenset({"host-1"}))
    assert "reported nothing" in planned[0].placement.decision.reason


def test_a_placement_elsewhere_makes_a_tombstone_of_the_old_document(world: World) -> None:
    world.put(samples.VM, samples.host(2))
    view = world.run_pass()
    world.put(replace(view.placements["vm-1"].value, host_id="host-2", generation=2))
    view = world.run_pass()
    assert view.wanted_vms["host-1", "vm-1"].value.gone
    assert not view.wanted_vms["host-2", "vm-1"].value.gone


def test_one_who_lost_the_election_writes_nothing(world: World) -> None:
    world.put(samples.VM)
    view = world.run_pass(created_at("/elsewhere", 5))
    assert not view.placements


def test_every_plan_of_a_settled_cloud_is_empty(world: World) -> None:
    world.put(samples.VM)
    view = world.run_pass()
    assert plan_pass(view, SchedulerSection(), at=samples.AT) == ()
    assert plan_changes(view, compose_documents(view)) == ()
    assert plan_cleaning(view) == ()


def test_absence_ends_nothing(world: World) -> None:
    """A spec, placement or image that is not there is no tombstone."""
    world.put(samples.VM)
    world.run_pass()
    for key in (keys.spec("image", "image-1"), keys.placement("vm-1"), keys.spec("vm", "vm-1")):
        world.delete(key)
        assert not world.run_pass().wanted_vms["host-1", "vm-1"].value.gone


def test_an_unreadable_value_ends_nothing_that_may_depend_on_it(world: World) -> None:
    world.put(samples.VM)
    world.run_pass()
    world.put(replace(samples.IMAGE, meta=replace(samples.meta("image-2", "free"), deleted_at=samples.AT)))
    world.write(keys.spec("vm", "vm-9"), b"broken")
    assert "image-2" in world.run_pass().images, "vm-9 may use it"
    world.put(deleted(samples.VM))
    assert world.run_pass().wanted_vms["host-1", "vm-1"].value.gone, "its own end depends on nothing unreadable"
    world.delete(keys.spec("vm", "vm-9"))
    assert "image-2" not in world.run_pass().images


def test_a_network_without_a_spec_is_kept_while_a_vm_needs_it(world: World) -> None:
    world.put(samples.VM)
    world.run_pass()
    world.delete(keys.spec("network", "network-1"))
    assert not world.run_pass().wanted_networks["host-1", "network-1"].value.gone
