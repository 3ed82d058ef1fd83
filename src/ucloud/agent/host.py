"""The pass over the host itself: what it has, told to the scheduler, and its housekeeping."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass

from ucloud import __version__
from ucloud.agent.reports import Reports
from ucloud.config import HostSection
from ucloud.hypervisor.api import Hypervisor
from ucloud.model.seen import SeenHost
from ucloud.storage.collection import plan_collection
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.system.clock import Clock, format_time

MIB = 2**20
PARTS_AGE_S = 3600.0


@dataclass(frozen=True, slots=True)
class HostPass:
    """``dropped`` tells the digests whose tombstones stand in the wanted documents, ``needed`` those that VMs need;
    ``known`` tells the VMs that have a wanted document."""

    host: HostSection
    hypervisor: Hypervisor
    pool: DirectoryPool
    reports: Reports
    dropped: Callable[[], frozenset[str]]
    needed: Callable[[], frozenset[str]]
    known: Callable[[], frozenset[str]]
    clock: Clock

    def run(self, _: str) -> float:
        self.hypervisor.trim_logs(limit_kib=self.host.serial_log_kib)
        self.pool.clean_parts(PARTS_AGE_S)
        self._collect_blobs()
        self.reports.write_host(self._observe())
        return self.host.report_s

    def _collect_blobs(self) -> None:
        dropped = self.dropped()
        if not dropped:
            return
        deletable = plan_collection(
            self.pool.list_blobs(),
            dropped_digests=dropped,
            wanted_digests=self.needed(),
            in_use_digests=self.pool.blobs_in_use(),
        )
        for blob in deletable:
            self.pool.delete_blob(blob.digest, blob.format)

    def _observe(self) -> SeenHost:
        usage = self.pool.usage()
        return SeenHost(
            host_id=self.host.id,
            at=format_time(self.clock.now()),
            version=__version__,
            system=f"{platform.system()} {platform.release()}",
            architecture=platform.machine(),
            accelerator=self.hypervisor.accelerator(),
            qemu_version=self.hypervisor.version(),
            cpus=os.cpu_count() or 1,
            memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB,
            disk_mib=usage.total_bytes // MIB,
            disk_free_mib=usage.free_bytes // MIB,
            door=f"https://{self.host.door_listen}",
            pool_full=usage.near_full,
            images=tuple(sorted(blob.digest for blob in self.pool.list_blobs())),
            problems=self._problems(),
        )

    def _problems(self) -> tuple[str, ...]:
        """What an operator should look at. What nobody wants is left alone (law 5), but not in silence."""
        known = self.known()
        strangers = sorted((set(self.hypervisor.vm_ids()) | set(self.pool.list_volumes())) - known)
        return tuple(f"vm {vm_id} is here, but the cloud knows no such VM: left alone" for vm_id in strangers[:20])
