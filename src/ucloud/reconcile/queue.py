"""A queue of keys that are due: each at most once, none handed out while it is being worked on.

All times are ``Clock.monotonic_s``. Thread-safe.
"""

from __future__ import annotations

import heapq
import threading

from ucloud.system.clock import Clock


class WorkQueue:
    """``add`` wakes a key now or later; ``take`` hands out a due key; ``done`` gives it back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._condition = threading.Condition()
        self._due_s: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._working: set[str] = set()
        self._closed = False

    def add(self, key: str, *, delay_s: float = 0.0) -> None:
        """Make ``key`` due after ``delay_s``, or earlier if it already is."""
        due_s = self._clock.monotonic_s() + delay_s
        with self._condition:
            if key in self._due_s and self._due_s[key] <= due_s:
                return
            self._due_s[key] = due_s
            heapq.heappush(self._heap, (due_s, key))
            self._condition.notify()

    def take(self, *, timeout_s: float) -> str | None:
        """The key that is due longest, now worked on by the caller; None after ``timeout_s`` or when closed."""
        deadline_s = self._clock.monotonic_s() + timeout_s
        with self._condition:
            while not self._closed:
                now_s = self._clock.monotonic_s()
                key, next_s = self._pop_due(now_s)
                if key is not None:
                    self._working.add(key)
                    return key
                if now_s >= deadline_s:
                    return None
                self._condition.wait(min(next_s, deadline_s) - now_s)
            return None

    def done(self, key: str) -> None:
        """The caller has finished with ``key``; wake-ups that came meanwhile are due again."""
        with self._condition:
            self._working.discard(key)
            if key in self._due_s:
                heapq.heappush(self._heap, (self._due_s[key], key))
            self._condition.notify_all()

    def close(self) -> None:
        """Hand out nothing any more; waiting takers return None."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def __len__(self) -> int:
        with self._condition:
            return len(self._due_s)

    def _pop_due(self, now_s: float) -> tuple[str | None, float]:
        """A due key that nobody works on, or None and the time when the next one is due."""
        while self._heap:
            due_s, key = self._heap[0]
            if self._due_s.get(key) != due_s or key in self._working:
                heapq.heappop(self._heap)  # outdated, or pushed again by done()
                continue
            if due_s > now_s:
                return None, due_s
            heapq.heappop(self._heap)
            del self._due_s[key]
            return key, due_s
        return None, float("inf")
