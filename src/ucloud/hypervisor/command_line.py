"""QEMU's command line for one VM: a pure function of what it shall have, tested against golden texts.

Every socket, log and tap is a descriptor that the agent opened: QEMU runs as the VM's own uid in the full sandbox
and opens by name only its disk, and /dev/kvm. A guest that powers off or panics leaves QEMU paused
(``-action shutdown=pause``), so that an agent that was away can still ask what happened; only then it is told to
quit. Any other end of QEMU is a crash. A guest's reset just resets.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ucloud.hypervisor.accelerator import Accelerator
from ucloud.hypervisor.machine import RNG, ROOT_DISK
from ucloud.hypervisor.resources import Disk, DiskLayer
from ucloud.model.machine import Machine

SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_SERIAL_LOG_SET = 1
_NBD_RECONNECT_S = 60


@dataclass(frozen=True, slots=True)
class NicDevice:
    """``fd`` is the tap's number in QEMU."""

    id: str
    mac: str
    mtu: int
    fd: int


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Numbers in QEMU: three listening sockets and the serial log, open for appending."""

    qmp: int
    events: int
    serial: int
    serial_log: int


@dataclass(frozen=True, slots=True)
class Launch:
    """Everything one start of QEMU is made of. ``incoming``: its guest comes from another host and stands still
    until it is told to go on; nothing else differs, or the two would not be the same machine.
    """

    program: str
    name: str
    machine: Machine
    accelerator: Accelerator
    cpus: int
    memory_mib: int
    disk: Disk
    nics: tuple[NicDevice, ...]
    descriptors: Descriptors
    incoming: bool = False


def render_command_line(launch: Launch) -> tuple[str, ...]:
    return (
        launch.program,
        *_render_process(launch),
        *_render_board(launch),
        *_render_consoles(launch.descriptors),
        *_render_disk(launch.disk, slot=launch.machine.slots[ROOT_DISK]),
        *(word for nic in launch.nics for word in _render_nic(nic, slot=launch.machine.slots[nic.id])),
        *("-object", "rng-random,id=rng0,filename=/dev/urandom"),
        *("-device", f"virtio-rng-pci,id=rng,rng=rng0,bus=pcie.0,addr={launch.machine.slots[RNG]:#04x}"),
        *("-device", "pvpanic"),
        *(("-S", "-incoming", "defer") if launch.incoming else ()),
    )


def quote(text: str) -> str:
    """A value in QEMU's ``key=value,…`` syntax: a comma is written twice."""
    return text.replace(",", ",,")


def render_disk_nodes(disk: Disk) -> list[dict[str, Any]]:
    """Block nodes from the bottom of the chain up; formats and backing files are said, never found out by QEMU."""
    nodes: list[dict[str, Any]] = []
    below: str | None = None
    for depth, layer in reversed(list(enumerate((disk.top, *disk.backing)))):
        node = _render_layer(layer, name=f"root-{depth}", writable=depth == 0, direct=depth == 0 and disk.direct)
        if layer.format == "qcow2":
            node["backing"] = below  # None: even if the image's header names one
        nodes.append(node)
        below = node["node-name"]
    return nodes


def _render_layer(layer: DiskLayer, *, name: str, writable: bool, direct: bool) -> dict[str, Any]:
    common: dict[str, Any] = {"read-only": not writable, "discard": "unmap"} if writable else {"read-only": True}
    if direct:
        common["cache"] = {"direct": True}
    return {"node-name": name, "driver": layer.format, **common, "file": {**_render_protocol(layer), **common}}


def _render_protocol(layer: DiskLayer) -> dict[str, Any]:
    if layer.driver == "file":
        return {"driver": "file", "filename": layer.location, "locking": "on"}
    address, _, export = layer.location.partition("/")
    host, _, port = address.rpartition(":")
    server = {"type": "inet", "host": host.strip("[]"), "port": port}
    return {"driver": "nbd", "server": server, "export": export, "reconnect-delay": _NBD_RECONNECT_S}


def _render_process(launch: Launch) -> tuple[str, ...]:
    return (
        *("-name", f"guest={quote(launch.name)},debug-threads=off"),
        *("-sandbox", SANDBOX),
        *("-msg", "timestamp=on"),
        *("-no-user-config", "-nodefaults"),
        *("-display", "none", "-vga", "none"),
        *("-action", "reboot=reset,shutdown=pause,panic=pause"),
    )


def _render_board(launch: Launch) -> tuple[str, ...]:
    machine = launch.machine
    serial = f"uuid={machine.uuid},serial={quote(machine.vm_id)}"
    return (
        *("-machine", ",".join((machine.machine_type, *machine.machine_options))),
        *("-accel", launch.accelerator.value),
        *("-cpu", machine.cpu_model),
        *("-smp", f"cpus={launch.cpus},sockets=1,cores={launch.cpus},threads=1"),
        *("-m", f"size={launch.memory_mib}M"),
        *("-uuid", machine.uuid),
        *("-smbios", f"type=1,manufacturer=ucloud,product=OpenStack Nova,{serial}"),
        *("-rtc", "base=utc"),
        *("-boot", "strict=on"),
        *("-global", "ICH9-LPC.disable_s3=1", "-global", "ICH9-LPC.disable_s4=1"),
    )


def _render_consoles(numbers: Descriptors) -> tuple[str, ...]:
    log = f"logfile=/dev/fdset/{_SERIAL_LOG_SET},logappend=on"
    return (
        *("-add-fd", f"set={_SERIAL_LOG_SET},fd={numbers.serial_log},opaque=serial-log"),
        *("-chardev", f"socket,id=qmp,fd={numbers.qmp},server=on,wait=off"),
        *("-mon", "chardev=qmp,mode=control"),
        *("-chardev", f"socket,id=events,fd={numbers.events},server=on,wait=off"),
        *("-mon", "chardev=events,mode=control"),
        *("-chardev", f"socket,id=serial,fd={numbers.serial},server=on,wait=off,{log}"),
        *("-serial", "chardev:serial"),
    )


def _render_disk(disk: Disk, *, slot: int) -> tuple[str, ...]:
    nodes = [word for node in render_disk_nodes(disk) for word in ("-blockdev", json.dumps(node))]
    device = f"virtio-blk-pci,id={ROOT_DISK},drive=root-0,bootindex=0,bus=pcie.0,addr={slot:#04x},write-cache=on"
    return (*nodes, "-device", device)


def _render_nic(nic: NicDevice, *, slot: int) -> tuple[str, ...]:
    """No option ROM: nobody boots a VM from its network, and loading it costs time."""
    device = f"virtio-net-pci,id=dev-{nic.id},netdev=net-{nic.id},mac={nic.mac},bus=pcie.0,addr={slot:#04x}"
    return (
        *("-netdev", f"tap,id=net-{nic.id},fd={nic.fd}"),
        *("-device", f"{device},host_mtu={nic.mtu},romfile="),
    )
