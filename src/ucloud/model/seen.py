"""What an agent saw on its host, and when. Reports, never wishes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.machine import Machine
from ucloud.model.migration import SeenMigration


class GuestState(StrEnum):
    """A VM on one host. ``gone``: nothing of it is left here. ``unknown``: could not be observed; wait."""

    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"
    FAILED = "failed"
    GONE = "gone"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SeenVm:
    """``generation`` and ``spec_generation`` are those of the wanted document that was worked on.

    ``wanted_revision`` is the store's revision of that document: a report is no answer to a later wish.

    ``reason`` says why it is so, ``until`` when a wait ends ("" for no wait). ``boots`` is the boot that runs or
    ran last, ``restarts`` counts restarts by policy since then. ``cpus``, ``memory_mib``: what the running guest has.
    ``machine`` goes with the VM to the next host; ``migration`` is this host's part in one.
    """

    vm_id: str
    generation: int
    spec_generation: int
    state: GuestState
    reason: str
    since: str
    until: str = ""
    boots: int = 0
    restarts: int = 0
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    wanted_revision: int = 0
    accelerator: str = ""
    machine_type: str = ""
    cpu_model: str = ""
    qemu_version: str = ""
    started_at: str = ""
    machine: Machine | None = None
    migration: SeenMigration | None = None


@dataclass(frozen=True, slots=True)
class SeenNetwork:
    """``ready`` if everything wanted is there; ``gone`` if nothing is left."""

    network_id: str
    ready: bool
    gone: bool
    reason: str
    since: str
    mtu: int = 0
    wanted_revision: int = 0


class Fence(StrEnum):
    """The second line of a pool (docs/failover.md, C): a lock that works across hosts, or a verb that ends a host's
    access. ``none``: its disks have one host, or nothing that would keep a second writer out.
    """

    NONE = "none"
    LOCK = "lock"
    VERB = "verb"


@dataclass(frozen=True, slots=True)
class SeenPool:
    """The pool of a host's disks. Hosts that name the same ``id`` share it. ``proved_with`` are the hosts with which
    this one has tried that the second line holds: only then a VM may be started elsewhere. ``has_verb`` is how the pool
    is set up, ``fence`` what was proved a moment ago.
    """

    id: str
    fence: Fence = Fence.NONE
    proved_with: tuple[str, ...] = ()
    has_verb: bool = False


@dataclass(frozen=True, slots=True)
class SeenHost:
    """What the host has. ``door`` is its agent's URL; ``images`` are digests in its pool; sizes are totals.

    ``underlay_address`` is where other hosts send its VXLAN packets, "" if it is alone. ``longest_gap_s`` is the
    longest time that its guard was without evidence; ``members_version`` the list of etcd members that it knows.
    """

    host_id: str
    at: str
    version: str
    system: str
    architecture: str
    accelerator: str
    qemu_version: str
    cpus: int
    memory_mib: int
    disk_mib: int
    disk_free_mib: int
    door: str
    pool_full: bool = False
    images: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    underlay_address: str = ""
    pool: SeenPool | None = None
    longest_gap_s: float = 0.0
    members_version: int = 0
