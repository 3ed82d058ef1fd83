"""Does what ``scheduler/takeover.py`` says about lost hosts: asks the store, writes marks, frees locks, keeps records.

Owns the quiet periods of this process, in memory: a scheduler that begins anew waits anew. Keys: takeover/…, fenced/…,
and deletes lock/… of fenced hosts. Must hold: nothing here waits; every write compares the election; a transaction
without an answer is neither done nor failed, so the store is read again.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace

from ucloud.config import SchedulerSection
from ucloud.control.pool_fencing import PoolFencing
from ucloud.errors import OutcomeUnknown, StoreError, Unavailable
from ucloud.model.guard import Fenced, RunLock, Takeover, TakeoverPhase
from ucloud.model.vm import Failover
from ucloud.scheduler.preview import preview
from ucloud.scheduler.takeover import (
    Answer,
    Hold,
    LostHost,
    Next,
    Quiet,
    Step,
    brake_limit,
    done_record,
    hear,
    hold_of,
    losses,
    lost_hosts,
    next_step,
    old_records,
    pools_to_fence,
    record_of,
    returned_hosts,
    unknown_pools,
)
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Item, Put, Store, Txn, absent, unchanged
from ucloud.store.codec import decode, encode
from ucloud.store.events import event_put
from ucloud.store.view import Entry, View
from ucloud.system.clock import Clock, format_time
from ucloud.system.history import History, Silence

logger = logging.getLogger(__name__)

AGAIN_S = 0.25  # after an answer that decides nothing
BATCH_LOCKS = 100
_STEPS_LIMIT = 6  # read, wait over, mark, read again, free: more in one pass is a mistake


@dataclass(frozen=True, slots=True)
class Outcome:
    """``again_s``: when there is something to do next. ``revision``: of the last write, 0 for none."""

    again_s: float = math.inf
    revision: int = 0


class Takeovers:
    """One ``run`` per pass of the elected process."""

    def __init__(
        self,
        store: Store,
        settings: SchedulerSection,
        clock: Clock,
        *,
        pools: PoolFencing | None = None,
        history: History | None = None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._pools = pools if pools else PoolFencing()
        self._history = history if history else Silence()
        self._quiet: dict[str, Quiet] = {}
        self._previews: dict[str, str] = {}
        self._revision = 0

    def run(self, view: View, leader: Compare) -> Outcome:
        """Everything about lost hosts that can be done now. One host's trouble with the store delays no other."""
        self._revision = 0
        lost = lost_hosts(view)
        self._quiet = {host.host_id: self._quiet[host.host_id] for host in lost if host.host_id in self._quiet}
        self._previews = {host_id: text for host_id, text in self._previews.items() if host_id in self._quiet}
        self._end_records(view, leader)
        lost_at = losses(view, lost, self._clock.now())
        limit = brake_limit(_hosts_in(view), self._settings.failover_share_percent)
        again_s = math.inf
        for host in lost:
            hold = hold_of(host, lost_at, limit=limit)
            try:
                again_s = min(again_s, self._advance(host, hold, view, leader))
            except (StoreError, Unavailable) as error:
                logger.warning("takeover of %s: %s", host.host_id, error.message)
                again_s = min(again_s, AGAIN_S)
        return Outcome(again_s, self._revision)

    def _advance(self, host: LostHost, hold: Hold | None, view: View, leader: Compare) -> float:
        """Go on with one host as far as it goes; in how many seconds to look again."""
        for _ in range(_STEPS_LIMIT):
            now_s = self._clock.monotonic_s()
            quiet = self._quiet.get(host.host_id)
            step = next_step(host, quiet, hold, now_s=now_s)
            match step.step:
                case Step.HOLD | Step.WAIT:
                    self._record(host, self._with_preview(host, step, view), leader)
                    return math.inf if step.step is Step.HOLD else max(step.at_s - now_s, 0.0)
                case Step.FREE:
                    return self._free(host, step, view, leader)
                case Step.MARK:
                    heard = self._mark(host, leader)
                case Step.READ:
                    heard = self._ask(host)
            if not heard:
                break
        return AGAIN_S

    def _with_preview(self, host: LostHost, step: Next, view: View) -> Next:
        """With what will become of its VMs, decided once in each wait."""
        if step.step is not Step.WAIT:
            return step
        if host.host_id not in self._previews:
            at = format_time(self._clock.now())
            self._previews[host.host_id] = preview(view, host, self._settings, at=at)
        told = self._previews[host.host_id]
        return replace(step, reason=f"{step.reason}; {told}") if told else step

    def _ask(self, host: LostHost) -> bool:
        """Read and hear. False if the host is back: the next view knows more."""
        wanted = (
            keys.alive(host.host_id),
            keys.registered(host.host_id),
            keys.fenced(host.host_id, host.incarnation),
        )
        sent_at_s = self._clock.monotonic_s()
        reading = self._store.read(wanted)
        alive, registered, mark = (reading.items[key] for key in wanted)
        return self._hear(
            host,
            Answer(
                sent_at_s=sent_at_s,
                answered_at_s=self._clock.monotonic_s(),
                term=reading.term,
                alive=alive is not None,
                registered_revision=registered.mod_revision if registered else 0,
                fenced=mark is not None,
            ),
        )

    def _hear(self, host: LostHost, answer: Answer) -> bool:
        quiet = hear(self._quiet.get(host.host_id), answer, host)
        if quiet is None:
            self._quiet.pop(host.host_id, None)
            return False
        self._quiet[host.host_id] = quiet
        return True

    def _mark(self, host: LostHost, leader: Compare) -> bool:
        """Write the mark, unless the host registered meanwhile. What is not known for sure is read again."""
        key = keys.fenced(host.host_id, host.incarnation)
        mark = Fenced(host.host_id, host.incarnation, format_time(self._clock.now()), "its life sign was gone")
        event = self._event(host.host_id, "host_fenced", f"host {host.host_id} was marked: it may run nothing any more")
        compares = (
            leader,
            absent(keys.alive(host.host_id)),
            unchanged(keys.registered(host.host_id), host.registered_revision),
            absent(key),
        )
        sent_at_s = self._clock.monotonic_s()
        try:
            committed = self._store.commit(Txn(compares, (Put(key, encode(mark)), event)))
        except OutcomeUnknown:
            return self._ask(host)
        if not committed.ok:
            return self._ask(host) and self._quiet[host.host_id].over
        self._revision = committed.revision
        self._history.tell("takeover_fenced", host=host.host_id, incarnation=host.incarnation, term=committed.term)
        answered_at_s = self._clock.monotonic_s()
        revision = host.registered_revision
        return self._hear(host, Answer(sent_at_s, answered_at_s, committed.term, False, revision, True))

    def _free(self, host: LostHost, step: Next, view: View, leader: Compare) -> float:
        """Fence the pools, delete the locks that may be taken over, and say that it is done."""
        locks = self._locks_of(host.host_id)
        missing = self._unfenced(host, [lock.pool_id for _, lock in locks], view)
        if missing:
            self._record(host, Next(step.step, step.phase, f"it is marked as fenced, and {missing}"), leader)
            return 4 * AGAIN_S
        mark = self._store.get(keys.fenced(host.host_id, host.incarnation))
        if mark is None:
            self._quiet.pop(host.host_id, None)
            return AGAIN_S
        compares = (
            leader,
            unchanged(mark.key, mark.mod_revision),
            unchanged(keys.registered(host.host_id), host.registered_revision),
        )
        batches = [locks[start : start + BATCH_LOCKS] for start in range(0, len(locks), BATCH_LOCKS)] or [[]]
        for batch in batches:
            last = batch is batches[-1]
            writes: list[Put | Delete] = [Delete(item.key) for item, _ in batch]
            writes += self._done_writes(host, len(locks)) if last else []
            unlocked = (unchanged(item.key, item.mod_revision) for item, _ in batch)
            if not self._commit(Txn((*compares, *unlocked), tuple(writes))):
                return AGAIN_S
        self._history.tell("takeover_done", host=host.host_id, incarnation=host.incarnation, locks=len(locks))
        return math.inf

    def _unfenced(self, host: LostHost, lock_pools: list[str], view: View) -> str:
        """Why its locks must stay for now: a pool does not refuse it yet, or may have to; "" if they may go.

        Of a machine that is off for sure, no pool of which nobody tells is waited for: it writes to none.
        """
        unknown = unknown_pools(view, lock_pools)
        if unknown and not host.confirmed_off:
            return f"no host's report tells whether pool {', '.join(unknown)} has to refuse it"
        pools = pools_to_fence(view, host.host_id, lock_pools)
        return self._pools.ensure(pools, host.host_id, host.incarnation)

    def _locks_of(self, host_id: str) -> list[tuple[Item, RunLock]]:
        """The locks that may be taken over, of whatever incarnation: none newer than the marked one is registered."""
        found = []
        for item in self._store.list(keys.locks_of(host_id)).items:
            try:
                lock = decode(item.value)
            except StoreError as error:
                logger.error("lock %s is left alone: %s", item.key, error.message)
                continue
            if isinstance(lock, RunLock) and lock.failover is Failover.RESTART:
                found.append((item, lock))
        return found

    def _done_writes(self, host: LostHost, freed: int) -> list[Put]:
        record = done_record(host, freed, now=self._clock.now())
        event = self._event(host.host_id, "host_taken_over", f"host {host.host_id} was taken over: {record.reason}")
        return [Put(keys.takeover(host.host_id), encode(record)), event]

    def _record(self, host: LostHost, step: Next, leader: Compare) -> None:
        """Write what is being done, if that is news."""
        quiet = self._quiet.get(host.host_id)
        record = record_of(host, step, quiet, now=self._clock.now(), now_s=self._clock.monotonic_s())
        if record == host.record:
            return
        key = keys.takeover(host.host_id)
        writes = (Put(key, encode(record)), *self._news(host.record, record))
        self._commit(Txn((leader, unchanged(key, host.record_revision)), writes))

    def _news(self, before: Takeover | None, after: Takeover) -> list[Put]:
        news = []
        if before is None:
            news.append(self._event(after.host_id, "host_lost", f"host {after.host_id} gives no life sign"))
        if after.phase is TakeoverPhase.HELD and (before is None or before.phase is not TakeoverPhase.HELD):
            news.append(self._event(after.host_id, "takeover_held", f"host {after.host_id} waits: {after.reason}"))
        return news

    def _end_records(self, view: View, leader: Compare) -> None:
        for entry in returned_hosts(view):
            host_id = entry.value.host_id
            self._end(entry, leader, (self._event(host_id, "host_back", f"host {host_id} gives a life sign again"),))
        for entry in old_records(view, self._clock.now()):
            self._end(entry, leader, ())

    def _end(self, entry: Entry[Takeover], leader: Compare, news: tuple[Put, ...]) -> None:
        try:
            self._commit(Txn((leader, unchanged(entry.key, entry.mod_revision)), (Delete(entry.key), *news)))
        except (StoreError, Unavailable) as error:
            logger.warning("record %s: %s", entry.key, error.message)

    def _commit(self, txn: Txn) -> bool:
        committed = self._store.commit(txn)
        if committed.ok:
            self._revision = committed.revision
        return committed.ok

    def _event(self, host_id: str, kind: str, message: str) -> Put:
        logger.info("%s", message)
        return event_put(self._clock, kind, message, about="host", about_id=host_id, actor="scheduler")


def _hosts_in(view: View) -> int:
    return sum(not entry.value.meta.deleted_at for entry in view.hosts.values())
