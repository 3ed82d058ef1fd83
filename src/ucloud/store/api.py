"""The store as its users see it: items with revisions, compare-and-set transactions, watches and leases.

Revisions are etcd's: every commit that changes something gets the next one. ``mod_revision`` 0 means "no such
key". All methods are synchronous, may be called from any thread, and end within their deadline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

# StoreError.code for a write or a revocation that names a lease which is no more
LEASE_ENDED = "store_lease_ended"


@dataclass(frozen=True, slots=True)
class Item:
    """A key with its value. ``version`` counts writes since its creation; ``lease`` is 0 for none."""

    key: str
    value: bytes
    mod_revision: int
    create_revision: int
    version: int = 1
    lease: int = field(default=0, repr=False)  # lease ids are secrets


@dataclass(frozen=True, slots=True)
class Listing:
    """What was under a prefix at ``revision``, sorted by key."""

    items: tuple[Item, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class Reading:
    """Several keys as they were at one moment; None for one that is not there. ``term`` is the raft term in which the
    answer was given: between two answers of one term there was one leader and no other.
    """

    items: Mapping[str, Item | None]
    revision: int
    term: int


class Target(StrEnum):
    """What a Compare looks at."""

    MOD = "mod"
    CREATE = "create"


@dataclass(frozen=True, slots=True)
class Compare:
    """Equality of one property of ``key``; use the functions below to make one."""

    key: str
    target: Target
    revision: int


def absent(key: str) -> Compare:
    """True if there is no such key."""
    return Compare(key, Target.CREATE, 0)


def unchanged(key: str, mod_revision: int) -> Compare:
    """True if ``key`` was last written at ``mod_revision`` (0: was never, or is deleted)."""
    return Compare(key, Target.MOD, mod_revision)


def created_at(key: str, create_revision: int) -> Compare:
    """True if ``key`` is the one created at that revision, whatever was written to it since."""
    return Compare(key, Target.CREATE, create_revision)


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    lease: int = field(default=0, repr=False)


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one key; nothing happens if there is none."""

    key: str


@dataclass(frozen=True, slots=True)
class Txn:
    """All ``writes`` happen if every compare holds, else none. A key may be written once in a transaction."""

    compares: tuple[Compare, ...]
    writes: tuple[Put | Delete, ...]


@dataclass(frozen=True, slots=True)
class Committed:
    """``ok`` is False if a compare did not hold. ``revision`` is the store's after it, ``term`` the raft term."""

    ok: bool
    revision: int
    term: int = 0


class EventKind(StrEnum):
    PUT = "put"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. For a DELETE the item has an empty value and the deleting revision as ``mod_revision``."""

    kind: EventKind
    item: Item


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Changes up to and including ``revision``, in order; empty for a sign of life (about every 3 s of silence)."""

    revision: int
    events: tuple[WatchEvent, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Lease:
    """``ttl_s`` is what the server granted, which may be more than was asked."""

    id: int = field(repr=False)
    ttl_s: int


class Watch(Protocol):
    """An open watch: iterate over batches; ``close`` (from any thread) ends the iteration.

    Survives dead streams and members by resuming at the next revision. Raises Compacted if that revision is
    no longer in the history: the caller lists again. Raises StoreUnavailable if no member took it within the
    deadline: the caller may open a new one at the revision after its last batch.
    """

    def __iter__(self) -> Iterator[WatchBatch]: ...

    def close(self) -> None: ...


class Store(Protocol):
    """Raises StoreUnavailable if no member answered in time, StoreError for refusals.

    ``commit`` raises OutcomeUnknown if the request was sent and the answer never came: the caller reads again.
    """

    def get(self, key: str) -> Item | None:
        """A linearizable read of one key."""
        ...

    def read(self, wanted: Sequence[str]) -> Reading:
        """A linearizable read of several keys at one moment."""
        ...

    def list(self, prefix: str, *, revision: int = 0) -> Listing:
        """Everything under ``prefix`` now, or as of ``revision`` (Compacted if that is gone)."""
        ...

    def commit(self, txn: Txn) -> Committed: ...

    def watch(self, prefix: str, *, from_revision: int) -> Watch:
        """Changes under ``prefix`` with a revision ≥ ``from_revision`` (0: those after it was opened)."""
        ...

    def grant_lease(self, ttl_s: int) -> Lease: ...

    def keep_lease(self, lease_id: int) -> int:
        """Renew once; the remaining seconds, 0 if there is no such lease any more."""
        ...

    def revoke_lease(self, lease_id: int) -> None:
        """End the lease and delete its keys; nothing happens if it is gone."""
        ...

    def close(self) -> None: ...
