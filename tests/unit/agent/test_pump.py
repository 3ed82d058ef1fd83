"""The stream of a migration: all bytes both ways, ends handed on after them, and no wait without a limit."""

from __future__ import annotations

import os
import socket
import threading
import time

from ucloud.agent import pump as pumping
from ucloud.agent.pump import pump


class Pumped:
    """``left`` and ``right`` are the far ends of what is pumped."""

    def __init__(self, *, silence_s: float = 5.0) -> None:
        self.left, self._first = socket.socketpair()
        self.right, self._second = socket.socketpair()
        for end in (self.left, self.right):
            end.settimeout(5.0)
        self.why: list[str] = []
        self._thread = threading.Thread(target=self._run, args=(silence_s,))
        self._thread.start()

    def _run(self, silence_s: float) -> None:
        self.why.append(pump(self._first, self._second, silence_s=silence_s))
        self._first.close()
        self._second.close()

    def __enter__(self) -> Pumped:
        return self

    def __exit__(self, *_: object) -> None:
        self.left.close()
        self.right.close()
        self._thread.join(10.0)
        assert not self._thread.is_alive()

    def end(self) -> str:
        self._thread.join(10.0)
        return self.why[0]


def read_all(end: socket.socket) -> bytes:
    data = bytearray()
    while part := end.recv(1 << 16):
        data += part
    return bytes(data)


def test_much_at_once_both_ways() -> None:
    sent = os.urandom(8 << 20)
    with Pumped() as pumped:
        got: dict[str, bytes] = {}

        def take(name: str, end: socket.socket) -> None:
            got[name] = read_all(end)

        def give(end: socket.socket) -> None:
            end.sendall(sent)
            end.shutdown(socket.SHUT_WR)

        threads = [threading.Thread(target=give, args=(end,)) for end in (pumped.left, pumped.right)]
        threads += [threading.Thread(target=take, args=(name, getattr(pumped, name))) for name in ("left", "right")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20.0)
        assert got == {"left": sent, "right": sent}
        assert pumped.end() == ""


def test_one_end_leaves_the_other_direction_open() -> None:
    """QEMU's last word goes against the stream."""
    with Pumped() as pumped:
        pumped.left.sendall(b"memory")
        pumped.left.shutdown(socket.SHUT_WR)
        assert read_all(pumped.right) == b"memory"
        pumped.right.sendall(b"all here")
        pumped.right.shutdown(socket.SHUT_WR)
        assert read_all(pumped.left) == b"all here"
        assert pumped.end() == ""


def test_silence_ends_it() -> None:
    with Pumped(silence_s=0.1) as pumped:
        assert "nothing has moved" in pumped.end()
        assert pumped.right.recv(1) == b""


def test_a_peer_that_takes_nothing_ends_it_within_bounds() -> None:
    with Pumped(silence_s=0.3) as pumped:
        pumped.left.settimeout(2.0)
        taken = 0
        began_s = time.monotonic()
        try:
            while time.monotonic() < began_s + 5.0:
                taken += pumped.left.send(bytes(1 << 16))
        except OSError:
            pass
        assert taken <= pumping.BUFFER_BYTES + (4 << 20), "bounded, whatever is sent"
        assert "nothing has moved" in pumped.end()


def test_a_reset_ends_it() -> None:
    with Pumped() as pumped:
        pumped.right.close()
        pumped.left.sendall(b"x")
        pumped.left.shutdown(socket.SHUT_WR)
        pumped.end()
