"""The pass over one network of this host: make it complete, or remove it by its tombstone, and report."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from ucloud.agent.reports import Reports
from ucloud.agent.resources import HostResources
from ucloud.errors import Error
from ucloud.metadata.room import MetadataRoom
from ucloud.model.seen import SeenNetwork
from ucloud.model.wanted import WantedNetwork
from ucloud.network.room import NetworkRoom
from ucloud.store.view import Entry
from ucloud.system.clock import Clock, format_time

RESYNC_S = 30.0


@dataclass(slots=True)
class NetworkPasses:
    """``on_ready`` is called with the id of a network that has just become complete."""

    network: NetworkRoom
    metadata: MetadataRoom
    resources: HostResources
    reports: Reports
    find: Callable[[str], Entry[WantedNetwork] | None]
    on_ready: Callable[[str], None]
    clock: Clock
    _ready: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def is_ready(self, network_id: str) -> bool:
        with self._lock:
            return network_id in self._ready

    def run(self, network_id: str) -> float | None:
        """One pass; the seconds until the next one without a cause."""
        entry = self.find(network_id)
        if entry is None:
            self._set_ready(network_id, False)
            self.reports.forget("network", network_id)
            return None
        if entry.value.gone:
            self._remove(entry)
            return None
        try:
            self._ensure(entry.value)
        except Error as error:
            self._set_ready(network_id, False)
            self._report(entry, ready=False, reason=f"{error.message}; tried again")
            raise
        newly = self._set_ready(network_id, True)
        self._report(entry, ready=True)
        if newly:
            self.on_ready(network_id)
        return RESYNC_S

    def _ensure(self, wanted: WantedNetwork) -> None:
        self.resources.ensure_rules()  # before the network can carry a packet
        steps = self.network.ensure_network(wanted)
        if self.metadata.write_network(wanted) or steps:
            self.metadata.notify()

    def _remove(self, entry: Entry[WantedNetwork]) -> None:
        self._set_ready(entry.value.network_id, False)
        self.metadata.remove_network(entry.value.network_id)
        self.network.remove_network(entry.value)
        self.resources.ensure_rules()
        self._report(entry, ready=False, gone=True)

    def _report(self, entry: Entry[WantedNetwork], *, ready: bool, gone: bool = False, reason: str = "") -> None:
        self.reports.write_network(
            SeenNetwork(
                network_id=entry.value.network_id,
                ready=ready,
                gone=gone,
                reason=reason,
                since=format_time(self.clock.now()),
                mtu=self.network.mtu,
                wanted_revision=entry.mod_revision,
            )
        )

    def _set_ready(self, network_id: str, ready: bool) -> bool:
        """Returns whether that is new."""
        with self._lock:
            before = network_id in self._ready
            (self._ready.add if ready else self._ready.discard)(network_id)
            return before != ready
