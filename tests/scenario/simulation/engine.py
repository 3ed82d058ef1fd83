"""Virtual time: events in the order of their times, and processes that can be frozen or dead when theirs comes."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

START = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


class Place:
    """Where something happens: a machine, or a process on one (``above``). What comes for a frozen one waits."""

    __slots__ = ("above", "below", "dead", "frozen", "name", "waiting")

    def __init__(self, name: str, above: Place | None = None) -> None:
        self.name = name
        self.above = above
        self.below: list[Place] = []
        self.dead = False
        self.frozen = False
        self.waiting: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        if above is not None:
            above.below = [place for place in above.below if not place.dead]
            above.below.append(self)

    @property
    def is_dead(self) -> bool:
        return self.dead or (self.above is not None and self.above.dead)

    @property
    def is_frozen(self) -> bool:
        return self.frozen or (self.above is not None and self.above.frozen)


class Engine:
    """The clock, the queue of events and the only source of chance. Times are seconds since the beginning."""

    def __init__(self, seed: int, *, jitter: bool = True) -> None:
        self.now_s = 0.0
        self.chance = random.Random(seed)
        self._jitter = jitter
        self._queue: list[tuple[float, int, Place | None, Callable[..., None], tuple[Any, ...]]] = []
        self._count = 0

    def after(self, delay_s: float, do: Callable[..., None], *arguments: Any, place: Place | None = None) -> None:
        self._count += 1
        heappush(self._queue, (self.now_s + delay_s, self._count, place, do, arguments))

    def span_s(self, least: float, most: float) -> float:
        """A duration between two; the middle in a run without jitter."""
        return least + (most - least) * self.chance.random() if self._jitter else (least + most) / 2

    def chooses(self, probability: float) -> bool:
        return self.chance.random() < probability

    def wall(self) -> datetime.datetime:
        return START + datetime.timedelta(seconds=self.now_s)

    def run(self, until_s: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= until_s:
            self.now_s, _, place, do, arguments = heappop(queue)
            self.happen(place, do, arguments)
        self.now_s = until_s

    def happen(self, place: Place | None, do: Callable[..., None], arguments: tuple[Any, ...]) -> None:
        """Now, unless it comes to a dead or frozen place."""
        if place is not None:
            above = place.above
            if place.dead or (above is not None and above.dead):
                return
            if place.frozen or (above is not None and above.frozen):
                place.waiting.append((do, arguments))
                return
        do(*arguments)

    def freeze(self, place: Place) -> None:
        place.frozen = True

    def thaw(self, place: Place) -> None:
        """What waited comes now, in its order, to every process that is free again."""
        place.frozen = False
        self._release(place)

    def _release(self, place: Place) -> None:
        if place.is_frozen or place.is_dead:
            return
        waiting, place.waiting = place.waiting, []
        for do, arguments in waiting:
            self.after(self.span_s(0.0001, 0.004), do, *arguments, place=place)
        for below in place.below:
            self._release(below)
