"""QEMU processes and the disks that they write: starting and ending takes time, and some cannot be killed at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.scenario.simulation.engine import Engine
from ucloud.hypervisor.guard_protocol import StartMode
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover

Tell = Callable[..., None]


@dataclass(slots=True)
class Spec:
    """What a guard is asked to start."""

    vm: str
    generation: int
    boots: int
    failover: Failover
    mode: StartMode = StartMode.RUN


@dataclass(slots=True, eq=False)
class Qemu:
    """``stands``: its guest stands still: an ``incoming`` one that has not gone on yet, or one that was sent whole."""

    spec: Spec
    host: str
    incarnation: str
    pid: int
    stands: bool
    incoming: bool = False
    frozen: bool = False
    killed: bool = False
    ended: bool = False
    killable_s: float = 0.0
    disturbed: bool = False
    wrote_from_s: float | None = None
    born: bool = False

    @property
    def is_still(self) -> bool:
        return self.ended or self.frozen

    @property
    def runs(self) -> bool:
        return self.born and not (self.stands or self.frozen or self.killed or self.ended or self.disturbed)


@dataclass(slots=True)
class Disks:
    """One pool for all hosts. ``fence`` none: nothing keeps a second writer out; the first line stands alone."""

    engine: Engine
    tell: Tell
    fence: Fence
    linger_s: float = 0.0
    holders: dict[str, Qemu] = field(default_factory=dict)
    lingers_until_s: dict[str, float] = field(default_factory=dict)
    fenced: set[tuple[str, str]] = field(default_factory=set)
    hangs_until_s: float = 0.0

    def open(self, process: Qemu) -> bool:
        """Whether it may write: on a pool with locks one at a time, on one with a verb nobody that was fenced."""
        vm = process.spec.vm
        if self.fence is Fence.LOCK:
            holder = self.holders.get(vm)
            if holder is not None and holder is not process and not holder.ended:
                return False
            if self.lingers_until_s.get(vm, 0.0) > self.engine.now_s:
                return False
            self.holders[vm] = process
        return not (self.fence is Fence.VERB and (process.host, process.incarnation) in self.fenced)

    def close(self, process: Qemu, *, abruptly: bool = False) -> None:
        vm = process.spec.vm
        if self.holders.get(vm) is process:
            del self.holders[vm]
            if abruptly and self.linger_s:
                self.lingers_until_s[vm] = self.engine.now_s + self.linger_s

    def note(self, process: Qemu, *, over: bool = False) -> None:
        """Keep count of who writes when; to be called after anything about the process has changed."""
        refused = self.fence is Fence.VERB and (process.host, process.incarnation) in self.fenced
        writes = process.runs and not refused and not over
        now_s = self.engine.now_s
        if writes and process.wrote_from_s is None:
            process.wrote_from_s = now_s
        elif not writes and process.wrote_from_s is not None:
            first_s, process.wrote_from_s = process.wrote_from_s, None
            if now_s > first_s:
                facts: dict[str, Any] = {"host": process.host, "incarnation": process.incarnation}
                self.tell("storage_write", volume=process.spec.vm, first_s=first_s, last_s=now_s, **facts)
