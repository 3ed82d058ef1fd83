"""Claims in a store: taken once, and found free without reading a whole network."""

from __future__ import annotations

import random

import pytest

from ucloud.errors import Exhausted
from ucloud.ipam import claims
from ucloud.store import keys
from ucloud.store.api import Listing, Txn
from ucloud.store.memory import MemoryStore

AT = "2026-01-31T12:00:00.000Z"


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.lists = 0

    def list(self, prefix: str, *, revision: int = 0) -> Listing:
        self.lists += 1
        return super().list(prefix, revision=revision)


def commit(store: MemoryStore, taking: claims.Taking) -> bool:
    return store.commit(Txn(taking.compares, taking.writes)).ok


def address_claim(address: str, owner: str = "vm-1") -> claims.Taking:
    return claims.take([keys.claim_address("network-1", address)], owner_id=owner, at=AT)


def test_a_claim_is_taken_once() -> None:
    store = MemoryStore()
    assert commit(store, address_claim("fd00::5"))
    assert not commit(store, address_claim("fd00::5", "vm-2"))
    assert claims.is_taken(store, "network-1", "fd00::5")
    assert not claims.is_taken(store, "network-2", "fd00::5")


def test_an_empty_network_is_not_read() -> None:
    store = CountingStore()
    address = claims.find_ipv4(store, "network-1", "10.0.0.0/16", set(), random.Random(1).randrange)
    assert address.startswith("10.0.")
    assert store.lists == 0


@pytest.mark.parametrize("seed", range(20))
def test_a_network_fills_to_its_last_address(seed: int) -> None:
    store = CountingStore()
    choose = random.Random(seed).randrange
    found = []
    for _ in range(5):
        found.append(claims.find_ipv4(store, "network-1", "10.0.0.0/29", set(), choose))
        assert commit(store, address_claim(found[-1]))
    assert sorted(found) == [f"10.0.0.{last}" for last in range(2, 7)]
    with pytest.raises(Exhausted):
        claims.find_ipv4(store, "network-1", "10.0.0.0/29", set(), choose)


def test_two_who_guard_the_subnets_cannot_both_commit() -> None:
    store = MemoryStore()
    one, other = claims.guard_subnets(store, owner_id="a"), claims.guard_subnets(store, owner_id="b")
    assert commit(store, one)
    assert not commit(store, other)
    assert commit(store, claims.guard_subnets(store, owner_id="b"))
