"""The pass over a VM: what it prepares, reports and takes away, on the fake hypervisor and a memory store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from tests.unit import samples
from tests.unit.clock import ManualClock
from tests.unit.world import key_of
from ucloud.agent.adoption import DISOWNED, Adoption
from ucloud.agent.locks import Locks
from ucloud.agent.migrations import Migrations
from ucloud.agent.reports import Reports
from ucloud.agent.vms import LOOK_AGAIN_S, VmPasses
from ucloud.errors import Conflict, GuestError, StoreUnavailable, Unavailable
from ucloud.hypervisor.actions import Guest
from ucloud.hypervisor.fake import FakeHypervisor, FakeMachine
from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.migration_plan import LockView
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources, Tap
from ucloud.hypervisor.watcher import GuestWatcher
from ucloud.model.migration import MigrationState, Phase, Role, WantedMigration
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.vm import Failover, Power
from ucloud.model.wanted import WantedVm
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Txn
from ucloud.store.codec import encode
from ucloud.store.memory import MemoryStore
from ucloud.store.view import Entry
from ucloud.system.history import Silence


@dataclass
class Shelf:
    """Stands where HostResources does: remembers what was asked of it."""

    done: list[str] = field(default_factory=list)
    broken: str = ""
    locked: str = ""
    on_remove: Callable[[], None] | None = None
    lock_view: LockView = LockView.OWN

    @contextlib.contextmanager
    def prepared(self, wanted: WantedVm, *, uid: int) -> Iterator[Resources]:
        if self.broken:
            raise Unavailable(self.broken)
        if self.locked:
            raise Conflict(self.locked, code="volume_locked")
        self.done.append("prepared")
        yield _resources(wanted)

    @contextlib.contextmanager
    def prepared_for_arrival(self, wanted: WantedVm) -> Iterator[Resources]:
        self.done.append("prepared for arrival")
        yield _resources(wanted)

    @property
    def locks(self) -> Shelf:
        return self

    def view(self, process: VmProcess, document: Entry[WantedVm]) -> LockView:
        self.done.append("lock read")
        return self.lock_view

    def take_over(self, wanted: WantedVm, *, incarnation: str, arrived: bool, moved_from: str) -> None:
        self.done.append(f"taken over from {moved_from or 'nobody'}")

    def unplug(self, wanted: WantedVm) -> None:
        self.done.append("unplugged")

    def write_documents(self, wanted: WantedVm) -> None:
        self.done.append("documents")

    def remove(self, wanted: WantedVm) -> None:
        if self.on_remove:
            self.on_remove()
        self.done.append("removed")

    def forget(self, vm_id: str) -> None:
        pass

    def release_lock(self, wanted: WantedVm) -> None:
        self.done.append("released")


def _resources(wanted: WantedVm) -> Resources:
    taps = tuple(Tap(nic.id, 0, 1430) for nic in wanted.nics)
    return Resources(Disk(DiskLayer("/disk", "qcow2")), taps)


@dataclass
class Notes:
    """Stands where the history does."""

    told: list[str] = field(default_factory=list)

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        self.told.append(kind)


class Streamless:
    """Streams that connect to nobody: QEMU gets its descriptor."""

    def send(self, vm_id: str, *, path: str, door: str, begin: Callable[[int], None]) -> None:
        begin(99)


class Host:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.machine = FakeMachine()
        self.shelf = Shelf()
        self.reports = Reports(MemoryStore(), "host-1", self.clock)
        self.wanted: WantedVm | None = samples.WANTED_VM
        self.revision = 1
        self.ready = True
        self.missing = ""
        self.watcher = GuestWatcher(lambda _: None)
        self.notes = Notes()
        self.store = MemoryStore()
        self.put(samples.PLACEMENT, replace(samples.LIFE_SIGN, incarnation="fake"))
        self.restart_agent()

    def put(self, *values: object) -> None:
        for value in values:
            self.store.commit(Txn((), (Put(key_of(value), encode(value)),)))

    def find(self, _: str) -> Entry[WantedVm] | None:
        return Entry("key", self.wanted, self.revision) if self.wanted else None

    def restart_agent(self) -> None:
        self.adoption = Adoption(Locks(self.store, "host-1", Silence()))
        self.migrations = Migrations(
            FakeHypervisor(self.machine),
            self.shelf,  # type: ignore[arg-type]
            Streamless(),  # type: ignore[arg-type]
            self.notes,
            "host-1",
            find=self.find,
        )

    def run(self) -> float | None:
        passes = VmPasses(
            FakeHypervisor(self.machine),
            self.shelf,  # type: ignore[arg-type]
            self.reports,
            find=self.find,
            is_ready=lambda _: self.ready,
            why_missing=lambda _: self.missing,
            watcher=self.watcher,
            migrations=self.migrations,
            adoption=self.adoption,
            clock=self.clock,
        )
        return passes.run("vm-1")

    @property
    def guest(self) -> Guest:
        return self.machine.guests["vm-1"]

    def wish(self, **changes: object) -> None:
        assert self.wanted is not None
        self.wanted = replace(self.wanted, **changes)
        self.revision += 1

    @property
    def report(self) -> SeenVm:
        found = self.reports.vm("vm-1")
        assert found is not None
        return found


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.watcher.close()


def test_a_wanted_vm_runs_and_is_reported(host: Host) -> None:
    host.run()
    assert host.machine.starts == [("vm-1", 1, 1)]
    assert (host.report.state, host.report.boots, host.report.wanted_revision) == (GuestState.RUNNING, 1, 1)


def test_a_second_pass_starts_nothing(host: Host) -> None:
    host.run()
    host.run()
    assert len(host.machine.starts) == 1


def test_it_waits_for_its_network_and_says_so(host: Host) -> None:
    host.ready = False
    host.run()
    assert host.machine.starts == []
    assert host.report.state is GuestState.PREPARING
    assert "network-1" in host.report.reason


def test_it_waits_for_its_image_and_says_how_far_that_is(host: Host) -> None:
    host.missing = "its image is being fetched: 5 MiB so far"
    host.run()
    assert host.machine.starts == []
    assert (host.report.state, host.report.reason) == (GuestState.PREPARING, host.missing)


def test_disk_and_taps_go_before_the_files_that_keep_the_uid(host: Host) -> None:
    host.run()
    host.wish(gone=True)
    host.shelf.on_remove = lambda: host.shelf.done.append("uid kept" if host.machine.machines else "uid free")
    host.run()
    assert host.shelf.done.index("uid kept") < host.shelf.done.index("released")


def test_a_failure_is_reported_with_its_reason_and_the_next_pass_mends_it(host: Host) -> None:
    host.shelf.broken = "failed to fetch image blob: no host has it"
    with pytest.raises(Unavailable):
        host.run()
    assert host.report.state is GuestState.FAILED
    assert "no host has it" in host.report.reason
    host.shelf.broken = ""
    host.run()
    assert host.report.state is GuestState.RUNNING


def test_a_new_agent_adopts_what_runs(host: Host) -> None:
    host.run()
    host.shelf.done.clear()
    host.run()
    assert "prepared" not in host.shelf.done
    assert host.report.state is GuestState.RUNNING


def test_a_stop_ends_with_the_lock_given_back(host: Host) -> None:
    host.run()
    host.wish(power=Power.STOPPED)
    host.run()
    host.run()
    assert host.report.state is GuestState.STOPPED
    assert host.shelf.done[-1] == "released"


def test_a_tombstone_takes_everything_away_before_gone_is_said(host: Host) -> None:
    host.run()
    host.wish(gone=True)
    host.run()
    assert host.report.state is GuestState.GONE
    assert host.report.wanted_revision == host.revision
    assert host.shelf.done[-2:] == ["removed", "released"]
    assert not host.machine.processes


def test_no_document_is_no_wish(host: Host) -> None:
    host.run()
    host.wanted = None
    host.run()
    assert host.machine.processes["vm-1"].running
    assert "left alone" in host.report.reason


def test_an_old_report_goes_when_nothing_is_left_and_nobody_asks(host: Host) -> None:
    host.run()
    host.wish(gone=True)
    host.run()
    host.wanted = None
    assert host.run() is None, "and it is not looked after any more"
    assert host.reports.vm("vm-1") is None


def test_without_a_guard_nothing_is_concluded(host: Host) -> None:
    host.run()
    host.machine.guard_answers = False
    host.wish(gone=True)
    assert host.run() == LOOK_AGAIN_S
    assert host.report.state is GuestState.UNKNOWN
    assert "removed" not in host.shelf.done


def test_a_stop_waits_until_its_deadline(host: Host) -> None:
    host.run()
    host.machine.deaf.add("vm-1")
    host.wish(power=Power.STOPPED, stop_timeout_s=10)
    again_s = host.run()
    assert again_s is not None
    assert 0 < again_s <= 10
    assert host.report.until
    host.clock.sleep(11)
    host.run()
    assert host.report.state is GuestState.STOPPED


def test_a_locked_disk_is_waited_for_and_never_counted_as_a_crash(host: Host) -> None:
    host.machine.locked_disks.add("vm-1")
    for _ in range(5):
        host.run()
        assert host.report.state is GuestState.PREPARING
        assert host.report.reason == "waits for the disk's lock"
        host.clock.sleep(1.0)
    assert len(host.machine.starts) == 5, "tried again every second"
    host.machine.locked_disks.clear()
    host.run()
    assert (host.report.state, host.report.restarts) == (GuestState.RUNNING, 0)


def test_a_volume_that_a_pool_keeps_for_another_host_is_waited_for(host: Host) -> None:
    host.shelf.locked = "failed to open volume vm-1: host-2 holds it"
    again_s = host.run()
    assert again_s is not None
    assert 0 < again_s <= 1.0
    assert host.report.state is GuestState.PREPARING
    assert "host-2 holds it" in host.report.reason
    host.shelf.locked = ""
    host.run()
    assert host.report.state is GuestState.RUNNING


def test_a_machine_that_came_with_the_vm_is_used_and_reported(host: Host) -> None:
    host.wish(machine=replace(samples.MACHINE, uid=700_001, slots={"root": 2, "rng": 3, samples.NIC.id: 12}))
    host.run()
    machine = host.report.machine
    assert machine is not None
    assert (machine.uid, machine.slots[samples.NIC.id]) == (700_001, 12)
    assert host.report.machine_type == machine.machine_type


def test_a_frozen_guest_is_paused_and_nothing_is_done_to_it(host: Host) -> None:
    host.run()
    host.machine.freeze("vm-1")
    host.wish(power=Power.STOPPED)
    host.run()
    assert host.report.state is GuestState.PAUSED
    assert "held by the guard" in host.report.reason
    host.machine.thaw("vm-1")
    host.run()
    host.run()
    assert host.report.state is GuestState.STOPPED


class TestAdoption:
    def run_mortal(self, host: Host) -> None:
        host.wish(failover=Failover.RESTART)
        host.put(replace(samples.RUN_LOCK, incarnation="fake"))
        host.run()
        assert host.report.state is GuestState.RUNNING

    def test_its_own_lock(self, host: Host) -> None:
        self.run_mortal(host)
        host.restart_agent()
        host.run()
        assert host.report.state is GuestState.RUNNING

    @pytest.mark.parametrize("change", [{"generation": 7}, {"incarnation": "another"}])
    def test_another_lock_while_placed_elsewhere_ends_it(self, host: Host, change: dict[str, object]) -> None:
        self.run_mortal(host)
        host.restart_agent()
        host.put(replace(samples.RUN_LOCK, **{"incarnation": "fake", **change}))  # type: ignore[arg-type]
        host.put(replace(samples.PLACEMENT, host_id="host-2", generation=2))
        host.wanted = None
        host.run()
        assert not host.machine.processes
        assert host.machine.records["vm-1"].end_detail == DISOWNED

    def test_a_lock_that_cannot_be_taken_ends_nothing_without_a_sign(self, host: Host) -> None:
        """Its placement is not there, which says nothing: asked again with every pass."""
        self.run_mortal(host)
        host.store.commit(Txn((), (Delete(keys.lock("host-1", "vm-1")), Delete(keys.placement("vm-1")))))
        host.restart_agent()
        host.run()
        assert host.report.state is GuestState.RUNNING
        host.put(replace(samples.PLACEMENT, host_id="host-2", generation=2))
        host.run()
        assert not host.machine.processes

    def test_a_lost_lock_is_taken_again_while_it_is_placed_here(self, host: Host) -> None:
        self.run_mortal(host)
        host.store.commit(Txn((), (Delete(keys.lock("host-1", "vm-1")),)))
        host.restart_agent()
        host.run()
        assert host.report.state is GuestState.RUNNING
        lock = Locks(host.store, "host-1", Silence()).read("vm-1")
        assert lock is not None
        assert (lock.incarnation, lock.failover) == ("fake", Failover.RESTART)

    def test_it_is_read_once_in_an_agents_life(self, host: Host) -> None:
        self.run_mortal(host)
        host.store.commit(Txn((), (Delete(keys.lock("host-1", "vm-1")),)))
        host.put(replace(samples.PLACEMENT, host_id="host-2", generation=2))
        host.run()
        assert host.machine.processes["vm-1"].running

    def test_without_a_store_nothing_is_ended(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_mortal(host)
        host.restart_agent()

        def unreachable(*_: object) -> None:
            raise StoreUnavailable("failed to reach the store: nobody answers")

        monkeypatch.setattr(host.store, "get", unreachable)
        host.run()
        assert host.machine.processes["vm-1"].running

    def test_one_that_starts_nowhere_else_is_never_touched(self, host: Host) -> None:
        host.wish(failover=Failover.NONE)
        host.run()
        host.put(replace(samples.PLACEMENT, host_id="host-2", generation=2))
        host.restart_agent()
        host.run()
        assert host.machine.processes["vm-1"].running


def moving(role: Role, phase: Phase) -> WantedMigration:
    return WantedMigration("m-1", role, phase, "host-2", "https://[::1]:1", 0, 300, "")


def state_of(host: Host) -> MigrationState | None:
    seen = host.report.migration
    return seen.state if seen else None


class TestMigration:
    def test_the_whole_way_of_a_guest(self, host: Host) -> None:
        """Source and target, as the scheduler leads them; nobody runs between ``vm_paused`` and ``vm_resume``."""
        target = Host()
        target.wanted = replace(samples.WANTED_VM, generation=2, migration=moving(Role.TARGET, Phase.PREPARING))
        host.run()
        host.wish(migration=moving(Role.SOURCE, Phase.PREPARING))
        host.run()
        target.run()
        assert (state_of(target), target.report.state) == (MigrationState.LISTENING, GuestState.PREPARING)
        assert "prepared" not in target.shelf.done, "no run lock is taken"
        host.wish(migration=moving(Role.SOURCE, Phase.SENDING))
        target.wish(migration=moving(Role.TARGET, Phase.SENDING))
        assert host.run() == pytest.approx(1.0), "progress is told every second"
        assert (state_of(host), host.report.state) == (MigrationState.SENDING, GuestState.RUNNING)
        host.machine.complete_transfer("vm-1", target.machine)
        host.run()
        target.run()
        assert (state_of(host), state_of(target)) == (MigrationState.COMPLETED, MigrationState.RECEIVED)
        assert host.shelf.done[-1] == "unplugged", "before it was told"
        assert target.guest is Guest.PAUSED
        target.put(replace(samples.RUN_LOCK, incarnation="fake", generation=2))
        target.wish(migration=moving(Role.TARGET, Phase.MOVED))
        target.run()
        assert (state_of(target), target.report.state) == (MigrationState.RESUMED, GuestState.RUNNING)
        assert target.machine.permits == [("vm-1", 2, 1, "fake")]
        assert "taken over from host-2" in target.shelf.done
        host.wish(gone=True, keep_disk=True)
        host.run()
        assert host.report.state is GuestState.GONE
        assert not host.machine.processes
        assert host.notes.told == ["vm_running", "vm_paused"]
        assert target.notes.told == ["vm_resume", "vm_running"]
        target.watcher.close()

    def test_an_abort_lets_the_source_go_on(self, host: Host) -> None:
        self.send(host)
        host.machine.guests["vm-1"] = Guest.SENT
        host.run()
        host.run()
        assert host.shelf.done.count("unplugged") == 1
        host.shelf.lock_view = LockView.UNKNOWN
        host.wish(migration=moving(Role.SOURCE, Phase.ABORTING))
        host.run()
        assert host.guest is Guest.SENT, "nobody knows whose the lock is"
        host.shelf.lock_view = LockView.OWN
        host.run()
        assert (state_of(host), host.report.state) == (MigrationState.WITHDRAWN, GuestState.RUNNING)
        assert host.notes.told == ["vm_running", "vm_paused", "vm_resume"]

    def test_a_source_whose_lock_is_gone_does_not_go_on(self, host: Host) -> None:
        self.send(host)
        host.machine.guests["vm-1"] = Guest.SENT
        host.run()
        host.shelf.lock_view = LockView.OTHER
        host.shelf.broken = "failed to lock vm vm-1: it is not placed here any more"
        host.wish(migration=moving(Role.SOURCE, Phase.ABORTING))
        with pytest.raises(Unavailable):
            host.run()
        assert not host.machine.processes
        assert "vm_resume" not in host.notes.told

    def test_a_source_that_died_is_not_started_while_the_lock_may_move(self, host: Host) -> None:
        self.send(host)
        host.machine.guests["vm-1"] = Guest.SENT
        host.run()
        host.machine.crash("vm-1")
        host.run()
        assert len(host.machine.starts) == 1
        assert state_of(host) is MigrationState.FAILED
        host.wish(migration=moving(Role.SOURCE, Phase.ABORTING))
        host.run()
        assert len(host.machine.starts) == 2

    def test_a_broken_stream_fails_both_sides_and_nothing_is_tried_twice(self, host: Host) -> None:
        self.send(host)
        host.machine.break_stream("vm-1")
        host.run()
        host.run()
        assert (state_of(host), host.guest) == (MigrationState.FAILED, Guest.RUNNING)
        target = Host()
        target.wanted = replace(samples.WANTED_VM, generation=2, migration=moving(Role.TARGET, Phase.PREPARING))
        target.run()
        target.machine.break_stream("vm-1")
        target.run()
        target.run()
        assert state_of(target) is MigrationState.FAILED
        assert len(target.machine.starts) == 1
        target.wish(migration=moving(Role.TARGET, Phase.ABORTING))
        target.run()
        assert state_of(target) is MigrationState.WITHDRAWN
        target.watcher.close()

    def test_the_disks_lock_elsewhere_refuses_the_resume(self, host: Host) -> None:
        self.send(host)
        host.machine.guests["vm-1"] = Guest.SENT
        host.run()
        host.machine.locked_disks.add("vm-1")
        host.wish(migration=moving(Role.SOURCE, Phase.ABORTING))
        with pytest.raises(GuestError):
            host.run()
        assert host.notes.told == ["vm_running", "vm_paused", "vm_resume", "vm_paused"]
        assert host.guest is Guest.SENT

    def test_only_a_migration_that_is_waited_for_is_received(self, host: Host) -> None:
        for phase, migration_id in ((Phase.PREPARING, "m-2"), (Phase.MOVED, "m-1"), (Phase.ABORTING, "m-1")):
            host.wanted = replace(samples.WANTED_VM, generation=2, migration=moving(Role.TARGET, phase))
            with pytest.raises(Conflict), host.migrations.receiving("vm-1", migration_id):
                pass

    def send(self, host: Host) -> None:
        host.run()
        host.wish(migration=moving(Role.SOURCE, Phase.SENDING))
        host.run()
        assert state_of(host) is MigrationState.SENDING
