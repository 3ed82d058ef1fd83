"""The whole cloud as typed values at one revision: what the scheduler's and the API's pure functions work on.

Built from a listing or from a cache's items; decoding is the caller's, so that values decoded once are used often.
A value that could not be decoded is simply not in the view (the cache names it): nothing is concluded from absence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ucloud.model.guard import Fenced, LifeSign, RunLock, Takeover, TakeoverPhase
from ucloud.model.host import Host
from ucloud.model.image import Image
from ucloud.model.key import Key
from ucloud.model.migration import Migration, MigrationRequest
from ucloud.model.network import Network
from ucloud.model.placement import Placement
from ucloud.model.seen import SeenHost, SeenNetwork, SeenVm
from ucloud.model.vm import Vm
from ucloud.model.wanted import WantedBlob, WantedNetwork, WantedVm
from ucloud.store import keys

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A value with the key and revision that a transaction on it has to compare."""

    key: str
    value: T
    mod_revision: int


Entries = Mapping[str, Entry[T]]
OnHosts = Mapping[tuple[str, str], Entry[T]]


@dataclass(frozen=True, slots=True)
class View:
    """Entries by object id; those of hosts by (host id, object id); ``fenced`` by (host id, incarnation)."""

    revision: int
    vms: Entries[Vm] = field(default_factory=dict)
    networks: Entries[Network] = field(default_factory=dict)
    images: Entries[Image] = field(default_factory=dict)
    keys: Entries[Key] = field(default_factory=dict)
    hosts: Entries[Host] = field(default_factory=dict)
    placements: Entries[Placement] = field(default_factory=dict)
    alive: Entries[LifeSign] = field(default_factory=dict)
    registered: Entries[LifeSign] = field(default_factory=dict)
    fenced: OnHosts[Fenced] = field(default_factory=dict)
    takeovers: Entries[Takeover] = field(default_factory=dict)
    migration_requests: Entries[MigrationRequest] = field(default_factory=dict)
    migrations: Entries[Migration] = field(default_factory=dict)
    wanted_vms: OnHosts[WantedVm] = field(default_factory=dict)
    wanted_networks: OnHosts[WantedNetwork] = field(default_factory=dict)
    wanted_blobs: OnHosts[WantedBlob] = field(default_factory=dict)
    seen_vms: OnHosts[SeenVm] = field(default_factory=dict)
    seen_networks: OnHosts[SeenNetwork] = field(default_factory=dict)
    seen_hosts: Entries[SeenHost] = field(default_factory=dict)
    locks: OnHosts[RunLock] = field(default_factory=dict)

    def has_blob(self, host_id: str, digest: str) -> bool:
        """Whether the host's last report names the blob."""
        report = self.seen_hosts.get(host_id)
        return report is not None and digest in report.value.images

    def taken_over(self, host_id: str) -> Entry[Fenced] | None:
        """The mark of a host that is gone and whose locks are free; None for any other."""
        takeover, registered = self.takeovers.get(host_id), self.registered.get(host_id)
        if host_id in self.alive or takeover is None or registered is None:
            return None
        incarnation = registered.value.incarnation
        if takeover.value.phase is not TakeoverPhase.DONE or takeover.value.incarnation != incarnation:
            return None
        return self.fenced.get((host_id, incarnation))

    def is_confirmed_off(self, host_id: str) -> bool:
        """Whether somebody said that the machine is off, and the host has not registered since."""
        host, registered = self.hosts.get(host_id), self.registered.get(host_id)
        if host is None or registered is None:
            return False
        spec = host.value.spec
        confirmed = (spec.confirmed_off, spec.confirmed_revision)
        return confirmed == (registered.value.incarnation, registered.mod_revision)

    def blob_sources(self, digest: str) -> tuple[str, ...]:
        """The doors of the hosts that have this blob."""
        reports = (entry.value for entry in self.seen_hosts.values())
        return tuple(sorted(report.door for report in reports if digest in report.images))


@dataclass(frozen=True, slots=True)
class Doubts:
    """What cannot be concluded because some stored values could not be read (law 5). ``broken`` are their keys."""

    broken: frozenset[str] = frozenset()

    def about(self, noun: str, object_id: str) -> bool:
        """Whether an end of this object could rest on an unreadable value.

        A VM depends on what is stored about itself; everything else also on all VMs, which are its users.
        """
        return any(key.endswith(f"/{object_id}") or (noun != "vm" and keys.is_about_vms(key)) for key in self.broken)


PREFIXES = (
    keys.ROOT + "spec/",
    keys.placements(),
    keys.alive_all(),
    keys.wanted_all(),
    keys.seen_all(),
    keys.locks(),
    keys.registered_all(),
    keys.fenced_all(),
    keys.takeovers(),
    keys.migrations(),
)
_BY_ID: Mapping[type, str] = {
    Vm: "vms",
    Network: "networks",
    Image: "images",
    Key: "keys",
    Host: "hosts",
    Placement: "placements",
    Takeover: "takeovers",
    MigrationRequest: "migration_requests",
    Migration: "migrations",
}
_BY_HOST: Mapping[type, str] = {
    WantedVm: "wanted_vms",
    WantedNetwork: "wanted_networks",
    WantedBlob: "wanted_blobs",
    SeenVm: "seen_vms",
    SeenNetwork: "seen_networks",
    RunLock: "locks",
    Fenced: "fenced",
}


def build_view(revision: int, decoded: Iterable[tuple[str, Any, int]]) -> View:
    """``decoded`` are (key, value, mod_revision) of anything under PREFIXES."""
    tables: dict[str, dict[Any, Entry[Any]]] = {}
    for key, value, mod_revision in decoded:
        entry = Entry(key, value, mod_revision)
        segments = key.removeprefix(keys.ROOT).split("/")
        if isinstance(value, SeenHost):
            tables.setdefault("seen_hosts", {})[segments[1]] = entry
        elif isinstance(value, LifeSign):  # of alive/ or registered/
            tables.setdefault(segments[0], {})[segments[1]] = entry
        elif table := _BY_ID.get(type(value)):
            tables.setdefault(table, {})[segments[-1]] = entry
        elif table := _BY_HOST.get(type(value)):
            tables.setdefault(table, {})[segments[1], segments[-1]] = entry
    return View(revision, **tables)
