"""What the guard's threads have to say, kept until its main thread writes it to the log.

A log's disk may hang. Must hold: whoever says something never waits for it, so that only the main thread can hang.
"""

from __future__ import annotations

import logging
from collections import deque

_log = logging.getLogger("ucloud.guard")

_LIMIT = 200


class Notes:
    """Thread-safe. What is too much is forgotten, the oldest first."""

    def __init__(self) -> None:
        self._notes: deque[tuple[int, str]] = deque(maxlen=_LIMIT)

    def info(self, text: str) -> None:
        self._notes.append((logging.INFO, text))

    def error(self, text: str) -> None:
        self._notes.append((logging.ERROR, text))

    def write(self) -> None:
        """For the main thread alone."""
        while self._notes:
            _log.log(*self._notes.popleft())
