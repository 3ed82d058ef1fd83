"""Two hosts of one machine with all that an agent has for VMs but a network, and what the scheduler does for them.

Each has a real guard, real QEMUs, its own door, loop and watcher; both share the VM's disk and a store in memory.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.contract.guard_process import GuardProcess, wait_for
from tests.unit import samples
from tests.unit.hypervisor.wishes import VM_ID, wanted
from ucloud.agent.adoption import Adoption
from ucloud.agent.door import Door, Offers
from ucloud.agent.locks import Locks
from ucloud.agent.migrations import Migrations
from ucloud.agent.reports import Reports
from ucloud.agent.streams import Streams
from ucloud.agent.vms import VmPasses
from ucloud.config import Config
from ucloud.hypervisor.actions import Guest, ObservedVm
from ucloud.hypervisor.qemu import open_hypervisor
from ucloud.hypervisor.resources import Disk, DiskLayer, Resources
from ucloud.hypervisor.watcher import GuestWatcher
from ucloud.local.certificates import ensure_authority, ensure_certificate
from ucloud.model.guard import LifeSign, RunLock
from ucloud.model.migration import MigrationState, Phase, Role, SeenMigration, WantedMigration
from ucloud.model.placement import Placement
from ucloud.model.vm import Failover, Restart
from ucloud.model.wanted import WantedVm
from ucloud.reconcile.loop import Loop
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Txn, unchanged
from ucloud.store.codec import decode_as, encode
from ucloud.store.memory import MemoryStore
from ucloud.store.view import Entry
from ucloud.system.clock import SystemClock, format_time
from ucloud.system.door import door_context

# A guest that writes a letter to its serial port about every millisecond.
TICKING = bytes.fromhex("b90040e2febaf803b074eeebf3").ljust(510, b"\0") + b"\x55\xaa"
WISH = wanted(stop_timeout_s=10, restart=Restart.ON_FAILURE, failover=Failover.RESTART, memory_mib=64)


@dataclass
class Notes:
    """A history in memory: kind, host, time."""

    told: list[tuple[str, str, float]] = field(default_factory=list)

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        self.told.append((kind, str(facts.get("host", "")), time.monotonic()))

    def at_s(self, kind: str) -> float:
        return next(at_s for told, _, at_s in reversed(self.told) if told == kind)


class SharedDisk:
    """Stands where HostResources does, for a VM without NICs: real locks, one qcow2 image for both hosts."""

    def __init__(self, directory: Path, locks: Locks, guard: GuardProcess) -> None:
        self._directory = directory
        self.locks = locks
        self._guard = guard
        self.unplugged = 0

    @contextlib.contextmanager
    def prepared(self, wanted: WantedVm, *, uid: int) -> Iterator[Resources]:
        incarnation = self._guard.client.hello().incarnation
        self.locks.take(wanted.vm_id, generation=wanted.generation, incarnation=incarnation, failover=wanted.failover)
        yield self._resources(incarnation, uid)

    @contextlib.contextmanager
    def prepared_for_arrival(self, wanted: WantedVm) -> Iterator[Resources]:
        yield self._resources(self._guard.client.hello().incarnation, 0)

    def take_over(self, wanted: WantedVm, *, incarnation: str, arrived: bool, moved_from: str) -> None:
        pass

    def unplug(self, wanted: WantedVm) -> None:
        self.unplugged += 1

    def write_documents(self, wanted: WantedVm) -> None:
        pass

    def remove(self, wanted: WantedVm) -> None:
        pass

    def forget(self, vm_id: str) -> None:
        pass

    def release_lock(self, wanted: WantedVm) -> None:
        self.locks.release(wanted.vm_id, generation=wanted.generation)

    def _resources(self, incarnation: str, uid: int) -> Resources:
        base, root = self._directory / "base.raw", self._directory / "root.qcow2"
        if not root.exists():
            base.write_bytes(TICKING.ljust(1 << 20, b"\0"))
            base.chmod(0o644)
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, root], check=True)
            os.chown(root, uid, uid)
        disk = Disk(DiskLayer(str(root), "qcow2"), (DiskLayer(str(base), "raw"),))
        return Resources(disk, incarnation=incarnation)


class Host:
    """``stop_agent`` and ``start_agent`` are the death of an agent and its successor; QEMU and guard live on."""

    def __init__(self, cloud: Cloud, host_id: str, directory: Path) -> None:
        self.id = host_id
        self._cloud = cloud
        self.guard = GuardProcess(directory)
        self.guard.start()
        tls = cloud.directory / "tls"
        host = replace(
            self.guard.host,
            id=host_id,
            door_listen="[::1]:0",
            cert_file=tls / "host.pem",
            key_file=tls / "host.key",
        )
        self._config = Config(store=replace(self.guard.config.store, ca_file=tls / "ca.pem"), host=host)
        self.start_agent()
        incarnation = self.guard.client.hello().incarnation
        cloud.put(LifeSign(host_id, incarnation, samples.AT), keys.alive(host_id))

    @property
    def door(self) -> str:
        return f"https://[::1]:{self._door.port}"

    def start_agent(self) -> None:
        store, clock = self._cloud.store, SystemClock()
        self.hypervisor = open_hypervisor(self._config.host)
        locks = Locks(store, self.id, self._cloud.notes)
        host = self._config.host
        context = door_context(self._config.store.ca_file, host.cert_file, host.key_file)
        self._streams = Streams(context, on_end=lambda vm_id: self._loop.wake(vm_id))
        self._watcher = GuestWatcher(lambda vm_id: self._loop.wake(vm_id))
        self.resources = SharedDisk(self._cloud.directory, locks, self.guard)
        self.reports = Reports(store, self.id, clock)
        self.reports.load()
        migrations = Migrations(
            self.hypervisor,
            self.resources,  # type: ignore[arg-type]
            self._streams,
            self._cloud.notes,
            self.id,
            find=self._find,
        )
        passes = VmPasses(
            self.hypervisor,
            self.resources,  # type: ignore[arg-type]
            self.reports,
            find=self._find,
            is_ready=lambda _: True,
            why_missing=lambda _: "",
            watcher=self._watcher,
            migrations=migrations,
            adoption=Adoption(locks),
            clock=clock,
        )
        self._loop = Loop(f"vms-{self.id}", passes.run, clock=clock)
        self._loop.start()
        offers = Offers(
            self.hypervisor.serial_log, self.hypervisor.serial_socket, _no_blob, receiving=migrations.receiving
        )
        self._door = Door(self._config, offers)
        self._door.start()
        self._loop.wake(VM_ID)

    def stop_agent(self) -> None:
        self._streams.close()
        self._loop.stop()
        self._watcher.close()
        self._door.stop()

    def restart_agent(self) -> None:
        self.stop_agent()
        self.start_agent()

    def wake(self) -> None:
        self._loop.wake(VM_ID)

    def cut_stream(self) -> None:
        self._streams.close()

    def look(self) -> ObservedVm:
        return self.hypervisor.observe(VM_ID)

    def runs(self) -> bool:
        return self.look().guest is Guest.RUNNING

    def kill_qemu(self) -> None:
        process = self.look().process
        if process is not None and process.running:
            os.kill(process.pid, 9)

    def seen(self) -> SeenMigration | None:
        report = self.reports.vm(VM_ID)
        return report.migration if report else None

    def state(self) -> MigrationState | None:
        seen = self.seen()
        return seen.state if seen else None

    def close(self) -> None:
        self.stop_agent()
        self.guard.close()

    def _find(self, vm_id: str) -> Entry[WantedVm] | None:
        key = keys.wanted(self.id, "vm", vm_id)
        item = self._cloud.store.get(key)
        return Entry(key, decode_as(WantedVm, item.value), item.mod_revision) if item else None


def _no_blob(*_: object) -> None:
    raise AssertionError("nobody asks for blobs")


class Cloud:
    """The store, both hosts, and the scheduler's part of a migration, phase by phase."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = MemoryStore()
        self.notes = Notes()
        ensure_authority(directory / "tls")
        ensure_certificate(directory / "tls", "host")
        self._stack = contextlib.ExitStack()
        self.hosts: dict[str, Host] = {}
        for host_id in ("h1", "h2"):
            own = directory / host_id
            own.mkdir(mode=0o711)
            self.hosts[host_id] = Host(self, host_id, own)
        self.watching = threading.Event()

    @property
    def source(self) -> Host:
        return self.hosts["h1"]

    @property
    def target(self) -> Host:
        return self.hosts["h2"]

    def put(self, value: object, key: str) -> None:
        self.store.commit(Txn((), (Put(key, encode(value)),)))

    def want(self, host: Host, document: WantedVm) -> None:
        self.put(document, keys.wanted(host.id, "vm", VM_ID))
        host.wake()

    def begin(self) -> None:
        """The VM runs on the source."""
        self.put(self.placement(self.source, 1), keys.placement(VM_ID))
        self.want(self.source, WISH)
        wait_for(self.source.runs)

    def placement(self, host: Host, generation: int) -> Placement:
        return replace(samples.PLACEMENT, vm_id=VM_ID, host_id=host.id, generation=generation)

    def phase(self, phase: Phase, *, bandwidth_mib_s: int = 0) -> None:
        """Both hosts are told; the target first while things go forward."""
        report = self.source.reports.vm(VM_ID)
        machine = report.machine if report else None
        for host, peer, role, generation in (
            (self.target, self.source, Role.TARGET, 2),
            (self.source, self.target, Role.SOURCE, 1),
        ):
            part = WantedMigration("m-1", role, phase, peer.id, peer.door, bandwidth_mib_s, 300, "")
            self.want(host, replace(WISH, generation=generation, migration=part, machine=machine))

    def move(self) -> bool:
        """Lock and placement in one transaction: only while the source holds the lock for the very process."""
        source, target = self.source, self.target
        old = self.store.get(keys.lock(source.id, VM_ID))
        if old is None:
            return False
        lock = decode_as(RunLock, old.value)
        incarnation = target.guard.client.hello().incarnation
        moved = replace(lock, host_id=target.id, incarnation=incarnation, generation=2)
        done = self.store.commit(
            Txn(
                (unchanged(old.key, old.mod_revision),),
                (
                    Delete(old.key),
                    Put(keys.lock(target.id, VM_ID), encode(moved)),
                    Put(keys.placement(VM_ID), encode(self.placement(target, 2))),
                ),
            )
        )
        return done.ok

    def finish(self) -> None:
        """The source is told that nothing of it is wanted there any more."""
        self.want(self.source, replace(WISH, generation=2, gone=True, keep_disk=True))

    def holder(self) -> str:
        """The host whose lock is there."""
        return next((key.key.split("/")[-2] for key in self.store.list(keys.locks()).items), "")

    def close(self) -> None:
        for host in self.hosts.values():
            host.close()

    def now(self) -> str:
        return format_time(SystemClock().now())
