"""The bytes of a live migration between a QEMU (a socket pair) and the other host (TLS), both ways at full speed.

One thread, no blocking call but the poll: an SSL connection must not be read and written by two threads, and what one
side does not take must not hold up the other direction. An end is handed on after everything before it (half-close),
because the last message of a migration goes against the stream. Bounded: BUFFER_BYTES each way.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import time
from dataclasses import dataclass, field

BUFFER_BYTES = 1 << 18
SILENCE_S = 15.0
LINGER_S = 5.0
_CHUNK_BYTES = 1 << 16
_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError)
_USER_TIMEOUT_MS = 10_000


@dataclass(slots=True)
class _Flow:
    """One direction. ``handed_on``: its end was told to the sink."""

    source: socket.socket
    sink: socket.socket
    buffer: bytearray = field(default_factory=bytearray)
    ended: bool = False
    handed_on: bool = False
    moved_bytes: int = 0

    def wants_data(self) -> bool:
        return not self.ended and len(self.buffer) < BUFFER_BYTES

    def move(self) -> bool:
        """Whatever can be moved without waiting; whether that was anything."""
        return self._read() | self._write()

    def _read(self) -> bool:
        busy = False
        with contextlib.suppress(*_WANTS):
            while self.wants_data():
                data = self.source.recv(_CHUNK_BYTES)
                self.buffer += data
                self.ended = not data
                busy = True
        return busy

    def _write(self) -> bool:
        busy = False
        with contextlib.suppress(*_WANTS):
            while self.buffer:
                sent = self.sink.send(self.buffer[:_CHUNK_BYTES])
                del self.buffer[:sent]
                self.moved_bytes += sent
                busy = True
        if self.ended and not self.buffer and not self.handed_on:
            self.handed_on = busy = True
            with contextlib.suppress(OSError):  # not of the TLS layer: it could not be read any more
                socket.socket.shutdown(self.sink, socket.SHUT_WR)
        return busy


def pump(local: socket.socket, remote: socket.socket, *, silence_s: float = SILENCE_S) -> str:
    """Returns when both directions have ended, with "", or with why it stopped before. Closes neither.

    It stops when nothing has moved for ``silence_s`` (QEMU always sends while it migrates), and LINGER_S after one
    direction has ended.
    """
    flows = (_Flow(local, remote), _Flow(remote, local))
    for stream in (local, remote):
        stream.setblocking(False)
    _give_up_soon(remote)
    last_s = time.monotonic()
    try:
        while not all(flow.handed_on for flow in flows):
            moved = [flow.move() for flow in flows]
            if any(moved):
                last_s = time.monotonic()
                continue
            limit_s = LINGER_S if any(flow.handed_on for flow in flows) else silence_s
            left_s = last_s + limit_s - time.monotonic()
            if left_s <= 0:
                return f"nothing has moved for {limit_s:g} s"
            _wait(flows, left_s)
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""


def _wait(flows: tuple[_Flow, ...], timeout_s: float) -> None:
    """Until something can move. What TLS has decrypted already was taken by ``move``, as far as there was room."""
    events: dict[int, int] = {}
    for flow in flows:
        if flow.wants_data():
            events[flow.source.fileno()] = events.get(flow.source.fileno(), 0) | select.POLLIN
        if flow.buffer:
            events[flow.sink.fileno()] = events.get(flow.sink.fileno(), 0) | select.POLLOUT
    poll = select.poll()
    for descriptor, wanted in events.items():
        poll.register(descriptor, wanted)
    poll.poll(timeout_s * 1000)


def _give_up_soon(stream: socket.socket) -> None:
    """A peer that does not take what was sent counts as gone, whatever the kernel would still try."""
    if stream.family in (socket.AF_INET, socket.AF_INET6):
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
