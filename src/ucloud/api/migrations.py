"""Live migrations: asking for one, cancelling it, and how it goes. The scheduler does the rest.

Writes only the request (spec/migration/<vm>), comparing the scheduler's record: so a request is never made of a VM that
is on its way already.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ucloud.api.answers import Answer
from ucloud.api.nouns import HOST, VM, Way, change_object, find_named, find_shown, read_for_change
from ucloud.api.requests import Preconditions, read_preconditions
from ucloud.api.schemas.migration import VmCancelMigration, VmMigrate
from ucloud.api.schemas.parameters import ObjectPath, PostHeaders, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import ACTOR, Change, Read
from ucloud.errors import Conflict, NotFound
from ucloud.model.meta import DEFAULT_PROJECT
from ucloud.model.migration import Migration, MigrationRequest, Phase, Role, SeenMigration
from ucloud.model.vm import Vm
from ucloud.scheduler.passes import snapshot_of
from ucloud.scheduler.targets import Choice, choose_target, find_obstacle
from ucloud.store import keys
from ucloud.store.api import Compare, Put, unchanged
from ucloud.store.codec import decode_as, encode, to_plain
from ucloud.store.events import event_put
from ucloud.store.view import View
from ucloud.system.identity import new_id

WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class _Stored:
    """Record and request as just read; None for none."""

    record: Migration | None
    request: MigrationRequest | None
    compares: tuple[Compare, ...]

    @property
    def active(self) -> Migration | None:
        return self.record if self.record is not None and not self.record.is_over else None

    @property
    def waiting(self) -> MigrationRequest | None:
        """A request that has no answer yet."""
        if self.request is None or (self.record is not None and self.record.answers(self.request)):
            return None
        return self.request


def migrate_vm(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: VmMigrate) -> Answer:
    """Move a VM to another host while it runs; a dry run tells to which."""
    way = Way(read_preconditions(header.idempotency_key, "", body.digest_bytes()), dry_run=query.dry_run, status=202)
    to_host_id = find_named(site, HOST, DEFAULT_PROJECT, body.to_host).thing.meta.id if body.to_host else ""
    return change_object(
        site,
        VM,
        way,
        lambda: _plan_request(site, path.id, to_host_id, way.conditions),
        lambda vm: _preview(_choose(site, vm, to_host_id)),
    )


def cancel_migration(
    site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: VmCancelMigration
) -> Answer:
    """Cancel a VM's migration: it goes on where it is, unless it has moved already."""
    way = Way(read_preconditions(header.idempotency_key, "", body.digest_bytes()), dry_run=query.dry_run, status=202)
    return change_object(site, VM, way, lambda: _plan_cancel(site, path.id, way.conditions))


def get_migration(site: Site, path: ObjectPath) -> Answer:
    """Show how a VM's newest migration goes or went."""
    find_shown(site, VM, path.id)
    shown = migration_document(site.view(), path.id)
    if shown is None:
        raise NotFound(f"failed to show the migration of {path.id}: there is none")
    return Answer(shown)


def refuse_while_migrating(site: Site, vm_id: str, deed: str) -> Compare:
    """Holds as long as the VM does not begin to migrate. Raises Conflict if it migrates."""
    stored = _read(site, vm_id)
    if stored.active:
        raise Conflict(
            f"failed to {deed} {vm_id}: it is migrating from {stored.active.source} to {stored.active.target}",
            hint="wait until that is over, or cancel it",
            code="vm_migrating",
        )
    return stored.compares[0]


def _read(site: Site, vm_id: str) -> _Stored:
    record_key, request_key = keys.migration(vm_id), keys.spec("migration", vm_id)
    found = site.store.read((record_key, request_key)).items
    record, request = found[record_key], found[request_key]
    return _Stored(
        decode_as(Migration, record.value) if record else None,
        decode_as(MigrationRequest, request.value) if request else None,
        (
            unchanged(record_key, record.mod_revision if record else 0),
            unchanged(request_key, request.mod_revision if request else 0),
        ),
    )


def _plan_request(site: Site, vm_id: str, to_host_id: str, conditions: Preconditions) -> Change[Vm]:
    read = read_for_change(site, VM, vm_id, conditions)
    stored = _read(site, vm_id)
    refuse_while_migrating(site, vm_id, "migrate")
    if stored.waiting and not stored.waiting.cancelled:
        raise Conflict(
            f"failed to migrate {vm_id}: that was asked for already and waits for its turn", code="vm_migrating"
        )
    _choose(site, read.thing, to_host_id)
    request = MigrationRequest(vm_id, new_id("migration"), to_host_id, site.now())
    return _change(site, read, stored, request, "migrate")


