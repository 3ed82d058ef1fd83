"""A client's connection on which every read and write ends in time, whatever timeouts gunicorn sets on it.

gunicorn reads with ``recv`` until it has what it wants, so a timeout for each ``recv`` would bound nothing: a client
that sends a byte now and then could hold a thread for days. Here the deadline is one for all of them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
import termios
import time
from typing import Any

_WRITE_S = 30.0
_SEND_BUFFER_BYTES = 512 * 1024  # holds any answer that needs no token, so that writing it waits for nobody


class TooSlow(ConnectionResetError):
    """The client did not send or take in time. As a reset, because that is what gunicorn quietly hangs up for."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is too slow")


class ClientSocket(socket.socket):
    """Reads take what is there, until ``read_within`` allows to wait."""

    __slots__ = ("_read_until_s",)

    def __init__(self, accepted: socket.socket) -> None:
        super().__init__(fileno=accepted.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        self._read_until_s = 0.0

    def read_within(self, duration_s: float) -> None:
        """From now on, all reads together may wait this long."""
        self._read_until_s = time.monotonic() + duration_s

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.settimeout(max(0.0, self._read_until_s - time.monotonic()))
        try:
            return super().recv(size, flags)
        except (BlockingIOError, TimeoutError) as error:
            raise TooSlow from error

    def recv_now(self, size: int) -> bytes | None:
        """What is there; None if there is nothing yet, b"" at the end."""
        self.settimeout(0)
        try:
            return super().recv(size)
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return b""

    def send(self, data: Any, flags: int = 0) -> int:
        self.settimeout(_WRITE_S)
        try:
            return super().send(data, flags)
        except TimeoutError as error:
            raise TooSlow from error

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.settimeout(_WRITE_S)
        try:
            super().sendall(data, flags)
        except TimeoutError as error:
            raise TooSlow from error

    def send_now(self, data: bytes) -> None:
        """As much as can be sent without waiting; nobody hears how much that was."""
        self.settimeout(0)
        with contextlib.suppress(OSError):
            super().send(data)

    def has_unsent(self) -> bool:
        """Whether the client has not taken all of what was written."""
        try:
            (unsent,) = struct.unpack("i", fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4)))
        except OSError:  # the connection is broken
            return True
        return bool(unsent)
