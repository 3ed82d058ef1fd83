"""What a VM needs on its host besides QEMU: run lock, disk, networks, rules, taps, metadata; made and taken away.

The order is the safety: lock before the disk is opened, rules before the tap is a port, documents before the guest
asks. Everything is idempotent, so that an interrupted start or removal is simply done again.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

from ucloud.agent.locks import Locks
from ucloud.config import HostSection
from ucloud.errors import Unavailable
from ucloud.firewall.room import FirewallRoom
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources, Tap
from ucloud.metadata.room import MetadataRoom
from ucloud.model.wanted import WantedNetwork, WantedNic, WantedVm
from ucloud.network.room import NetworkRoom
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.fetch import fetch_blob
from ucloud.store import keys
from ucloud.store.api import Store

GIB = 2**30
BLOB_LIMIT_BYTES = 1024 * GIB

Wishes = Callable[[], tuple[list[WantedNic], list[WantedNetwork]]]


class HostResources:
    """``wishes`` tells all NICs and networks that this host shall carry now; ``open_blob`` asks another host."""

    def __init__(
        self,
        store: Store,
        host: HostSection,
        *,
        network: NetworkRoom,
        firewall: FirewallRoom,
        metadata: MetadataRoom,
        pool: DirectoryPool,
        guard: GuardClient,
        wishes: Wishes,
        open_blob: Callable[[str], BinaryIO],
    ) -> None:
        self._store = store
        self._host = host
        self._network = network
        self._firewall = firewall
        self._metadata = metadata
        self._pool = pool
        self._guard = guard
        self._wishes = wishes
        self._open_blob = open_blob
        self._locks = Locks(store, host.id)
        self._held: set[str] = set()
        self._blobs = threading.Lock()
        self._rules = threading.Lock()

    def load(self) -> None:
        """Which run locks an earlier agent of this host holds."""
        self._held = set(self._locks.held())

    @contextlib.contextmanager
    def prepared(self, wanted: WantedVm, *, uid: int) -> Iterator[Resources]:
        """Everything for one start; the taps' descriptors are closed at the end, QEMU has its own by then."""
        incarnation = self._guard.hello().incarnation
        self._locks.take(wanted.vm_id, generation=wanted.generation, incarnation=incarnation)
        self._held.add(wanted.vm_id)
        disk = self._ensure_disk(wanted, uid)
        self.write_documents(wanted)
        with contextlib.ExitStack() as stack:
            taps = [Tap(nic.id, self._open_tap(stack, nic), self._network.mtu) for nic in wanted.nics]
            self.ensure_rules()
            for nic in wanted.nics:
                self._network.ensure_nic(nic, name=wanted.name)
            yield Resources(disk, tuple(taps))

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
            nics, networks = self._wishes()
            self._firewall.ensure(nics, networks)

    def release_lock(self, vm_id: str) -> None:
        """Nothing of the VM runs here any more."""
        if vm_id in self._held:
            self._locks.release(vm_id)
            self._held.discard(vm_id)

    def remove(self, wanted: WantedVm) -> None:
        """Take away all that was made for a VM, whose process has ended. Only for its tombstone."""
        for nic in wanted.nics:
            self._network.remove_nic(nic.id)
        self._metadata.remove_vm_documents(wanted.vm_id)
        if not wanted.keep_disk:
            self._pool.delete_volume(wanted.vm_id)

    def _open_tap(self, stack: contextlib.ExitStack, nic: WantedNic) -> int:
        descriptor = self._network.open_tap(nic)
        stack.callback(os.close, descriptor)
        return descriptor

    def _ensure_disk(self, wanted: WantedVm, uid: int) -> Disk:
        image = wanted.image
        with self._blobs:  # of two VMs with one image, one fetches it
            if not self._pool.has_blob(image.digest, image.format):
                fetch_blob(
                    self._pool,
                    image.digest,
                    image.format,
                    sources=[f"{door}/blobs/{image.digest}" for door in image.sources],
                    opener=self._open_blob,
                    max_bytes=BLOB_LIMIT_BYTES,
                    progress=lambda _: None,
                )
        size_bytes = wanted.disk_gib * GIB
        self._pool.ensure_volume(
            wanted.vm_id, image_digest=image.digest, image_format=image.format, size_bytes=size_bytes, uid=uid
        )
        self._pool.grow_volume(wanted.vm_id, size_bytes)
        return Disk(
            DiskLayer(self._pool.volume_path(wanted.vm_id), "qcow2"),
            (DiskLayer(self._pool.blob_path(image.digest, image.format), image.format.value),),
        )