def _plan_cancel(site: Site, vm_id: str, conditions: Preconditions) -> Change[Vm]:
    read = read_for_change(site, VM, vm_id, conditions)
    stored = _read(site, vm_id)
    if stored.active and stored.active.phase is Phase.MOVED:
        raise Conflict(
            f"failed to cancel the migration of {vm_id}: it has moved to {stored.active.target} already",
            code="migration_too_late",
        )
    if stored.active:
        kept = stored.request if stored.request and stored.request.id == stored.active.id else None
        request = kept or MigrationRequest(vm_id, stored.active.id, stored.active.target, site.now())
    elif stored.waiting:
        request = stored.waiting
    else:
        raise Conflict(f"failed to cancel the migration of {vm_id}: it is not migrating", code="not_migrating")
    if request.cancelled or (stored.active and stored.active.phase is Phase.ABORTING):
        return Change(read.thing, read.key, "nothing")
    return _change(site, read, stored, replace(request, cancelled=True), "cancel")


def _change(site: Site, read: Read[Vm], stored: _Stored, request: MigrationRequest, would: str) -> Change[Vm]:
    meta = read.thing.meta
    deed = "migrate" if would == "migrate" else "cancel its migration"
    where = f" to {request.to_host_id}" if would == "migrate" and request.to_host_id else ""
    told = event_put(
        site.clock,
        f"vm_{would}_asked" if would == "migrate" else "vm_migration_cancel_asked",
        f"vm {meta.name} was asked to {deed}{where}",
        about="vm",
        about_id=meta.id,
        project=meta.project,
        actor=ACTOR,
    )
    put = Put(keys.spec("migration", meta.id), encode(request))
    return Change(read.thing, read.key, would, (read.still(), *stored.compares), (put, told), told)


def _choose(site: Site, vm: Vm, to_host_id: str) -> Choice:
    """Where it would go now. Raises Conflict if it cannot go at all."""
    view, vm_id = site.view(), vm.meta.id
    obstacle = find_obstacle(view, vm_id)
    if obstacle is not None:
        raise Conflict(f"failed to migrate {vm_id}: {obstacle.reason}", code="cannot_migrate")
    choice = choose_target(view, snapshot_of(view, site.config.scheduler), vm_id, wanted=to_host_id)
    if not choice.host_id:
        raise Conflict(f"failed to migrate {vm_id}: {choice.reason}", code="no_target")
    return choice


def _preview(choice: Choice) -> dict[str, Any]:
    return {"migration": {"to_host_id": choice.host_id, "reason": choice.reason}}


def migration_document(view: View, vm_id: str) -> dict[str, Any] | None:
    """All that is known about the VM's newest migration; None if there was none."""
    record_entry, request_entry = view.migrations.get(vm_id), view.migration_requests.get(vm_id)
    record = record_entry.value if record_entry else None
    request = request_entry.value if request_entry else None
    if record is None and request is None:
        return None
    waits = request is not None and (record is None or not (record.answers(request) or not record.is_over))
    source, target = _parts(view, record)
    shown: dict[str, Any] = {
        "vm_id": vm_id,
        "phase": WAITING,
        "reason": "waits for the scheduler, and for a turn of its hosts",
        "since": request.asked_at if request else "",
        "until": "",
        "percent": 0,
    }
    if record is not None and not waits:
        shown |= {name: getattr(record, name) for name in ("reason", "since", "until")}
        shown |= {"phase": record.phase.value, "percent": _percent(record, source)}
    return {
        **shown,
        "record": to_plain(record),
        "request": to_plain(request),
        "source": to_plain(source),
        "target": to_plain(target),
    }


def _parts(view: View, record: Migration | None) -> tuple[SeenMigration | None, SeenMigration | None]:
    """What source and target say about this very migration."""
    found: dict[Role, SeenMigration | None] = {Role.SOURCE: None, Role.TARGET: None}
    if record is not None:
        for role, host_id in ((Role.SOURCE, record.source), (Role.TARGET, record.target)):
            report = view.seen_vms.get((host_id, record.vm_id))
            part = report.value.migration if report else None
            found[role] = part if part is not None and (part.id, part.role) == (record.id, role) else None
    return found[Role.SOURCE], found[Role.TARGET]


def _percent(record: Migration, source: SeenMigration | None) -> int:
    if record.phase in (Phase.MOVED, Phase.DONE):
        return 100
    if source is None or source.total_mib <= 0:
        return 0
    return min(100 * source.sent_mib // source.total_mib, 99)
