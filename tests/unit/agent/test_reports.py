"""Reports are written when they differ, compared, and keep their ``since``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit import samples
from ucloud.agent.reports import Reports
from ucloud.errors import Conflict
from ucloud.store import keys
from ucloud.store.api import Put, Txn
from ucloud.store.codec import decode, encode
from ucloud.store.memory import MemoryStore

LATER = "2026-01-31T13:00:00.000Z"
KEY = keys.seen("host-1", "vm", "vm-1")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_an_equal_report_is_not_written_again(store: MemoryStore) -> None:
    reports = Reports(store, "host-1")
    assert reports.write_vm(samples.SEEN_VM)
    assert not reports.write_vm(samples.SEEN_VM)


def test_since_stays_while_state_and_reason_do(store: MemoryStore) -> None:
    reports = Reports(store, "host-1")
    reports.write_vm(samples.SEEN_VM)
    reports.write_vm(replace(samples.SEEN_VM, since=LATER, restarts=1))
    item = store.get(KEY)
    assert item is not None
    assert decode(item.value).since == samples.SEEN_VM.since
    reports.write_vm(replace(samples.SEEN_VM, since=LATER, reason="another"))
    item = store.get(KEY)
    assert item is not None
    assert decode(item.value).since == LATER


def test_a_new_agent_knows_what_the_last_one_wrote(store: MemoryStore) -> None:
    Reports(store, "host-1").write_vm(samples.SEEN_VM)
    fresh = Reports(store, "host-1")
    fresh.load()
    assert fresh.vm("vm-1") == samples.SEEN_VM
    assert fresh.reported_ids("vm") == {"vm-1"}
    assert not fresh.write_vm(samples.SEEN_VM)


def test_a_lost_write_is_told_and_the_next_one_wins(store: MemoryStore) -> None:
    reports = Reports(store, "host-1")
    reports.write_vm(samples.SEEN_VM)
    store.commit(
        Txn(
            (),
            (
                Put(
                    KEY,
                    encode(replace(samples.SEEN_VM, reason="somebody else")),
                ),
            ),
        )
    )
    changed = replace(samples.SEEN_VM, reason="new")
    with pytest.raises(Conflict):
        reports.write_vm(changed)
    assert reports.write_vm(changed)


def test_an_unreadable_report_is_overwritten(store: MemoryStore) -> None:
    store.commit(Txn((), (Put(KEY, b"broken"),)))
    reports = Reports(store, "host-1")
    reports.load()
    assert reports.write_vm(samples.SEEN_VM)


def test_forgetting_deletes(store: MemoryStore) -> None:
    reports = Reports(store, "host-1")
    reports.write_vm(samples.SEEN_VM)
    reports.forget("vm", "vm-1")
    reports.forget("vm", "vm-1")
    assert store.get(KEY) is None
