"""A small NBD client: enough to prove that a service refuses whom it was told to refuse, and for tests."""

from __future__ import annotations

import itertools
import socket

from ucloud.errors import Forbidden, InvalidInput, NotFound, Unavailable
from ucloud.storage.service import nbd
from ucloud.storage.service.nbd import Answer, Command, Request

TIMEOUT_S = 5.0


class NbdClient:
    """One open export. The methods answer the protocol's error number, 0 if it was done; they raise Unavailable."""

    def __init__(self, host: str, port: int, export: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._cookies = itertools.count(1)
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as error:
            raise _unavailable(error) from error
        try:
            self.size_bytes = self._open(export)
        except BaseException:
            self._socket.close()
            raise

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> NbdClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, offset: int, length: int) -> tuple[int, bytes]:
        return self._ask(Command.READ, offset, length)

    def write(self, offset: int, data: bytes) -> int:
        return self._ask(Command.WRITE, offset, len(data), data)[0]

    def flush(self) -> int:
        return self._ask(Command.FLUSH, 0, 0)[0]

    def trim(self, offset: int, length: int) -> int:
        return self._ask(Command.TRIM, offset, length)[0]

    def send_write(self, offset: int, data: bytes) -> None:
        """Without waiting for the answer."""
        self._send(nbd.render_request(Request(Command.WRITE, 0, next(self._cookies), offset, len(data)), data))

    def _ask(self, command: Command, offset: int, length: int, data: bytes = b"") -> tuple[int, bytes]:
        cookie = next(self._cookies)
        self._send(nbd.render_request(Request(command, 0, cookie, offset, length), data))
        number = nbd.parse_reply(self._receive(nbd.REPLY.size), cookie)
        return number, self._receive(length) if command is Command.READ and not number else b""

    def _open(self, export: str) -> int:
        if self._receive(len(nbd.GREETING)) != nbd.GREETING:
            raise InvalidInput("failed to open an export: the other side is no storage service of ours")
        self._send(nbd.render_go(export))
        size_bytes = -1
        while True:
            answer, length = nbd.parse_option_reply(self._receive(nbd.OPTION_REPLY.size))
            data = self._receive(length)
            if answer == Answer.ACK:
                return size_bytes
            if answer == Answer.INFO:
                size_bytes = max(size_bytes, nbd.parse_size(data))
            else:
                cls = Forbidden if answer == Answer.POLICY else NotFound
                raise cls(data.decode(errors="replace") or f"failed to open export {export}: it is refused")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise _unavailable(error) from error

    def _receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            try:
                part = self._socket.recv(length - len(data))
            except OSError as error:
                raise _unavailable(error) from error
            if not part:
                raise Unavailable("failed to use the storage service: it has closed the connection")
            data += part
        return bytes(data)


def _unavailable(error: OSError) -> Unavailable:
    return Unavailable(f"failed to use the storage service: {error.strerror or error or type(error).__name__}")
