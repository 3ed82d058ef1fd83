"""Emptying hosts: who moves, who cannot and why, who is stopped; and that the last host loses nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.scheduler.moving import ONE, SETTINGS, TWO, VM, VM_ID, Cloud
from ucloud.model.host import Drain
from ucloud.model.migration import MigrationState, Phase, Role
from ucloud.model.seen import Fence, GuestState, SeenPool
from ucloud.model.vm import Power
from ucloud.scheduler.beginnings import plan_beginnings
from ucloud.scheduler.drain import RETRY_S, blocked, left_running, must_stop, plan_drain, to_place_anew
from ucloud.scheduler.passes import plan_pass, snapshot_of
from ucloud.store import keys
from ucloud.store.codec import encode


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def report(cloud: Cloud, number: int, **fields: object) -> None:
    cloud.write(keys.seen(f"host-{number}", "host", "self"), encode(samples.report(number, **fields)))


def without_pool(cloud: Cloud) -> None:
    report(cloud, 1, pool=None)


def why(cloud: Cloud) -> dict[str, str]:
    return dict(blocked(cloud.view(), ONE, SETTINGS))


def test_a_draining_host_sends_its_vms_away(cloud: Cloud) -> None:
    assert plan_drain(cloud.view(), cloud.now()) == ()
    cloud.drain(ONE)
    assert plan_drain(cloud.view(), cloud.now()) == (VM_ID,)
    assert why(cloud) == {}
    cloud.run_pass()
    record = cloud.record()
    assert (record.cause, record.source, record.phase) == ("drain", ONE, Phase.PREPARING)
    assert plan_drain(cloud.view(), cloud.now()) == ()
    assert why(cloud) == {}
    assert left_running(cloud.view(), ONE) == (VM_ID,)


def test_a_whole_drain(cloud: Cloud) -> None:
    for number in range(2, 6):
        cloud.add_vm(samples.vm(number, cpus=1, memory_mib=64))
    cloud.drain(ONE)
    for _ in range(30):
        cloud.run_pass()
        view = cloud.view()
        active = [entry.value for entry in view.migrations.values() if not entry.value.is_over]
        assert len(active) <= SETTINGS.migrations_per_host
        for record in active:
            answers = {
                Phase.PREPARING: ((Role.TARGET, MigrationState.LISTENING),),
                Phase.SENDING: ((Role.SOURCE, MigrationState.COMPLETED), (Role.TARGET, MigrationState.RECEIVED)),
                Phase.MOVED: ((Role.TARGET, MigrationState.RESUMED),),
            }[record.phase]
            for role, state in answers:
                cloud.says(role, state, vm_id=record.vm_id)
    view = cloud.view()
    assert left_running(view, ONE) == ()
    assert len(view.locks) == 5
    assert {entry.value.phase for entry in view.migrations.values()} == {Phase.DONE}


def test_no_other_draining_host_is_a_target(cloud: Cloud) -> None:
    cloud.drain(ONE)
    cloud.drain(TWO)
    cloud.run_pass()
    assert cloud.record().target == "host-3"


def test_the_last_host_of_a_cloud_keeps_everything() -> None:
    cloud = Cloud(hosts=1)
    report(cloud, 1, pool=SeenPool("pool-a", Fence.LOCK))
    cloud.drain(ONE)
    cloud.run_pass()
    view = cloud.view()
    assert not view.migrations
    assert (ONE, VM_ID) in view.locks
    assert why(cloud) == {VM_ID: "no other host has proved that it shares pool pool-a"}
    assert left_running(view, ONE) == (VM_ID,)
    assert must_stop(view, ONE, SETTINGS) == frozenset()


def test_draining_all_hosts_moves_nothing_and_names_everything(cloud: Cloud) -> None:
    for host_id in (ONE, TWO, "host-3"):
        cloud.drain(host_id)
    cloud.run_pass()
    assert not cloud.view().migrations
    assert why(cloud) == {VM_ID: "no host can take it: host-2 is being drained; host-3 is being drained"}


def test_what_is_in_the_way_is_told_with_numbers(cloud: Cloud) -> None:
    cloud.drain(ONE)
    pool = SeenPool("pool-a", Fence.LOCK, proved_with=(ONE,))
    for number in (2, 3):
        report(cloud, number, pool=pool, memory_mib=1500)
    assert "host-2 has 476 of 476 MiB memory free, 512 needed" in why(cloud)[VM_ID]
    without_pool(cloud)
    assert why(cloud) == {VM_ID: "its disk is in a pool that only host host-1 has"}


def test_only_what_cannot_move_is_stopped_and_only_if_that_was_asked(cloud: Cloud) -> None:
    cloud.drain(ONE, Drain.STOP)
    assert must_stop(cloud.view(), ONE, SETTINGS) == frozenset()
    without_pool(cloud)
    assert must_stop(cloud.view(), ONE, SETTINGS) == {VM_ID}
    cloud.report(ONE, GuestState.STOPPED)
    cloud.delete(keys.lock(ONE, VM_ID))
    view = cloud.view()
    assert must_stop(view, ONE, SETTINGS) == {VM_ID}  # until the drain is over
    assert left_running(view, ONE) == ()
    assert to_place_anew(view) == frozenset()  # its disk is here only
    cloud.drain(ONE, Drain.MOVE)
    assert must_stop(cloud.view(), ONE, SETTINGS) == frozenset()
    assert left_running(cloud.view(), ONE) == (VM_ID,)


@pytest.mark.parametrize("state", [GuestState.PREPARING, GuestState.STARTING, GuestState.UNKNOWN])
def test_what_may_be_over_in_a_moment_stops_nothing(cloud: Cloud, state: GuestState) -> None:
    cloud.drain(ONE, Drain.STOP)
    cloud.report(ONE, state)
    assert must_stop(cloud.view(), ONE, SETTINGS) == frozenset()
    assert why(cloud) == {VM_ID: f"it is {state.value}, not running"}


def test_a_vm_that_a_drain_placed_anew_has_lost_no_host(cloud: Cloud) -> None:
    cloud.put(replace(VM, spec=replace(VM.spec, power=Power.STOPPED)))
    cloud.report(ONE, GuestState.STOPPED)
    cloud.drain(ONE)
    cloud.delete(keys.lock(ONE, VM_ID))
    view = cloud.view()
    (planned,) = plan_pass(view, SETTINGS, at=samples.AT, movable=to_place_anew(view))
    assert (planned.placement.host_id, planned.placement.pool_id, planned.placement.failovers) == (TWO, "pool-a", ())


def test_a_drain_looks_for_a_target_only_if_a_migration_may_begin(cloud: Cloud) -> None:
    for number in range(2, 40):
        cloud.add_vm(samples.vm(number, cpus=1, memory_mib=64))
    cloud.drain(ONE)
    cloud.run_pass()
    assert sum(not entry.value.is_over for entry in cloud.view().migrations.values()) == SETTINGS.migrations_per_host
    view = cloud.view()
    reports = CountedReads(view.seen_hosts)
    view = replace(view, seen_hosts=reports)
    plan_drain(view, cloud.now())
    by_drain, reports.reads = reports.reads, 0
    snapshot_of(view, SETTINGS)
    by_snapshot, reports.reads = reports.reads, 0
    assert list(plan_beginnings(view, SETTINGS, cloud.now(), frozenset())) == []
    assert reports.reads <= by_drain + by_snapshot, "its host is at its limit"


class CountedReads(dict[str, Any]):
    reads = 0

    def __getitem__(self, key: str) -> Any:
        self.reads += 1
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.reads += 1
        return super().get(key, default)


def test_a_stopped_vm_is_placed_anew_if_its_disk_is_elsewhere_too(cloud: Cloud) -> None:
    cloud.put(replace(VM, spec=replace(VM.spec, power=Power.STOPPED)))
    cloud.report(ONE, GuestState.STOPPED)
    cloud.drain(ONE)
    assert to_place_anew(cloud.view()) == frozenset()  # its lock is still there
    cloud.delete(keys.lock(ONE, VM_ID))
    assert to_place_anew(cloud.view()) == {VM_ID}
    assert why(cloud) == {}
    cloud.drain(ONE, Drain.NONE)
    assert to_place_anew(cloud.view()) == frozenset()


def test_a_failed_migration_rests_and_is_tried_again(cloud: Cloud) -> None:
    cloud.drain(ONE)
    cloud.run_pass()
    cloud.says(Role.TARGET, MigrationState.FAILED, "no luck")
    cloud.run_pass()
    cloud.says(Role.TARGET, MigrationState.WITHDRAWN)
    cloud.run_pass()
    assert cloud.record().phase is Phase.FAILED
    assert plan_drain(cloud.view(), cloud.now()) == ()
    assert why(cloud) == {VM_ID: "its last migration ended: host-2 says: no luck; it is tried again"}
    first = cloud.record().id
    cloud.clock.sleep(RETRY_S)
    cloud.run_pass()
    assert (cloud.record().phase, cloud.record().id == first) == (Phase.PREPARING, False)


def test_undrain_lets_what_goes_on_end_by_itself(cloud: Cloud) -> None:
    cloud.drain(ONE)
    cloud.run_pass()
    cloud.drain(ONE, Drain.NONE)
    assert cloud.plan() == ()
    cloud.says(Role.TARGET, MigrationState.LISTENING)
    cloud.run_pass()
    assert cloud.record().phase is Phase.SENDING


def test_a_dead_host_that_drains_begins_nothing(cloud: Cloud) -> None:
    cloud.drain(ONE)
    cloud.die(ONE)
    assert cloud.plan() == ()
    assert why(cloud) == {VM_ID: "host host-1 gives no life sign"}
    assert to_place_anew(cloud.view()) == frozenset()
