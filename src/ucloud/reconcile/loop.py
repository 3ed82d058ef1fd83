"""Workers on a queue of keys. An error is logged and the key comes back after a growing delay.

The handler is given a key and nothing else: it reads what is wanted and what is there, acts, reports, and returns in
how many seconds it wants to be woken without a cause, or None if its key needs no more looking after. It must be safe
to run again at any time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ucloud.errors import Error
from ucloud.reconcile.queue import WorkQueue
from ucloud.system.clock import Clock, format_time

logger = logging.getLogger(__name__)

Handler = Callable[[str], float | None]

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 30.0
_TAKE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Pass:
    """The last pass over a key, for those who look inside. ``error`` is "" for a good one."""

    at: str
    duration_s: float
    error: str
    failures_in_a_row: int


def backoff_s(failures_in_a_row: int) -> float:
    """0.5, 1, 2, 4 … 30 seconds."""
    return min(FIRST_BACKOFF_S * 2.0 ** max(failures_in_a_row - 1, 0), LONGEST_BACKOFF_S)


class Loop:
    """``workers`` threads; one key is never worked on by two of them."""

    def __init__(self, name: str, handler: Handler, *, clock: Clock, workers: int = 1) -> None:
        self.name = name
        self._handler = handler
        self._clock = clock
        self._queue = WorkQueue(clock)
        self._passes: dict[str, Pass] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True) for number in range(workers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, *, timeout_s: float = 10.0) -> None:
        """End the workers after what they are doing now."""
        self._stopping.set()
        self._queue.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)

    def wake(self, key: str, *, delay_s: float = 0.0) -> None:
        self._queue.add(key, delay_s=delay_s)

    def passes(self) -> dict[str, Pass]:
        with self._lock:
            return dict(self._passes)

    def _work(self) -> None:
        while not self._stopping.is_set():
            key = self._queue.take(timeout_s=_TAKE_TIMEOUT_S)
            if key is not None:
                self._pass(key)

    def _pass(self, key: str) -> None:
        started_s = self._clock.monotonic_s()
        error_text = ""
        again_s: float | None = None
        try:
            again_s = self._handler(key)
        except Error as error:
            error_text = f"{error.code}: {error.message}"
            logger.warning("%s: pass over %s failed: %s", self.name, key, error_text)
        except Exception as error:
            error_text = f"{type(error).__name__}: {error}"
            logger.exception("%s: pass over %s failed", self.name, key)
        failures = self._remember(key, started_s, error_text, over=again_s is None)
        self._queue.done(key)
        if error_text:
            again_s = backoff_s(failures)
        if again_s is not None:
            self._queue.add(key, delay_s=again_s)

    def _remember(self, key: str, started_s: float, error_text: str, *, over: bool) -> int:
        """How often the key has failed in a row. A key that is ``over`` leaves nothing behind."""
        with self._lock:
            if over and not error_text:
                self._passes.pop(key, None)
                return 0
            before = self._passes.get(key)
            failures = (before.failures_in_a_row if before else 0) + 1 if error_text else 0
            duration_s = self._clock.monotonic_s() - started_s
            self._passes[key] = Pass(format_time(self._clock.now()), duration_s, error_text, failures)
            return failures
