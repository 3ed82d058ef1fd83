"""A cloud of three hosts that share a pool, in a memory store, with one running VM: what migrations are tested on."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

from tests.unit import samples
from tests.unit.clock import ManualClock
from ucloud.config import SchedulerSection
from ucloud.errors import OutcomeUnknown
from ucloud.model.guard import Fenced, LifeSign, RunLock, Takeover, TakeoverPhase
from ucloud.model.host import Drain, Host, HostSpec
from ucloud.model.migration import Migration, MigrationRequest, MigrationState, Role, SeenMigration
from ucloud.model.placement import Placement
from ucloud.model.seen import Fence, GuestState, SeenPool, SeenVm
from ucloud.model.vm import Failover, Vm
from ucloud.scheduler.migrations import plan_migrations
from ucloud.scheduler.steps import Step, commit_migrations
from ucloud.store import keys
from ucloud.store.api import Committed, Delete, Put, Txn, unchanged
from ucloud.store.codec import decode, encode
from ucloud.store.memory import MemoryStore
from ucloud.store.view import View, build_view
from ucloud.system.clock import format_time
from ucloud.system.history import Silence

VM = samples.vm(1, cpus=1, memory_mib=512, disk_gib=1)
VM_ID = VM.meta.id
ONE, TWO, THREE = "host-1", "host-2", "host-3"
SETTINGS = SchedulerSection()
LEADER = keys.election("scheduler") + "test"


class UnsureStore(MemoryStore):
    """``fate`` of the next commits: "lost" never happens, "late" happens when ``flush`` is called; both say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.fate: list[str] = []
        self.late: list[Txn] = []

    def commit(self, txn: Txn) -> Committed:
        fate = self.fate.pop() if self.fate else "done"
        if fate == "done":
            return super().commit(txn)
        if fate == "late":
            self.late.append(txn)
        elif fate == "unheard":
            super().commit(txn)
        raise OutcomeUnknown("failed to commit: no answer")

    def flush(self) -> None:
        while self.late:
            super().commit(self.late.pop())


