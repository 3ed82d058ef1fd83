"""Virtual machines: create, show, change, delete; where they are and what they say."""

from __future__ import annotations

from typing import Any

from ucloud.api.answers import TEXT, Answer
from ucloud.api.nouns import (
    VM,
    Way,
    change_object,
    delete_object,
    find_shown,
    get_object,
    list_objects,
    read_for_change,
)
from ucloud.api.requests import read_preconditions
from ucloud.api.schemas.parameters import LogQuery, ObjectPath, PostHeaders, VmListQuery, WriteQuery
from ucloud.api.schemas.vm import VmCreate, VmUpdate
from ucloud.api.site import Site
from ucloud.api.vm_plans import plan_create, plan_update
from ucloud.errors import Conflict, NotFound
from ucloud.model.vm import Vm
from ucloud.scheduler.passes import snapshot_of
from ucloud.scheduler.plan import plan_placement
from ucloud.store.codec import to_plain
from ucloud.system.identity import new_id


def list_vms(site: Site, query: VmListQuery) -> Answer:
    """List VMs."""
    return list_objects(site, VM, query, query.host)


def get_vm(site: Site, path: ObjectPath) -> Answer:
    """Show a VM."""
    return get_object(site, VM, path.id)


def create_vm(site: Site, query: WriteQuery, header: PostHeaders, body: VmCreate) -> Answer:
    """Create a VM; a dry run also tells where it would be placed."""
    conditions = read_preconditions(header.idempotency_key, body.project, body.digest_bytes())
    vm_id = new_id("vm")
    way = Way(conditions, query.dry_run, status=201, located=True)
    return change_object(site, VM, way, lambda: plan_create(site, vm_id, body), lambda vm: _preview(site, vm))


def update_vm(site: Site, path: ObjectPath, query: WriteQuery, body: VmUpdate) -> Answer:
    """Change a VM; ``status.pending`` then names what needs a stop and a start."""
    way = Way(read_preconditions(None, ""), query.dry_run)
    return change_object(
        site, VM, way, lambda: plan_update(site, read_for_change(site, VM, path.id, way.conditions), body)
    )


def delete_vm(site: Site, path: ObjectPath, query: WriteQuery) -> Answer:
    """Delete a VM: its host ends it, then everything it had is given back."""
    way = Way(read_preconditions(None, ""), query.dry_run, status=202)
    return delete_object(site, VM, path.id, way)


def get_placement(site: Site, path: ObjectPath) -> Answer:
    """Explain where a VM was placed and why."""
    find_shown(site, VM, path.id)
    entry = site.view().placements.get(path.id)
    if entry is None:
        raise NotFound(f"failed to explain {path.id}: the scheduler has not decided yet", hint="try again in a moment")
    return Answer(to_plain(entry.value))


def get_log(site: Site, path: ObjectPath, query: LogQuery) -> Answer:
    """Show the end of a VM's serial log, as its host has it."""
    vm = find_shown(site, VM, path.id)
    data = site.door.serial_log(door_of_vm(site, vm), vm.meta.id, query.bytes)
    return Answer(data, content_type=TEXT)


def get_console(site: Site, path: ObjectPath) -> Answer:
    """Where the WebSocket of a VM's serial console is."""
    vm = find_shown(site, VM, path.id)
    return Answer({"url": f"ws://{site.config.api.stream_listen}/v1/vms/{vm.meta.id}/console"})


def door_of_vm(site: Site, vm: Vm) -> str:
    """The URL of the agent that has the VM. Raises Conflict."""
    view = site.view()
    placement = view.placements.get(vm.meta.id)
    host_id = placement.value.host_id if placement else ""
    report = view.seen_hosts.get(host_id)
    if report is None:
        raise Conflict(
            f"failed to reach {vm.meta.id}: no host has it yet", hint="wait until it is placed", code="no_host"
        )
    return report.value.door


def _preview(site: Site, vm: Vm) -> dict[str, Any]:
    """Where the scheduler would put it, decided by its own function on what is known now."""
    view = site.view()
    placement = plan_placement(vm, snapshot_of(view, site.config.scheduler))
    return {"placement": {"host_id": placement.host_id, "decision": to_plain(placement.decision)}}
