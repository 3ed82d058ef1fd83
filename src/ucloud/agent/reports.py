"""The agent's reports in the store: written when they differ from what was written last, compared, never blind."""

from __future__ import annotations

import threading
from dataclasses import replace

from ucloud.errors import Conflict, StoreError
from ucloud.model.migration import MigrationState
from ucloud.model.seen import GuestState, SeenHost, SeenNetwork, SeenVm
from ucloud.store import keys
from ucloud.store.api import Delete, Item, Put, Store, Txn, unchanged
from ucloud.store.codec import decode, encode
from ucloud.store.events import event_put
from ucloud.system.clock import Clock

Report = SeenVm | SeenNetwork | SeenHost

_HOST_REPORT = "self"
_MOVES = (MigrationState.RESUMED, MigrationState.COMPLETED, MigrationState.WITHDRAWN)
_TOLD = (GuestState.STOPPED, GuestState.CRASHED, GuestState.FAILED, GuestState.PAUSED)


class Reports:
    """``seen/<host>/…`` of one host. Remembers what it wrote, so that an unchanged report costs nothing."""

    def __init__(self, store: Store, host_id: str, clock: Clock) -> None:
        self._clock = clock
        self._store = store
        self._host_id = host_id
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Report | None, int]] = {}

    def load(self) -> None:
        """Read what an earlier agent of this host has written."""
        for item in self._store.list(keys.seen_of(self._host_id)).items:
            self._known[item.key] = (_decode(item), item.mod_revision)

    def vm(self, vm_id: str) -> SeenVm | None:
        report = self._known.get(keys.seen(self._host_id, "vm", vm_id), (None, 0))[0]
        return report if isinstance(report, SeenVm) else None

    def reported_ids(self, noun: str) -> frozenset[str]:
        """The ids of the VMs or networks that have a report."""
        prefix = keys.seen(self._host_id, noun, "")
        with self._lock:
            return frozenset(keys.last_segment(key) for key in self._known if key.startswith(prefix))

    def write_vm(self, report: SeenVm, *, project: str) -> bool:
        """Returns whether it wrote. ``since`` stays that of the last report with the same state and reason.

        What people want to know comes as an event in the same transaction.
        """
        before = self.vm(report.vm_id)
        if before and (before.state, before.reason) == (report.state, report.reason):
            report = replace(report, since=before.since)
        return self._write(keys.seen(self._host_id, "vm", report.vm_id), report, self._event(before, report, project))

    def write_network(self, report: SeenNetwork) -> bool:
        key = keys.seen(self._host_id, "network", report.network_id)
        before = self._known.get(key, (None, 0))[0]
        if isinstance(before, SeenNetwork) and (before.ready, before.gone, before.reason) == (
            report.ready,
            report.gone,
            report.reason,
        ):
            report = replace(report, since=before.since)
        return self._write(key, report)

    def write_host(self, report: SeenHost) -> bool:
        return self._write(keys.seen(self._host_id, "host", _HOST_REPORT), report)

    def forget(self, noun: str, object_id: str) -> None:
        """Remove the report of something that nobody asks about any more."""
        key = keys.seen(self._host_id, noun, object_id)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            return
        if not self._store.commit(Txn((unchanged(key, known[1]),), (Delete(key),))).ok:
            self._read_again(key)
            raise Conflict(f"failed to remove report {key}: it changed meanwhile", code="report_lost")
        with self._lock:
            self._known.pop(key, None)

    def _event(self, before: SeenVm | None, after: SeenVm, project: str) -> tuple[Put, ...]:
        happened = what_happened(before, after)
        if happened is None:
            return ()
        kind, message = happened
        actor = f"agent of {self._host_id}"
        return (event_put(self._clock, kind, message, about="vm", about_id=after.vm_id, project=project, actor=actor),)

    def _write(self, key: str, report: Report, events: tuple[Put, ...] = ()) -> bool:
        with self._lock:
            before, revision = self._known.get(key, (None, 0))
        if before == report:
            return False
        committed = self._store.commit(Txn((unchanged(key, revision),), (Put(key, encode(report)), *events)))
        if not committed.ok:
            self._read_again(key)
            raise Conflict(f"failed to report {key}: somebody else wrote it", code="report_lost")
        with self._lock:
            self._known[key] = (report, committed.revision)
        return True

    def _read_again(self, key: str) -> None:
        """After a lost write (an earlier one whose answer never came): the next pass compares with what is there."""
        item = self._store.get(key)
        with self._lock:
            if item is None:
                self._known.pop(key, None)
            else:
                self._known[key] = (_decode(item), item.mod_revision)


def what_happened(before: SeenVm | None, after: SeenVm) -> tuple[str, str] | None:
    """The kind and message of the event that the step between two reports is worth, None for none. Pure."""
    was = before.state if before else None
    if after.state is GuestState.RUNNING and before and after.restarts > before.restarts:
        return "vm_restarted", f"restarted, for the {after.restarts}. time, because {before.reason or 'it ended'}"
    if after.state is was:
        return None
    if after.migration is not None and after.migration.state in _MOVES:
        arrived = after.migration.state is MigrationState.RESUMED and after.state is GuestState.RUNNING
        return ("vm_moved", f"runs here now, boot {after.boots}") if arrived else None
    if after.state is GuestState.RUNNING:
        return None if was in (GuestState.STOPPING, GuestState.UNKNOWN) else ("vm_started", f"runs boot {after.boots}")
    if after.state in _TOLD:
        return f"vm_{after.state.value}", after.reason or after.state.value
    return None


def _decode(item: Item) -> Report | None:
    """None for an unreadable report: the next one overwrites it."""
    try:
        report: Report = decode(item.value)
    except StoreError:
        return None
    return report
