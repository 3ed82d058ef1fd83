"""The one way in which a change is committed: plan on fresh reads, compare all of them, try again when lost.

A handler gives a function that reads the store and returns a ``Change``; it is called again whenever another writer
was faster, so it must only read. A commit without an answer is neither done nor failed: the event that it would have
written is looked for, which nobody else writes or changes; and the same change is only tried again with compares that
the first one, if late, makes fail.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from ucloud.api.objects import Thing
from ucloud.api.requests import Preconditions
from ucloud.api.site import Site
from ucloud.errors import Conflict, NotFound, OutcomeUnknown, PreconditionFailed
from ucloud.ipam.claims import Taking
from ucloud.model.claim import REQUEST_KEPT, Claim
from ucloud.model.meta import Meta
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Txn, absent, unchanged
from ucloud.store.claims import claims_of
from ucloud.store.codec import decode_as, encode
from ucloud.store.events import event_put

T = TypeVar("T", bound=Thing)
ATTEMPTS = 16
ACTOR = "api"


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """``thing`` is what will be stored under ``key``; ``would`` is the word of a dry run, "nothing" for no change.

    ``proof`` is what only this very change writes, whatever becomes of ``key`` afterwards.
    """

    thing: T
    key: str
    would: str
    compares: tuple[Compare, ...] = ()
    writes: tuple[Put | Delete, ...] = ()
    proof: Put | None = None

    def with_taking(self, taking: Taking) -> Change[T]:
        return replace(self, compares=self.compares + taking.compares, writes=self.writes + taking.writes)


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """``replayed``: an earlier request with the same idempotency key had done it."""

    thing: T
    revision: int
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Read(Generic[T]):
    """An object as just read from the store."""

    thing: T
    key: str
    mod_revision: int

    def still(self) -> Compare:
        return unchanged(self.key, self.mod_revision)


def read_object(site: Site, noun: str, cls: type[T], object_id: str) -> Read[T]:
    """Raises NotFound."""
    key = keys.spec(noun, object_id)
    item = site.store.get(key)
    if item is None:
        raise NotFound(f"failed to find {noun} {object_id[:80]!r}: there is none")
    return Read(decode_as(cls, item.value), key, item.mod_revision)


def check_if_match(meta: Meta, preconditions: Preconditions) -> None:
    if preconditions.if_match is not None and f'"{meta.generation}"' not in preconditions.if_match:
        raise PreconditionFailed(
            f"failed to change {meta.id}: it is at generation {meta.generation} now",
            hint="read it again and repeat the change on what it is now",
        )


def check_not_deleted(meta: Meta) -> None:
    if meta.deleted_at:
        raise Conflict(f"failed to change {meta.id}: it is being deleted", code="being_deleted")


def create(site: Site, noun: str, thing: T, taking: Taking, event: str) -> Change[T]:
    """A new object with ``taking``, which has its claims."""
    key = keys.spec(noun, thing.meta.id)
    told = _event(site, f"{noun}_created", event, noun, thing.meta)
    writes = (Put(key, encode(thing)), told)
    return Change(thing, key, "create", (absent(key),), writes, told).with_taking(taking)


def update(site: Site, noun: str, old: Read[T], new: T, *, kind: str, event: str, would: str = "update") -> Change[T]:
    """``new`` in place of ``old`` with the next generation, and its claims moved; nothing if both are equal."""
    if new == old.thing:
        return Change(new, old.key, "nothing")
    bumped = replace(new, meta=replace(new.meta, generation=old.thing.meta.generation + 1))
    before, after = claims_of(old.thing), claims_of(bumped)
    claim = encode(Claim(owner_id=new.meta.id, at=site.now()))
    made = [claimed for claimed in after if claimed not in before]
    dropped = [claimed for claimed in before if claimed not in after]
    told = _event(site, kind, event, noun, new.meta)
    writes: list[Put | Delete] = [Put(old.key, encode(bumped)), told]
    writes += [Put(claimed, claim) for claimed in made]
    writes += [Delete(claimed) for claimed in dropped]
    return Change(bumped, old.key, would, (old.still(), *map(absent, made)), tuple(writes), told)


def _event(site: Site, kind: str, message: str, noun: str, meta: Meta) -> Put:
    return event_put(site.clock, kind, message, about=noun, about_id=meta.id, project=meta.project, actor=ACTOR)


def commit(site: Site, noun: str, cls: type[T], plan: Callable[[], Change[T]], conditions: Preconditions) -> Done[T]:
    """Plan and commit until it is done. Raises what ``plan`` raises, Conflict, or OutcomeUnknown."""
    unknown: list[Change[T]] = []
    for _ in range(ATTEMPTS):
        repeat = _read_repeat(site, conditions)
        if repeat.owner_id:
            return _replay(site, noun, cls, repeat.owner_id, was_ours=bool(unknown))
        done = _find_done(site, unknown)
        if done is not None:
            return done
        change = plan()
        if change.would == "nothing" and not conditions.repeat:
            return Done(change.thing, 0)
        txn = _transaction(site, change, repeat, conditions)
        try:
            committed = site.store.commit(txn)
        except OutcomeUnknown:
            unknown.append(change)
            continue
        if committed.ok:
            return Done(change.thing, committed.revision)
    if unknown:
        raise OutcomeUnknown(f"failed to write {unknown[-1].thing.meta.id}: the store did not say whether it did")
    raise Conflict(f"failed to write the {noun}: others changed the same things again and again", hint="try again")


def find_replay(site: Site, noun: str, cls: type[T], conditions: Preconditions) -> Done[T] | None:
    """What an earlier request with the same idempotency key made: for routes that work long before they commit."""
    repeat = _read_repeat(site, conditions)
    return _replay(site, noun, cls, repeat.owner_id, was_ours=False) if repeat.owner_id else None


@dataclass(frozen=True, slots=True)
class _Repeat:
    """``owner_id`` is the object that a request with this key made; else how to take the key."""

    owner_id: str = ""
    compares: tuple[Compare, ...] = ()


def _read_repeat(site: Site, conditions: Preconditions) -> _Repeat:
    if not conditions.repeat:
        return _Repeat()
    key = keys.claim_request(conditions.repeat)
    item = site.store.get(key)
    if item is None:
        return _Repeat(compares=(absent(key),))
    claim = decode_as(Claim, item.value)
    if _is_old(site, claim.at):
        return _Repeat(compares=(unchanged(key, item.mod_revision),))
    if claim.digest != conditions.body_digest:
        raise Conflict(
            "failed to repeat a request: its Idempotency-Key came with another body before",
            hint="use a new key for a new request",
            code="idempotency_key_reused",
        )
    return _Repeat(owner_id=claim.owner_id)


def _is_old(site: Site, at: str) -> bool:
    age = site.clock.now() - datetime.datetime.fromisoformat(at)
    return age > REQUEST_KEPT


def _replay(site: Site, noun: str, cls: type[T], object_id: str, *, was_ours: bool) -> Done[T]:
    try:
        read = read_object(site, noun, cls, object_id)
    except NotFound as error:
        raise Conflict(
            f"failed to repeat a request: {noun} {object_id}, which it made, is deleted",
            hint="use a new Idempotency-Key to make another",
            code="idempotency_key_reused",
        ) from error
    return Done(read.thing, read.mod_revision, replayed=not was_ours)


def _find_done(site: Site, unknown: Sequence[Change[T]]) -> Done[T] | None:
    """Whether one of the commits without an answer was done."""
    for change in unknown:
        item = site.store.get(change.proof.key) if change.proof else None
        if item is not None and change.proof is not None and item.value == change.proof.value:
            return Done(change.thing, item.mod_revision)
    return None


def _transaction(site: Site, change: Change[T], repeat: _Repeat, conditions: Preconditions) -> Txn:
    if not conditions.repeat:
        return Txn(change.compares, change.writes)
    claim = Claim(owner_id=change.thing.meta.id, at=site.now(), digest=conditions.body_digest)
    put = Put(keys.claim_request(conditions.repeat), encode(claim))
    return Txn(change.compares + repeat.compares, (*change.writes, put))


def refuse_taken(site: Site, noun: str, meta: Meta) -> None:
    """Raises Conflict if another object of the project has this name."""
    item = site.store.get(keys.claim_name(noun, meta.project, meta.name))
    if item is not None and decode_as(Claim, item.value).owner_id != meta.id:
        raise Conflict(
            f"failed to name the {noun} {meta.name}: another one of project {meta.project} has this name",
            hint="choose another name",
            code="name_taken",
        )
