"""What the API asks of the agents' read-only doors."""

from __future__ import annotations

import contextlib
import http.client
from urllib.parse import quote

from ucloud.config import StoreSection
from ucloud.errors import NotFound, Unavailable
from ucloud.system.door import DoorConnection, door_cause, door_context

_TIMEOUT_S = 5.0
_ANSWER_LIMIT_BYTES = 2 * 1024 * 1024


class AgentDoor:
    """One connection per call, so that it may be used from any thread. Raises MissingPrerequisite at first."""

    def __init__(self, settings: StoreSection, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._tls = door_context(settings.ca_file, settings.cert_file, settings.key_file)

    def serial_log(self, url: str, vm_id: str, tail_bytes: int) -> bytes:
        """The last bytes of a VM's serial log. Raises NotFound or Unavailable."""
        return self.get(url, f"/vms/{quote(vm_id, safe='')}/serial-log?bytes={tail_bytes}")

    def get(self, url: str, path: str) -> bytes:
        try:
            with contextlib.closing(DoorConnection(url, self._tls, timeout_s=self._timeout_s)) as connection:
                connection.request("GET", path)
                response = connection.getresponse()
                data = response.read(_ANSWER_LIMIT_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"failed to ask the host at {url}: {door_cause(error)}",
                hint="is that host's agent running?",
                code="agent_unavailable",
            ) from error
        if response.status == http.client.NOT_FOUND:
            raise NotFound(f"failed to read {path.split('?')[0]}: the host at {url} has none")
        if response.status != http.client.OK:
            raise Unavailable(
                f"failed to ask the host at {url}: it answered {response.status}", code="agent_unavailable"
            )
        return data
