"""Which live migrations begin now: those that were asked for, then those that empty a draining host. Pure.

A request that cannot be met at all gets a record that says why; one that only has to wait for a turn of its hosts
waits, for as long as a migration may take. What drains is tried as long as the host drains.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from ucloud.config import SchedulerSection
from ucloud.model.migration import CAUSE_ASKED, CAUSE_DRAIN, Migration, Phase
from ucloud.scheduler.drain import is_migrating, plan_drain
from ucloud.scheduler.passes import snapshot_of
from ucloud.scheduler.snapshot import Snapshot
from ucloud.scheduler.steps import Step, passed_s
from ucloud.scheduler.targets import choose_target, find_obstacle, room_for
from ucloud.store import keys
from ucloud.store.api import Compare, unchanged
from ucloud.store.view import View
from ucloud.system.clock import format_time


@dataclass(frozen=True, slots=True)
class _Wish:
    vm_id: str
    id: str
    cause: str
    to_host_id: str = ""


@dataclass(frozen=True, slots=True)
class _World:
    """What decisions are made on; ``busy`` is how many migrations each host sends or takes."""

    view: View
    settings: SchedulerSection
    now: datetime.datetime
    snapshot: Snapshot
    busy: Counter[str]

    def is_busy(self, host_id: str) -> bool:
        return self.busy[host_id] >= self.settings.migrations_per_host

    def after(self, step: Step) -> _World:
        """The world as it is once ``step`` was committed."""
        record = step.record
        if record is None or not step.claims_on:
            return self
        amount = room_for(self.view.placements[step.vm_id].value)
        return replace(
            self,
            snapshot=self.snapshot.with_claim(step.claims_on, amount),
            busy=self.busy + Counter((record.source, record.target)),
        )


def plan_beginnings(
    view: View, settings: SchedulerSection, now: datetime.datetime, silent: frozenset[str]
) -> Iterator[Step]:
    """First records, each decided with what those before it take."""
    drain_id = f"drain-{view.revision}"
    asked = _asked(view)
    named = {wish.vm_id for wish in asked}
    drained = [_Wish(vm_id, drain_id, CAUSE_DRAIN) for vm_id in plan_drain(view, now) if vm_id not in named]
    if not asked and not drained:
        return
    world = _World(view, settings, now, snapshot_of(view, settings, silent), _busy(view))
    for wish in (*asked, *drained):
        step = _begin(world, wish)
        if step is not None:
            yield step
            world = world.after(step)


def _asked(view: View) -> list[_Wish]:
    """Requests without an answer, the oldest first."""
    waiting = []
    for vm_id, entry in view.migration_requests.items():
        record = view.migrations.get(vm_id)
        answered = record is not None and record.value.answers(entry.value)
        if not answered and not is_migrating(view, vm_id):
            waiting.append(entry.value)
    waiting.sort(key=lambda request: (request.asked_at, request.vm_id))
    return [_Wish(request.vm_id, request.id, CAUSE_ASKED, request.to_host_id) for request in waiting]


def _busy(view: View) -> Counter[str]:
    active = [entry.value for entry in view.migrations.values() if not entry.value.is_over]
    return Counter(host_id for record in active for host_id in (record.source, record.target))


def _begin(world: _World, wish: _Wish) -> Step | None:
    """The first record; one that has ended already if a request cannot be met; None if it is to wait."""
    if wish.cause == CAUSE_ASKED and (reason := _withdrawn(world, wish)):
        return _refuse(world, wish, reason)
    placed = world.view.placements.get(wish.vm_id)
    if wish.cause == CAUSE_DRAIN and placed is not None and world.is_busy(placed.value.host_id):
        return None
    obstacle = find_obstacle(world.view, wish.vm_id)
    if obstacle is not None:
        return None if obstacle.passing else _refuse(world, wish, obstacle.reason)
    source = world.view.placements[wish.vm_id].value.host_id
    idle = {host_id: one for host_id, one in world.snapshot.candidates.items() if not world.is_busy(host_id)}
    if source in idle:
        now = replace(world.snapshot, candidates=idle)
        choice = choose_target(world.view, now, wish.vm_id, wanted=wish.to_host_id)
        if choice.host_id:
            return _first(world, wish, choice.host_id, choice.reason)
    if wish.cause == CAUSE_DRAIN:
        return None
    ever = choose_target(world.view, world.snapshot, wish.vm_id, wanted=wish.to_host_id)
    return None if ever.host_id else _refuse(world, wish, ever.reason)


def _withdrawn(world: _World, wish: _Wish) -> str:
    request = world.view.migration_requests[wish.vm_id].value
    if request.cancelled:
        return "it was cancelled before it began"
    if passed_s(request.asked_at, world.now) >= world.settings.migration_timeout_s:
        return "its turn did not come in time"
    return ""


def _refuse(world: _World, wish: _Wish, reason: str) -> Step | None:
    """A record that says why nothing was begun; none for what drains, of which ``drain.blocked`` tells."""
    if wish.cause != CAUSE_ASKED:
        return None
    placed = world.view.placements.get(wish.vm_id)
    request = world.view.migration_requests[wish.vm_id].value
    at = format_time(world.now)
    record = Migration(
        vm_id=wish.vm_id,
        id=wish.id,
        source=placed.value.host_id if placed else "",
        target=wish.to_host_id,
        generation=placed.value.generation if placed else 0,
        phase=Phase.CANCELLED if request.cancelled else Phase.FAILED,
        reason=reason,
        started_at=at,
        since=at,
        until=at,
        cancelled=request.cancelled,
        request_id=wish.id,
    )
    told = f"was not migrated: {reason}"
    return Step(
        wish.vm_id, record, _untouched(world.view, wish.vm_id), told=told, project=_project_of(world.view, wish)
    )


def _first(world: _World, wish: _Wish, target: str, why: str) -> Step:
    view = world.view
    placed, vm = view.placements[wish.vm_id], view.vms[wish.vm_id]
    source = placed.value.host_id
    lock = view.locks[source, wish.vm_id]
    request = view.migration_requests.get(wish.vm_id)
    at = format_time(world.now)
    record = Migration(
        vm_id=wish.vm_id,
        id=wish.id,
        source=source,
        target=target,
        generation=placed.value.generation,
        phase=Phase.PREPARING,
        reason=f"{target} prepares for it; it {why}",
        started_at=at,
        since=at,
        until=format_time(world.now + datetime.timedelta(seconds=world.settings.migration_timeout_s)),
        cause=wish.cause,
        cpus=placed.value.cpus,
        memory_mib=placed.value.memory_mib,
        source_incarnation=view.alive[source].value.incarnation,
        target_incarnation=view.alive[target].value.incarnation,
        request_id=request.value.id if request else "",
        lock_revision=lock.mod_revision,
    )
    compares = (
        *_untouched(view, wish.vm_id),
        unchanged(vm.key, vm.mod_revision),
        unchanged(placed.key, placed.mod_revision),
        unchanged(lock.key, lock.mod_revision),
        *(unchanged(view.alive[host_id].key, view.alive[host_id].mod_revision) for host_id in (source, target)),
    )
    told = f"migration from {source} to {target} began ({wish.cause})"
    return Step(wish.vm_id, record, compares, claims_on=target, told=told, project=_project_of(view, wish))


def _project_of(view: View, wish: _Wish) -> str:
    vm = view.vms.get(wish.vm_id)
    return vm.value.meta.project if vm else ""


def _untouched(view: View, vm_id: str) -> tuple[Compare, ...]:
    """Neither the record nor the request has changed."""
    record, request = view.migrations.get(vm_id), view.migration_requests.get(vm_id)
    return (
        unchanged(keys.migration(vm_id), record.mod_revision if record else 0),
        unchanged(keys.spec("migration", vm_id), request.mod_revision if request else 0),
    )
