"""gunicorn's worker of threads, without its waiting for clients.

gunicorn parses a request's head in a thread that waits for the rest of it, and hangs up, lingering, in its main loop:
a few clients that send slowly or never hang up would stop the server (tried). Here the main loop gathers heads and
lingers, without ever waiting for one client; a thread gets a request whose head is whole.

Must hold: a head that is not whole after ``HEAD_S`` is dropped, however it drips; when there are too many connections,
the one that waits for longest is dropped; a body is only waited for when the application asks for it; a client that
does not take its answers is served no other.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from selectors import EVENT_READ
from typing import Any

from gunicorn import http  # type: ignore[import-untyped]
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]

from ucloud.serving.sockets import ClientSocket

CONNECTIONS = 512
HEAD_S = 10.0  # also how long a connection may be kept without a request
_LINGER_S = 2.0
_STOP_S = 2.0
_HEAD_LIMIT_BYTES = 65_536
_LINGER_LIMIT_BYTES = 1024 * 1024
_READ_BYTES = 65_536
_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    b"Content-Length: 0\r\n\r\n"
)


@dataclass(eq=False, slots=True)
class _Waiting:
    """A connection in the hands of the main loop: its head is gathered, or, lingering, its rest thrown away."""

    conn: Any
    until_s: float
    head: bytearray = field(default_factory=bytearray)
    lingers: bool = False
    thrown_bytes: int = 0


class PatientWorker(ThreadWorker):  # type: ignore[misc]
    """Replaces what happens to a connection before and after a thread has it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._waiting: dict[_Waiting, None] = {}  # the longest waiting first

    def accept(self, listener: socket.socket) -> None:
        try:
            accepted, address = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # the client is gone again
            return
        except OSError as error:  # no descriptor left: the loop comes back
            self.log.warning("failed to accept a connection: %s", error)
            self._drop_oldest()
            return
        self.nr_conns += 1
        self._gather(TConn(self.cfg, ClientSocket(accepted), address, listener.getsockname()))
        if self.nr_conns >= CONNECTIONS:
            self._drop_oldest()

    def _gather(self, conn: Any, head: bytes = b"") -> None:
        """Wait for a whole head, of which ``head`` is here."""
        waiting = _Waiting(conn, time.monotonic() + HEAD_S, bytearray(head))
        self._waiting[waiting] = None
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_head, waiting))
        if head:
            self._look_at_head(waiting)

    def _on_head(self, waiting: _Waiting, sock: ClientSocket) -> None:
        data = sock.recv_now(_READ_BYTES)
        if data == b"":
            self._drop(waiting)
        elif data is not None:
            waiting.head += data
            self._look_at_head(waiting)

    def _look_at_head(self, waiting: _Waiting) -> None:
        sock: ClientSocket = waiting.conn.sock
        if waiting.head.startswith((b"\r", b"\n")):
            waiting.head = waiting.head.lstrip(b"\r\n")  # RFC 9112 2.2: empty lines before a request mean nothing
        if b"\r\n\r\n" in waiting.head and not sock.has_unsent():
            self._forget(waiting)
            self._hand_over(waiting.conn, bytes(waiting.head))
        elif len(waiting.head) > _HEAD_LIMIT_BYTES or b"\r\n\r\n" in waiting.head:
            self._forget(waiting)
            sock.send_now(_TOO_LARGE)
            self._linger(waiting.conn)

    def _hand_over(self, conn: Any, head: bytes) -> None:
        """To a thread, which will find the head in its parser."""
        if conn.parser is None:
            conn.parser = http.get_parser(self.cfg, conn.sock, conn.client)
        conn.parser.unreader.unread(head)
        conn.data_ready = True
        conn.sock.read_within(0)
        self.enqueue_req(conn)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """In a thread; the answer is written. A body that nobody read is not waited for."""
        conn.sock.read_within(0)
        return bool(super()._keepalive_after(conn, keepalive))

    def finish_request(self, conn: Any, future: Future[Any]) -> None:
        """In the main loop again."""
        kept = not future.cancelled() and future.exception() is None and future.result() is True
        if kept and self.alive:
            self._gather(conn, conn.parser.unreader.take_buffered())
        else:
            self._linger(conn)

    def _linger(self, conn: Any) -> None:
        """Hang up so that the client can still read the answer: RFC 9112 9.6."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
            return
        waiting = _Waiting(conn, time.monotonic() + _LINGER_S, lingers=True)
        self._waiting[waiting] = None
        self.poller.register(conn.sock, EVENT_READ, partial(self._on_rest, waiting))

    def _on_rest(self, waiting: _Waiting, sock: ClientSocket) -> None:
        data = sock.recv_now(_READ_BYTES)
        waiting.thrown_bytes += len(data or b"")
        if data == b"" or waiting.thrown_bytes > _LINGER_LIMIT_BYTES:
            self._drop(waiting)

    def murder_pending(self) -> None:
        """The loop calls this at least each second."""
        now_s = time.monotonic()
        for waiting in list(self._waiting):
            if not self.alive:
                waiting.until_s = min(waiting.until_s, now_s + _STOP_S)
            if waiting.until_s <= now_s:
                self._drop(waiting)

    def _drop_oldest(self) -> None:
        if self._waiting:
            self._drop(next(iter(self._waiting)))

    def _drop(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        self._close(waiting.conn)

    def _forget(self, waiting: _Waiting) -> None:
        del self._waiting[waiting]
        self.poller.unregister(waiting.conn.sock)

    def _close(self, conn: Any) -> None:
        self.nr_conns -= 1
        conn.sock.close()