class Cloud:
    def __init__(self, *, hosts: int = 3) -> None:
        self.store = UnsureStore()
        self.clock = ManualClock()
        self.settings = SETTINGS
        self.births: dict[str, int] = {}
        self.write(LEADER, b"x")
        item = self.store.get(LEADER)
        assert item is not None
        self.leader = unchanged(LEADER, item.mod_revision)
        for number in range(1, hosts + 1):
            self.put(samples.host(number))
            others = tuple(f"host-{other}" for other in range(1, hosts + 1) if other != number)
            pool = SeenPool("pool-a", Fence.LOCK, proved_with=others)
            report = samples.report(number, pool=pool)
            self.write(keys.seen(report.host_id, "host", "self"), encode(report))
            self.be_born(report.host_id)
        self.add_vm(VM)

    # What is in the store

    def write(self, key: str, data: bytes) -> None:
        assert MemoryStore.commit(self.store, Txn((), (Put(key, data),))).ok

    def put(self, value: Any) -> None:
        match value:
            case Vm():
                self.write(keys.spec("vm", value.meta.id), encode(value))
            case Host():
                self.write(keys.spec("host", value.meta.id), encode(value))
            case Placement():
                self.write(keys.placement(value.vm_id), encode(value))
            case RunLock():
                self.write(keys.lock(value.host_id, value.vm_id), encode(value))
            case Migration():
                self.write(keys.migration(value.vm_id), encode(value))
            case MigrationRequest():
                self.write(keys.spec("migration", value.vm_id), encode(value))
            case Takeover():
                self.write(keys.takeover(value.host_id), encode(value))

    def delete(self, key: str) -> None:
        MemoryStore.commit(self.store, Txn((), (Delete(key),)))

    def view(self) -> View:
        listing = self.store.list(keys.ROOT)
        items = [item for item in listing.items if item.value.startswith(b'{"kind"')]
        return build_view(listing.revision, [(item.key, decode(item.value), item.mod_revision) for item in items])

    def record(self, vm_id: str = VM_ID) -> Migration:
        return self.view().migrations[vm_id].value

    # Hosts

    def be_born(self, host_id: str) -> None:
        """A new guard; what the one before it ran has ended, and it says so."""
        self.births[host_id] = self.births.get(host_id, 0) + 1
        sign = LifeSign(host_id, f"{host_id}.{self.births[host_id]}", samples.AT, fence_s=3.0, kill_s=0.25)
        self.write(keys.alive(host_id), encode(sign))
        self.write(keys.registered(host_id), encode(sign))

    def incarnation(self, host_id: str) -> str:
        return f"{host_id}.{self.births[host_id]}"

    def die(self, host_id: str) -> None:
        self.delete(keys.alive(host_id))

    def take_over(self, host_id: str) -> None:
        """What the takeover leaves behind: the mark, no locks, and the VMs placed anew on another host."""
        incarnation = self.incarnation(host_id)
        at = format_time(self.clock.now())
        self.write(keys.fenced(host_id, incarnation), encode(Fenced(host_id, incarnation, at)))
        for place in self.view().locks:
            if place[0] == host_id:
                self.delete(keys.lock(*place))
        self.put(Takeover(host_id, incarnation, TakeoverPhase.DONE, "done", at, at))

    def drain(self, host_id: str, how: Drain = Drain.MOVE) -> None:
        host = self.view().hosts[host_id].value
        self.put(replace(host, spec=HostSpec(drain=how)))

    # The VM

    def add_vm(self, vm: Vm, host_id: str = ONE) -> None:
        spec, vm_id = vm.spec, vm.meta.id
        self.put(vm)
        self.put(
            Placement(
                vm_id, host_id, 1, 1, spec.cpus, spec.memory_mib, spec.disk_gib, samples.AT, samples.DECISION, "pool-a"
            )
        )
        self.put(RunLock(vm_id, host_id, self.incarnation(host_id), 1, Failover.RESTART, "pool-a"))
        self.report(host_id, GuestState.RUNNING, vm_id=vm_id)

    def report(
        self,
        host_id: str,
        state: GuestState,
        *,
        generation: int = 1,
        part: SeenMigration | None = None,
        vm_id: str = VM_ID,
        boots: int = 1,
        wanted_revision: int = 0,
    ) -> None:
        seen = SeenVm(
            vm_id,
            generation,
            1,
            state,
            "",
            samples.AT,
            boots=boots,
            migration=part,
            wanted_revision=wanted_revision,
        )
        self.write(keys.seen(host_id, "vm", vm_id), encode(seen))

    def ask(self, to_host_id: str = "", *, id_: str = "m1", cancelled: bool = False, vm_id: str = VM_ID) -> None:
        self.put(MigrationRequest(vm_id, id_, to_host_id, format_time(self.clock.now()), cancelled))

    def says(
        self,
        role: Role,
        state: MigrationState,
        reason: str = "",
        *,
        guest: GuestState | None = None,
        vm_id: str = VM_ID,
    ) -> None:
        """The source's or target's report about the migration that goes on."""
        record = self.record(vm_id)
        source = role is Role.SOURCE
        still = state in (MigrationState.COMPLETED, MigrationState.RECEIVED, MigrationState.LISTENING)
        self.report(
            record.source if source else record.target,
            guest or (GuestState.PAUSED if still else GuestState.RUNNING),
            generation=record.generation + (0 if source else 1),
            part=SeenMigration(record.id, role, state, reason),
            vm_id=vm_id,
        )

    # The scheduler

    def now(self) -> datetime.datetime:
        return self.clock.now()

    def plan(self) -> tuple[Step, ...]:
        return plan_migrations(self.view(), self.settings, self.now())

    def commit(self, steps: tuple[Step, ...], view: View | None = None) -> int:
        revision = (view or self.view()).revision
        return commit_migrations(
            self.store, steps, view_revision=revision, leader=self.leader, clock=self.clock, history=Silence()
        )

    def run_pass(self) -> None:
        """A whole pass on what is there now."""
        view = self.view()
        self.commit(plan_migrations(view, self.settings, self.now()), view)
