"""What the fencing thread does in one turn, to real processes but with a clock that the test moves."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.guard_process import wait_for
from tests.unit.clock import ManualClock
from ucloud.errors import Unavailable
from ucloud.guard.fencer import Fencer
from ucloud.guard.life import Identity, Life
from ucloud.guard.mortals import Mortals
from ucloud.guard.notes import Notes
from ucloud.guard.rules import Action, Hold
from ucloud.hypervisor.guard_protocol import StartRequest
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Txn
from ucloud.store.memory import MemoryStore
from ucloud.system.history import Silence


class StretchedClock(ManualClock):
    """Whoever sleeps does so, too: processes need real time to end."""

    def sleep(self, duration_s: float) -> None:
        super().sleep(duration_s)
        time.sleep(duration_s)


class Told(Silence):
    """Keeps what is told, each with the state that the process it tells of had at that moment."""

    def __init__(self) -> None:
        self.facts: list[dict[str, Any]] = []

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        pid = int(facts.get("pid", 0))
        self.facts.append({"kind": kind, "state": state_of(pid) if pid else "", **facts})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fact for fact in self.facts if fact["kind"] == kind]


def allow() -> None:
    pass


class World:
    """A guard's fencing parts, and processes under it."""

    def __init__(self, *, kill_s: float = 0.25, reset_fd: int = -1) -> None:
        self.clock = StretchedClock()
        self.store = MemoryStore(clock=self.clock)
        identity = Identity("h1", "one", "now", fence_s=3.0, kill_s=kill_s)
        self.life = Life(identity, ttl_s=1, clock=self.clock, history=Silence(), notes=Notes())
        self.told = Told()
        self.mortals = Mortals(self.told, host_id="h1")
        self.woken = 0
        self.fencer = Fencer(
            self.life,
            self.mortals,
            clock=self.clock,
            history=self.told,
            notes=Notes(),
            wake=self._wake,
            shut=threading.Event(),
            reset_fd=reset_fd,
        )
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        for _ in range(2):
            self.life.look(self.store)

    def _wake(self) -> None:
        self.woken += 1

    def bear(self, vm_id: str, fence: Fence = Fence.LOCK) -> subprocess.Popen[bytes]:
        child = self.children[vm_id] = subprocess.Popen(["/bin/sleep", "1000"])
        self.mortals.admit(request(vm_id, fence), child.pid, allow)
        return child

    def close(self) -> None:
        for child in self.children.values():
            child.kill()
            child.wait()
        self.mortals.close()


def request(vm_id: str, fence: Fence = Fence.LOCK) -> StartRequest:
    return StartRequest(vm_id, 1, 1, Failover.RESTART, 1, 1, ("/bin/sleep",), pool_fence=fence)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


def test_nothing_happens_while_there_is_evidence(world: World) -> None:
    child = world.bear("vm-a")
    world.clock.seconds += 2.9
    assert world.fencer.turn() is Action.NOTHING
    assert child.poll() is None


def test_at_the_deadline_it_kills_or_freezes_and_evidence_thaws(world: World) -> None:
    locked, verb = world.bear("vm-a"), world.bear("vm-b", Fence.VERB)
    world.clock.seconds += 3.0
    assert world.fencer.turn() is Action.FENCE
    assert world.life.state.hold is Hold.CLOSED
    assert (locked.wait(5), verb.poll()) == (-signal.SIGKILL, None)
    assert (world.mortals.is_frozen("vm-b"), state_of(verb.pid), world.woken) == (True, "T", 1)
    assert world.mortals.remove("vm-a")  # killed for fencing
    assert world.fencer.turn() is Action.NOTHING
    world.clock.seconds += 0.1
    world.life.look(world.store)
    world.clock.seconds += 0.1
    world.life.look(world.store)
    assert world.fencer.turn() is Action.THAW
    wait_for(lambda: state_of(verb.pid) in "SR")
    assert not world.mortals.any_frozen


def test_it_is_told_when_one_stands_still_and_before_it_goes_on(world: World) -> None:
    child = world.bear("vm-a", Fence.VERB)
    world.clock.seconds += 3.1
    world.fencer.turn()
    world.fencer.turn()
    for _ in range(2):
        world.clock.seconds += 0.1
        world.life.look(world.store)
    world.fencer.turn()
    frozen, thawed = world.told.of("vm_freeze"), world.told.of("vm_thaw")
    assert [(one["host"], one["vm"], one["pid"], one["state"]) for one in (*frozen, *thawed)] == [
        ("h1", "vm-a", child.pid, "T")
    ] * 2


def test_a_fence_tells_how_old_its_evidence_was(world: World) -> None:
    world.clock.seconds += 3.1
    world.fencer.turn()
    (fence,) = world.told.of("fence")
    assert (fence["reason"], fence["fence_s"], fence["still"]) == ("no evidence", 3.0, True)
    assert fence["evidence_age_s"] == pytest.approx(3.1)
    world.store.commit(Txn((), (Delete(keys.alive("h1")), Put(keys.fenced("h1", "one"), b"{}"))))
    world.life.look(world.store)
    world.fencer.turn()
    assert "fence_s" not in world.told.of("fence")[-1]  # a takeover's mark may come however fresh the evidence is


@pytest.mark.parametrize("frozen", [False, True])
def test_a_takeover_kills_the_frozen_as_well_and_ends_the_guard(world: World, frozen: bool) -> None:
    child = world.bear("vm-a", Fence.VERB)
    if frozen:
        world.clock.seconds += 3.0
        world.fencer.turn()
    world.store.commit(Txn((), (Delete(keys.alive("h1")), Put(keys.fenced("h1", "one"), b"{}"))))
    world.life.look(world.store)
    assert world.fencer.turn() is Action.END
    assert child.wait(5) == -signal.SIGKILL
    assert world.fencer.ended


def test_what_does_not_die_within_k_is_said_and_the_machine_reset(tmp_path: Path) -> None:
    """With K = 0 nothing dies in time."""
    trigger = os.open(tmp_path / "sysrq-trigger", os.O_WRONLY | os.O_CREAT, 0o600)
    world = World(kill_s=0.0, reset_fd=trigger)
    try:
        child = world.bear("vm-a")
        os.kill(child.pid, signal.SIGSTOP)
        world.clock.seconds += 3.0
        world.mortals.do = lambda action: None  # type: ignore[method-assign]
        world.fencer.turn()
        assert world.mortals.stuck == ("vm-a",)
        assert world.mortals.is_stuck("vm-a")
        assert world.life.state.hold is Hold.CLOSING  # evidence opens nothing before it is gone
        assert (tmp_path / "sysrq-trigger").read_text() == "b"
        child.kill()
        child.wait()
        world.fencer.turn()
        assert (world.mortals.stuck, world.life.state.hold) == ((), Hold.CLOSED)
    finally:
        world.close()
        os.close(trigger)


def test_nobody_is_admitted_once_it_is_not_allowed(world: World) -> None:
    def refuse() -> None:
        raise Unavailable("no evidence")

    with pytest.raises(Unavailable):
        world.mortals.admit(request("vm-a"), os.getpid(), refuse)
    assert tuple(world.mortals) == ()
    assert not world.mortals.remove("vm-a")


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
