"""How many connections a door of the service has at once: who comes when it is full is hung up on, and that is said."""

from __future__ import annotations

import logging
import threading
from typing import Final

logger = logging.getLogger(__name__)

_SAY_EVERY: Final = 100


class Room:
    """Thread-safe."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self._free = threading.BoundedSemaphore(limit)
        self._lock = threading.Lock()
        self._refused = 0

    def enter(self) -> bool:
        """Whether there is room for one more; then it must leave."""
        if self._free.acquire(blocking=False):
            return True
        with self._lock:
            self._refused += 1
            if self._refused % _SAY_EVERY == 1:  # a flood must not become one of lines
                logger.error(
                    "a connection to the storage service (%s) is refused: %d are open, as many as there may be; "
                    "%d refused so far",
                    self._name,
                    self._limit,
                    self._refused,
                )
        return False

    def leave(self) -> None:
        self._free.release()
