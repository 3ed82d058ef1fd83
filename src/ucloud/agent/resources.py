"""What a VM needs on its host besides QEMU: run lock, disk, networks, rules, taps, metadata; made and taken away.

The order is the safety: lock before the disk is opened, rules before the tap is a port, documents before the guest
asks. Everything is idempotent, so that an interrupted start or removal is simply done again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Protocol

from ucloud.agent.locks import Locks
from ucloud.config import HostSection
from ucloud.errors import NotFound, Unavailable
from ucloud.firewall.room import FirewallRoom
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources, Tap
from ucloud.metadata.room import MetadataRoom
from ucloud.model.seen import Fence
from ucloud.model.wanted import WantedNetwork, WantedNic, WantedVm
from ucloud.network.room import NetworkRoom
from ucloud.storage.pool import LayerSource, Pool
from ucloud.store import keys
from ucloud.store.api import Store
from ucloud.system.history import History

GIB = 2**30


class Wishes(Protocol):
    """What all NICs and networks are that this host shall carry now."""

    def nics_and_networks(self) -> tuple[list[WantedNic], list[WantedNetwork]]: ...

    def forget_nics(self, vm_id: str) -> None: ...


class HostResources:
    """Of the VMs of one host; safe to use from several threads, for different VMs."""

    def __init__(
        self,
        store: Store,
        host: HostSection,
        *,
        network: NetworkRoom,
        firewall: FirewallRoom,
        metadata: MetadataRoom,
        pool: Pool,
        guard: GuardClient,
        wishes: Wishes,
        history: History,
    ) -> None:
        self._store = store
        self._host = host
        self._network = network
        self._firewall = firewall
        self._metadata = metadata
        self._pool = pool
        self._guard = guard
        self._wishes = wishes
        self._locks = Locks(store, host.id, history)
        self._pool_fence = Fence.VERB if host.pool_kind == "fenced" else Fence.LOCK
        self._given_back: dict[str, int] = {}
        self._rules = threading.Lock()

    @property
    def locks(self) -> Locks:
        return self._locks

    @contextlib.contextmanager
    def prepared(self, wanted: WantedVm, *, uid: int) -> Iterator[Resources]:
        """Everything for one start; the taps' descriptors are closed at the end, QEMU has its own by then."""
        incarnation = self._guard.hello().incarnation
        self._given_back.pop(wanted.vm_id, None)  # before: an answer that never comes may still be a lock
        self._locks.take(
            wanted.vm_id,
            generation=wanted.generation,
            incarnation=incarnation,
            failover=wanted.failover,
            pool_id=wanted.pool_id,
        )
        self._pool.acquire(wanted.vm_id, incarnation=incarnation)
        self._ensure_disk(wanted, uid)
        with self._taps(wanted, pinned=True) as taps:
            yield self._resources(wanted, taps, incarnation)

    @contextlib.contextmanager
    def prepared_for_arrival(self, wanted: WantedVm) -> Iterator[Resources]:
        """Everything for a QEMU that waits for its guest: no run lock, its disk only looked at, and frames for its
        NICs go on to where it runs.
        """
        incarnation = self._guard.hello().incarnation
        self._given_back.pop(wanted.vm_id, None)  # the lock may come here without our doing
        with self._taps(wanted, pinned=False) as taps:
            yield self._resources(wanted, taps, incarnation)

    def take_over(self, wanted: WantedVm, *, incarnation: str, arrived: bool, moved_from: str) -> None:
        """The run lock is ours, and the guest is about to go on: its disk and its frames are, too.

        ``arrived`` from ``moved_from`` ("" if nobody says so any more), or it never left.
        """
        self._given_back.pop(wanted.vm_id, None)
        self._pool.acquire(wanted.vm_id, incarnation=incarnation, moved_from=moved_from)
        for nic in wanted.nics:
            if arrived:
                self._pin(wanted, nic)
            else:
                self._network.ensure_nic(nic, name=wanted.name)

    def _pin(self, wanted: WantedVm, nic: WantedNic) -> None:
        try:
            self._network.pin_nic(nic)
        except NotFound:  # the network was made anew since the tap was connected
            self._network.ensure_nic(nic, name=wanted.name)

    def unplug(self, wanted: WantedVm) -> None:
        """The guest stands still here and may soon run elsewhere: no frame for it ends here any more."""
        for nic in wanted.nics:
            self._network.unplug_nic(nic.id)

    def write_documents(self, wanted: WantedVm) -> None:
        """The VM's metadata, as of now: a key added at runtime is seen at the guest's next request."""
        user_data = None
        if wanted.has_user_data:
            item = self._store.get(keys.secret_user_data(self._host.id, wanted.vm_id))
            if item is None:
                raise Unavailable(f"failed to prepare vm {wanted.vm_id}: its user data is not here yet")
            user_data = item.value
        if self._metadata.write_vm_documents(wanted, user_data):
            self._metadata.notify()

    def ensure_rules(self) -> None:
        """All rules of the host, from all wishes: one text, applied as a whole.

        One at a time, so that no older list of wishes is applied last: a NIC that is not in the list is mute.
        """
        with self._rules:
            nics, networks = self._wishes.nics_and_networks()
            self._firewall.ensure(nics, networks)

    def release_lock(self, wanted: WantedVm) -> None:
        """Nothing of the VM runs here any more.

        The store is asked once for each generation, for a lock may have come here without this agent's doing.
        """
        if self._given_back.get(wanted.vm_id) != wanted.generation:
            self._locks.release(wanted.vm_id, generation=wanted.generation)
            self._given_back[wanted.vm_id] = wanted.generation

    def forget(self, vm_id: str) -> None:
        """Nobody asks about the VM any more."""
        self._given_back.pop(vm_id, None)

    def remove(self, wanted: WantedVm) -> None:
        """Take away all that was made for a VM, whose process has ended. Only for its tombstone.

        Before the VM's files go: with them its uid becomes free, and nothing of that uid may be left by then.
        """
        for nic in wanted.nics:
            self._network.remove_nic(nic.id)
        self._wishes.forget_nics(wanted.vm_id)
        self._metadata.remove_vm_documents(wanted.vm_id)
        if not wanted.keep_disk:
            self._pool.delete_volume(wanted.vm_id)

    def _open_tap(self, stack: contextlib.ExitStack, nic: WantedNic) -> Tap:
        descriptor = self._network.open_tap(nic)
        stack.callback(os.close, descriptor)
        return Tap(nic.id, descriptor, self._network.mtu, device=self._network.tap_name(nic.id))

    @contextlib.contextmanager
    def _taps(self, wanted: WantedVm, *, pinned: bool) -> Iterator[tuple[Tap, ...]]:
        """Open and connected, with documents and rules in place before that."""
        self.write_documents(wanted)
        with contextlib.ExitStack() as stack:
            taps = [self._open_tap(stack, nic) for nic in wanted.nics]
            self.ensure_rules()
            for nic in wanted.nics:
                self._network.ensure_nic(nic, name=wanted.name, pinned=pinned)
            yield tuple(taps)

    def _resources(self, wanted: WantedVm, taps: tuple[Tap, ...], incarnation: str) -> Resources:
        image = wanted.image
        source = self._pool.disk(wanted.vm_id, image.digest, image.format, incarnation=incarnation)
        disk = Disk(_layer(source.top), tuple(_layer(layer) for layer in source.backing), source.direct)
        return Resources(disk, taps, incarnation, self._pool_fence)

    def _ensure_disk(self, wanted: WantedVm, uid: int) -> None:
        image = wanted.image
        size_bytes = wanted.disk_gib * GIB
        self._pool.ensure_volume(
            wanted.vm_id, image_digest=image.digest, image_format=image.format, size_bytes=size_bytes, uid=uid
        )
        self._pool.grow_volume(wanted.vm_id, size_bytes)


def _layer(layer: LayerSource) -> DiskLayer:
    return DiskLayer(layer.location, layer.format.value, layer.driver)
