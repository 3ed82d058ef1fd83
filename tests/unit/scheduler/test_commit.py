"""Placements of one host go in one transaction; one that lost spoils nothing for the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit import samples
from tests.unit.clock import ManualClock
from tests.unit.history import Heard
from tests.unit.world import key_of
from ucloud.model.placement import Placement
from ucloud.scheduler.commit import BATCH_PLACEMENTS, commit_pass
from ucloud.scheduler.passes import Planned
from ucloud.store import keys
from ucloud.store.api import Committed, Put, Txn, absent
from ucloud.store.codec import decode_as, encode
from ucloud.store.memory import MemoryStore
from ucloud.store.view import Entry

LEADER = absent("/nobody")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[int] = []

    def commit(self, txn: Txn) -> Committed:
        self.writes.append(len(txn.writes))
        return super().commit(txn)


def planned(store: MemoryStore, number: int, host: str = "host-1", **fields: Any) -> Planned:
    """A first placement of a VM that is in the store."""
    vm = samples.vm(number % 60)
    vm = replace(vm, meta=replace(vm.meta, id=f"vm-{number}"))
    revision = store.commit(Txn((), (Put(key_of(vm), encode(vm)),))).revision
    placement = replace(samples.PLACEMENT, vm_id=vm.meta.id, host_id=host)
    return Planned(Entry(key_of(vm), vm, revision), None, placement, **fields)


def commit(store: MemoryStore, plans: list[Planned], history: Heard) -> list[str]:
    """The VMs that were placed."""
    revision = store.list(keys.ROOT).revision
    commit_pass(store, plans, view_revision=revision, leader=LEADER, clock=ManualClock(), history=history)
    return [decode_as(Placement, item.value).vm_id for item in store.list(keys.placements()).items]


def test_those_of_one_host_go_together() -> None:
    store, history = CountingStore(), Heard()
    plans = [planned(store, number, f"host-{1 + number % 2}") for number in range(4 * BATCH_PLACEMENTS)]
    store.writes.clear()
    assert len(commit(store, plans, history)) == 4 * BATCH_PLACEMENTS
    assert store.writes == [2 * BATCH_PLACEMENTS + 1] * 4
    assert max(store.writes) <= 100
    assert history.told[0] == ("placed", {"vm": "vm-0", "host": "host-1", "generation": 1})


def test_one_that_changed_meanwhile_delays_no_other() -> None:
    store, history = CountingStore(), Heard()
    plans = [planned(store, number) for number in range(3)]
    plans[1] = replace(plans[1], vm=replace(plans[1].vm, mod_revision=1))
    assert commit(store, plans, history) == ["vm-0", "vm-2"]
    assert [facts["vm"] for _, facts in history.told] == ["vm-0", "vm-2"]


def test_a_lock_that_is_there_keeps_its_vm() -> None:
    store, history = CountingStore(), Heard()
    key = keys.lock("host-9", "vm-1")
    plans = [planned(store, 1, compares=(absent(key),)), planned(store, 2)]
    store.commit(Txn((), (Put(key, encode(samples.lock(1, 9))),)))
    assert commit(store, plans, history) == ["vm-2"]
