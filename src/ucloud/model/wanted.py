"""What a host must look like: documents composed from specs and placements, one per VM and network.

A document with ``gone`` is a tombstone: only it (or a newer generation) lets an agent destroy something. An agent
that finds no document at all for something it runs leaves it alone and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

from ucloud.model.image import ImageFormat
from ucloud.model.machine import Machine
from ucloud.model.migration import WantedMigration
from ucloud.model.network import Egress
from ucloud.model.vm import Failover, Power, Restart


@dataclass(frozen=True, slots=True)
class WantedImage:
    """``sources`` are the doors (URLs) of hosts that have the blob."""

    digest: str
    format: ImageFormat
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WantedNic:
    """A NIC with what its host needs to know of its network."""

    id: str
    network_id: str
    vni: int
    mac: str
    ipv6: str
    ipv4: str = ""


@dataclass(frozen=True, slots=True)
class WantedVm:
    """``generation`` is the placement's, ``spec_generation`` the spec's. ``keys`` are authorized_keys lines.

    ``keep_disk``: the VM lives on elsewhere, so the tombstone is for its process and not for its disk.
    ``machine`` is what an earlier host has made of it. ``failover`` is what can be kept: never "restart" on a pool that
    no other host has. ``migration``: this host's part in one; the target of one gets its document with the new
    generation, and runs nothing of it before the phase is ``moved``.
    """

    vm_id: str
    name: str
    project: str
    generation: int
    spec_generation: int
    gone: bool
    power: Power
    boots: int
    restart: Restart
    failover: Failover
    stop_timeout_s: int
    cpus: int
    memory_mib: int
    disk_gib: int
    image: WantedImage
    nics: tuple[WantedNic, ...] = ()
    keys: tuple[str, ...] = ()
    has_user_data: bool = False
    keep_disk: bool = False
    machine: Machine | None = None
    migration: WantedMigration | None = None
    pool_id: str = ""


@dataclass(frozen=True, slots=True)
class WantedName:
    """A VM's name in its network's DNS, with its addresses there."""

    name: str
    mac: str
    ipv6: str
    ipv4: str = ""


@dataclass(frozen=True, slots=True)
class WantedPeer:
    """A NIC on another host: frames for ``mac`` go to the underlay address ``host``."""

    mac: str
    host: str


@dataclass(frozen=True, slots=True)
class WantedNetwork:
    """``names`` are all VMs of the network, on whatever host; ``peers`` the NICs on other hosts."""

    network_id: str
    name: str
    vni: int
    gone: bool
    ipv6_prefix: str
    ipv4_subnet: str
    egress: Egress
    names: tuple[WantedName, ...] = ()
    peers: tuple[WantedPeer, ...] = ()


@dataclass(frozen=True, slots=True)
class WantedBlob:
    """A tombstone for a blob in the host's pool that no image and no VM of this host needs any more."""

    digest: str
    gone: bool
