"""``ucloud agent``: the loops of one host on its wanted documents. The only place where the host's rooms meet."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any

from ucloud.agent.adoption import Adoption
from ucloud.agent.blobs import BlobPasses, blob_opener
from ucloud.agent.door import Door, Offers
from ucloud.agent.host import HOST, POOL, HostPass
from ucloud.agent.migrations import Migrations
from ucloud.agent.networks import NetworkPasses
from ucloud.agent.reports import Reports
from ucloud.agent.resources import HostResources
from ucloud.agent.streams import Streams
from ucloud.agent.vms import VmPasses
from ucloud.agent.wishes import Wishes
from ucloud.config import Config
from ucloud.firewall.room import FirewallRoom
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.qemu import open_hypervisor
from ucloud.hypervisor.watcher import GuestWatcher
from ucloud.metadata.room import MetadataRoom
from ucloud.network.room import NetworkRoom
from ucloud.reconcile.loop import Loop
from ucloud.storage.open import open_pool, open_proof
from ucloud.store import keys
from ucloud.store.api import WatchEvent
from ucloud.store.cache import Cache
from ucloud.store.codec import decode
from ucloud.store.connect import open_store
from ucloud.system.clock import SystemClock
from ucloud.system.door import door_context
from ucloud.system.history import open_history

logger = logging.getLogger(__name__)

VM_WORKERS = 4
BLOB_WORKERS = 2


def main(config: Config, stopping: threading.Event) -> int:
    """Runs until ``stopping``; guests, networks and rules stay as they are."""
    agent = Agent(config)
    agent.start(stopping)
    try:
        stopping.wait()
    finally:
        agent.stop()
    return 0


class Agent:
    """Wires the rooms to the loops, and the loops to the watch on this host's documents."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock = SystemClock()
        self._store = open_store(config.store)
        self._cache: Cache[Any] = Cache(
            self._store, (keys.wanted_of(config.host.id),), lambda item: decode(item.value), clock=self._clock
        )
        self._wishes = Wishes(self._cache)
        self._reports = Reports(self._store, config.host.id, self._clock)
        self._hypervisor = open_hypervisor(config.host)
        self._pool = open_pool(config.host)
        self._proof = open_proof(config.host, self._clock)
        self._guard = GuardClient(config.host.run_directory / "guard.sock")
        self._watcher = GuestWatcher(lambda vm_id: self._vms.wake(vm_id))
        self._history = open_history(config.log.history_socket, source=f"agent/{config.host.id}")
        networks = self._open_networks()
        self._migrations = self._open_migrations()
        self._door = Door(config, self._offers())
        blobs = self._open_blobs()
        self._networks = Loop("networks", networks.run, clock=self._clock)
        self._blobs = Loop("blobs", blobs.run, clock=self._clock, workers=BLOB_WORKERS)
        self._vms = Loop("vms", self._open_vms(networks, blobs).run, clock=self._clock, workers=VM_WORKERS)
        self._hosts = Loop("host", self._open_host().run, clock=self._clock)

    def _offers(self) -> Offers:
        return Offers(
            self._hypervisor.serial_log,
            self._hypervisor.serial_socket,
            self._pool.open_blob,
            self._migrations.receiving,
        )

    def _open_migrations(self) -> Migrations:
        config = self._config
        context = door_context(config.store.ca_file, config.host.cert_file, config.host.key_file)
        self._streams = Streams(context, on_end=lambda vm_id: self._vms.wake(vm_id))
        return Migrations(
            self._hypervisor,
            self._resources,
            self._streams,
            self._history,
            config.host.id,
            find=self._wishes.vm,
        )

    def _open_networks(self) -> NetworkPasses:
        config = self._config
        firewall = FirewallRoom(config.network)
        self._network = network = NetworkRoom(config.host, config.network, firewall.gateway_rules)
        metadata = MetadataRoom(config.host, config.network)
        self._resources = HostResources(
            self._store,
            config.host,
            network=network,
            firewall=firewall,
            metadata=metadata,
            pool=self._pool,
            guard=self._guard,
            wishes=self._wishes,
            history=self._history,
        )
        return NetworkPasses(
            network,
            metadata,
            self._resources,
            self._reports,
            find=self._wishes.network,
            on_ready=self._network_ready,
            clock=self._clock,
        )

    def _open_blobs(self) -> BlobPasses:
        return BlobPasses(
            self._pool,
            find=self._wishes.image,
            opener=blob_opener(self._config),
            on_ready=self._blob_ready,
            wake=lambda digest: self._blobs.wake(digest),
            clock=self._clock,
        )

    def _open_vms(self, networks: NetworkPasses, blobs: BlobPasses) -> VmPasses:
        return VmPasses(
            self._hypervisor,
            self._resources,
            self._reports,
            find=self._wishes.vm,
            is_ready=networks.is_ready,
            why_missing=blobs.why_missing,
            watcher=self._watcher,
            migrations=self._migrations,
            adoption=Adoption(self._resources.locks),
            clock=self._clock,
        )

    def _open_host(self) -> HostPass:
        return HostPass(
            self._config.host,
            self._hypervisor,
            self._pool,
            self._proof,
            self._reports,
            guard=self._guard.hello,
            underlay_address=self._network.underlay_address,
            dropped=self._wishes.dropped,
            needed=self._wishes.wanted_digests,
            known=self._wishes.vm_ids,
            clock=self._clock,
        )

    def start(self, stopping: threading.Event) -> None:
        """Nothing is done before the wanted documents were read once: an agent that knows nothing does nothing."""
        self._door.start()
        self._cache.on_change(self._wake)
        self._cache.start()
        self._wishes.wait_until_read(stopping)
        if stopping.is_set():
            return
        self._reports.load()
        for loop in (self._networks, self._blobs, self._vms, self._hosts):
            loop.start()
        self._wake_all()
        logger.info("agent of %s is ready", self._config.host.id)

    def stop(self) -> None:
        for loop in (self._vms, self._blobs, self._networks, self._hosts):
            loop.stop()
        self._streams.close()
        self._watcher.close()
        self._cache.stop()
        self._door.stop()
        self._proof.close()
        self._store.close()

    def _wake_all(self) -> None:
        """Whatever is wanted, was reported or is here."""
        for network_id in self._wishes.network_ids() | self._reports.reported_ids("network"):
            self._networks.wake(network_id)
        for vm_id in self._wishes.vm_ids() | self._reports.reported_ids("vm"):
            self._vms.wake(vm_id)
        self._hosts.wake(POOL)
        self._hosts.wake(HOST)

    def _wake(self, events: Sequence[WatchEvent]) -> None:
        for event in events:
            noun, object_id = keys.noun_and_id(event.item.key)
            if noun == "network":
                self._networks.wake(object_id)
            elif noun == "vm":
                self._vms.wake(object_id)
            else:
                self._hosts.wake(HOST)

    def _network_ready(self, network_id: str) -> None:
        for vm_id in self._wishes.vms_in(network_id):
            self._vms.wake(vm_id)

    def _blob_ready(self, digest: str) -> None:
        self._hosts.wake(HOST)  # so that others hear soon that it is here, too
        for vm_id in self._wishes.vms_on(digest):
            self._vms.wake(vm_id)
