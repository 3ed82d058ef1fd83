"""A virtual machine as its owner wants it.

``boots`` makes starts and reboots level-triggered: a host runs the guest of boot number N; wanting N+1 means "stop
what runs and start it once more". So a guest that powered itself off stays off until somebody wants the next boot.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.meta import Meta


class Power(StrEnum):
    RUNNING = "running"
    STOPPED = "stopped"


class Restart(StrEnum):
    """What to do when the guest ends by itself: after a power-off or a crash, after a crash only, or nothing."""

    ALWAYS = "always"
    ON_FAILURE = "on_failure"
    NEVER = "never"


class Failover(StrEnum):
    """Whether the VM may be started elsewhere when its host is lost."""

    RESTART = "restart"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Nic:
    """A VM's attachment to a network. Addresses are without prefix length; "" for none."""

    id: str
    network_id: str
    mac: str
    ipv6: str
    ipv4: str = ""


@dataclass(frozen=True, slots=True)
class VmSpec:
    """Of VMs that wait for a host, those with the higher ``priority`` are placed first."""

    image_id: str
    cpus: int
    memory_mib: int
    disk_gib: int
    nics: tuple[Nic, ...]
    key_ids: tuple[str, ...] = ()
    user_data_bytes: int = 0
    power: Power = Power.RUNNING
    boots: int = 1
    restart: Restart = Restart.ON_FAILURE
    failover: Failover = Failover.RESTART
    stop_timeout_s: int = 60
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Vm:
    meta: Meta
    spec: VmSpec
