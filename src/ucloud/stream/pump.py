"""Bytes between a WebSocket and a tunnel, both ways at once, until one of them ends.

The calling thread alone touches the tunnel (an SSL connection is not for two threads); a second one only receives from
the WebSocket and hands over through a short queue, which slows down a sender that is faster than the guest reads.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from websockets.exceptions import ConnectionClosed
from websockets.sync.connection import Connection

from ucloud.console.tunnel import Tunnel
from ucloud.system.readable import wait_readable

_WAITING_MESSAGES = 16


class IdleEnd(Exception):
    """Nothing went either way for too long."""


class _Inbox:
    """Messages from the WebSocket. ``woken`` is readable when there are some, and at its end when no more will come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages: deque[bytes] = deque()
        self._slots = threading.Semaphore(_WAITING_MESSAGES)
        self._stopped = False
        self.woken, self._wake = socket.socketpair()

    def receive_all(self) -> None:
        """The second thread's work; ends with the WebSocket, or after ``stop``."""
        with self._wake, contextlib.suppress(ConnectionClosed, OSError):
            for message in self._connection:
                self._slots.acquire()
                if self._stopped:
                    return
                self._messages.append(message.encode() if isinstance(message, str) else message)
                self._wake.send(b"x")

    def take(self) -> tuple[list[bytes], bool]:
        """What has come, and whether that was all."""
        ended = not self.woken.recv(_WAITING_MESSAGES)
        taken = []
        while self._messages:
            taken.append(self._messages.popleft())
            self._slots.release()
        return taken, ended

    def stop(self) -> None:
        self._stopped = True
        self._slots.release()
        self.woken.close()


def pump(connection: Connection, tunnel: Tunnel, *, idle_s: float) -> None:
    """Returns at the end of either side; the caller closes both. Raises Unavailable, ConnectionClosed or IdleEnd."""
    inbox = _Inbox(connection)
    threading.Thread(target=inbox.receive_all, name="console input").start()
    try:
        while _step(connection, tunnel, inbox, idle_s):
            pass
    finally:
        inbox.stop()


def _step(connection: Connection, tunnel: Tunnel, inbox: _Inbox, idle_s: float) -> bool:
    """Wait for bytes and pass them on; False at an end."""
    wait_s = 0 if tunnel.has_pending() else idle_s
    ready = wait_readable((tunnel.fileno(), inbox.woken.fileno()), wait_s)
    if not ready and wait_s:
        raise IdleEnd
    if inbox.woken.fileno() in ready:
        messages, ended = inbox.take()
        for message in messages:
            tunnel.send(message)
        if ended:
            return False
    if tunnel.fileno() in ready or not wait_s:
        data = tunnel.receive()
        if data:
            connection.send(data)
        return data != b""
    return True
