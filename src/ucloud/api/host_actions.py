"""What operators say about a host: empty it, use it again, its machine is off. Only wishes; the scheduler acts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ucloud.api.answers import Answer
from ucloud.api.nouns import HOST, Way, change_object, read_for_change
from ucloud.api.requests import read_preconditions
from ucloud.api.schemas.fields import Body
from ucloud.api.schemas.host import HostConfirmOff, HostDrain, HostUndrain
from ucloud.api.schemas.parameters import ObjectPath, PostHeaders, WriteQuery
from ucloud.api.site import Site
from ucloud.api.writes import Change, Read, update
from ucloud.errors import Conflict
from ucloud.ipam.claims import Taking
from ucloud.model.guard import LifeSign
from ucloud.model.host import Drain, Host, HostSpec
from ucloud.store import keys
from ucloud.store.api import absent, unchanged
from ucloud.store.codec import decode_as


@dataclass(frozen=True, slots=True)
class Deed:
    """What a host's spec becomes, in what words, and what else the transaction compares."""

    spec: HostSpec
    verb: str
    told: str
    taking: Taking = field(default_factory=Taking)


def drain_host(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: HostDrain) -> Answer:
    """Empty a host: its VMs move to others; with stop, those that cannot are stopped meanwhile."""
    how = Drain.STOP if body.stop else Drain.MOVE

    def plan(read: Read[Host]) -> Deed:
        _refuse_lost(site, read.thing)
        return Deed(replace(read.thing.spec, drain=how), "drain", "is to be drained")

    return _act(site, path.id, _way(query, header, body), plan)


def undrain_host(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: HostUndrain) -> Answer:
    """End a drain: the host gets VMs again, and those that were stopped start."""

    def plan(read: Read[Host]) -> Deed:
        return Deed(replace(read.thing.spec, drain=Drain.NONE), "undrain", "is no longer drained")

    return _act(site, path.id, _way(query, header, body), plan)


def _refuse_lost(site: Site, host: Host) -> None:
    view, host_id = site.view(), host.meta.id
    if host_id in view.registered and host_id not in view.alive:
        raise Conflict(
            f"failed to drain {host_id}: it gives no life sign, so nothing can move from there while it runs",
            hint="its VMs with failover restart are started elsewhere by themselves: 'ucloud failover status'",
            code="host_lost",
        )


def confirm_off(site: Site, path: ObjectPath, query: WriteQuery, header: PostHeaders, body: HostConfirmOff) -> Answer:
    """Say that a lost host's machine is off, so that its VMs may be started elsewhere without waiting."""

    def plan(read: Read[Host]) -> Deed:
        return confirming(site, read)

    return _act(site, path.id, _way(query, header, body), plan)


def confirming(site: Site, read: Read[Host]) -> Deed:
    """What says that the guard which registered last is off. Raises Conflict if the host lives, or never did."""
    host_id = read.thing.meta.id
    alive_key, registered_key = keys.alive(host_id), keys.registered(host_id)
    found = site.store.read((alive_key, registered_key)).items
    registered = found[registered_key]
    if found[alive_key] is not None:
        raise Conflict(
            f"failed to confirm that {host_id} is off: it gives a life sign",
            hint="'ucloud host drain' empties a host that lives",
            code="host_alive",
        )
    if registered is None:
        raise Conflict(f"failed to confirm that {host_id} is off: it never registered", code="host_new")
    incarnation = decode_as(LifeSign, registered.value).incarnation
    compares = (absent(alive_key), unchanged(registered_key, registered.mod_revision))
    spec = replace(read.thing.spec, confirmed_off=incarnation, confirmed_revision=registered.mod_revision)
    return Deed(spec, "confirm_off", "was confirmed to be off", Taking(compares))


def _way(query: WriteQuery, header: PostHeaders, body: Body) -> Way:
    return Way(read_preconditions(header.idempotency_key, "", body.digest_bytes()), query.dry_run, status=202)


def _act(site: Site, host_id: str, way: Way, plan: Callable[[Read[Host]], Deed]) -> Answer:
    def change() -> Change[Host]:
        read = read_for_change(site, HOST, host_id, way.conditions)
        deed = plan(read)
        new = replace(read.thing, spec=deed.spec)
        told = f"host {new.meta.name} {deed.told}"
        planned = update(site, "host", read, new, kind=f"host_{deed.verb}_asked", event=told, would=deed.verb)
        return planned if planned.would == "nothing" else planned.with_taking(deed.taking)

    return change_object(site, HOST, way, change)
