"""A simulated machine that runs VMs: power, its guard and agent (and who starts them again), and its processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.scenario.simulation.agent import Agent
from tests.scenario.simulation.engine import Place
from tests.scenario.simulation.guard import Guard
from tests.scenario.simulation.qemu import Qemu, Spec
from ucloud.hypervisor.guard_protocol import StartMode
from ucloud.model.vm import Failover

if TYPE_CHECKING:
    from tests.scenario.simulation.cloud import Cloud

_BOOT_S = (4.0, 6.0)
_RESTART_S = (0.2, 0.6)
_KILL_S = (0.003, 0.03)


class SimulatedHost:
    """``generations`` is the highest that ran here, by VM; it is on a disk. ``stuck_until_s``: nothing dies before."""

    def __init__(self, cloud: Cloud, name: str, *, fence_s: float, kill_s: float) -> None:
        self.cloud = cloud
        self.engine = cloud.engine
        self.name = name
        self.fence_s, self.kill_s = fence_s, kill_s
        self.machine = Place(name)
        self.processes: dict[str, Qemu] = {}
        self.generations: dict[str, int] = {}
        self.prepare_s: float | None = None
        self.stuck_until_s: dict[str, float] = {}
        self.guard: Guard | None = None
        self.agent: Agent | None = None
        self._incarnations = 0
        self.start_guard()
        self.start_agent()

    # Processes of the cloud

    def start_guard(self) -> None:
        """Only when all mortals of the one before are reaped."""
        if self.machine.dead or (self.guard is not None and not self.guard.place.dead):
            return
        if any(one.spec.failover is Failover.RESTART for one in self.processes.values()):
            self.engine.after(0.1, self.start_guard, place=self.machine)
            return
        self._incarnations += 1
        self.guard = Guard(self, f"{self.name}.{self._incarnations}")

    def start_agent(self) -> None:
        if not self.machine.dead and (self.agent is None or self.agent.place.dead):
            self.agent = Agent(self)

    def guard_exits(self, guard: Guard) -> None:
        """By itself, with nothing left of its mortals."""
        if not guard.place.dead:
            guard.place.dead = True
            self.engine.after(self.engine.span_s(*_RESTART_S), self.start_guard, place=self.machine)

    def kill_guard(self) -> None:
        """Its PID namespace goes with it, and all mortals in that."""
        if self.guard is None or self.guard.place.dead:
            return
        mortals = self.guard.mortals()
        self.guard.place.dead = True
        for process in mortals:
            self.kill(process)
        self.engine.after(self.engine.span_s(*_RESTART_S), self.start_guard, place=self.machine)

    def kill_agent(self) -> None:
        if self.agent is not None:
            self.agent.place.dead = True
        self.engine.after(self.engine.span_s(*_RESTART_S), self.start_agent, place=self.machine)

    def power_off(self) -> None:
        self.machine.dead = True
        self.cloud.tell("host_off", host=self.name)
        for process in list(self.processes.values()):
            self._gone(process)
        self.cloud.cluster.look()

    def power_on(self) -> None:
        if not self.machine.dead:
            return
        self.machine = Place(self.name)
        self.guard, self.agent, self.stuck_until_s = None, None, {}
        self.engine.after(self.engine.span_s(*_BOOT_S), self.start_guard, place=self.machine)
        self.engine.after(self.engine.span_s(*_BOOT_S), self.start_agent, place=self.machine)

    def freeze(self) -> None:
        """The whole machine stands still, its guests too."""
        self.engine.freeze(self.machine)
        self.cloud.tell("host_frozen", host=self.name)
        self._disturb(True)

    def thaw(self) -> None:
        self.cloud.tell("host_thawed", host=self.name)
        self._disturb(False)
        self.engine.thaw(self.machine)

    def _disturb(self, disturbed: bool) -> None:
        for process in self.processes.values():
            process.disturbed = disturbed
            self.cloud.disks.note(process)

    # QEMU

    def tell_of(self, process: Qemu, kind: str, **facts: bool) -> None:
        self.cloud.tell(kind, vm=process.spec.vm, host=self.name, pid=process.pid, **facts)

    def begin(self, spec: Spec, incarnation: str) -> Qemu:
        """Told before the fork."""
        incoming = spec.mode is StartMode.INCOMING
        process = Qemu(spec, self.name, incarnation, self.cloud.next_pid(), incoming, incoming)
        self.cloud.tell(
            "vm_start",
            vm=spec.vm,
            host=self.name,
            generation=spec.generation,
            boots=spec.boots,
            incarnation=incarnation,
            mode=spec.mode.value,
        )
        self.processes[spec.vm] = process
        return process

    def born(self, process: Qemu) -> None:
        process.born = True
        self.cloud.tell("vm_born", vm=process.spec.vm, host=self.name, pid=process.pid, incoming=process.incoming)
        self.cloud.disks.note(process)

    def resume(self, process: Qemu) -> None:
        self.tell_of(process, "vm_resume")
        process.stands = process.incoming = False
        self.cloud.disks.note(process)

    def pause(self, process: Qemu) -> None:
        """A source that has sent everything: it gives its disk's locks up."""
        process.stands = True
        self.cloud.disks.note(process)
        self.cloud.disks.close(process)
        self.tell_of(process, "vm_paused")

    def kill(self, process: Qemu) -> None:
        if process.killed:
            return
        self.tell_of(process, "vm_kill")
        process.killed = True
        self.cloud.disks.note(process)
        delay_s = self.engine.span_s(*_KILL_S)
        stuck_s = self.stuck_until_s.get(process.spec.vm, 0.0) - self.engine.now_s
        self.engine.after(max(delay_s, stuck_s), self.end, process, place=self.machine)

    def end(self, process: Qemu) -> None:
        """It is reaped."""
        if process.ended:
            return
        self._gone(process)
        if process.born:
            self.tell_of(process, "vm_exit")
        else:
            self.tell_of(process, "vm_exit", born=False)
        self.cloud.tell("pid_exit", pid=process.pid)
        if self.agent is not None:
            self.engine.after(0.002, self.agent.look, process.spec.vm, place=self.agent.place)

    def _gone(self, process: Qemu) -> None:
        process.ended = True
        self.cloud.disks.note(process)
        self.cloud.disks.close(process, abruptly=True)
        if self.processes.get(process.spec.vm) is process:
            del self.processes[process.spec.vm]
