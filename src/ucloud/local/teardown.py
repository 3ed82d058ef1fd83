"""What ``ucloud down`` takes away once the control plane is stopped: running guests, then everything on the network."""

from __future__ import annotations

from collections.abc import Callable

from ucloud.config import Config
from ucloud.errors import GuestError, Unavailable
from ucloud.firewall.room import FirewallRoom
from ucloud.hypervisor.directory import VmDirectories
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.guard_protocol import Named, VmProcess
from ucloud.hypervisor.qmp import Qmp
from ucloud.network.room import NetworkRoom
from ucloud.system.clock import Clock
from ucloud.system.process_unix import read_boot_id

Say = Callable[[str], None]

LOOK_EVERY_S = 0.25
_QMP_TIMEOUT_S = 3.0


def stop_vms(config: Config, clock: Clock, *, timeout_s: float, say: Say) -> None:
    """Press every guest's power button, and kill those that are not off after ``timeout_s``."""
    guard = GuardClient(config.host.run_directory / "guard.sock")
    try:
        running = _running(guard)
    except Unavailable:
        return  # no guard, no guests but those with failover none, which its next start finds
    directories = VmDirectories(config.host.state_directory, config.host.run_directory, host_boot_id=read_boot_id())
    for process in running:
        say(f"stopping vm {process.vm_id}")
        _tell(directories, process, "system_powerdown")
    deadline_s = clock.monotonic_s() + timeout_s
    while running and clock.monotonic_s() < deadline_s:
        for process in running:
            if _tell(directories, process, "query-status") == "shutdown":
                _tell(directories, process, "quit")
        clock.sleep(LOOK_EVERY_S)
        running = _running(guard)
    for process in running:
        say(f"vm {process.vm_id} did not power off in {timeout_s:g} s: killed")
        guard.kill(Named(process.vm_id, process.generation, process.boots))


def _running(guard: GuardClient) -> list[VmProcess]:
    return [process for process in guard.list() if process.running]


def _tell(directories: VmDirectories, process: VmProcess, command: str) -> str:
    """One QMP command; the status it answers with, "" if it does not answer."""
    try:
        with Qmp.connect(directories.qmp_socket(process.vm_id), timeout_s=_QMP_TIMEOUT_S) as qmp:
            answer = qmp.execute(command)
    except (Unavailable, GuestError):
        return ""
    return str(answer.get("status", "")) if isinstance(answer, dict) else ""


def remove_network(config: Config, *, say: Say) -> None:
    """Remove all namespaces, links and rules of this cloud, and give the machine its settings back."""
    firewall = FirewallRoom(config.network)
    NetworkRoom(config.host, config.network, firewall.gateway_rules).remove_all()
    firewall.remove_all()
    say("removed networks and rules")
