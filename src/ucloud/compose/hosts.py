"""The end of hosts that were removed, and of marks that nothing needs any more. Pure.

Must hold: a host ends only when no VM is placed there, none needs what is stored there, and it can run nothing: it
lives and has answered that nothing is left, or it was taken over, or it never registered. Its mark stays: were the
machine ever switched on again, its guard must find it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ucloud.compose.vm_documents import Carriers, carriers_of_machines, is_needed_elsewhere
from ucloud.model.guard import Fenced
from ucloud.model.host import Host
from ucloud.store import keys
from ucloud.store.api import Compare, Put, absent, unchanged
from ucloud.store.claims import claims_of
from ucloud.store.view import Entry, View

# In one transaction: a host with more is emptied in several.
DELETES_LIMIT = 400


@dataclass(frozen=True, slots=True)
class Ending:
    """An object that can go: everything to delete, and to write, if what is compared is unchanged.

    If it is not whole, the object stays for now: there is too much of it for one transaction.
    """

    noun: str
    entry: Entry[Any]
    compares: tuple[Compare, ...]
    deletes: tuple[str, ...]
    puts: tuple[Put, ...] = ()
    is_whole: bool = True


def ending_of(noun: str, entry: Entry[Any]) -> Ending:
    """The end of an object that only its own key and claims are left of."""
    compares = (unchanged(entry.key, entry.mod_revision),)
    return Ending(noun, entry, compares, (entry.key, *claims_of(entry.value)))


def plan_host_endings(view: View) -> list[Ending]:
    deleted = [entry for entry in view.hosts.values() if entry.value.meta.deleted_at]
    carriers = carriers_of_machines(view) if deleted else {}
    return [ending for entry in deleted if (ending := _host_ending(view, entry, carriers))]


def _host_ending(view: View, entry: Entry[Host], carriers: Carriers) -> Ending | None:
    host_id = entry.value.meta.id
    if any(placement.value.host_id == host_id for placement in view.placements.values()):
        return None
    documents = ((place, document.value) for place, document in view.wanted_vms.items() if place[0] == host_id)
    if any(is_needed_elsewhere(view, place, document, carriers) for place, document in documents):
        return None
    alive = view.alive.get(host_id)
    leftovers = tuple(_keys_on(view, host_id))
    if alive is not None:
        told = any(key.startswith(keys.wanted_of(host_id)) for key in leftovers)
        if told or any(on_host == host_id for on_host, _ in view.locks):
            return None
        silence = unchanged(alive.key, alive.mod_revision)
    else:
        if host_id in view.registered and view.taken_over(host_id) is None:
            return None
        silence = absent(keys.alive(host_id))
    registered = view.registered.get(host_id)
    compares = (
        unchanged(entry.key, entry.mod_revision),
        unchanged(keys.registered(host_id), registered.mod_revision if registered else 0),
        silence,
    )
    if len(leftovers) > DELETES_LIMIT:
        return Ending("host", entry, compares, leftovers[:DELETES_LIMIT], is_whole=False)
    own = (keys.registered(host_id), keys.alive(host_id), keys.takeover(host_id), keys.budget(host_id))
    return Ending("host", entry, compares, (entry.key, *own, *leftovers, *claims_of(entry.value)))


def _keys_on(view: View, host_id: str) -> Iterator[str]:
    """Everything that is stored under the host's name, but for its marks."""
    tables: tuple[Mapping[tuple[str, str], Entry[Any]], ...] = (
        view.wanted_vms,
        view.wanted_networks,
        view.wanted_blobs,
        view.seen_vms,
        view.seen_networks,
        view.locks,
    )
    for table in tables:
        yield from (entry.key for (on_host, _), entry in table.items() if on_host == host_id)
    yield from (keys.secret_user_data(host_id, vm_id) for on_host, vm_id in view.wanted_vms if on_host == host_id)
    if host_id in view.seen_hosts:
        yield view.seen_hosts[host_id].key


def plan_old_marks(view: View) -> tuple[Entry[Fenced], ...]:
    """Marks of incarnations that a newer, living one of their host has followed: it began after all was reaped."""
    return tuple(
        entry
        for (host_id, incarnation), entry in sorted(view.fenced.items())
        if host_id in view.alive
        and host_id in view.registered
        and incarnation not in (view.alive[host_id].value.incarnation, view.registered[host_id].value.incarnation)
    )
