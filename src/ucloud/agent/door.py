"""The agent's door: live bytes for the API, read only, over TLS with a certificate of the cloud's authority.

GET /health · /vms/<id>/serial-log?bytes=N · /vms/<id>/console (Upgrade: ucloud-console) · /blobs/<digest> ·
/v1/migrations/<vm>/<id> (Upgrade: ucloud-migration): the memory of a guest that this host's wanted documents let come.
No command ever comes this way. Bounded: DOOR_THREADS connections at once, READ_TIMEOUT_S for a request, one console
per VM, one migration per VM.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, ClassVar
from urllib.parse import parse_qs, urlsplit

from ucloud import __version__
from ucloud.agent.pipes import join_streams
from ucloud.agent.streams import PROTOCOL as MIGRATION_PROTOCOL
from ucloud.config import Config
from ucloud.errors import Conflict, Error, NotFound
from ucloud.model.image import ImageFormat
from ucloud.system.unix_socket import connect_unix

logger = logging.getLogger(__name__)

DOOR_THREADS = 64
READ_TIMEOUT_S = 10.0
LOG_LIMIT_BYTES = 4 << 20
_CHUNK_BYTES = 1 << 18
_VM_PATH = re.compile(r"/vms/([a-z0-9-]{1,64})/(serial-log|console)")
_MIGRATION_PATH = re.compile(r"/v1/migrations/([a-z0-9-]{1,64})/([A-Za-z0-9-]{1,64})")
_BLOB_PATH = re.compile(r"/blobs/([0-9a-f]{64})")

Carrier = contextlib.AbstractContextManager[Callable[[socket.socket], None]]
Receiving = Callable[[str, str], Carrier]


def _receive_nothing(vm_id: str, migration_id: str) -> Carrier:
    raise Conflict(f"failed to receive vm {vm_id} by migration {migration_id}: nobody waits for it here")


@dataclass(frozen=True, slots=True)
class Offers:
    """What the door shows, asked of the rooms that own it. ``open_blob`` raises NotFound for one that is not here.

    ``receiving`` takes a migration's stream (VM and migration id), or raises Conflict for one that nobody waits for.
    """

    serial_log: Callable[[str], Path]
    serial_socket: Callable[[str], Path]
    open_blob: Callable[[str, ImageFormat], BinaryIO]
    receiving: Receiving = _receive_nothing


class Door:
    """Serves from its own threads between ``start`` and ``stop``."""

    def __init__(self, config: Config, offers: Offers) -> None:
        address, _, port = config.host.door_listen.rpartition(":")
        self._server = _Server((address.strip("[]"), int(port)), config, offers)
        self._thread = threading.Thread(target=self._server.serve_forever, name="door", daemon=True)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5.0)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], config: Config, offers: Offers) -> None:
        self.offers = offers
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.minimum_version = ssl.TLSVersion.TLSv1_3
        self.tls.load_cert_chain(config.host.cert_file, config.host.key_file)
        self.tls.load_verify_locations(config.store.ca_file)
        self.tls.verify_mode = ssl.CERT_REQUIRED
        self.places = threading.BoundedSemaphore(DOOR_THREADS)
        self.consoles: set[str] = set()
        self.consoles_lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """The handshake happens here, in the connection's own thread: a silent caller holds up nobody."""
        if not self.places.acquire(blocking=False):
            request.close()
            return
        try:
            request.settimeout(READ_TIMEOUT_S)
            wrapped = self.tls.wrap_socket(request, server_side=True)
            super().process_request_thread(wrapped, client_address)
        except (OSError, ssl.SSLError) as error:
            logger.info("a connection to the door failed: %s", error)
            request.close()
        finally:
            self.places.release()

    def handle_error(self, request: object, client_address: object) -> None:
        logger.exception("a request at the door failed")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = f"ucloud-agent/{__version__}"
    sys_version = ""
    timeout: ClassVar[float] = READ_TIMEOUT_S
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/health":
            self._answer(b'{"word": "ok"}\n', "application/json")
        elif match := _VM_PATH.fullmatch(url.path):
            self._vm(match[1], match[2], url.query)
        elif match := _BLOB_PATH.fullmatch(url.path):
            self._blob(match[1])
        elif match := _MIGRATION_PATH.fullmatch(url.path):
            self._migration(match[1], match[2])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "no such path")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        logger.info("door: " + format, *args)

    def _vm(self, vm_id: str, what: str, query: str) -> None:
        if what == "serial-log":
            wanted = parse_qs(query).get("bytes", ["65536"])[0]
            limit = min(int(wanted), LOG_LIMIT_BYTES) if wanted.isdigit() else LOG_LIMIT_BYTES
            self._serial_log(self.server.offers.serial_log(vm_id), limit)
        else:
            self._console(vm_id, self.server.offers.serial_socket(vm_id))

    def _serial_log(self, path: Path, limit: int) -> None:
        try:
            with path.open("rb") as file:
                size = file.seek(0, 2)
                file.seek(max(size - limit, 0))
                self._answer(file.read(limit), "application/octet-stream")
        except FileNotFoundError:
            self._refuse(HTTPStatus.NOT_FOUND, "this host has no log of that VM")

    def _console(self, vm_id: str, path: Path) -> None:
        if self.headers.get("Upgrade", "").lower() != "ucloud-console":
            self._refuse(HTTPStatus.UPGRADE_REQUIRED, "ask with Upgrade: ucloud-console")
            return
        with self.server.consoles_lock:
            taken = vm_id in self.server.consoles
            self.server.consoles.add(vm_id)
        if taken:
            self._refuse(HTTPStatus.CONFLICT, "another console of that VM is open")
            return
        try:
            self._join_console(path)
        finally:
            with self.server.consoles_lock:
                self.server.consoles.discard(vm_id)

    def _join_console(self, path: Path) -> None:
        try:
            serial = connect_unix(path, READ_TIMEOUT_S)
        except OSError:
            self._refuse(HTTPStatus.NOT_FOUND, "that VM does not run here")
            return
        with serial:
            self._switch("ucloud-console")
            join_streams(self.connection, serial)

    def _migration(self, vm_id: str, migration_id: str) -> None:
        if self.headers.get("Upgrade", "").lower() != MIGRATION_PROTOCOL:
            self._refuse(HTTPStatus.UPGRADE_REQUIRED, f"ask with Upgrade: {MIGRATION_PROTOCOL}")
            return
        with contextlib.ExitStack() as stack:
            try:
                carry = stack.enter_context(self.server.offers.receiving(vm_id, migration_id))
            except Error as error:
                self._refuse(HTTPStatus.CONFLICT, error.message)
                return
            self._switch(MIGRATION_PROTOCOL)
            carry(self.connection)

    def _switch(self, protocol: str) -> None:
        """The end of HTTP on this connection."""
        self.send_response(HTTPStatus.SWITCHING_PROTOCOLS)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", protocol)
        self.end_headers()
        self.wfile.flush()
        self.close_connection = True

    def _blob(self, digest: str) -> None:
        file = self._open_blob(digest)
        if file is None:
            self._refuse(HTTPStatus.NOT_FOUND, "this host has no such blob")
            return
        self.close_connection = True  # and said so, or the caller would keep its side open
        with file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Connection", "close")
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(file.seek(0, os.SEEK_END)))
            self.end_headers()
            file.seek(0)
            while chunk := file.read(_CHUNK_BYTES):
                self.wfile.write(chunk)

    def _open_blob(self, digest: str) -> BinaryIO | None:
        """In whatever format it is here: the digest names its bytes."""
        for image_format in ImageFormat:
            with contextlib.suppress(NotFound):
                return self.server.offers.open_blob(digest, image_format)
        return None

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self.close_connection = True
        self._answer(f"{text}\n".encode(), "text/plain", status)

    def _answer(self, body: bytes, content_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
