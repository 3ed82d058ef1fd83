"""Migrations in whole passes of the elected process: what hosts are told in each phase, and that a drain ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.unit import samples
from tests.unit.world import World
from ucloud.model.guard import LifeSign, RunLock
from ucloud.model.host import Drain, HostSpec
from ucloud.model.migration import MigrationRequest, MigrationState, Phase, Role, SeenMigration
from ucloud.model.seen import Fence, GuestState, SeenPool, SeenVm
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.codec import encode
from ucloud.store.view import View
from ucloud.system.clock import SystemClock, format_time

VM_ID, ONE, TWO = "vm-1", "host-1", "host-2"


@pytest.fixture
def world() -> Iterator[World]:
    """vm-1 runs on host-1, and host-2 shares its pool."""
    with World() as world:
        world.put(samples.vm(1, cpus=1, memory_mib=512, disk_gib=1), samples.IMAGE)
        for number, other in ((1, TWO), (2, ONE)):
            host_id = f"host-{number}"
            world.put(samples.host(number))
            sign = encode(LifeSign(host_id, f"inc-{number}", samples.AT, 3.0, 0.25))
            world.write(keys.alive(host_id), sign)
            world.write(keys.registered(host_id), sign)
            pool = SeenPool("pool-a", Fence.LOCK, proved_with=(other,))
            world.write(keys.seen(host_id, "host", "self"), encode(samples.report(number, pool=pool)))
        assert world.run_pass().placements[VM_ID].value.host_id == ONE
        world.write(keys.lock(ONE, VM_ID), encode(RunLock(VM_ID, ONE, "inc-1", 1, Failover.RESTART, "pool-a")))
        report(world, ONE, GuestState.RUNNING, 1)
        yield world


def report(world: World, host_id: str, state: GuestState, generation: int, part: SeenMigration | None = None) -> None:
    seen = SeenVm(VM_ID, generation, 1, state, "", samples.AT, boots=1, migration=part)
    world.write(keys.seen(host_id, "vm", VM_ID), encode(seen))


def told(view: View, host_id: str) -> tuple[int, bool, Phase | None]:
    """Generation, tombstone and phase of the VM's document there."""
    document = view.wanted_vms[host_id, VM_ID].value
    return document.generation, document.gone, document.migration.phase if document.migration else None


def test_a_drain_from_pass_to_pass(world: World) -> None:
    world.put(replace(samples.host(1), spec=HostSpec(drain=Drain.MOVE)))
    view = world.run_pass()
    record = view.migrations[VM_ID].value
    assert (record.phase, record.cause) == (Phase.PREPARING, "drain")
    assert told(view, TWO) == (2, False, Phase.PREPARING)
    assert told(view, ONE) == (1, False, Phase.PREPARING)
    report(world, TWO, GuestState.PREPARING, 2, SeenMigration(record.id, Role.TARGET, MigrationState.LISTENING))
    assert told(world.run_pass(), ONE) == (1, False, Phase.SENDING)
    report(world, ONE, GuestState.PAUSED, 1, SeenMigration(record.id, Role.SOURCE, MigrationState.COMPLETED))
    report(world, TWO, GuestState.PAUSED, 2, SeenMigration(record.id, Role.TARGET, MigrationState.RECEIVED))
    view = world.run_pass()
    assert (told(view, ONE), told(view, TWO)) == ((1, True, Phase.MOVED), (2, False, Phase.MOVED))
    assert view.wanted_vms[ONE, VM_ID].value.keep_disk
    assert list(view.locks) == [(TWO, VM_ID)]
    report(world, TWO, GuestState.RUNNING, 2, SeenMigration(record.id, Role.TARGET, MigrationState.RESUMED))
    view = world.run_pass()
    assert view.migrations[VM_ID].value.phase is Phase.DONE
    assert told(view, TWO) == (2, False, None)


def test_an_abort_takes_only_the_copy_away(world: World) -> None:
    request = MigrationRequest(VM_ID, "m1", "", format_time(SystemClock().now()))
    world.write(keys.spec("migration", VM_ID), encode(request))
    assert told(world.run_pass(), TWO) == (2, False, Phase.PREPARING)
    world.write(keys.spec("migration", VM_ID), encode(replace(request, cancelled=True)))
    view = world.run_pass()
    assert (told(view, ONE), told(view, TWO)) == ((1, False, Phase.ABORTING), (2, True, Phase.ABORTING))
    assert view.wanted_vms[TWO, VM_ID].value.keep_disk
    report(world, TWO, GuestState.GONE, 2, SeenMigration("m1", Role.TARGET, MigrationState.WITHDRAWN))
    view = world.run_pass()
    assert view.migrations[VM_ID].value.phase is Phase.CANCELLED
    assert told(view, ONE) == (1, False, None)
    assert list(view.locks) == [(ONE, VM_ID)]
