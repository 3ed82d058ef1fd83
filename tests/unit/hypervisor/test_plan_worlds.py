"""Plans in a small simulated world: whatever happens, and wherever the agent dies, it settles as wanted.

The laws of every plan (design, law 4): fixed point, convergence, repeatable, interruptible after any action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.hypervisor.wishes import VM_ID, at, wanted
from ucloud.hypervisor import changes
from ucloud.hypervisor.actions import Guest, Kill, ObservedVm, Plan, PowerDown, Quit, Start
from ucloud.hypervisor.fake import FakeHypervisor, FakeMachine
from ucloud.hypervisor.plan import plan_vm
from ucloud.hypervisor.record import VmRecord
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources
from ucloud.model.seen import GuestState
from ucloud.model.vm import Power, Restart
from ucloud.model.wanted import WantedVm

RESOURCES = Resources(Disk(DiskLayer("/pool/root.qcow2", "qcow2")))


class World:
    """A host, an agent that passes over its one VM, and a clock."""

    def __init__(self) -> None:
        self.host = FakeMachine()
        self.wish = wanted()
        self.seconds = 0.0

    def step(self, *, dies_before_effect: bool = False) -> Plan:
        """One pass of an agent that has just been started."""
        agent, now = FakeHypervisor(self.host), at(self.seconds)
        self.seconds += 0.01
        observed = agent.observe(VM_ID)
        plan = plan_vm(self.wish, observed, now)
        if plan.action is None:
            return plan
        check_lawful(plan, self.wish, observed)
        if dies_before_effect:
            self._write_only(plan)
        elif isinstance(plan.action, Start):
            agent.start(self.wish, plan.action, RESOURCES, now)
        else:
            agent.apply(VM_ID, plan.action, now)
        return plan

    def settle(self) -> Plan:
        """Pass after pass, sleeping when the plan says so, until nothing is left to do."""
        for _ in range(100):
            plan = self.step()
            if plan.action is None:
                if not plan.wake_at_s:
                    return plan
                self.seconds = max(self.seconds, plan.wake_at_s - 1000.0)
        raise AssertionError(f"does not settle: {plan}")

    def _write_only(self, plan: Plan) -> None:
        record, now = self.host.records.get(VM_ID, VmRecord(VM_ID)), at(self.seconds)
        if isinstance(plan.action, Start):
            FakeHypervisor(self.host).prepare(VM_ID)
            record = changes.record_start(record, self.wish, plan.action, now, accelerator="tcg")
        elif plan.action is not None and VM_ID in self.host.machines:
            record = changes.record_action(record, plan.action, now)
        else:
            return
        self.host.records[VM_ID] = record


WISHES: dict[str, Callable[[WantedVm], WantedVm]] = {
    "stop": lambda wish: replace(wish, power=Power.STOPPED),
    "start": lambda wish: replace(wish, power=Power.RUNNING, boots=wish.boots + 1),
    "unstop": lambda wish: replace(wish, power=Power.RUNNING),
    "reboot": lambda wish: replace(wish, boots=wish.boots + 1),
    "place": lambda wish: replace(wish, generation=wish.generation + 1),
    "gone": lambda wish: replace(wish, gone=True),
    "again": lambda wish: replace(wish, gone=False, generation=wish.generation + 1),
}
ACCIDENTS = ["lose", "deaf", "silent", "wait", "power_off", "panic", "fill_disk", "crash"]


def change(world: World, what: str) -> None:
    """Something people, guests or accidents do."""
    host = world.host
    if what in WISHES:
        world.wish = WISHES[what](world.wish)
    elif what == "lose":
        host.lose_all()
    elif what in ("deaf", "silent"):
        getattr(host, what).symmetric_difference_update({VM_ID})
    elif what == "wait":
        world.seconds += 7.0
    elif VM_ID in host.processes and host.processes[VM_ID].running:
        getattr(host, what)(VM_ID)


HAPPENINGS = st.sampled_from([*WISHES, *ACCIDENTS])
STEPS = st.lists(st.tuples(HAPPENINGS, st.integers(0, 4), st.booleans()), max_size=12)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from(list(Restart)))
def test_the_world_settles_as_wanted(steps: list[tuple[str, int, bool]], restart: Restart) -> None:
    world = World()
    world.wish = replace(world.wish, restart=restart)
    for what, passes, dies in steps:
        change(world, what)
        for _ in range(passes):
            world.step(dies_before_effect=dies)
    plan = world.settle()
    check_settled(world, plan)
    starts = len(world.host.starts)
    assert world.step() == plan
    assert world.settle() == plan
    assert len(world.host.starts) == starts


def check_lawful(plan: Plan, wish: WantedVm, observed: ObservedVm) -> None:
    """Law 5: whatever ends a guest has a positive sign."""
    if not isinstance(plan.action, PowerDown | Kill | Quit):
        return
    process = observed.process
    assert process is not None
    wished = (
        wish.gone or wish.power is Power.STOPPED or (wish.generation, wish.boots) > (process.generation, process.boots)
    )
    if not wished:
        assert observed.guest in (Guest.POWERED_OFF, Guest.CRASHED)
    if isinstance(plan.action, Kill):
        assert (plan.action.generation, plan.action.boots) == (process.generation, process.boots)


def check_settled(world: World, plan: Plan) -> None:
    process = world.host.processes.get(VM_ID)
    runs = process is not None and process.running
    if world.wish.gone:
        assert plan.state is GuestState.GONE
        assert process is None
        assert VM_ID not in world.host.machines
    elif world.wish.power is Power.STOPPED:
        assert not runs
    elif runs:
        assert process is not None
        assert (process.generation, process.boots) == (world.wish.generation, world.wish.boots)
    else:  # only the restart policy lets a wanted VM stay down
        assert world.host.records[VM_ID].end.value in ("powered_off", "crashed")
        assert world.wish.restart is not Restart.ALWAYS


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(["stop", "reboot", "place", "gone", "crash", "panic", "lose"]), st.integers(0, 20))
def test_an_agent_may_die_at_any_step(what: str, deadly_step: int) -> None:
    """Dying between the record and the effect of the nth step leads to the same end as not dying."""
    ends = []
    for dies in (False, True):
        world = World()
        world.settle()
        change(world, what)
        for number in range(deadly_step + 1):
            world.step(dies_before_effect=dies and number == deadly_step)
        plan = world.settle()
        check_settled(world, plan)
        ends.append((plan.state, VM_ID in world.host.processes))
    assert ends[0] == ends[1]


def test_a_guest_that_crashes_for_ever_is_started_three_times_in_ten_minutes() -> None:
    world = World()
    world.settle()
    starts_at_s: list[float] = []
    for _ in range(400):
        before = len(world.host.starts)
        plan = world.step()
        if len(world.host.starts) > before:
            starts_at_s.append(world.seconds)
            world.host.crash(VM_ID)
        elif plan.action is None:
            if plan.wake_at_s:
                world.seconds = plan.wake_at_s - 1000.0
            else:
                world.host.crash(VM_ID)
        if world.seconds > 3600:
            break
    within = [sum(1 for other in starts_at_s if at_s <= other < at_s + 595) for at_s in starts_at_s]
    assert max(within) <= 3
    assert len(starts_at_s) > 10


def test_without_the_guard_nothing_is_done() -> None:
    world = World()
    world.settle()
    world.host.guard_answers = False
    for what in ("stop", "reboot", "gone", "place"):
        change(world, what)
        plan = world.step()
        assert (plan.state, plan.action) == (GuestState.UNKNOWN, None)
