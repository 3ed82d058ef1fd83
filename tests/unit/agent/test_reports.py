"""Reports are written when they differ, compared, and keep their ``since``."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit import samples
from tests.unit.clock import ManualClock
from ucloud.agent.reports import Reports, what_happened
from ucloud.errors import Conflict
from ucloud.model.migration import MigrationState, Role, SeenMigration
from ucloud.model.seen import GuestState
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
    reports = Reports(store, "host-1", ManualClock())
    assert reports.write_vm(samples.SEEN_VM, project="default")
    assert not reports.write_vm(samples.SEEN_VM, project="default")


def test_since_stays_while_state_and_reason_do(store: MemoryStore) -> None:
    reports = Reports(store, "host-1", ManualClock())
    reports.write_vm(samples.SEEN_VM, project="default")
    reports.write_vm(replace(samples.SEEN_VM, since=LATER, restarts=1), project="default")
    item = store.get(KEY)
    assert item is not None
    assert decode(item.value).since == samples.SEEN_VM.since
    reports.write_vm(replace(samples.SEEN_VM, since=LATER, reason="another"), project="default")
    item = store.get(KEY)
    assert item is not None
    assert decode(item.value).since == LATER


def test_a_new_agent_knows_what_the_last_one_wrote(store: MemoryStore) -> None:
    Reports(store, "host-1", ManualClock()).write_vm(samples.SEEN_VM, project="default")
    fresh = Reports(store, "host-1", ManualClock())
    fresh.load()
    assert fresh.vm("vm-1") == samples.SEEN_VM
    assert fresh.reported_ids("vm") == {"vm-1"}
    assert not fresh.write_vm(samples.SEEN_VM, project="default")


def test_a_lost_write_is_told_and_the_next_one_wins(store: MemoryStore) -> None:
    reports = Reports(store, "host-1", ManualClock())
    reports.write_vm(samples.SEEN_VM, project="default")
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
        reports.write_vm(changed, project="default")
    assert reports.write_vm(changed, project="default")


def test_an_unreadable_report_is_overwritten(store: MemoryStore) -> None:
    store.commit(Txn((), (Put(KEY, b"broken"),)))
    reports = Reports(store, "host-1", ManualClock())
    reports.load()
    assert reports.write_vm(samples.SEEN_VM, project="default")


def test_forgetting_deletes(store: MemoryStore) -> None:
    reports = Reports(store, "host-1", ManualClock())
    reports.write_vm(samples.SEEN_VM, project="default")
    reports.forget("vm", "vm-1")
    reports.forget("vm", "vm-1")
    assert store.get(KEY) is None


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (None, {}, "vm_started"),
        ({"state": GuestState.STARTING}, {}, "vm_started"),
        ({}, {}, None),
        ({"state": GuestState.CRASHED}, {"restarts": 1}, "vm_restarted"),
        ({"state": GuestState.STOPPING}, {"state": GuestState.STOPPED}, "vm_stopped"),
        ({}, {"state": GuestState.CRASHED}, "vm_crashed"),
        ({}, {"state": GuestState.PAUSED}, "vm_paused"),
        ({"state": GuestState.PREPARING}, {"state": GuestState.FAILED}, "vm_failed"),
        ({"state": GuestState.UNKNOWN}, {}, None),
        ({}, {"state": GuestState.GONE}, None),
    ],
)
def test_what_people_want_to_know_is_an_event(
    before: dict[str, object] | None, after: dict[str, object], kind: str | None
) -> None:
    earlier = None if before is None else replace(samples.SEEN_VM, **before)
    happened = what_happened(earlier, replace(samples.SEEN_VM, **after))
    assert (happened[0] if happened else None) == kind


def test_the_event_comes_with_the_report(store: MemoryStore) -> None:
    Reports(store, "host-1", ManualClock()).write_vm(samples.SEEN_VM, project="default")
    (item,) = store.list(keys.events()).items
    event = decode(item.value)
    assert (event.kind, event.about_id, event.project) == ("vm_started", "vm-1", "default")


def part(state: MigrationState, role: Role) -> SeenMigration:
    return SeenMigration("m-1", role, state)


def test_a_move_is_one_event_on_the_host_it_went_to() -> None:
    going = replace(samples.SEEN_VM, state=GuestState.PAUSED, migration=part(MigrationState.COMPLETED, Role.SOURCE))
    assert what_happened(samples.SEEN_VM, going) is None
    coming = replace(samples.SEEN_VM, state=GuestState.PREPARING)
    here = replace(samples.SEEN_VM, migration=part(MigrationState.RESUMED, Role.TARGET))
    happened = what_happened(coming, here)
    assert happened is not None
    assert happened[0] == "vm_moved"
    given_up = replace(coming, state=GuestState.STOPPED, migration=part(MigrationState.WITHDRAWN, Role.TARGET))
    assert what_happened(coming, given_up) is None
