"""How a host or a takeover asks a storage service: a connection per request, an error for every refusal."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ucloud.errors import Conflict, Error, Forbidden, InvalidInput, NotFound, Unavailable
from ucloud.system.unix_socket import connect_unix

TIMEOUT_S = 5.0
_ERRORS: Mapping[int, type[Error]] = {one.status: one for one in (InvalidInput, Forbidden, NotFound, Conflict)}


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port`` or ``[host]:port``. Raises InvalidInput."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65535:
        raise InvalidInput(f"failed to use the storage service {text!r}: it is no host:port", field="host.pool_service")
    return host.removeprefix("[").removesuffix("]"), int(port)


class ServiceClient:
    """``address`` is that of NBD: control is on the next port."""

    def __init__(self, address: str, *, timeout_s: float = TIMEOUT_S) -> None:
        host, port = parse_address(address)
        self._connect: Callable[[], socket.socket] = lambda: socket.create_connection((host, port + 1), timeout_s)
        self._name = address

    @classmethod
    def at_socket(cls, path: Path, *, timeout_s: float = TIMEOUT_S) -> ServiceClient:
        """The same by the unix socket of a service on this machine."""
        client = cls("localhost:1")
        client._connect = lambda: connect_unix(path, timeout_s)
        client._name = str(path)
        return client

    def acquire(self, volume: str, host: str, incarnation: str, *, moved_from: str = "") -> None:
        """Raises Conflict (``volume_locked``), Forbidden (``fenced``), NotFound or Unavailable."""
        self._post("acquire", volume=volume, host=host, incarnation=incarnation, moved_from=moved_from)

    def release(self, volume: str, host: str, incarnation: str) -> None:
        self._post("release", volume=volume, host=host, incarnation=incarnation)

    def fence(self, host: str, incarnation: str) -> None:
        """Returns when nothing of it can be written any more. Raises Unavailable: then nobody knows; ask again."""
        self._post("fence", host=host, incarnation=incarnation)

    def hello(self, host: str, *, proved: bool) -> dict[str, float]:
        """The age in seconds of the last hello of each host that has proved its fencing."""
        hosts = self._post("hello", host=host, proved=proved).get("hosts")
        if not isinstance(hosts, dict):
            raise Unavailable(f"failed to ask the storage service {self._name}: a strange answer")
        return {str(name): float(age_s) for name, age_s in hosts.items()}

    def set_faults(self, *, linger_s: float = 0.0, late_write_s: float = 0.0, hang_s: float = 0.0) -> None:
        self._post("faults", linger_s=linger_s, late_write_s=late_write_s, hang_s=hang_s)

    def status(self) -> dict[str, Any]:
        return self._ask("GET", "status", {})

    def _post(self, verb: str, **body: str | bool | float) -> dict[str, Any]:
        return self._ask("POST", verb, body)

    def _ask(self, method: str, verb: str, body: Mapping[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection("localhost")
        try:
            connection.sock = self._connect()
            connection.request(method, f"/v1/{verb}", json.dumps(body), {"Connection": "close"})
            answer = connection.getresponse()
            status, plain = answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            cause = str(error) or type(error).__name__
            raise Unavailable(
                f"failed to ask the storage service {self._name}: {cause}", code="storage_unavailable"
            ) from error
        finally:
            connection.close()
        if status == http.client.OK and isinstance(plain, dict):
            return plain
        raise self._error(status, plain)

    def _error(self, status: int, plain: Any) -> Error:
        said = plain.get("error", {}) if isinstance(plain, dict) else {}
        cls = _ERRORS.get(status, Unavailable)
        text = str(said.get("message", f"failed to ask the storage service {self._name}: it answered {status}"))
        return cls(text, hint=str(said.get("hint", "")), code=str(said.get("code", "")))
