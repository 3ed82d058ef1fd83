"""The pass over one VM: observe, plan, act, report; again at once while there is something to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from ucloud.agent.reports import Reports
from ucloud.agent.resources import HostResources
from ucloud.errors import Error
from ucloud.hypervisor.api import Hypervisor
from ucloud.hypervisor.plan import Now, ObservedVm, Plan, Remove, Start, plan_vm
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
    clock: Clock

    def run(self, vm_id: str) -> float | None:
        """One pass; the seconds until the next one without a cause."""
        entry = self.find(vm_id)
        wanted = entry.value if entry else None
        try:
            plan, observed = self._work(vm_id, wanted)
            if wanted and plan.action is None:
                self._settle(wanted, plan)
        except Error as error:
            self._report_failure(vm_id, entry, error)
            raise
        if entry is None and observed.process is None and not observed.has_files and not observed.unknown:
            self.reports.forget("vm", vm_id)  # nobody wants it and nothing is left of it
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

    def _work(self, vm_id: str, wanted: WantedVm | None) -> tuple[Plan, ObservedVm]:
        """Act until there is nothing to do, or to be waited for. Returns the last plan and what it stood on."""
        for _ in range(ACTIONS_LIMIT):
            observed = self.hypervisor.observe(vm_id)
            plan = plan_vm(wanted, observed, self._now())
            if plan.action is None:
                break
            missing = self._why_not_yet(wanted) if isinstance(plan.action, Start) else ""
            if missing:
                return replace(plan, state=GuestState.PREPARING, reason=missing, action=None), observed
            logger.info("vm %s: %s (%s)", vm_id, type(plan.action).__name__.lower(), plan.reason or plan.state)
            self._act(vm_id, wanted, plan)
        return plan, observed

    def _act(self, vm_id: str, wanted: WantedVm | None, plan: Plan) -> None:
        if isinstance(plan.action, Start) and wanted:
            uid = self.hypervisor.prepare(vm_id).uid
            with self.resources.prepared(wanted, uid=uid) as resources:
                self.hypervisor.start(wanted, plan.action, resources, self._now())
        elif plan.action is not None:
            if isinstance(plan.action, Remove) and wanted:
                self.resources.remove(wanted)
            self.hypervisor.apply(vm_id, plan.action, self._now())

    def _settle(self, wanted: WantedVm, plan: Plan) -> None:
        """What follows from a rest: documents of a running guest are fresh, nothing is left of one that is gone."""
        if plan.state is GuestState.GONE:
            self.resources.remove(wanted)  # also where there never were files of the VM itself
        elif plan.state in (GuestState.RUNNING, GuestState.PAUSED):
            self.resources.write_documents(wanted)
        if plan.state in _RESTS:
            self.resources.release_lock(wanted.vm_id)

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
