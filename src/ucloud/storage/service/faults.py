"""What goes wrong on purpose: locks of the dead that linger, writes that come late, storage that hangs.

A late write is answered when it is done, and is done although its client may have died meanwhile: what was under way
from a killed process still arrives (docs/failover.md, trap 6). Only a fence stops it.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ucloud.storage.service.access import Client
from ucloud.system.clock import Clock

_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class Faults:
    """0 is none. ``hang_s`` counts from when it was set."""

    linger_s: float = 0.0
    late_write_s: float = 0.0
    hang_s: float = 0.0


class Hang:
    """Whoever reads or writes waits here while it lasts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._until_s = 0.0

    def begin(self, duration_s: float) -> None:
        with self._changed:
            self._until_s = self._clock.monotonic_s() + duration_s
            self._changed.notify_all()

    def wait(self) -> None:
        with self._changed:
            while (left_s := self._until_s - self._clock.monotonic_s()) > 0:
                self._changed.wait(left_s)


@dataclass(frozen=True, slots=True)
class _Held:
    client: Client
    do: Callable[[], None]
    drop: Callable[[], None]


class LateWrites:
    """Writes that wait for their time, done by one thread in the order of their times."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, _Held]] = []
        self._numbers = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="late-writes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What is held is dropped, as a service does that loses its power."""
        with self._changed:
            self._stopped = True
            dropped = [held for _, _, held in self._heap]
            self._heap = []
            self._changed.notify_all()
        for held in dropped:
            held.drop()
        self._thread.join()

    def hold(self, client: Client, delay_s: float, *, do: Callable[[], None], drop: Callable[[], None]) -> None:
        """Exactly one of ``do`` and ``drop`` is called, later."""
        due_s = self._clock.monotonic_s() + delay_s
        with self._changed:
            stopped = self._stopped
            if not stopped:
                heapq.heappush(self._heap, (due_s, next(self._numbers), _Held(client, do, drop)))
                self._changed.notify_all()
        if stopped:
            drop()

    def drop(self, client: Client) -> None:
        """Nothing that is held of this client will be done."""
        with self._changed:
            dropped = [held for _, _, held in self._heap if held.client == client]
            self._heap = [entry for entry in self._heap if entry[2].client != client]
            heapq.heapify(self._heap)
        for held in dropped:
            held.drop()

    def _run(self) -> None:
        while (held := self._next()) is not None:
            held.do()

    def _next(self) -> _Held | None:
        with self._changed:
            while not self._stopped:
                left_s = self._heap[0][0] - self._clock.monotonic_s() if self._heap else _LOOK_S
                if self._heap and left_s <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(min(left_s, _LOOK_S))
        return None
