"""Whole passes over hosts that die, return, or only seem to: with a clock that the test moves."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit import samples
from tests.unit.clock import ManualClock
from tests.unit.control.faults import LossyStore
from tests.unit.history import Heard
from tests.unit.world import World
from ucloud.control.pool_fencing import PoolFencing
from ucloud.errors import Unavailable
from ucloud.model.event import Event
from ucloud.model.guard import RunLock, TakeoverPhase
from ucloud.model.host import Drain, HostSpec
from ucloud.model.seen import Fence, GuestState, SeenPool
from ucloud.model.vm import Failover, Power, Restart
from ucloud.store import keys
from ucloud.store.api import Put, Txn, absent
from ucloud.store.codec import decode_as, encode
from ucloud.store.view import View

W = 3.5
POOL = SeenPool("pool-1", Fence.LOCK, ("host-1", "host-2", "host-3"))


@pytest.fixture
def world() -> Iterator[World]:
    """Three hosts that share a pool; vm-1 runs on host-1 and may run elsewhere."""
    with World(ManualClock()) as made:
        made.put(samples.IMAGE, samples.NETWORK, samples.KEY)
        for number in (1, 2, 3):
            made.put(samples.host(number), samples.report(number, pool=POOL))
            made.register(samples.sign(number))
        place(made, 1, 1)
        yield made


def place(world: World, number: int, host_number: int, **spec: object) -> None:
    """A VM that runs on a host, as its agent has it."""
    vm = samples.vm(number, **spec)
    placement = replace(samples.PLACEMENT, vm_id=vm.meta.id, host_id=f"host-{host_number}", pool_id="pool-1")
    mortal = vm.spec.failover
    world.put(vm, placement, samples.lock(number, host_number, failover=mortal))
    world.report(
        f"host-{host_number}",
        replace(samples.SEEN_VM, vm_id=vm.meta.id, machine=replace(samples.MACHINE, vm_id=vm.meta.id)),
    )


def sleep(world: World, seconds: float) -> None:
    world.clock.sleep(seconds)


def settle(world: World, *, seconds: float = 20.0) -> View:
    """Passes as the loop makes them, for so long."""
    end_s = world.clock.monotonic_s() + seconds
    while world.clock.monotonic_s() < end_s:
        sleep(world, max(world.next_pass(), 0.01))
    return world.run_pass()


def run_until(world: World, phase: TakeoverPhase, host_id: str = "host-1") -> View:
    for _ in range(100):
        wait_s = world.next_pass()
        view = world.view()
        record = view.takeovers.get(host_id)
        if record is not None and record.value.phase is phase:
            return view
        sleep(world, max(wait_s, 0.01))
    raise AssertionError(f"{host_id} was never {phase}")


def events(world: World) -> list[str]:
    return [decode_as(Event, item.value).kind for item in world.store.list(keys.events()).items]


def confirm_off(world: World, number: int, incarnation: str = "inc-1") -> None:
    revision = world.view().registered[f"host-{number}"].mod_revision
    spec = HostSpec(confirmed_off=incarnation, confirmed_revision=revision)
    world.put(replace(samples.host(number), spec=spec))


def test_the_vms_of_a_dead_host_are_placed_anew(world: World) -> None:
    world.run_pass()
    world.lose("host-1")
    died_s = world.clock.monotonic_s()
    view = run_until(world, TakeoverPhase.DONE)
    assert world.clock.monotonic_s() - died_s == pytest.approx(W)
    placement = view.placements["vm-1"].value
    assert placement.host_id in ("host-2", "host-3")
    assert placement.generation == 2
    assert len(placement.failovers) == 1
    assert not view.locks
    document = view.wanted_vms[placement.host_id, "vm-1"].value
    assert (document.gone, document.failover, document.pool_id) == (False, Failover.RESTART, "pool-1")
    assert document.machine == replace(samples.MACHINE, vm_id="vm-1")
    old = view.wanted_vms["host-1", "vm-1"].value
    assert (old.gone, old.keep_disk) == (True, True)
    assert {"host_lost", "host_fenced", "host_taken_over", "vm_placed"} <= set(events(world))


def test_who_checks_safety_is_told(world: World) -> None:
    heard = Heard()
    world.decider = world.new_decider(history=heard)
    world.lose("host-1")
    settle(world)
    assert [kind for kind, _ in heard.told] == ["takeover_fenced", "takeover_done", "placed"]
    assert heard.told[0][1] == {"host": "host-1", "incarnation": "inc-1", "term": 1}
    assert heard.told[1][1] == {"host": "host-1", "incarnation": "inc-1", "locks": 1}
    assert heard.told[2][1]["generation"] == 2


def test_what_is_done_meanwhile_can_be_seen(world: World) -> None:
    world.lose("host-1")
    record = world.run_pass().takeovers["host-1"].value
    assert (record.phase, record.incarnation) == (TakeoverPhase.WAITING, "inc-1")
    assert record.until > record.lost_at
    assert "1 of its VMs will go elsewhere" in record.reason


def test_a_pass_never_waits_and_comes_back_in_time(world: World) -> None:
    world.lose("host-1")
    assert 0 < world.next_pass() <= 0.5
    assert not world.view().fenced


def test_after_a_takeover_everything_rests(world: World) -> None:
    world.lose("host-1")
    before = settle(world)
    assert settle(world).revision == before.revision


def test_a_host_that_is_back_in_time_loses_nothing(world: World) -> None:
    world.lose("host-1")
    world.next_pass()
    sleep(world, 3.4)
    world.register(samples.sign(1))
    view = settle(world)
    assert (view.placements["vm-1"].value.host_id, view.takeovers, view.fenced) == ("host-1", {}, {})
    assert ("host-1", "vm-1") in view.locks
    assert "host_back" in events(world)


def test_a_registration_that_no_view_knows_yet_stops_the_mark(world: World) -> None:
    """It blinks between two passes: gone again, but registered anew, so W begins anew."""
    world.lose("host-1")
    world.next_pass()
    sleep(world, 3.4)
    world.register(samples.sign(1))
    world.lose("host-1")
    sleep(world, 0.1)
    world.next_pass()
    assert not world.view().fenced
    lost_s = world.clock.monotonic_s()
    run_until(world, TakeoverPhase.DONE)
    assert world.clock.monotonic_s() - lost_s >= W


def test_a_host_that_is_back_late_and_locks_first_keeps_its_vm(world: World) -> None:
    """Its locks are free and its VMs not placed yet when a new guard begins: who commits first has the VM."""
    for number in (2, 3):
        world.put(replace(samples.host(number), spec=HostSpec(schedulable=False)))
    world.lose("host-1")
    settle(world)
    assert world.view().placements["vm-1"].value.host_id == ""
    place(world, 2, 1)
    world.delete(keys.lock("host-1", "vm-2"))
    world.cache.wait_for(world.store.list(keys.ROOT).revision, 5.0)
    late = world.view()
    world.put(samples.host(2))
    lock = Put(keys.lock("host-1", "vm-2"), encode(samples.lock(2, incarnation="inc-2")))
    assert late.taken_over("host-1") is not None
    assert world.store.commit(Txn((absent(keys.fenced("host-1", "inc-2")),), (lock,))).ok
    view = world.run_pass()
    assert view.placements["vm-2"].value.host_id == "host-1"


def test_a_new_incarnation_keeps_what_was_not_placed_anew_yet(world: World) -> None:
    world.lose("host-1")
    run_until(world, TakeoverPhase.WAITING)
    world.register(samples.sign(1, incarnation="inc-2"))
    view = settle(world)
    assert view.placements["vm-1"].value.host_id == "host-1"
    assert (view.takeovers, view.fenced) == ({}, {})


def test_the_mark_of_a_host_that_came_back_is_trimmed_once_it_lives(world: World) -> None:
    world.lose("host-1")
    settle(world)
    world.register(samples.sign(1, incarnation="inc-2"))
    view = world.run_pass()
    assert not view.fenced
    assert view.takeovers["host-1"].value.phase is TakeoverPhase.DONE, "the brake still counts it"
    sleep(world, 601)
    assert not world.run_pass().takeovers


def test_a_new_raft_term_begins_the_wait_anew(world: World) -> None:
    world.lose("host-1")
    world.next_pass()
    sleep(world, 2.0)
    world.store.term = 2
    world.next_pass()
    changed_s = world.clock.monotonic_s()
    run_until(world, TakeoverPhase.DONE)
    assert world.clock.monotonic_s() - changed_s == pytest.approx(W)


def test_a_mark_in_another_term_frees_nothing_for_a_whole_w(world: World) -> None:
    world.lose("host-1")
    world.next_pass()
    sleep(world, 3.45)
    world.next_pass()
    sleep(world, 0.05)
    world.store.term = 2
    world.next_pass()
    assert world.view().fenced
    marked_s = world.clock.monotonic_s()
    assert ("host-1", "vm-1") in world.view().locks
    assert run_until(world, TakeoverPhase.FENCED).locks
    run_until(world, TakeoverPhase.DONE)
    assert world.clock.monotonic_s() - marked_s == pytest.approx(W)


@pytest.mark.parametrize("passes", range(12))
def test_a_scheduler_that_begins_in_the_middle_waits_a_whole_w_itself(world: World, passes: int) -> None:
    world.lose("host-1")
    for _ in range(passes):
        sleep(world, max(world.next_pass(), 0.01))
    unfinished = world.view().taken_over("host-1") is None
    world.decider = world.new_decider()
    begun_s = world.clock.monotonic_s()
    view = run_until(world, TakeoverPhase.DONE)
    if unfinished:
        assert world.clock.monotonic_s() - begun_s >= W - 0.001
    assert settle(world).placements["vm-1"].value.generation == 2
    assert not view.locks


@pytest.mark.parametrize("arrives", [False, True], ids=["never arrives", "happens all the same"])
@pytest.mark.parametrize("lost", range(5))
def test_a_transaction_without_an_answer_is_neither_done_nor_failed(world: World, lost: int, arrives: bool) -> None:
    world.run_pass()
    lossy = LossyStore(world.store, lost=lost, arrives=arrives)
    world.decider = world.new_decider(store=lossy)
    world.lose("host-1")
    died_s = world.clock.monotonic_s()
    run_until(world, TakeoverPhase.DONE)
    assert W <= world.clock.monotonic_s() - died_s + 0.001 <= 2 * W + 1
    view = settle(world)
    placement = view.placements["vm-1"].value
    assert (placement.host_id in ("host-2", "host-3"), placement.generation) == (True, 2)
    assert [place for place, entry in view.wanted_vms.items() if not entry.value.gone] == [(placement.host_id, "vm-1")]
    assert lossy.commits > lost


def test_the_brake_holds_a_mass_event_until_its_time_or_somebodys_word(world: World) -> None:
    place(world, 2, 2)
    world.lose("host-1")
    world.lose("host-2")
    view = settle(world)
    assert {entry.value.phase for entry in view.takeovers.values()} == {TakeoverPhase.HELD}
    assert view.takeovers["host-1"].value.until
    assert events(world).count("takeover_held") == 2
    confirm_off(world, 2)
    view = settle(world)
    assert view.placements["vm-2"].value.host_id == "host-3"
    assert view.placements["vm-1"].value.host_id == "host-1"
    settle(world, seconds=620)
    world.put(samples.report(3, pool=POOL))
    assert world.run_pass().placements["vm-1"].value.host_id == "host-3"


def test_the_second_host_within_ten_minutes_waits(world: World) -> None:
    world.lose("host-1")
    settle(world)
    world.lose("host-2")
    view = settle(world)
    assert view.takeovers["host-2"].value.phase is TakeoverPhase.HELD
    until = datetime.datetime.fromisoformat(view.takeovers["host-2"].value.until)
    lost_at = datetime.datetime.fromisoformat(view.takeovers["host-1"].value.lost_at)
    assert until - lost_at == datetime.timedelta(minutes=10)


def test_all_hosts_blink(world: World) -> None:
    for number in (1, 2, 3):
        world.lose(f"host-{number}")
    world.next_pass()
    sleep(world, 4.0)
    world.next_pass()
    for number in (1, 2, 3):
        world.register(samples.sign(number))
    view = settle(world)
    assert (view.takeovers, view.fenced, len(view.locks)) == ({}, {}, 1)


def test_a_guard_that_never_fences_waits_for_somebodys_word(world: World) -> None:
    world.register(samples.sign(1, fence_s=0.0))
    world.lose("host-1")
    view = settle(world, seconds=700)
    assert (view.fenced, view.takeovers["host-1"].value.until) == ({}, "")
    confirm_off(world, 1)
    assert settle(world).placements["vm-1"].value.host_id != "host-1"


def test_a_host_that_came_back_since_needs_another_word(world: World) -> None:
    world.register(samples.sign(1, fence_s=0.0))
    world.lose("host-1")
    confirm_off(world, 1)
    world.register(samples.sign(1, fence_s=0.0))
    world.lose("host-1")
    view = settle(world, seconds=700)
    assert (view.fenced, view.takeovers["host-1"].value.phase) == ({}, TakeoverPhase.HELD)


def test_a_lock_in_a_pool_of_which_nobody_tells_holds_until_somebody_does(world: World) -> None:
    world.put(replace(samples.lock(1), pool_id="odd"))
    world.lose("host-1")
    view = settle(world)
    record = view.takeovers["host-1"].value
    assert (record.phase, ("host-1", "vm-1") in view.locks) == (TakeoverPhase.FENCED, True)
    assert "no host's report tells whether pool odd has to refuse it" in record.reason
    world.put(samples.report(3, pool=SeenPool("odd", Fence.LOCK)))
    view = settle(world)
    assert (view.takeovers["host-1"].value.phase, dict(view.locks)) == (TakeoverPhase.DONE, {})


def test_a_confirmed_host_is_not_held_by_a_pool_of_which_nobody_tells(world: World) -> None:
    world.put(replace(samples.lock(1), pool_id="odd"))
    world.lose("host-1")
    settle(world)
    confirm_off(world, 1)
    view = settle(world)
    assert (view.takeovers["host-1"].value.phase, dict(view.locks)) == (TakeoverPhase.DONE, {})


def test_what_may_not_run_elsewhere_stays(world: World) -> None:
    place(world, 2, 1, failover=Failover.NONE)
    place(world, 3, 1)
    world.put(samples.lock(3, failover=Failover.NONE))  # its process was born with none
    world.lose("host-1")
    view = settle(world)
    assert {vm_id: entry.value.host_id for vm_id, entry in view.placements.items() if vm_id != "vm-1"} == {
        "vm-2": "host-1",
        "vm-3": "host-1",
    }
    assert set(view.locks) == {("host-1", "vm-2"), ("host-1", "vm-3")}


def test_a_disk_that_only_its_host_has_stays_there(world: World) -> None:
    world.put(samples.report(1, pool=SeenPool("own-1")))
    placement = world.view().placements["vm-1"].value
    world.put(replace(placement, pool_id="own-1"))
    world.lose("host-1")
    view = settle(world)
    assert view.takeovers["host-1"].value.phase is TakeoverPhase.DONE
    assert view.placements["vm-1"].value.host_id == "host-1"


def test_a_vm_without_a_disk_yet_goes_anywhere(world: World) -> None:
    world.put(samples.report(1, pool=SeenPool("own-1")))
    world.put(samples.vm(5), replace(samples.PLACEMENT, vm_id="vm-5", pool_id="own-1"))
    world.lose("host-1")
    placement = settle(world).placements["vm-5"].value
    assert placement.host_id in ("host-2", "host-3")
    assert (placement.pool_id, len(placement.failovers)) == ("pool-1", 1), "it may be what its host died of"


@pytest.mark.parametrize(
    ("state", "restart", "moves"),
    [
        (GuestState.STOPPED, Restart.ON_FAILURE, False),
        (GuestState.STOPPED, Restart.ALWAYS, True),
        (GuestState.CRASHED, Restart.ON_FAILURE, True),
        (GuestState.CRASHED, Restart.NEVER, False),
        (GuestState.RUNNING, Restart.NEVER, True),
    ],
)
def test_a_guest_that_ended_by_itself_is_not_started_elsewhere(
    world: World, state: GuestState, restart: Restart, moves: bool
) -> None:
    world.put(samples.vm(1, restart=restart))
    world.report("host-1", replace(samples.SEEN_VM, state=state))
    if state is not GuestState.RUNNING:
        world.delete(keys.lock("host-1", "vm-1"))
    world.lose("host-1")
    assert (settle(world).placements["vm-1"].value.host_id != "host-1") is moves
    vm = samples.vm(1, restart=restart, boots=2)
    world.put(replace(vm, meta=replace(vm.meta, generation=2)))
    assert settle(world).placements["vm-1"].value.host_id != "host-1", "somebody wants the next boot"


def test_those_that_fit_nowhere_say_why_and_start_when_there_is_room(world: World) -> None:
    for number in (2, 3):
        world.put(samples.report(number, pool=POOL, memory_mib=1024))
    world.lose("host-1")
    told = world.run_pass().takeovers["host-1"].value.reason
    assert told.endswith("; 0 of its VMs will go elsewhere; 1 fit nowhere"), "what will be is told while it waits"
    view = settle(world)
    placement = view.placements["vm-1"].value
    assert placement.host_id == ""
    assert "MiB memory free, 512 needed" in placement.decision.reason
    assert view.wanted_vms["host-1", "vm-1"].value.gone, "a host that returns must not start it"
    assert settle(world).revision == view.revision
    world.register(samples.sign(1, incarnation="inc-2"))
    view = world.run_pass()
    placement = view.placements["vm-1"].value
    assert (placement.host_id, len(placement.failovers)) == ("host-1", 1)
    document = view.wanted_vms["host-1", "vm-1"].value
    assert (document.gone, document.keep_disk, document.generation) == (False, False, placement.generation)


def test_a_machine_is_not_lost_with_the_only_host_that_knew_it(world: World) -> None:
    for number in (2, 3):
        world.put(samples.report(number, pool=POOL, memory_mib=1024))
    world.lose("host-1")
    document = settle(world).wanted_vms["host-1", "vm-1"]
    world.put(samples.report(1, pool=POOL, memory_mib=1024))
    world.register(samples.sign(1, incarnation="inc-2"))
    answer = replace(samples.SEEN_VM, vm_id="vm-1", state=GuestState.GONE, wanted_revision=document.mod_revision)
    world.report("host-1", answer)
    assert ("host-1", "vm-1") in settle(world).wanted_vms
    world.put(samples.report(2, pool=POOL))
    view = settle(world)
    assert set(view.wanted_vms) == {("host-2", "vm-1")}
    assert view.wanted_vms["host-2", "vm-1"].value.machine == replace(samples.MACHINE, vm_id="vm-1")


def test_a_vm_that_loses_three_hosts_in_ten_minutes_waits(world: World) -> None:
    world.put(samples.host(4), samples.report(4, pool=POOL))
    world.register(samples.sign(4))
    for incarnation in range(2, 5):
        number = int(world.view().placements["vm-1"].value.host_id.removeprefix("host-"))
        confirm_off(world, number, world.view().registered[f"host-{number}"].value.incarnation)
        world.lose(f"host-{number}")
        placement = settle(world).placements["vm-1"].value
        assert placement.host_id, placement.decision.reason
        world.put(samples.lock(1, int(placement.host_id[-1]), generation=placement.generation))
        world.register(samples.sign(number, incarnation=f"inc-{incarnation}"))
    host_id = world.view().placements["vm-1"].value.host_id
    confirm_off(world, int(host_id[-1]), world.view().registered[host_id].value.incarnation)
    world.lose(host_id)
    placement = settle(world).placements["vm-1"].value
    assert placement.host_id == ""
    assert "lost 3 times within 10 minutes: it waits until" in placement.decision.reason
    settle(world, seconds=620)
    for number in (1, 2, 3, 4):
        world.put(samples.report(number, pool=POOL))
    assert world.run_pass().placements["vm-1"].value.host_id


def test_a_pool_with_a_verb_must_refuse_the_host_first(world: World) -> None:
    asked = []

    class Service:
        def fence(self, pool_id: str, host_id: str, incarnation: str) -> None:
            asked.append((pool_id, host_id, incarnation))
            if len(asked) < 3:
                raise Unavailable("failed to fence: the service hangs")

    for number in (1, 2, 3):
        world.put(samples.report(number, pool=replace(POOL, fence=Fence.VERB)))
    world.decider = world.new_decider(pools=PoolFencing(Service(), start=lambda work: work()))
    world.lose("host-1")
    view = run_until(world, TakeoverPhase.FENCED)
    assert "pool pool-1 is asked to refuse it again: failed to fence" in view.takeovers["host-1"].value.reason
    assert view.locks
    run_until(world, TakeoverPhase.DONE)
    assert asked == [("pool-1", "host-1", "inc-1")] * 3


def test_without_a_way_to_the_service_nothing_is_freed(world: World) -> None:
    world.put(samples.report(1, pool=replace(POOL, fence=Fence.VERB)))
    world.lose("host-1")
    assert settle(world, seconds=60).locks


def test_a_hundred_vms_take_few_transactions(world: World) -> None:
    for number in range(2, 100):
        world.write(keys.secret_user_data_source(f"vm-{number}"), b"#!/bin/sh")
        place(world, number, 1, cpus=0, memory_mib=10, disk_gib=0)
    world.run_pass()
    world.lose("host-1")
    counting = LossyStore(world.store, lost=-1, arrives=True)
    world.decider = world.new_decider(store=counting)
    view = run_until(world, TakeoverPhase.DONE)
    assert {entry.value.host_id for entry in view.placements.values()} == {"host-2", "host-3"}
    assert counting.commits <= 20
    copies = world.store.list(keys.secrets_of("host-2")).items + world.store.list(keys.secrets_of("host-3")).items
    assert len(copies) == 98


def test_a_host_that_is_emptied_gives_its_resting_vms_away(world: World) -> None:
    world.delete(keys.lock("host-1", "vm-1"))
    world.put(samples.vm(1, power=Power.STOPPED))
    world.report("host-1", replace(samples.SEEN_VM, state=GuestState.STOPPED))
    world.put(replace(samples.host(1), spec=HostSpec(drain=Drain.MOVE)))
    assert world.run_pass().placements["vm-1"].value.host_id in ("host-2", "host-3")


def test_a_draining_host_is_given_nothing(world: World) -> None:
    for number in (1, 2):
        world.put(replace(samples.host(number), spec=HostSpec(drain=Drain.MOVE)))
    world.put(samples.vm(7))
    assert world.run_pass().placements["vm-7"].value.host_id == "host-3"


def test_locks_of_an_earlier_incarnation_are_freed_too(world: World) -> None:
    world.register(samples.sign(1, incarnation="inc-2"))
    world.lose("host-1")
    view = settle(world)
    assert view.placements["vm-1"].value.host_id in ("host-2", "host-3")


def test_a_lock_taken_at_the_last_moment_is_freed(world: World) -> None:
    """The view does not know it, the store does."""
    world.lose("host-1")
    world.next_pass()
    late = samples.lock(9)
    world.put(samples.vm(9), replace(samples.PLACEMENT, vm_id="vm-9", pool_id="pool-1"))
    world.write(keys.lock("host-1", "vm-9"), encode(late))
    view = settle(world)
    assert isinstance(late, RunLock)
    assert view.placements["vm-9"].value.host_id in ("host-2", "host-3")
