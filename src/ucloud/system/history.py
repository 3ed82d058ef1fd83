"""What a checker of safety must know, told as it happens: one datagram each, with one clock for all who tell.

For labs: a product's cloud has no listener and tells nothing. Must hold: telling never waits and never fails; what
could not be told is counted, so that a history with gaps is known as one.
"""

from __future__ import annotations

import json
import socket
from typing import Protocol

from ucloud.system.clock import Clock, SystemClock


class History(Protocol):
    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        """``kind`` is a stable word such as ``vm_started``."""
        ...


class Silence:
    """Nobody listens."""

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        pass

    def close(self) -> None:
        pass


class SocketHistory:
    """Thread-safe. A datagram is ``{"at_s": CLOCK_BOOTTIME, "source": …, "kind": …, "dropped": …, facts…}``."""

    def __init__(self, path: str, *, source: str, clock: Clock | None = None) -> None:
        self._path = path
        self._source = source
        self._clock = clock if clock else SystemClock()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        self._dropped = 0

    def tell(self, kind: str, **facts: str | int | float | bool) -> None:
        plain = {"at_s": self._clock.monotonic_s(), "source": self._source, "kind": kind, "dropped": self._dropped}
        try:
            self._socket.sendto(json.dumps({**plain, **facts}).encode(), self._path)
        except OSError:
            self._dropped += 1

    def close(self) -> None:
        self._socket.close()


def open_history(path: str, *, source: str) -> SocketHistory | Silence:
    """``source`` is who tells, such as "guard/h1"; no path means that nobody listens."""
    return SocketHistory(path, source=source) if path else Silence()
