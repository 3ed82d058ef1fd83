"""The pass over a VM: what it prepares, reports and takes away, on the fake hypervisor and a memory store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.unit import samples
from tests.unit.clock import ManualClock
from ucloud.agent.reports import Reports
from ucloud.agent.vms import LOOK_AGAIN_S, VmPasses
from ucloud.errors import Unavailable
from ucloud.hypervisor.fake import FakeHypervisor, FakeMachine
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources, Tap
from ucloud.hypervisor.watcher import GuestWatcher
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.vm import Power
from ucloud.model.wanted import WantedVm
from ucloud.store.memory import MemoryStore
from ucloud.store.view import Entry


@dataclass
class Shelf:
    """Stands where HostResources does: remembers what was asked of it."""

    done: list[str] = field(default_factory=list)
    broken: str = ""
    on_remove: Callable[[], None] | None = None

    @contextlib.contextmanager
    def prepared(self, wanted: WantedVm, *, uid: int) -> Iterator[Resources]:
        if self.broken:
            raise Unavailable(self.broken)
        self.done.append("prepared")
        taps = tuple(Tap(nic.id, 0, 1430) for nic in wanted.nics)
        yield Resources(Disk(DiskLayer(Path("/disk"), "qcow2")), taps)

    def write_documents(self, wanted: WantedVm) -> None:
        self.done.append("documents")

    def remove(self, wanted: WantedVm) -> None:
        if self.on_remove:
            self.on_remove()
        self.done.append("removed")

    def release_lock(self, vm_id: str) -> None:
        self.done.append("released")


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

    def run(self) -> float | None:
        passes = VmPasses(
            FakeHypervisor(self.machine),
            self.shelf,  # type: ignore[arg-type]
            self.reports,
            find=lambda _: Entry("key", self.wanted, self.revision) if self.wanted else None,
            is_ready=lambda _: self.ready,
            why_missing=lambda _: self.missing,
            watcher=self.watcher,
            clock=self.clock,
        )
        return passes.run("vm-1")

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
