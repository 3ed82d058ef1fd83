"""A simulated scheduler process: elected by a key on a lease, then passes of the real rules on a copy of the store.

Runs ``control/takeover.Takeovers``, ``scheduler/migrations`` and ``scheduler/passes`` through a ``Door``, so that each
of their store calls takes time and may fail. Compose is left out: simulated agents read placements themselves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.scenario.simulation.door import Door, Favourite
from tests.scenario.simulation.engine import Place
from tests.scenario.simulation.watcher import Watcher
from ucloud.control.pool_fencing import PoolFencing
from ucloud.control.takeover import Outcome, Takeovers
from ucloud.errors import Error, OutcomeUnknown
from ucloud.model.migration import MigrationState, Phase
from ucloud.scheduler.commit import commit_pass
from ucloud.scheduler.drain import to_place_anew
from ucloud.scheduler.migrations import plan_migrations
from ucloud.scheduler.passes import plan_pass
from ucloud.scheduler.steps import commit_migrations
from ucloud.store import keys
from ucloud.store.api import Committed, Compare, Delete, Item, Put, Reading, Txn, absent, created_at
from ucloud.store.view import Entry, View
from ucloud.system.clock import format_time

if TYPE_CHECKING:
    from tests.scenario.simulation.cloud import Cloud

_TTL_S = 2
_KEEP_S = 0.5
_RESYNC_S = 5.0
_ELECTION = "scheduler"


class _Proxy:
    """Store, Clock and History of the pass that runs now."""

    def __init__(self) -> None:
        self.door: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.door, name)


class Scheduler:
    def __init__(self, cloud: Cloud, name: str, machine: Place) -> None:
        self.cloud = cloud
        self.engine = cloud.engine
        self.name = name
        self.machine = machine
        self.place = Place(f"{name}/scheduler", machine)
        self._key = keys.election(_ELECTION) + f"{name}-{cloud.next_pid()}"
        self._lease = 0
        self._created = 0
        self._valid_until_s = -1.0
        self._leads = False
        self._passing = False
        self._woken = False
        self._wake_s = -1.0
        self._favourite = Favourite(cloud.engine, cloud.cluster)
        self._proxy = _Proxy()
        proxy: Any = self._proxy
        self._pools = PoolFencing(cloud, start=lambda work: work())
        self._takeovers = Takeovers(proxy, cloud.settings, proxy, pools=self._pools, history=proxy)
        self.watcher = Watcher(
            self.engine,
            cloud.network,
            cloud.cluster,
            node=machine.name,
            place=self.place,
            on_change=lambda changed: self._wake(),
        )
        cloud.hub.add(self.watcher)
        self.watcher.wake()
        self._stand()

    # Election

    def _door(self) -> Any:
        door = self._plain_door()
        on = self.cloud.rules
        lax = not (on.takeover_in_one_term and on.takeover_compares_registered and on.lock_is_compared_at_placement)
        return LaxStore(door, self.cloud) if lax or not on.move_compares_the_record else door

    def _stand(self) -> None:
        sent_s = self.engine.now_s

        def body(door: Door) -> tuple[int, int]:
            lease = door.grant_lease(_TTL_S)
            try:
                done = door.commit(Txn((absent(self._key),), (Put(self._key, b"{}", lease.id),)))
                return lease.id, done.revision
            except OutcomeUnknown:
                item = door.get(self._key)
                return lease.id, item.create_revision if item else 0

        def stood(answer: Any) -> None:
            if isinstance(answer, Error) or not answer[1]:
                self.engine.after(_KEEP_S, self._stand, place=self.place)
                return
            self._lease, self._created = answer
            self._valid_until_s = sent_s + _TTL_S
            self._keep()

        self._plain_door().run(body, stood)

    def _plain_door(self) -> Door:
        return Door(
            self.engine,
            self.cloud.cluster,
            node=self.machine.name,
            place=self.place,
            tell=self.cloud.tell,
            favourite=self._favourite,
        )

    def _keep(self) -> None:
        sent_s = self.engine.now_s

        def body(door: Door) -> list[Item]:
            door.keep_lease(self._lease)
            return list(door.list(keys.election(_ELECTION)).items)

        def kept(answer: Any) -> None:
            if isinstance(answer, Error):
                self.engine.after(0.1, self._keep, place=self.place)
                return
            if not any(item.key == self._key and item.create_revision == self._created for item in answer):
                self._leads = False
                self._key = keys.election(_ELECTION) + f"{self.name}-{self.cloud.next_pid()}"
                self._stand()
                return
            lapsed = self.engine.now_s >= self._valid_until_s
            self._valid_until_s = sent_s + _TTL_S
            first = min(answer, key=lambda item: item.create_revision)
            if first.key == self._key and not self._leads:
                self._leads = True
                self.cloud.tell("elected", scheduler=self.name)
                self._wake()
            elif lapsed and self._leads:
                self._wake()
            self.engine.after(_KEEP_S, self._keep, place=self.place)

        self._plain_door().run(body, kept)

    @property
    def is_leader(self) -> bool:
        return self._leads and self.engine.now_s < self._valid_until_s

    @property
    def _leader(self) -> Compare:
        return created_at(self._key, self._created)

    # Passes

    def _wake(self) -> None:
        if self._passing:
            self._woken = True
        elif self.is_leader:
            self._passing = True
            self.engine.after(0.005, self._takeover_part, place=self.place)

    def _wake_in(self, delay_s: float) -> None:
        at_s = self.engine.now_s + delay_s
        if self.engine.now_s < self._wake_s <= at_s:
            return
        self._wake_s = at_s
        self.engine.after(delay_s, self._wake, place=self.place)

    def _takeover_part(self) -> None:
        self._woken = False
        view, before = self._view(), copy.copy(self._takeovers._quiet)

        def body(door: Any) -> Outcome:
            self._proxy.door = door
            return self._takeovers.run(view, self._leader)

        def restore() -> None:
            self._takeovers._quiet = copy.copy(before)

        self._run(body, self._migration_part, restore)

    def _migration_part(self, outcome: Any) -> None:
        again_s = outcome.again_s if isinstance(outcome, Outcome) else 0.5
        self._wake_in(min(again_s, _RESYNC_S))
        view = self._view()
        steps = plan_migrations(view, self.cloud.settings, self.engine.wall())
        if not steps:
            self._placement_part(None)
            return

        def body(door: Any) -> int:
            return commit_migrations(
                door, steps, view_revision=view.revision, leader=self._leader, clock=door, history=door
            )

        self._run(body, self._placement_part)

    def _placement_part(self, _: Any) -> None:
        view = self._view()
        at = format_time(self.engine.wall())
        planned = plan_pass(view, self.cloud.settings, at=at, movable=to_place_anew(view))
        if not planned:
            self._over(None)
            return

        def body(door: Any) -> int:
            return commit_pass(
                door, planned, view_revision=view.revision, leader=self._leader, clock=door, history=door
            )

        self._run(body, self._over)

    def _over(self, answer: Any) -> None:
        self._passing = False
        if self._woken:
            self._woken = False
            self._wake()
        elif isinstance(answer, Error):
            self._wake_in(0.5)

    def _run(
        self, body: Callable[[Any], Any], done: Callable[[Any], None], restore: Callable[[], None] = lambda: None
    ) -> None:
        """A lax store wraps the door of the same run."""
        door = self._door()
        if isinstance(door, LaxStore):
            door.door.run(lambda _: body(door), done, restore)
        else:
            door.run(body, done, restore)

    def _view(self) -> View:
        view = self.watcher.view()
        on = self.cloud.rules
        if not on.lock_is_compared_at_placement:
            view = replace(view, locks={})
        if not on.takeover_compares_registered:
            view = replace(
                view, registered={host: replace(entry, mod_revision=1) for host, entry in view.registered.items()}
            )
        if not on.move_waits_for_both:
            view = replace(view, seen_vms=_as_if_both_stood_still(view))
        return view


def _as_if_both_stood_still(view: View) -> Any:
    """Reports that say what a move waits for, whatever the hosts said."""
    seen = dict(view.seen_vms)
    for record in (entry.value for entry in view.migrations.values() if entry.value.phase is Phase.SENDING):
        for host_id, state in ((record.source, MigrationState.COMPLETED), (record.target, MigrationState.RECEIVED)):
            entry: Entry[Any] | None = seen.get((host_id, record.vm_id))
            if entry is not None and entry.value.migration is not None:
                part = replace(entry.value.migration, state=state)
                seen[host_id, record.vm_id] = replace(entry, value=replace(entry.value, migration=part))
    return seen


class LaxStore:
    """A store on which some compares and the raft term are forgotten: for rules that are switched off."""

    def __init__(self, door: Door, cloud: Cloud) -> None:
        self.door = door
        self._rules = cloud.rules
        self.get, self.list, self.tell = door.get, door.list, door.tell
        self.monotonic_s, self.now = door.monotonic_s, door.now

    def read(self, wanted: Sequence[str]) -> Reading:
        reading = self.door.read(wanted)
        if not self._rules.takeover_in_one_term:
            reading = replace(reading, term=0)
        if not self._rules.takeover_compares_registered:
            items = {
                key: replace(item, mod_revision=1) if item and key.startswith(keys.registered_all()) else item
                for key, item in reading.items.items()
            }
            reading = replace(reading, items=items)
        return reading

    def commit(self, txn: Txn) -> Committed:
        kept = tuple(compare for compare in txn.compares if not self._is_forgotten(compare, txn))
        done = self.door.commit(replace(txn, compares=kept))
        return replace(done, term=0) if not self._rules.takeover_in_one_term else done

    def _is_forgotten(self, compare: Compare, txn: Txn) -> bool:
        on = self._rules
        if not on.takeover_compares_registered and compare.key.startswith(keys.registered_all()):
            return True
        if not on.lock_is_compared_at_placement and compare.key.startswith(keys.locks()):
            return not any(isinstance(write, Delete) and write.key == compare.key for write in txn.writes)
        return not on.move_compares_the_record and compare.key.startswith(keys.migrations())
