"""Taking what ``plan`` found free: claims as compares and writes for the caller's transaction.

A claim is made create-if-absent, so equality is safe by itself. Overlap of subnets of different sizes is not equality:
every create of a network therefore compares and rewrites one guard key, so that two of them cannot pass each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from ucloud.ipam.plan import Choose, pick_ipv4
from ucloud.model.claim import Claim
from ucloud.store import keys
from ucloud.store.api import Compare, Delete, Put, Store, absent, unchanged
from ucloud.store.codec import encode

_SUBNETS = "subnets"
_TRIES = 3


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


def is_taken(store: Store, network_id: str, address: str) -> bool:
    return store.get(keys.claim_address(network_id, address)) is not None


def find_ipv4(store: Store, network_id: str, subnet: str, also_taken: Collection[str], choose: Choose) -> str:
    """A free address of the subnet, not in ``also_taken``. Raises Exhausted.

    Tries a few at random before it reads all that are taken, which may be tens of thousands.
    """
    taken = set(also_taken)
    for _ in range(_TRIES):
        address = pick_ipv4(subnet, taken, choose)
        if not is_taken(store, network_id, address):
            return address
        taken.add(address)
    listing = store.list(keys.claim_addresses(network_id))
    taken |= {unquote(keys.last_segment(item.key)) for item in listing.items}
    return pick_ipv4(subnet, taken, choose)
