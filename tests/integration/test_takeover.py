"""The real scheduler process on a real etcd: the VMs of a host whose life sign ends are placed anew, once, after W."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.conftest import require
from tests.contract.etcd_server import Cluster, etcd_cluster
from tests.unit import samples
from tests.unit.world import key_of
from ucloud.config import Config, SchedulerSection, StoreSection
from ucloud.control.process import main
from ucloud.model.guard import LifeSign, Takeover, TakeoverPhase
from ucloud.model.placement import Placement
from ucloud.model.seen import Fence, SeenPool
from ucloud.model.wanted import WantedVm
from ucloud.store import keys
from ucloud.store.api import Put, Store, Txn
from ucloud.store.codec import decode_as, encode

VMS = 100
POOL = SeenPool("pool-1", Fence.LOCK, ("host-1", "host-2", "host-3"))
SIGN = samples.sign(1, fence_s=0.6, kill_s=0.15)
W = 1.0


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    require("etcd")
    with etcd_cluster(3) as made:
        yield made


@pytest.fixture
def store(cluster: Cluster) -> Iterator[Store]:
    opened = cluster.store()
    put(opened, samples.IMAGE, samples.NETWORK, samples.KEY)
    for number in (1, 2, 3):
        put(opened, samples.host(number), samples.report(number, pool=POOL, cpus=64))
        put(opened, samples.sign(number))
    for number in range(1, VMS + 1):
        vm = samples.vm(number % 60, cpus=1, memory_mib=16, disk_gib=0, user_data_bytes=0)
        vm = replace(vm, meta=replace(vm.meta, id=f"vm-{number}"))
        placed = replace(samples.PLACEMENT, vm_id=vm.meta.id, memory_mib=16, cpus=1, disk_gib=0, pool_id="pool-1")
        put(opened, vm, placed, samples.lock(number))
    yield opened
    opened.close()


@pytest.fixture
def scheduler(cluster: Cluster, store: Store) -> Iterator[None]:
    tls = cluster.tls
    section = StoreSection(
        endpoints=tuple(cluster.endpoints), ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file
    )
    config = Config(store=section, scheduler=SchedulerSection(election_ttl_s=1))
    stopping = threading.Event()
    thread = threading.Thread(target=main, args=(config, stopping))
    thread.start()
    yield
    stopping.set()
    thread.join(20)
    assert not thread.is_alive()


def put(store: Store, *values: Any) -> None:
    for value in values:
        writes = [Put(key_of(value), encode(value))]
        if isinstance(value, LifeSign):
            writes.append(Put(keys.registered(value.host_id), encode(value)))
        assert store.commit(Txn((), tuple(writes))).ok


def wait_for(condition: Callable[[], bool], what: str, *, timeout_s: float = 20.0) -> float:
    """The moment at which it held."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)
    return time.monotonic()


def test_the_vms_of_a_dead_host_are_told_to_others_soon_after_w(store: Store, scheduler: None) -> None:
    wait_for(lambda: len(store.list(keys.wanted_of("host-1")).items) >= VMS, "documents of host-1")
    lease = store.grant_lease(5)
    assert store.commit(
        Txn((), (Put(keys.alive("host-1"), encode(SIGN), lease.id), Put(keys.registered("host-1"), encode(SIGN))))
    ).ok
    store.revoke_lease(lease.id)
    lost_s = time.monotonic()
    fenced_s = wait_for(lambda: bool(store.list(keys.fenced_all()).items), "the mark")
    told_s = wait_for(lambda: _told(store) == VMS, "documents of the other hosts")
    assert fenced_s - lost_s >= W
    assert told_s - lost_s <= W + 2.0, "a hundred VMs, on two busy cores"
    placements = [decode_as(Placement, item.value) for item in store.list(keys.placements()).items]
    assert {placement.generation for placement in placements} == {2}
    assert not store.list(keys.locks()).items
    record = store.get(keys.takeover("host-1"))
    assert record is not None
    assert decode_as(Takeover, record.value).phase is TakeoverPhase.DONE
    print(f"mark after {fenced_s - lost_s:.3f} s, all told after {told_s - lost_s:.3f} s")


def _told(store: Store) -> int:
    items = (*store.list(keys.wanted_of("host-2")).items, *store.list(keys.wanted_of("host-3")).items)
    return sum(not decode_as(WantedVm, item.value).gone for item in items if "/vm/" in item.key)
