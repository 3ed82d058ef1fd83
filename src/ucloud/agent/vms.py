"""The pass over one VM: observe, plan, act, report; again at once while there is something to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ucloud.agent.adoption import Adoption
from ucloud.agent.migrations import Migrations
from ucloud.agent.reports import Reports
from ucloud.agent.resources import HostResources
from ucloud.errors import Conflict, Error
from ucloud.hypervisor.actions import Continue, Listen, Now, ObservedVm, Plan, Remove, Send, Start
from ucloud.hypervisor.api import Hypervisor
from ucloud.hypervisor.migration_plan import plan_pass
from ucloud.hypervisor.plan import LOCKED_AGAIN_S
from ucloud.hypervisor.seen import summarise
from ucloud.hypervisor.watcher import GuestWatcher
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.wanted import WantedImage, WantedVm
from ucloud.store.view import Entry
from ucloud.system.clock import Clock, format_time

logger = logging.getLogger(__name__)

ACTIONS_LIMIT = 8  # in one pass; a plan that never rests is a mistake that must not spin
RESYNC_S = 30.0
LOOK_AGAIN_S = 0.5  # nobody will tell: the guard is away, or QEMU is just starting or ending
_RESTS = (GuestState.STOPPED, GuestState.CRASHED, GuestState.GONE)
_VOLUME_LOCKED = "volume_locked"


@dataclass(frozen=True, slots=True)
class VmPasses:
    """``find`` gives the wanted document of a VM; ``is_ready`` tells whether this host carries a network.

    ``why_missing`` says why an image's blob is not here yet, "" if it is.
    """

    hypervisor: Hypervisor
    resources: HostResources
    reports: Reports
    find: Callable[[str], Entry[WantedVm] | None]
    is_ready: Callable[[str], bool]
    why_missing: Callable[[WantedImage], str]
    watcher: GuestWatcher
    migrations: Migrations
    adoption: Adoption
    clock: Clock

    def run(self, vm_id: str) -> float | None:
        """One pass; the seconds until the next one without a cause."""
        entry = self.find(vm_id)
        wanted = entry.value if entry else None
        try:
            plan, observed = self._work(vm_id, entry)
            if wanted and plan.action is None:
                self._settle(wanted, plan, observed)
        except Error as error:
            self._report_failure(vm_id, entry, error)
            raise
        if entry is None and observed.process is None and not observed.has_files and not observed.unknown:
            self.reports.forget("vm", vm_id)  # nobody wants it and nothing is left of it
            self.resources.forget(vm_id)
            return None
        self._report(plan, observed, entry)
        told = self._watch(observed)
        if plan.state is GuestState.UNKNOWN:
            return LOOK_AGAIN_S
        if plan.wake_at_s:
            return max(plan.wake_at_s - self.clock.monotonic_s(), 0.0)
        return RESYNC_S if told else LOOK_AGAIN_S

    def _watch(self, observed: ObservedVm) -> bool:
        """Whether somebody will tell when something happens to the guest."""
        process = observed.process
        if process is None or not process.running:
            self.watcher.forget(observed.vm_id)
            return True
        path = self.hypervisor.events_socket(observed.vm_id)
        return self.watcher.watch(observed.vm_id, pid=process.pid, path=path)

    def _work(self, vm_id: str, entry: Entry[WantedVm] | None) -> tuple[Plan, ObservedVm]:
        """Act until there is nothing to do, or to be waited for. Returns the last plan and what it stood on."""
        wanted = entry.value if entry else None
        for _ in range(ACTIONS_LIMIT):
            observed = self._observe(vm_id, wanted)
            plan = self._plan(entry, observed)
            if plan.action is None:
                break
            missing = self._why_not_yet(wanted) if isinstance(plan.action, Start | Listen) else ""
            if missing:
                return replace(plan, state=GuestState.PREPARING, reason=missing, action=None), observed
            logger.info("vm %s: %s (%s)", vm_id, type(plan.action).__name__.lower(), plan.reason or plan.state)
            try:
                self._act(vm_id, wanted, plan, observed)
            except Conflict as error:
                if error.code != _VOLUME_LOCKED:
                    raise
                return self._waiting(plan, error), observed
        return plan, observed

    def _observe(self, vm_id: str, wanted: WantedVm | None) -> ObservedVm:
        """What is there, and whether it may go on: a copy that has not run has no run lock yet."""
        observed = self.hypervisor.observe(vm_id)
        process = observed.process
        if process is None or not process.running or observed.record.incoming:
            return observed
        why = self.adoption.why_disowned(process, pool_id=wanted.pool_id if wanted else "")
        return replace(observed, disowned=why) if why else observed

    def _plan(self, entry: Entry[WantedVm] | None, observed: ObservedVm) -> Plan:
        wanted, now = entry.value if entry else None, self._now()
        plan = plan_pass(wanted, observed, now)
        if entry is None or observed.process is None or not plan.needs_lock:
            return plan
        return plan_pass(wanted, observed, now, self.resources.locks.view(observed.process, entry))

    def _act(self, vm_id: str, wanted: WantedVm | None, plan: Plan, observed: ObservedVm) -> None:
        now = self._now()
        match plan.action:
            case Start() as action if wanted:
                uid = self.hypervisor.prepare(vm_id, wanted.machine).uid
                with self.resources.prepared(wanted, uid=uid) as resources:
                    self.hypervisor.start(wanted, action, resources, now)
            case Listen() as action if wanted:
                self.migrations.listen(wanted, action, now)
            case Send() as action if wanted:
                self.migrations.send(wanted, action)
            case Continue() as action if wanted:
                self.migrations.go_on(wanted, observed, action, now)
            case Remove() as action if wanted:
                self.resources.remove(wanted)
                self.hypervisor.apply(vm_id, action, now)
            case action if action is not None:
                self.hypervisor.apply(vm_id, action, now)

    def _waiting(self, plan: Plan, error: Error) -> Plan:
        """Its disk is still another's: asked again soon, and never forced."""
        again_s = self.clock.monotonic_s() + LOCKED_AGAIN_S
        state = GuestState.PREPARING if isinstance(plan.action, Start) else plan.state
        return replace(
            plan, state=state, action=None, reason=f"waits for the disk's lock: {error.message}", wake_at_s=again_s
        )

    def _settle(self, wanted: WantedVm, plan: Plan, observed: ObservedVm) -> None:
        """What follows from a rest: documents of a running guest are fresh, nothing is left of one that is gone."""
        self.migrations.settle(wanted, plan, observed)
        if plan.state is GuestState.GONE:
            self.resources.remove(wanted)  # also where there never were files of the VM itself
        elif plan.state is GuestState.RUNNING or (plan.state is GuestState.PAUSED and plan.migration is None):
            self.resources.write_documents(wanted)
        if plan.state in _RESTS:
            self.resources.release_lock(wanted)

    def _why_not_yet(self, wanted: WantedVm | None) -> str:
        """What a start has to wait for, "" for nothing. Whoever makes it ready wakes the VM."""
        if wanted is None:
            return ""
        networks = sorted({nic.network_id for nic in wanted.nics})
        missing = [network_id for network_id in networks if not self.is_ready(network_id)]
        if missing:
            return f"waits for network {', '.join(missing)} on this host"
        return self.why_missing(wanted.image)

    def _report(self, plan: Plan, observed: ObservedVm, entry: Entry[WantedVm] | None) -> None:
        vm_id = observed.vm_id
        report = summarise(
            plan,
            observed,
            entry.value if entry else None,
            machine=self.hypervisor.read_machine(vm_id) if observed.has_files else None,
            previous=self.reports.vm(vm_id),
            now=self._now(),
            wanted_revision=entry.mod_revision if entry else 0,
        )
        self.reports.write_vm(report, project=entry.value.project if entry else "")

    def _report_failure(self, vm_id: str, entry: Entry[WantedVm] | None, error: Error) -> None:
        """Say why it does not go on; the loop tries again."""
        if entry is None:
            return
        logger.info("vm %s: %s: %s", vm_id, error.code, error.message)
        before = self.reports.vm(vm_id)
        kept = before or SeenVm(vm_id, 0, 0, GuestState.FAILED, "", format_time(self.clock.now()))
        runs = kept.state in (GuestState.RUNNING, GuestState.PAUSED, GuestState.STOPPING)
        self.reports.write_vm(
            replace(
                kept,
                generation=entry.value.generation,
                spec_generation=entry.value.spec_generation,
                state=kept.state if runs else GuestState.FAILED,
                reason=f"{error.message}; tried again",
                since=format_time(self.clock.now()),
            ),
            project=entry.value.project,
        )

    def _now(self) -> Now:
        return Now(self.clock.monotonic_s(), self.clock.now())
