"""This host's life sign in the store: one look at it, and what follows. Who looks, and how often, is in ``witnesses``.

Keys: writes ``alive/<host>`` (on the lease) and ``registered/<host>`` in one transaction that compares what was
read; reads ``fenced/<host>/<incarnation>`` and ``site/members``. Must hold: the state is changed by the rules alone and
under one lock, however many threads look; the lease's id is shown to nobody.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ucloud.errors import Error, StoreError
from ucloud.guard import rules
from ucloud.guard.notes import Notes
from ucloud.guard.rules import AliveKey, KeeperAnswer, LifeState, Step
from ucloud.model.guard import LifeSign, Members
from ucloud.store import keys
from ucloud.store.api import Item, Put, Store, Txn, absent, unchanged
from ucloud.store.codec import decode_as, encode
from ucloud.system.clock import Clock, format_time
from ucloud.system.history import History

_RENEWALS_PER_TTL = 5
_TELL_GAPS_S = 1.0


@dataclass(frozen=True, slots=True)
class Identity:
    """``since`` is when this guard began; ``incarnation`` is its own alone. F and K are its promise to the others."""

    host_id: str
    incarnation: str
    since: str
    fence_s: float = 0.0
    kill_s: float = 0.0


class Life:
    """Thread-safe. ``over`` is set once this incarnation is fenced or replaced."""

    def __init__(self, identity: Identity, *, ttl_s: int, clock: Clock, history: History, notes: Notes) -> None:
        self.identity = identity
        self.over = threading.Event()
        self._ttl_s = ttl_s
        self._clock = clock
        self._history = history
        self._notes = notes
        self._lock = threading.Lock()
        self._state = LifeState(fence_s=identity.fence_s)
        self._lease_id = 0
        self._outlived = False
        self._renewed_at_s = 0.0
        self._said = ""

    @property
    def state(self) -> LifeState:
        return self._state

    def look(self, store: Store) -> Step:
        """One question, then what the rules say about the life sign, and that is. Raises what the store raises."""
        host_id, incarnation = self.identity.host_id, self.identity.incarnation
        alive, fenced = keys.alive(host_id), keys.fenced(host_id, incarnation)
        sent_at_s = self._clock.monotonic_s()
        found = store.read((alive, fenced, keys.members())).items
        item = found[alive]
        key = self._classify(item)
        is_fenced, members = found[fenced] is not None, _parse_members(found[keys.members()])
        self._change(
            lambda state, now_s: rules.see(
                state, key, fenced=is_fenced, sent_at_s=sent_at_s, now_s=now_s, members=members
            )
        )
        step = rules.next_step(self._state, key)
        if step is Step.REGISTER:
            self._register(store, item)
        elif step is Step.RENEW and item is not None:
            self._renew(store, item.lease)
        return step

    def hear_round(self, members: Members, answers: Mapping[str, KeeperAnswer], *, started_at_s: float) -> None:
        """What the keepers said in one round of questions."""
        self._change(
            lambda state, now_s: rules.see_round(state, members, answers, started_at_s=started_at_s, now_s=now_s)
        )

    def pass_time(self) -> LifeState:
        """The state now; a deadline that has passed sticks."""
        return self._change(rules.pass_time)

    def close(self) -> None:
        """Note that everything mortal is dead or stands still."""
        self._change(rules.closed)

    def give_up(self, store: Store) -> None:
        """End the lease, and with it the life sign, unless it must stay. Raises what the store raises."""
        if self._lease_id and not self._outlived:
            store.revoke_lease(self._lease_id)

    def keep_sign(self) -> None:
        """Something that may run elsewhere outlives this guard: the life sign ends by its lease, and not before."""
        self._outlived = True

    def say(self, what: str) -> None:
        """Note each change once: the threads that look turn several times a second."""
        if what != self._said:
            self._said = what
            self._notes.info(f"life sign: {what}")

    def _classify(self, item: Item | None) -> AliveKey:
        if item is None or not item.lease:
            return AliveKey.LOST
        is_ours = decode_as(LifeSign, item.value).incarnation == self.identity.incarnation
        return AliveKey.OURS if is_ours else AliveKey.FOREIGN

    def _change(self, change: Callable[[LifeState, float], LifeState]) -> LifeState:
        with self._lock:
            before = self._state
            after = self._state = change(before, self._clock.monotonic_s())
        if after.is_over and not self.over.is_set():
            self._notes.error(f"this guard is {'fenced' if after.fenced else 'replaced by another'}")
            self.over.set()
        gap_s = after.evidence_at_s - before.evidence_at_s
        if before.evidence_at_s and gap_s > _TELL_GAPS_S:
            self._history.tell("evidence_gap", host=self.identity.host_id, gap_s=round(gap_s, 3))
        return after

    def _register(self, store: Store, seen: Item | None) -> None:
        """Make our life sign anew. It counts as alive once a read has shown it. Several threads may try at once."""
        host_id, incarnation = self.identity.host_id, self.identity.incarnation
        lease_id = store.grant_lease(self._ttl_s).id
        sign = encode(
            LifeSign(
                host_id,
                incarnation,
                format_time(self._clock.now()),
                fence_s=self.identity.fence_s,
                kill_s=self.identity.kill_s,
            )
        )
        alive = keys.alive(host_id)
        done = store.commit(
            Txn(
                compares=(
                    absent(keys.fenced(host_id, incarnation)),
                    unchanged(alive, seen.mod_revision if seen else 0),
                ),
                writes=(Put(alive, sign, lease=lease_id), Put(keys.registered(host_id), sign)),
            )
        )
        if done.ok:
            self._lease_id, self._renewed_at_s = lease_id, self._clock.monotonic_s()
            self._change(rules.registered)
            self._history.tell("registered", host=host_id, incarnation=incarnation)
            self._notes.info("life sign: registered")
        else:
            with contextlib.suppress(Error):
                store.revoke_lease(lease_id)

    def _renew(self, store: Store, lease_id: int) -> None:
        """Renew the lease that our key is on, unless a thread has just done it. An ended one shows in the next read."""
        self._lease_id = lease_id
        now_s = self._clock.monotonic_s()
        if now_s - self._renewed_at_s >= self._ttl_s / _RENEWALS_PER_TTL and store.keep_lease(lease_id):
            self._renewed_at_s = now_s
            self.say("renewed")


def _parse_members(item: Item | None) -> Members | None:
    """None for a list that is not there or cannot be read: then there is no evidence (b)."""
    if item is None:
        return None
    try:
        return decode_as(Members, item.value)
    except StoreError:
        return None
