"""What a hypervisor must do in a live migration: two fake ones, and two real QEMUs under two guards on one disk."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from tests.conftest import require
from tests.contract.guard_process import guard_process, wait_for
from tests.contract.test_hypervisor import FakeRig, QemuRig, Rig
from tests.unit.hypervisor.wishes import VM_ID, wanted
from ucloud.errors import Conflict, GuestError, Unavailable
from ucloud.hypervisor.actions import Arrived, CancelSend, Continue, Guest, Kill, Listen, ObservedVm, Send, Start
from ucloud.hypervisor.migration_status import Transfer
from ucloud.hypervisor.resources import Resources
from ucloud.model.vm import Restart

ID = "m-1"
SOURCE_WISH = wanted(stop_timeout_s=30, restart=Restart.NEVER, memory_mib=64)
TARGET_WISH = replace(SOURCE_WISH, generation=2)
SLOW_MIB_S = 1


class Pair(Protocol):
    """Two hosts that share the VM's disk."""

    source: Rig
    target: Rig

    def connect(self, *, bandwidth_mib_s: int = 0) -> None:
        """Give both their end of the stream, and begin."""
        ...

    def finish(self) -> None:
        """All memory has been sent, and both have heard so."""
        ...

    def cut(self) -> None: ...

    def incarnation(self) -> str:
        """That of the target's guard."""
        ...


class FakePair:
    def __init__(self) -> None:
        self.fakes = FakeRig(), FakeRig()
        self.source: Rig = self.fakes[0]
        self.target: Rig = self.fakes[1]

    def connect(self, *, bandwidth_mib_s: int = 0) -> None:
        self.target.hypervisor.receive(VM_ID, 7)
        self.source.hypervisor.send(VM_ID, Send(ID), 8, bandwidth_mib_s=bandwidth_mib_s, downtime_ms=300)

    def finish(self) -> None:
        self.fakes[0].machine.complete_transfer(VM_ID, self.fakes[1].machine)

    def cut(self) -> None:
        for one in self.fakes:
            one.machine.break_stream(VM_ID)

    def incarnation(self) -> str:
        return "fake"


class QemuPair:
    def __init__(self, source: QemuRig, target: QemuRig, incarnation: str) -> None:
        self.source: Rig = source
        self.target: Rig = target
        self._incarnation = incarnation
        self._middle: list[socket.socket] = []

    def connect(self, *, bandwidth_mib_s: int = 0) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.target.hypervisor.receive(VM_ID, theirs.fileno())
            self.source.hypervisor.send(
                VM_ID, Send(ID), ours.fileno(), bandwidth_mib_s=bandwidth_mib_s, downtime_ms=300
            )
            self._middle = [ours.dup(), theirs.dup()]

    def finish(self) -> None:
        wait_for(lambda: look(self.source).guest is Guest.SENT)
        wait_for(lambda: look(self.target).migration.transfer is Transfer.COMPLETED)

    def cut(self) -> None:
        for one in self._middle:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def incarnation(self) -> str:
        return self._incarnation

    def close(self) -> None:
        for one in self._middle:
            one.close()


class SharedDiskRig(QemuRig):
    """A second host, with the disk of the first one."""

    def __init__(self, *args: object, first: QemuRig) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._first = first

    def resources(self) -> Resources:
        return replace(self._first.resources(), incarnation=self._guard.client.hello().incarnation)


