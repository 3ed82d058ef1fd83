"""Which pool the settings name, who else has it, and how it can end a host's access."""

from __future__ import annotations

from ucloud.config import HostSection
from ucloud.errors import InvalidInput
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.fenced_pool import FencedPool
from ucloud.storage.pool import Pool
from ucloud.storage.proof import LockProof, NoProof, PoolProof, VerbProof
from ucloud.system.clock import Clock

DIRECTORY, FENCED = "directory", "fenced"


def pool_id_of(host: HostSection) -> str:
    """Hosts that name the same share it; without a name it is the host's own."""
    return host.pool_id or host.id


def is_shared(host: HostSection) -> bool:
    return pool_id_of(host) != host.id


def open_pool(host: HostSection) -> Pool:
    """Raises InvalidInput."""
    reserve = float(host.pool_reserve_percent)
    if host.pool_kind == DIRECTORY:
        return DirectoryPool(host.pool_directory, shared=is_shared(host), reserve_percent=reserve)
    if host.pool_kind == FENCED:
        return FencedPool(host.pool_directory, host.pool_service, host.id, reserve_percent=reserve)
    raise InvalidInput(
        f"failed to open a pool of the kind {host.pool_kind!r}: there are {DIRECTORY} and {FENCED}",
        field="host.pool_kind",
        code="bad_config",
    )


def open_proof(host: HostSection, clock: Clock) -> PoolProof:
    """What tells whether the pool's second line holds between its hosts."""
    if not is_shared(host):
        return NoProof()
    if host.pool_kind == FENCED:
        return VerbProof(host.pool_directory, host.pool_service, host.id, clock)
    return LockProof(host.pool_directory, host.id, clock)
