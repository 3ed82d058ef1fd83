"""What ``ucloud down`` takes away once the control plane is stopped: running guests, then everything on the network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from ucloud.config import Config
from ucloud.errors import Unavailable
from ucloud.firewall.room import FirewallRoom
from ucloud.guard.records import read_records, record_path
from ucloud.hypervisor.directory import VmDirectories
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.halt import halt_all
from ucloud.local.processes import GUARD, is_running, stop_process
from ucloud.local.supervisor import command_of
from ucloud.network.room import NetworkRoom
from ucloud.system.append_log import open_output
from ucloud.system.clock import Clock
from ucloud.system.process_unix import read_boot_id
from ucloud.system.run import Process, spawn

Say = Callable[[str], None]

GUARD_TIMEOUT_S = 15.0
_LOOK_EVERY_S = 0.05


def stop_vms(config: Config, config_file: Path, clock: Clock, *, timeout_s: float, say: Say) -> None:
    """Press every guest's power button, and kill those that are not off after ``timeout_s``.

    They run again with the next ``up``. Raises Unavailable if VMs run and no guard can be had to stop them.
    """
    records, damaged = read_records(config.host.run_directory / "guard")
    for vm_id in damaged:
        path = record_path(config.host.run_directory / "guard", vm_id)
        say(f"warning: {path} is damaged; a QEMU of vm {vm_id} may be left: look for it, then remove that file")
    if not is_running(config.host.run_directory, GUARD.name):
        if any(record.runs() for record in records.values()):
            say("starting the guard, which ended before its VMs")
            with _own_guard(config, config_file, clock) as child:
                _halt(config, clock, child, timeout_s=timeout_s, say=say)
        return
    _halt(config, clock, None, timeout_s=timeout_s, say=say)


@contextlib.contextmanager
def _own_guard(config: Config, config_file: Path, clock: Clock) -> Iterator[Process]:
    """A guard of ours: only guards adopt and end QEMUs."""
    with open_output(config.log.directory, GUARD.name) as output:
        child = spawn(command_of(GUARD, config_file), log=output)
    try:
        yield child
    finally:
        stop_process(config.host.run_directory, GUARD.name, clock)
        child.kill()  # for one that never came to hold its lock
        child.wait()


def _halt(config: Config, clock: Clock, child: Process | None, *, timeout_s: float, say: Say) -> None:
    guard = GuardClient(config.host.run_directory / "guard.sock")
    _wait_guard(guard, config, clock, child)
    directories = VmDirectories(config.host.state_directory, config.host.run_directory, host_boot_id=read_boot_id())
    halt_all(guard, directories, clock, timeout_s=timeout_s, say=say)


def _wait_guard(guard: GuardClient, config: Config, clock: Clock, child: Process | None) -> None:
    deadline_s = clock.monotonic_s() + GUARD_TIMEOUT_S
    while True:
        try:
            guard.hello()
        except Unavailable as error:
            has_ended = child is not None and child.poll() is not None
            if has_ended or clock.monotonic_s() > deadline_s:
                raise Unavailable(
                    f"failed to stop the VMs: {error.message}", hint=f"see {config.log.directory}/guard.log"
                ) from error
            clock.sleep(_LOOK_EVERY_S)
        else:
            return


def remove_network(config: Config, *, say: Say) -> None:
    """Remove all namespaces, links and rules of this cloud, and give the machine its settings back."""
    firewall = FirewallRoom(config.network)
    NetworkRoom(config.host, config.network, firewall.gateway_rules).remove_all()
    firewall.remove_all()
    say("removed networks and rules")
