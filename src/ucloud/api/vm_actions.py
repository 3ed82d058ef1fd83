"""Start, stop, reboot: changes of what is wanted, made so that asking twice does no harm.

``boots`` counts the boots that were wanted; see ``model/vm``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ucloud.api.answers import Answer
from ucloud.api.failover import refuse_on_lost_host
from ucloud.api.nouns import VM, Way, change_object, read_for_change
from ucloud.api.objects import status_of_vm
from ucloud.api.requests import read_preconditions
from ucloud.api.schemas.fields import Body
from ucloud.api.schemas.parameters import ObjectPath, PostHeaders, WriteQuery
from ucloud.api.schemas.vm import VmStart, VmStop
from ucloud.api.site import Site
from ucloud.api.writes import Change, update
from ucloud.errors import Conflict
from ucloud.model.seen import GuestState, SeenVm
from ucloud.model.vm import Power, Vm, VmSpec

_ENDED = (GuestState.STOPPED, GuestState.CRASHED, GuestState.FAILED)


def start_vm(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: VmStart) -> Answer:
    """Start a VM; nothing happens if it runs."""

    def wanted(vm: Vm, seen: SeenVm | None) -> VmSpec:
        if vm.spec.power is Power.STOPPED or _ended(vm, seen):
            return replace(vm.spec, power=Power.RUNNING, boots=vm.spec.boots + 1)
        return vm.spec

    return _act(site, path.id, _way(query, header, body), "start", wanted)


def stop_vm(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: VmStop) -> Answer:
    """Ask the guest to power off; it is killed after its stop timeout."""

    def wanted(vm: Vm, _: SeenVm | None) -> VmSpec:
        return replace(vm.spec, power=Power.STOPPED, stop_timeout_s=_timeout_s(vm, body))

    return _act(site, path.id, _way(query, header, body), "stop", wanted)


def reboot_vm(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: VmStop) -> Answer:
    """Stop a VM like stop does, and start it again."""

    def wanted(vm: Vm, _: SeenVm | None) -> VmSpec:
        if vm.spec.power is Power.STOPPED:
            raise Conflict(f"failed to reboot {vm.meta.id}: it is stopped", hint="start it", code="vm_stopped")
        return replace(vm.spec, boots=vm.spec.boots + 1, stop_timeout_s=_timeout_s(vm, body))

    return _act(site, path.id, _way(query, header, body), "reboot", wanted)


def _ended(vm: Vm, seen: SeenVm | None) -> bool:
    """The guest of the newest boot is over: only a further one starts it."""
    return seen is not None and seen.state in _ENDED and seen.boots >= vm.spec.boots


def _timeout_s(vm: Vm, body: VmStop) -> int:
    return vm.spec.stop_timeout_s if body.timeout_s is None else body.timeout_s


def _way(query: WriteQuery, header: PostHeaders, body: Body) -> Way:
    return Way(read_preconditions(header.idempotency_key, "", body.digest_bytes()), query.dry_run, status=202)


def _act(site: Site, vm_id: str, way: Way, verb: str, wanted: Callable[[Vm, SeenVm | None], VmSpec]) -> Answer:
    def plan() -> Change[Vm]:
        read = read_for_change(site, VM, vm_id, way.conditions)
        vm = read.thing
        if verb != "stop":
            refuse_on_lost_host(site.view(), vm_id, verb)
        new = replace(vm, spec=wanted(vm, status_of_vm(vm, site.view())[2]))
        told = f"vm {vm.meta.name} was asked to {verb}"
        return update(site, "vm", read, new, kind=f"vm_{verb}_asked", event=told, would=verb)

    return change_object(site, VM, way, plan)
