"""Whether the store answers, asked at most once a second, so that health checks cannot be used to load it."""

from __future__ import annotations

import math
import threading

from ucloud.errors import StoreError, StoreUnavailable
from ucloud.store import keys
from ucloud.store.api import Store
from ucloud.system.clock import Clock

_CHECK_EVERY_S = 1.0


class StoreProbe:
    """Thread-safe. While one thread asks, the others are told the last answer."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._checked_s = -math.inf
        self._reason = "it was not asked yet"
        self._asking = threading.Lock()

    def reason(self) -> str:
        """Why the store does not work; "" if it does."""
        if self._asking.acquire(blocking=self._checked_s == -math.inf):
            try:
                if self._clock.monotonic_s() - self._checked_s > _CHECK_EVERY_S:
                    self._reason = self._ask()
                    self._checked_s = self._clock.monotonic_s()
            finally:
                self._asking.release()
        return self._reason

    def _ask(self) -> str:
        try:
            self._store.get(keys.ROOT)
        except (StoreUnavailable, StoreError) as error:
            return error.message
        return ""
