"""A host's hypervisor as the agent sees it: fulfilled by ``qemu.QemuHypervisor`` and ``fake.FakeHypervisor``.

A pass over a VM is: ``observe``, ``plan.plan_vm``, then ``start`` for a Start (after the other rooms made disk and
taps) and ``apply`` for any other action, then ``seen.summarise``. One VM is worked on by one thread at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ucloud.hypervisor.actions import Action, Listen, Now, ObservedVm, Send, Start
from ucloud.hypervisor.resources import Resources
from ucloud.model.machine import Machine
from ucloud.model.wanted import WantedVm


class Hypervisor(Protocol):
    def vm_ids(self) -> tuple[str, ...]:
        """All VMs that have files or a process here. Raises Unavailable if the guard does not answer."""
        ...

    def observe(self, vm_id: str) -> ObservedVm:
        """Never raises for a guest or a guard that does not answer: it says so in the value."""
        ...

    def prepare(self, vm_id: str, stored: Machine | None = None) -> Machine:
        """The VM's machine: ``stored`` if it brought one along from another host, else made at the first call.

        Its ``uid`` is whom the disk must belong to.
        """
        ...

    def read_machine(self, vm_id: str) -> Machine | None: ...

    def start(self, wanted: WantedVm, action: Start | Listen, resources: Resources, now: Now) -> None:
        """Start the guest, or a QEMU that waits for one. Raises Unavailable, Conflict or GuestError; the next pass
        sees what came of it.
        """
        ...

    def receive(self, vm_id: str, descriptor: int) -> None:
        """Let a QEMU that waits take its guest from ``descriptor``, which stays the caller's. Raises GuestError if it
        takes one already, Unavailable if it is not there.
        """
        ...

    def send(self, vm_id: str, action: Send, descriptor: int, *, bandwidth_mib_s: int, downtime_ms: int) -> None:
        """Begin to send the guest to ``descriptor``, which stays the caller's; 0 is no limit of speed.

        Raises GuestError if it cannot move, Unavailable without an answer; it is never tried again.
        """
        ...

    def permit(self, vm_id: str, *, generation: int, boots: int, incarnation: str) -> None:
        """Ask the guard whether this one may go on for the run lock's ``incarnation``; it raises if it may not."""
        ...

    def apply(self, vm_id: str, action: Action, now: Now) -> None:
        """Do any action but Start, Listen and Send. Continue raises GuestError if the disk is open elsewhere."""
        ...

    def version(self) -> str:
        """QEMU's, such as "7.2.22"."""
        ...

    def accelerator(self) -> str: ...

    def events_socket(self, vm_id: str) -> Path:
        """Where QEMU tells what happens to the guest, for ``watcher.GuestWatcher``."""
        ...

    def serial_socket(self, vm_id: str) -> Path:
        """Where the serial console listens while the VM runs; it serves one connection at a time."""
        ...

    def serial_log(self, vm_id: str) -> Path: ...

    def trim_logs(self, *, limit_kib: int) -> None:
        """Keep every serial log within its limit."""
        ...
