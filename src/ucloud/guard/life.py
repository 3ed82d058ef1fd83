"""Keeps this host's life sign in the store, in a thread of its own: reads, renews, registers again.

Keys: writes ``alive/<host>`` (on the lease) and ``registered/<host>`` in one transaction that compares what was
read; reads ``fenced/<host>/<incarnation>``. Must hold: a store that is down or slow changes nothing for VMs; the
lease's id is shown to nobody.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import dataclass, replace

from ucloud.errors import Error
from ucloud.guard.rules import AliveKey, LifeState, Step, next_step, see
from ucloud.model.guard import LifeSign
from ucloud.store import keys
from ucloud.store.api import Item, Put, Store, Txn, absent, unchanged
from ucloud.store.codec import decode_as, encode
from ucloud.system.clock import Clock, format_time

_log = logging.getLogger(__name__)

_RENEWALS_PER_TTL = 3


@dataclass(frozen=True, slots=True)
class Identity:
    """``since`` is when this guard began; ``incarnation`` is its own alone."""

    host_id: str
    incarnation: str
    since: str


class LifeSignKeeper:
    """``state`` may be read from any thread; everything else happens in the keeper's own."""

    def __init__(self, store: Store, identity: Identity, *, ttl_s: int, clock: Clock) -> None:
        self._store = store
        self._identity = identity
        self._ttl_s = ttl_s
        self._clock = clock
        self._lease_id = 0
        self._said = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="life-sign", daemon=True)
        self.state = LifeState()

    def start(self) -> None:
        self._thread.start()

    def stop(self, *, timeout_s: float) -> None:
        """Give the life sign up, if the store lets us in time."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def renew_once(self) -> Step:
        """One round: look at our key, then do what the rules say, and that is. Raises what the store raises."""
        sent_at_s = self._clock.monotonic_s()
        item = self._store.get(keys.alive(self._identity.host_id))
        key = self._classify(item)
        self.state = see(self.state, key, fenced=key is not AliveKey.OURS and self._is_fenced(), sent_at_s=sent_at_s)
        step = next_step(self.state, key)
        match step:
            case Step.RENEW:
                self._store.keep_lease(self._lease_id)  # an ended one shows in the next read
            case Step.REGISTER:
                self._register(item)
            case Step.YIELD:
                self._say("this guard is fenced" if self.state.fenced else "another guard registered for this host")
        return step

    def _classify(self, item: Item | None) -> AliveKey:
        if item is None:
            return AliveKey.LOST
        if decode_as(LifeSign, item.value).incarnation != self._identity.incarnation:
            return AliveKey.FOREIGN
        return AliveKey.OURS if item.lease == self._lease_id else AliveKey.LOST

    def _is_fenced(self) -> bool:
        return self._store.get(keys.fenced(self._identity.host_id, self._identity.incarnation)) is not None

    def _register(self, seen: Item | None) -> None:
        """Make our life sign anew. It counts as alive once a read has shown it."""
        host_id, incarnation = self._identity.host_id, self._identity.incarnation
        self._lease_id = self._store.grant_lease(self._ttl_s).id
        sign = encode(LifeSign(host_id, incarnation, format_time(self._clock.now())))
        alive = keys.alive(host_id)
        done = self._store.commit(
            Txn(
                compares=(
                    absent(keys.fenced(host_id, incarnation)),
                    unchanged(alive, seen.mod_revision if seen else 0),
                ),
                writes=(Put(alive, sign, lease=self._lease_id), Put(keys.registered(host_id), sign)),
            )
        )
        if done.ok:
            self.state = replace(self.state, registered=True)
            self._say("registered")

    def _keep(self) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            pause_s = self._ttl_s / _RENEWALS_PER_TTL
            try:
                if self.renew_once() is Step.REGISTER:
                    pause_s = 0.0  # what was registered is evidence only once it was read
            except Exception as error:  # noqa: BLE001 - a life sign that ends silently would end this host's
                self._say(f"no contact with the store: {error}")
                self.state = replace(self.state, alive=False)
        if self._lease_id:
            with contextlib.suppress(Error):
                self._store.revoke_lease(self._lease_id)

    def _say(self, what: str) -> None:
        """Log each change once: this thread turns several times a second."""
        if what != self._said:
            self._said = what
            _log.info("life sign: %s", what)
