"""The fence verb of pools behind a storage service, for a takeover."""

from __future__ import annotations

from collections.abc import Mapping

from ucloud.config import HostSection
from ucloud.errors import NotFound
from ucloud.storage.service.client import ServiceClient


class ServiceFence:
    """``services`` are the addresses (``host:port``) of the storage services by pool id."""

    def __init__(self, services: Mapping[str, str]) -> None:
        self._clients = {pool_id: ServiceClient(address) for pool_id, address in services.items()}

    def fence(self, pool_id: str, host_id: str, incarnation: str) -> None:
        """Returns when nothing of the incarnation can be written any more, nor ever will. Raises Unavailable."""
        client = self._clients.get(pool_id)
        if client is None:
            raise NotFound(
                f"failed to fence {host_id}: the storage service of pool {pool_id} is not known here",
                hint="set host.pool_id, host.pool_kind and host.pool_service for the scheduler, too",
            )
        client.fence(host_id, incarnation)


def open_fence(host: HostSection) -> ServiceFence:
    fenced = host.pool_kind == "fenced" and host.pool_id and host.pool_service
    return ServiceFence({host.pool_id: host.pool_service} if fenced else {})
