"""The client of the agents' read-only doors: HTTPS, both sides proving themselves by certificates of the cloud's CA."""

from __future__ import annotations

import contextlib
import http.client
import ssl
from urllib.parse import quote, urlsplit

from ucloud.config import StoreSection
from ucloud.errors import MissingPrerequisite, NotFound, Unavailable

SERVER_NAME = "ucloud"  # in every certificate of the cloud; addresses change, this does not
_TIMEOUT_S = 5.0
_ANSWER_LIMIT_BYTES = 2 * 1024 * 1024


class AgentDoor:
    """One connection per call, so that it may be used from any thread."""

    def __init__(self, settings: StoreSection, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._tls = make_tls(settings)

    def serial_log(self, url: str, vm_id: str, tail_bytes: int) -> bytes:
        """The last bytes of a VM's serial log. Raises NotFound or Unavailable."""
        return self.get(url, f"/vms/{quote(vm_id, safe='')}/serial-log?bytes={tail_bytes}")

    def get(self, url: str, path: str) -> bytes:
        parts = urlsplit(url)
        try:
            with contextlib.closing(
                _Connection(parts.hostname or "", parts.port or 443, self._tls, self._timeout_s)
            ) as c:
                c.request("GET", path)
                response = c.getresponse()
                data = response.read(_ANSWER_LIMIT_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(
                f"failed to ask the agent at {parts.netloc}: {type(error).__name__}: {error}",
                hint="is that host's agent running?",
                code="agent_unavailable",
            ) from error
        if response.status == http.client.NOT_FOUND:
            raise NotFound(f"failed to read {path.split('?')[0]}: the agent at {parts.netloc} has none")
        if response.status != http.client.OK:
            raise Unavailable(
                f"failed to ask the agent at {parts.netloc}: it answered {response.status}", code="agent_unavailable"
            )
        return data


class _Connection(http.client.HTTPConnection):
    """HTTPS to an address, with the certificate's name checked instead of the address."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext, timeout_s: float) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._tls = tls

    def connect(self) -> None:
        super().connect()
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=SERVER_NAME)


def make_tls(settings: StoreSection) -> ssl.SSLContext:
    """Raises MissingPrerequisite if a file is missing."""
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(settings.ca_file))
        context.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:
        raise MissingPrerequisite(f"failed to load the API's certificates: {error}", hint="run 'ucloud up'") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context
