"""How many images may come in at once: each holds one of the API's threads for as long as it takes."""

from __future__ import annotations

import threading

from ucloud.errors import Unavailable

_SHARE = 4


class Transfers:
    """Thread-safe. Who may begin calls ``end`` once."""

    def __init__(self, threads: int) -> None:
        self._limit = max(1, threads // _SHARE)
        self._free = threading.BoundedSemaphore(self._limit)

    def begin(self) -> None:
        """Raises Unavailable (``busy``)."""
        if not self._free.acquire(blocking=False):
            raise Unavailable(
                f"failed to take an image: {self._limit} are coming in already",
                hint="try again when one of them is done",
                code="busy",
            )

    def end(self) -> None:
        self._free.release()
