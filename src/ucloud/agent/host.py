"""The pass over the host itself: what it has, told to the scheduler, and its housekeeping."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field

from ucloud import __version__
from ucloud.agent.reports import Reports
from ucloud.config import HostSection
from ucloud.errors import Error
from ucloud.hypervisor.api import Hypervisor
from ucloud.hypervisor.guard_protocol import Hello
from ucloud.model.seen import SeenHost, SeenPool
from ucloud.storage.collection import plan_collection
from ucloud.storage.open import is_shared, pool_id_of
from ucloud.storage.pool import Pool
from ucloud.storage.proof import PoolProof, Proof
from ucloud.system.clock import Clock, format_time

logger = logging.getLogger(__name__)

MIB = 2**20
HOST, POOL = "host", "pool"
REPORT_S = 10.0
STRANGERS_SHOWN = 20
PARTS_AGE_S = 3600.0


@dataclass(slots=True)
class HostPass:
    """``dropped`` tells the digests whose tombstones stand in the wanted documents, ``needed`` those that VMs need;
    ``known`` tells the VMs that have a wanted document. ``guard`` asks the guard how it is, ``underlay_address`` the
    network where this host is. A shared pool is looked at more often than the host is reported, for a host that comes
    anew is proved only by signs of life of the others.
    """

    host: HostSection
    hypervisor: Hypervisor
    pool: Pool
    proof: PoolProof
    reports: Reports
    guard: Callable[[], Hello]
    underlay_address: Callable[[], str]
    dropped: Callable[[], frozenset[str]]
    needed: Callable[[], frozenset[str]]
    known: Callable[[], frozenset[str]]
    clock: Clock
    _proof: Proof = field(default_factory=Proof)

    def run(self, what: str) -> float:
        """One pass over the HOST or its POOL; the seconds until the next one."""
        if what == POOL:
            before, self._proof = self._proof, self.proof.look()
            if is_shared(self.host) and self._proof != before:
                self._report()
            return self._proof.look_again_s
        self.hypervisor.trim_logs(limit_kib=self.host.serial_log_kib)
        self.pool.clean_parts(PARTS_AGE_S)
        self._collect_blobs()
        self._report()
        return REPORT_S

    def _report(self) -> None:
        self.reports.write_host(self._observe(self._proof, self._ask_guard()))

    def _ask_guard(self) -> Hello | None:
        """None if it does not answer: its host says so, and tells all the rest."""
        try:
            return self.guard()
        except Error as error:
            logger.warning("%s", error.message)
            return None

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

    def _observe(self, proof: Proof, guard: Hello | None) -> SeenHost:
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
            problems=self._problems(proof, guard),
            underlay_address=self.underlay_address(),
            pool=SeenPool(
                pool_id_of(self.host), proof.fence, proof.proved_with, has_verb=self.host.pool_kind == "fenced"
            ),
            longest_gap_s=round(guard.longest_gap_s, 3) if guard else 0.0,
            members_version=guard.members_version if guard else 0,
        )

    def _problems(self, proof: Proof, guard: Hello | None) -> tuple[str, ...]:
        """What an operator should look at. What nobody wants is left alone (law 5), but not in silence.

        A volume in a pool that is shared may be another host's, of which nothing is known here.
        """
        problems = [proof.problem] if proof.problem else []
        if guard is None:
            return (*problems, "the guard does not answer")
        if guard.fence_s and not guard.members_version:
            problems.append(
                "nobody has told which etcd members vote: an outage of etcd would end VMs after guard.fence_s"
            )
        if guard.stuck:
            problems.append(f"the guard could not stop vm {', '.join(guard.stuck)}")
        found = set(self.hypervisor.vm_ids()) | (set() if is_shared(self.host) else set(self.pool.list_volumes()))
        strangers = sorted(found - self.known())[:STRANGERS_SHOWN]
        return (*problems, *(f"vm {vm_id} is here, but the cloud knows no such VM: left alone" for vm_id in strangers))
