"""What all nouns have in common: show, list, change, tombstone. The modules of the nouns say what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from ucloud.api.answers import Answer, etag
from ucloud.api.lists import list_page
from ucloud.api.objects import Scene, Thing, document_of
from ucloud.api.requests import Preconditions
from ucloud.api.schemas.parameters import ListQuery
from ucloud.api.site import Site
from ucloud.api.writes import Change, Done, Read, check_if_match, check_not_deleted, commit, read_object, update
from ucloud.errors import InUse, NotFound, Protected
from ucloud.ipam.claims import Taking
from ucloud.model.claim import Claim
from ucloud.model.host import Host
from ucloud.model.image import Image
from ucloud.model.key import Key
from ucloud.model.meta import Meta
from ucloud.model.network import Network
from ucloud.model.vm import Vm
from ucloud.store import keys
from ucloud.store.api import Delete, Put, unchanged
from ucloud.store.codec import decode, decode_as
from ucloud.store.view import Entry, View
from ucloud.system.identity import new_id

T = TypeVar("T", bound=Thing)
_GONE_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Noun(Generic[T]):
    """``table`` are its objects in a view; ``path`` is where they are in the API."""

    name: str
    cls: type[T]
    table: Callable[[View], Mapping[str, Entry[T]]]

    @property
    def path(self) -> str:
        return f"/v1/{self.name}s"


VM = Noun("vm", Vm, lambda view: view.vms)
NETWORK = Noun("network", Network, lambda view: view.networks)
IMAGE = Noun("image", Image, lambda view: view.images)
KEY = Noun("key", Key, lambda view: view.keys)
HOST = Noun("host", Host, lambda view: view.hosts)


def list_objects(site: Site, noun: Noun[T], query: ListQuery, host: str | None = None) -> Answer:
    view = site.view()
    things = [entry.value for entry in noun.table(view).values()]
    return Answer(list_page(things, scene_of(site), query, host).shown(view.revision))


def scene_of(site: Site) -> Scene:
    return Scene(site.view(), site.config.scheduler)


def find_shown(site: Site, noun: Noun[T], object_id: str) -> T:
    """From the cache. Raises NotFound."""
    entry = noun.table(site.view()).get(object_id)
    if entry is None:
        raise NotFound(f"failed to find {noun.name} {object_id[:80]!r}: there is none")
    return entry.value


def get_object(site: Site, noun: Noun[T], object_id: str) -> Answer:
    return show(site, find_shown(site, noun, object_id))


def show(site: Site, thing: Thing, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    document = document_of(thing, scene_of(site))
    return Answer(document, status, {"ETag": etag(thing.meta.generation), **(headers or {})})


def find_named(site: Site, noun: Noun[T], project: str, reference: str) -> Read[T]:
    """An object of the project by id or, for nouns with unique names, by name; a fresh read. Raises NotFound."""
    for object_id in (reference, _id_of_name(site, noun, project, reference)):
        item = site.store.get(keys.spec(noun.name, object_id)) if object_id else None
        if item is not None:
            thing = decode_as(noun.cls, item.value)
            if thing.meta.project == project:
                check_not_deleted(thing.meta)
                return Read(thing, item.key, item.mod_revision)
    raise NotFound(
        f"failed to find {noun.name} {reference}: project {project} has none of this id or name",
        hint=f"'ucloud {noun.name} list' shows what there is",
    )


def _id_of_name(site: Site, noun: Noun[T], project: str, name: str) -> str:
    item = site.store.get(keys.claim_name(noun.name, project, name))
    return decode_as(Claim, item.value).owner_id if item else ""


def use(read: Read[Any], user_id: str) -> Taking:
    """In the transaction of a user of ``read``: it must still be so, and whoever deletes it will notice the user.

    The budget key of a thing in use is a bell, not a record: its value is never read, users ring it without comparing
    it, and whoever deletes compares that it has not rung since the users were listed. If users compared it as well,
    VMs created at once in one network would make each other fail, of whom none disturbs another. Nothing is lost by a
    put that compares only ``read``: a delete that came first has changed ``read``.
    """
    return Taking((read.still(),), (Put(keys.budget(read.thing.meta.id), user_id.encode()),))


@dataclass(frozen=True, slots=True)
class Way:
    """How a change is asked for and answered."""

    conditions: Preconditions
    dry_run: bool = False
    status: int = 200
    located: bool = False


def change_object(
    site: Site,
    noun: Noun[T],
    way: Way,
    plan: Callable[[], Change[T]],
    preview: Callable[[T], dict[str, Any]] | None = None,
) -> Answer:
    """Commit what ``plan`` says, or only tell it in a dry run, with what ``preview`` adds."""
    if way.dry_run:
        change = plan()
        return tell(site, change, preview(change.thing) if preview else {})
    return answer_done(site, noun, way, commit(site, noun.name, noun.cls, plan, way.conditions))


def tell(site: Site, change: Change[T], extra: Mapping[str, Any]) -> Answer:
    """The answer to a dry run."""
    told = document_of(change.thing, scene_of(site))
    if change.would == "create":
        del told["id"]  # there is none yet
    return Answer({"dry_run": True, "would": change.would, "object": told, **extra})


def answer_done(site: Site, noun: Noun[T], way: Way, done: Done[T]) -> Answer:
    """The object, once the cache shows it."""
    if done.revision:
        site.catch_up(done.revision)
    headers = {"Location": f"{noun.path}/{done.thing.meta.id}"} if way.located else {}
    if done.replayed:
        headers["Idempotent-Replay"] = "true"
    return show(site, done.thing, status=way.status, headers=headers)


def read_for_change(site: Site, noun: Noun[T], object_id: str, conditions: Preconditions) -> Read[T]:
    read = read_object(site, noun.name, noun.cls, object_id)
    check_if_match(read.thing.meta, conditions)
    check_not_deleted(read.thing.meta)
    return read


class Described(Protocol):
    """What the bodies of creates have in common."""

    @property
    def name(self) -> str: ...
    @property
    def project(self) -> str: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def delete_protection(self) -> bool: ...


def new_meta(site: Site, noun: str, body: Described, object_id: str = "") -> Meta:
    return Meta(
        id=object_id or new_id(noun),
        name=body.name,
        project=body.project,
        created_at=site.now(),
        labels=body.labels,
        delete_protection=body.delete_protection,
    )


def changed_meta(meta: Meta, given: Mapping[str, Any]) -> Meta:
    names = ("name", "labels", "delete_protection")
    return replace(meta, **{name: given[name] for name in names if name in given})


def delete_object(
    site: Site,
    noun: Noun[T],
    object_id: str,
    way: Way,
    uses: Callable[[Vm, str], bool] | None = None,
    *,
    prepare: Callable[[Read[T]], tuple[T, Taking]] | None = None,
) -> Answer:
    """Set the tombstone; the elected cleaner does the rest.

    ``uses`` tells whether a VM needs the object; ``prepare`` may refuse, change the object and add to the transaction.
    """
    if prepare is None:

        def prepare(read: Read[T]) -> tuple[T, Taking]:
            return read.thing, _refuse_used(site, noun.name, object_id, uses) if uses else Taking()

    checked = prepare
    answer = change_object(site, noun, way, lambda: _plan_delete(site, noun, object_id, way.conditions, checked))
    if not way.dry_run:
        _wait_gone(site, noun, object_id)
    return answer


def _plan_delete(
    site: Site,
    noun: Noun[T],
    object_id: str,
    conditions: Preconditions,
    prepare: Callable[[Read[T]], tuple[T, Taking]],
) -> Change[T]:
    read = read_object(site, noun.name, noun.cls, object_id)
    meta = read.thing.meta
    check_if_match(meta, conditions)
    if meta.deleted_at:
        return Change(read.thing, read.key, "nothing")
    if meta.delete_protection:
        raise Protected(f"failed to delete {meta.id}: its delete protection is on", hint="switch it off first")
    thing, unused = prepare(read)
    gone = replace(thing, meta=replace(meta, deleted_at=site.now()))
    told = f"{noun.name} {meta.name} is to be deleted"
    return update(site, noun.name, read, gone, kind=f"{noun.name}_deleted", event=told, would="delete").with_taking(
        unused
    )


def _refuse_used(site: Site, noun: str, object_id: str, uses: Callable[[Vm, str], bool]) -> Taking:
    """Raises InUse. The guard key is read before the VMs: a VM that comes in between has written it."""
    guard = keys.budget(object_id)
    item = site.store.get(guard)
    vms = (decode(listed.value) for listed in site.store.list(keys.specs(VM.name)).items)
    users = tuple(sorted(vm.meta.id for vm in vms if uses(vm, object_id)))
    if users:
        raise InUse(
            f"failed to delete {noun} {object_id}: {len(users)} VMs use it", users=users, hint="delete these VMs first"
        )
    return Taking((unchanged(guard, item.mod_revision if item else 0),), (Delete(guard),))


def _wait_gone(site: Site, noun: Noun[T], object_id: str) -> None:
    """What no host has is cleaned away at once: wait for that a moment, so that the next request does not see it."""
    until_s = site.clock.monotonic_s() + _GONE_WAIT_S
    view = site.view()
    while site.has_scheduler() and object_id in noun.table(view) and object_id not in view.placements:
        left_s = until_s - site.clock.monotonic_s()
        if left_s <= 0:
            return
        site.cache.next_snapshot(view.revision, left_s)
        view = site.view()
