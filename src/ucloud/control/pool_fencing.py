"""The second line of pools with a fence verb: asks a storage service to refuse a lost host, in threads of its own.

A storage service may hang for long, and the decider must not. Owns what was answered so far, in memory: the verb may
be said twice. Must hold: a pool counts as fenced only after its service has said so for this host and incarnation.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from ucloud.errors import Error

logger = logging.getLogger(__name__)


class PoolFence(Protocol):
    """A client of storage services."""

    def fence(self, pool_id: str, host_id: str, incarnation: str) -> None:
        """Returns once the pool refuses every access of this incarnation. Raises an Error otherwise."""
        ...


_Verb = tuple[str, str, str]


def in_a_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="pool-fence", daemon=True).start()


class PoolFencing:
    """``wake`` is called when a service has answered; ``start`` runs the asking, and tests run it at once."""

    def __init__(
        self,
        fence: PoolFence | None = None,
        *,
        wake: Callable[[], None] = lambda: None,
        start: Callable[[Callable[[], None]], None] = in_a_thread,
    ) -> None:
        self._fence = fence
        self._wake = wake
        self._start = start
        self._lock = threading.Lock()
        self._asking: set[_Verb] = set()
        self._fenced: set[_Verb] = set()
        self._failed: dict[_Verb, str] = {}

    def ensure(self, pools: Iterable[str], host_id: str, incarnation: str) -> str:
        """Why not all of the pools are fenced yet, "" if they are. Asks those that have not answered."""
        reasons = [self._ensure((pool_id, host_id, incarnation)) for pool_id in pools]
        return next((reason for reason in reasons if reason), "")

    def _ensure(self, verb: _Verb) -> str:
        pool_id = verb[0]
        fence = self._fence
        if fence is None:
            return f"pool {pool_id} must refuse it, and no storage service is set up here"
        with self._lock:
            if verb in self._fenced:
                return ""
            begins = verb not in self._asking
            self._asking.add(verb)
        if begins:
            self._start(lambda: self._ask(fence, verb))
        with self._lock:
            if verb in self._fenced:
                return ""
            failed = self._failed.get(verb, "")
        return f"pool {pool_id} is asked to refuse it" + (f" again: {failed}" if failed else "")

    def _ask(self, fence: PoolFence, verb: _Verb) -> None:
        failure = ""
        try:
            fence.fence(*verb)
        except Error as error:
            failure = error.message
        except Exception as error:  # noqa: BLE001 - the main of a thread: ended silently it would be waited for
            failure = f"{type(error).__name__}: {error}"
        with self._lock:
            self._asking.discard(verb)
            if failure:
                self._failed[verb] = failure
            else:
                self._fenced.add(verb)
        if failure:
            logger.warning("pool %s does not fence %s: %s", verb[0], verb[1], failure)
        else:
            self._wake()