@pytest.fixture(params=["fake", "qemu"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "fake":
        yield FakePair()
        return
    require("root")
    require("qemu")
    with contextlib.ExitStack() as stack:
        guards = []
        for _ in range(2):
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ucloud-test-")))
            directory.chmod(0o711)
            guards.append((stack.enter_context(guard_process(directory)), directory))
        source = QemuRig(*guards[0])
        target = SharedDiskRig(*guards[1], first=source)
        made = QemuPair(source, target, guards[1][0].client.hello().incarnation)
        stack.callback(made.close)
        yield made


def look(rig: Rig) -> ObservedVm:
    return rig.hypervisor.observe(VM_ID)


def begin(pair: Pair) -> None:
    """A guest runs on the source, and its target waits for it."""
    source, target = pair.source, pair.target
    source.hypervisor.start(SOURCE_WISH, Start(1), source.resources(), source.now())
    wait_for(lambda: look(source).guest is Guest.RUNNING)
    machine = source.hypervisor.read_machine(VM_ID)
    wish = replace(TARGET_WISH, machine=machine)
    target.hypervisor.start(wish, Listen(1, ID), target.resources(), target.now())
    wait_for(lambda: look(target).guest is Guest.INCOMING)
    assert target.hypervisor.read_machine(VM_ID) == machine


def go_on(rig: Rig, generation: int, *, arrived: bool) -> None:
    rig.hypervisor.apply(VM_ID, Continue(generation, 1, arrived=arrived), rig.now())


def runs(rig: Rig) -> bool:
    return look(rig).guest is Guest.RUNNING


def test_a_guest_moves(pair: Pair) -> None:
    begin(pair)
    observed = look(pair.target)
    assert (observed.record.incoming, observed.record.migration_id, observed.record.generation) == (True, ID, 2)
    pair.connect()
    pair.finish()
    assert (look(pair.source).guest, look(pair.target).guest) == (Guest.SENT, Guest.PAUSED)
    pair.target.hypervisor.permit(VM_ID, generation=2, boots=1, incarnation=pair.incarnation())
    go_on(pair.target, 2, arrived=True)
    wait_for(lambda: runs(pair.target))
    pair.target.hypervisor.apply(VM_ID, Arrived(), pair.target.now())
    assert not look(pair.target).record.incoming
    assert look(pair.source).guest is Guest.SENT
    pair.source.hypervisor.apply(VM_ID, Kill(1, 1), pair.source.now())
    process = look(pair.source).process
    assert process is not None
    assert not process.running
    assert runs(pair.target)


def test_an_agent_that_comes_back_knows_where_it_stands(pair: Pair) -> None:
    begin(pair)
    pair.connect()
    pair.finish()
    for rig in (pair.source, pair.target):
        rig.restart_agent()
    assert look(pair.source).guest is Guest.SENT
    assert look(pair.source).record.migration_id == ID
    assert look(pair.target).migration.transfer is Transfer.COMPLETED
    assert look(pair.target).record.incoming


def test_a_broken_stream_leaves_the_source_running(pair: Pair) -> None:
    begin(pair)
    pair.connect(bandwidth_mib_s=SLOW_MIB_S)
    pair.cut()
    wait_for(lambda: look(pair.source).migration.transfer is Transfer.FAILED)
    assert runs(pair.source)
    process = wait_for(lambda: ended(pair.target))
    assert process


def ended(rig: Rig) -> bool:
    process = look(rig).process
    return process is not None and not process.running


def test_a_cancel_leaves_the_source_running(pair: Pair) -> None:
    begin(pair)
    pair.connect(bandwidth_mib_s=SLOW_MIB_S)
    assert look(pair.source).migration.transfer is Transfer.ACTIVE
    pair.source.hypervisor.apply(VM_ID, CancelSend(), pair.source.now())
    wait_for(lambda: look(pair.source).migration.transfer in (Transfer.CANCELLED, Transfer.FAILED))
    assert runs(pair.source)


def test_a_source_goes_on_after_an_abort(pair: Pair) -> None:
    begin(pair)
    pair.connect()
    pair.finish()
    pair.target.hypervisor.apply(VM_ID, Kill(2, 1), pair.target.now())
    assert look(pair.source).guest is Guest.SENT, "not by itself"
    go_on(pair.source, 1, arrived=False)
    wait_for(lambda: runs(pair.source))


def test_the_loss_of_the_source_changes_nothing_for_a_whole_copy(pair: Pair) -> None:
    begin(pair)
    pair.connect()
    pair.finish()
    pair.source.crash()
    wait_for(lambda: ended(pair.source))
    assert look(pair.target).guest is Guest.PAUSED
    go_on(pair.target, 2, arrived=True)
    wait_for(lambda: runs(pair.target))


def test_a_copy_takes_one_guest_in_its_life(pair: Pair) -> None:
    begin(pair)
    pair.connect(bandwidth_mib_s=SLOW_MIB_S)
    with pytest.raises((GuestError, Unavailable)):
        pair.target.hypervisor.receive(VM_ID, os.dup(0))


def test_a_permit_is_for_one_incarnation_and_one_process(pair: Pair) -> None:
    begin(pair)
    with pytest.raises(Conflict):
        pair.target.hypervisor.permit(VM_ID, generation=2, boots=1, incarnation="of-another-guard")


@pytest.mark.parametrize("pair", ["qemu"], indirect=True)
def test_the_images_lock_goes_to_whoever_goes_on_first(pair: Pair) -> None:
    begin(pair)
    pair.connect()
    pair.finish()
    go_on(pair.source, 1, arrived=False)
    with pytest.raises(GuestError, match="lock"):
        go_on(pair.target, 2, arrived=True)
    assert (look(pair.source).guest, look(pair.target).guest) == (Guest.RUNNING, Guest.PAUSED)


@pytest.mark.parametrize("pair", ["qemu"], indirect=True)
def test_a_start_beside_a_running_one_ends_with_words_about_the_lock(pair: Pair) -> None:
    """The second line: the image's own lock. What it says is what the plan waits by."""
    source, target = pair.source, pair.target
    source.hypervisor.start(SOURCE_WISH, Start(1), source.resources(), source.now())
    wait_for(lambda: runs(source))
    wish = replace(TARGET_WISH, machine=source.hypervisor.read_machine(VM_ID))
    target.hypervisor.start(wish, Start(1), target.resources(), target.now())
    wait_for(lambda: ended(target))
    process = look(target).process
    assert process is not None
    assert process.exit_code == 1
    assert 'Failed to get "write" lock' in process.stderr_tail


@pytest.mark.parametrize("pair", ["qemu"], indirect=True)
def test_a_copy_whose_source_dies_ends(pair: Pair) -> None:
    begin(pair)
    pair.connect(bandwidth_mib_s=SLOW_MIB_S)
    process = look(pair.source).process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    pair.cut()
    wait_for(lambda: ended(pair.target))


@pytest.mark.parametrize("pair", ["qemu"], indirect=True)
def test_a_source_that_has_not_heard_goes_on_by_itself(pair: Pair) -> None:
    """Trap 9: the target has everything, and the stream ends before it could say so."""
    begin(pair)
    ours, forward = socket.socketpair()
    theirs, back = socket.socketpair()
    with ours, theirs, forward, back:
        pair.target.hypervisor.receive(VM_ID, theirs.fileno())
        theirs.close()
        pair.source.hypervisor.send(VM_ID, Send(ID), ours.fileno(), bandwidth_mib_s=0, downtime_ms=300)
        ours.close()
        while data := forward.recv(1 << 16):  # one way only: the answer stays here
            back.sendall(data)
            if look(pair.target).migration.transfer is Transfer.COMPLETED:
                forward.shutdown(socket.SHUT_RDWR)
                break
            forward.settimeout(5.0)
    wait_for(lambda: look(pair.source).migration.transfer is Transfer.FAILED)
    wait_for(lambda: runs(pair.source))
    assert look(pair.target).guest is Guest.PAUSED
    with pytest.raises(GuestError, match="lock"):
        go_on(pair.target, 2, arrived=True)
