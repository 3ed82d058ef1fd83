"""The wanted documents of this host, as the agent's passes ask for them. Reads the cache only."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeVar

from ucloud.errors import DeadlineExceeded, StoreError
from ucloud.model.wanted import WantedBlob, WantedImage, WantedNetwork, WantedNic, WantedVm
from ucloud.store.cache import Cache
from ucloud.store.view import Entry, View, build_view

T = TypeVar("T")

_LOOK_S = 0.5


class Wishes:
    """All answers come from the newest snapshot; the view of one revision is built once."""

    def __init__(self, cache: Cache[Any]) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._view = View(0)
        self._nics: dict[str, tuple[WantedNic, ...]] = {}

    def wait_until_read(self, stopping: threading.Event) -> None:
        """Return when the documents were read once, or at ``stopping``."""
        while not stopping.is_set():
            try:
                self._cache.wait_for(0, _LOOK_S)
            except DeadlineExceeded:
                continue
            return

    def vm(self, vm_id: str) -> Entry[WantedVm] | None:
        return _of(self._current().wanted_vms, vm_id)

    def network(self, network_id: str) -> Entry[WantedNetwork] | None:
        return _of(self._current().wanted_networks, network_id)

    def vm_ids(self) -> frozenset[str]:
        return frozenset(vm_id for _, vm_id in self._current().wanted_vms)

    def network_ids(self) -> frozenset[str]:
        return frozenset(network_id for _, network_id in self._current().wanted_networks)

    def vms_in(self, network_id: str) -> tuple[str, ...]:
        entries = self._current().wanted_vms.values()
        return tuple(e.value.vm_id for e in entries if any(nic.network_id == network_id for nic in e.value.nics))

    def nics_and_networks(self) -> tuple[list[WantedNic], list[WantedNetwork]]:
        """What the firewall must know: also NICs of VMs that are going, or whose document vanished, until
        ``forget_nics``: a document that is not there is no wish to cut a guest off.

        Raises StoreError if a document cannot be read: a NIC left out would be cut off.
        """
        if broken := self._cache.snapshot().broken:
            raise StoreError(f"failed to read what this host shall carry: {', '.join(sorted(broken))}")
        view = self._current()
        with self._lock:
            self._nics.update({vm_id: entry.value.nics for (_, vm_id), entry in view.wanted_vms.items()})
            nics = [nic for of_vm in self._nics.values() for nic in of_vm]
        return nics, [entry.value for entry in view.wanted_networks.values()]

    def forget_nics(self, vm_id: str) -> None:
        """Nothing of the VM is left here, so its NICs need no rules any more."""
        with self._lock:
            self._nics.pop(vm_id, None)

    def image(self, digest: str) -> WantedImage | None:
        """The image with this blob that some VM here is to run on."""
        vms = (entry.value for entry in self._current().wanted_vms.values())
        return next((vm.image for vm in vms if vm.image.digest == digest and not vm.gone), None)

    def vms_on(self, digest: str) -> tuple[str, ...]:
        entries = self._current().wanted_vms.values()
        return tuple(entry.value.vm_id for entry in entries if entry.value.image.digest == digest)

    def wanted_digests(self) -> frozenset[str]:
        """The blobs below the disks of this host's VMs."""
        return frozenset(entry.value.image.digest for entry in self._current().wanted_vms.values())

    def dropped(self) -> frozenset[str]:
        blobs: list[WantedBlob] = [entry.value for entry in self._current().wanted_blobs.values()]
        return frozenset(blob.digest for blob in blobs if blob.gone)

    def _current(self) -> View:
        snapshot = self._cache.snapshot()
        with self._lock:
            if self._view.revision != snapshot.revision:
                decoded = [(key, value, snapshot.items[key].mod_revision) for key, value in snapshot.values.items()]
                self._view = build_view(snapshot.revision, decoded)
            return self._view


def _of(entries: Mapping[tuple[str, str], Entry[T]], object_id: str) -> Entry[T] | None:
    return next((entry for (_, of_id), entry in entries.items() if of_id == object_id), None)
