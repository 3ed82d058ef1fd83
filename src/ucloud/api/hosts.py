"""Hosts: enrolling one, and whether it gets new VMs. What it has comes from its agent."""

from __future__ import annotations

from dataclasses import replace

from ucloud.api.answers import Answer
from ucloud.api.host_actions import confirming
from ucloud.api.nouns import (
    HOST,
    Way,
    change_object,
    changed_meta,
    delete_object,
    get_object,
    list_objects,
    read_for_change,
)
from ucloud.api.requests import read_preconditions
from ucloud.api.schemas.host import HostCreate, HostUpdate
from ucloud.api.schemas.parameters import HostDeleteQuery, ListQuery, ObjectPath, PostHeaders, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import Change, Read, create, refuse_taken, update
from ucloud.errors import Conflict, InUse
from ucloud.ipam.claims import Taking, take
from ucloud.model.host import Host, HostSpec
from ucloud.model.meta import DEFAULT_PROJECT, Meta
from ucloud.model.placement import Placement
from ucloud.store import keys
from ucloud.store.api import unchanged
from ucloud.store.claims import claims_of
from ucloud.store.codec import decode_as
from ucloud.system.identity import new_id


def list_hosts(site: Site, query: ListQuery) -> Answer:
    """List hosts."""
    return list_objects(site, HOST, query)


def get_host(site: Site, path: ObjectPath) -> Answer:
    """Show a host with what it has and what is taken of it."""
    return get_object(site, HOST, path.id)


def create_host(site: Site, query: WriteQuery, header: PostHeaders, body: HostCreate) -> Answer:
    """Enrol a host; its agent and guard use the same id."""
    conditions = read_preconditions(header.idempotency_key, DEFAULT_PROJECT, body.digest_bytes())
    host_id = body.id if body.id is not None else new_id("host")
    way = Way(conditions, query.dry_run, status=201, located=True)
    return change_object(site, HOST, way, lambda: _plan_create(site, host_id, body.name))


def update_host(site: Site, path: ObjectPath, query: WriteQuery, body: HostUpdate) -> Answer:
    """Change a host's labels or whether it gets new VMs."""
    way = Way(read_preconditions(None, ""), query.dry_run)

    def plan() -> Change[Host]:
        read = read_for_change(site, HOST, path.id, way.conditions)
        given = body.given()
        spec = replace(read.thing.spec, schedulable=given.get("schedulable", read.thing.spec.schedulable))
        new = Host(changed_meta(read.thing.meta, given), spec)
        return update(site, "host", read, new, kind="host_updated", event=f"host {new.meta.name} was changed")

    return change_object(site, HOST, way, plan)


def delete_host(site: Site, path: ObjectPath, query: HostDeleteQuery) -> Answer:
    """Remove a host for good: one without VMs, or with dead one that gives no life sign and is off."""
    way = Way(read_preconditions(None, ""), query.dry_run, status=202)

    def prepare(read: Read[Host]) -> tuple[Host, Taking]:
        if not query.dead:
            return read.thing, _refuse_used(site, path.id)
        deed = confirming(site, read)
        return replace(read.thing, spec=deed.spec), deed.taking

    return delete_object(site, HOST, path.id, way, prepare=prepare)


def _refuse_used(site: Site, host_id: str) -> Taking:
    """Raises InUse. Whoever places a VM there meanwhile has written the budget key."""
    guard = keys.budget(host_id)
    item = site.store.get(guard)
    placements = (decode_as(Placement, listed.value) for listed in site.store.list(keys.placements()).items)
    users = tuple(sorted(placement.vm_id for placement in placements if placement.host_id == host_id))
    if users:
        raise InUse(
            f"failed to remove host {host_id}: {len(users)} VMs are placed there",
            users=users,
            hint="'ucloud host drain' first; one that is lost for good: 'ucloud host remove --dead'",
        )
    return Taking((unchanged(guard, item.mod_revision if item else 0),))


def _plan_create(site: Site, host_id: str, name: str) -> Change[Host]:
    if site.store.get(keys.spec("host", host_id)) is not None:
        raise Conflict(f"failed to enrol host {host_id}: it is enrolled already", code="name_taken")
    host = Host(Meta(id=host_id, name=name, project=DEFAULT_PROJECT, created_at=site.now()), HostSpec())
    refuse_taken(site, "host", host.meta)
    taking = take(claims_of(host), owner_id=host_id, at=host.meta.created_at)
    return create(site, "host", host, taking, f"host {name} was enrolled")
