"""Taking what ``plan`` found free: claims as compares and writes for the caller's transaction.

A claim is made create-if-absent, so equality is safe by itself. Overlap of subnets of different sizes is not equality:
every create of a network therefore compares and rewrites one guard key, so that two of them cannot pass each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from ucloud.model.claim import Claim
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, absent, unchanged
from ucloud.store.codec import encode

_SUBNETS = "subnets"


@dataclass(frozen=True, slots=True)
class Taking:
    """A part of a transaction."""

    compares: tuple[Compare, ...] = ()
    writes: tuple[Put | Delete, ...] = ()

    def and_also(self, other: Taking) -> Taking:
        return Taking(self.compares + other.compares, self.writes + other.writes)


def take(claim_keys: Iterable[str], *, owner_id: str, at: str) -> Taking:
    """Claim all of them for ``owner_id``, if none is taken."""
    value = encode(Claim(owner_id=owner_id, at=at))
    wanted = tuple(claim_keys)
    return Taking(tuple(absent(key) for key in wanted), tuple(Put(key, value) for key in wanted))


def guard_subnets(store: Store, *, owner_id: str) -> Taking:
    """Read this before the networks; with it in the transaction no network was made since."""
    key = keys.budget(_SUBNETS)
    item = store.get(key)
    return Taking((unchanged(key, item.mod_revision if item else 0),), (Put(key, owner_id.encode()),))


def read_taken_addresses(store: Store, network_id: str) -> set[str]:
    """All addresses of the network that are claimed now."""
    listing = store.list(keys.claim_addresses(network_id))
    return {unquote(keys.last_segment(item.key)) for item in listing.items}
