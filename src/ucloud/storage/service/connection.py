"""One NBD client: handshake, then requests one after the other. A write that is made late is answered late, alone.

Must hold: the volume is let go only after everything that the client has sent was done or dropped.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading

from ucloud.errors import Error, Forbidden, InvalidInput
from ucloud.storage.service import nbd
from ucloud.storage.service.access import Client, parse_export
from ucloud.storage.service.nbd import Answer, Command, Errno, Option, Request
from ucloud.storage.service.volumes import OpenVolume, Refused, Volumes

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT_S = 10.0
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


class Gone(Exception):
    """The other side has closed, or said that it will."""


class Connection:
    def __init__(self, sock: socket.socket, volumes: Volumes) -> None:
        self._socket = sock
        self._volumes = volumes
        self._sending = threading.Lock()
        self._idle = threading.Condition()
        self._under_way = 0
        self._no_zeroes = False

    def run(self) -> None:
        """Serve to the end; never raises for what a client does."""
        opened: tuple[OpenVolume, Client] | None = None
        try:
            self._prepare()
            opened = self._shake_hands()
            self._socket.settimeout(None)
            while True:
                self._serve(*opened)
        except (Gone, OSError):
            pass
        except InvalidInput as error:
            logger.warning("a client is cut off: %s", error.message)
        finally:
            if opened is not None:
                self._wait_until_idle()
                self._volumes.close(*opened, end=self.cut)
            self._socket.close()

    def cut(self) -> None:
        """From any thread: no further request is read, and no answer comes."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _prepare(self) -> None:
        self._socket.settimeout(HANDSHAKE_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE:
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    # Handshake.

    def _shake_hands(self) -> tuple[OpenVolume, Client]:
        self._send(nbd.GREETING)
        self._no_zeroes = nbd.parse_client_flags(self._receive(nbd.CLIENT_FLAGS_BYTES))
        while True:
            number, length = nbd.parse_option(self._receive(nbd.OPTION.size))
            data = self._receive(length)
            if number == Option.ABORT:
                self._send(nbd.render_option_reply(number, Answer.ACK))
                raise Gone
            if number == Option.EXPORT_NAME:
                return self._open_the_old_way(data)
            opened = self._negotiate(number, data)
            if opened is not None:
                return opened

    def _negotiate(self, number: int, data: bytes) -> tuple[OpenVolume, Client] | None:
        if number not in (Option.INFO, Option.GO):
            self._send(nbd.render_option_reply(number, Answer.UNSUPPORTED))
            return None
        try:
            opened = self._open(nbd.parse_go(data))
        except Error as error:
            answer = Answer.POLICY if isinstance(error, Forbidden) else Answer.UNKNOWN
            self._send(nbd.render_option_reply(number, answer, error.message.encode()[: nbd.MAX_OPTION_BYTES]))
            return None
        self._send_or_close(opened, nbd.render_export(number, self._volumes.size_bytes(opened[0])))
        if number == Option.GO:
            return opened
        self._volumes.close(*opened, end=self.cut)
        return None

    def _open_the_old_way(self, data: bytes) -> tuple[OpenVolume, Client]:
        """Here an error cannot be answered."""
        try:
            opened = self._open(data.decode("ascii"))
        except (Error, UnicodeDecodeError) as error:
            raise Gone from error
        self._send_or_close(
            opened, nbd.render_old_export(self._volumes.size_bytes(opened[0]), no_zeroes=self._no_zeroes)
        )
        return opened

    def _open(self, name: str) -> tuple[OpenVolume, Client]:
        volume, client = parse_export(name)
        return self._volumes.open(volume, client, end=self.cut), client

    def _send_or_close(self, opened: tuple[OpenVolume, Client], data: bytes) -> None:
        try:
            self._send(data)
        except (Gone, OSError):
            self._volumes.close(*opened, end=self.cut)
            raise

    # Requests.

    def _serve(self, opened: OpenVolume, client: Client) -> None:
        request = nbd.parse_request(self._receive(nbd.REQUEST.size))
        data = self._receive(request.length) if request.command is Command.WRITE else b""
        if request.command is Command.DISCONNECT:
            raise Gone
        delay_s = self._volumes.late_write_s if request.command is Command.WRITE else 0.0
        if not delay_s:
            self._answer(opened, client, request, data)
            return
        with self._idle:
            self._under_way += 1
        self._volumes.late.hold(
            client, delay_s, do=lambda: self._do_late(opened, client, request, data), drop=self._ended
        )

    def _do_late(self, opened: OpenVolume, client: Client, request: Request, data: bytes) -> None:
        try:
            with contextlib.suppress(Gone, OSError):
                self._answer(opened, client, request, data)
        finally:
            self._ended()

    def _ended(self) -> None:
        with self._idle:
            self._under_way -= 1
            self._idle.notify_all()

    def _wait_until_idle(self) -> None:
        with self._idle:
            while self._under_way:
                self._idle.wait()

    def _answer(self, opened: OpenVolume, client: Client, request: Request, data: bytes) -> None:
        found = b""
        number = nbd.reason_refused(request, self._volumes.size_bytes(opened))
        if number is Errno.OK:
            try:
                found = self._do(opened, client, request, data)
            except Refused as error:
                number = error.number
            except OSError as error:
                logger.warning("volume %s: %s", opened.id, error)
                number = Errno.EIO
        self._send(nbd.render_reply(request.cookie, number, found))

    def _do(self, opened: OpenVolume, client: Client, request: Request, data: bytes) -> bytes:
        durable = bool(request.flags & nbd.FUA)
        match request.command:
            case Command.READ:
                return self._volumes.read(opened, request.offset, request.length)
            case Command.WRITE:
                self._volumes.write(opened, client, request.offset, data, durable=durable)
            case Command.TRIM:
                self._volumes.trim(opened, client, request.offset, request.length)
            case _:
                self._volumes.flush(opened)
        return b""

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            part = self._socket.recv(min(length - len(data), 1 << 20))
            if not part:
                raise Gone
            data += part
        return bytes(data)

    def _send(self, data: bytes) -> None:
        with self._sending:
            self._socket.sendall(data)
