"""The VMs that schedules are about: there before each, and well after it, as API, store and processes say."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.schedule import Schedule
from ucloud.client import Client
from ucloud.errors import DeadlineExceeded, Error, NotFound
from ucloud.lab import census, lifecycle
from ucloud.lab.driver import Lab
from ucloud.lab.nodes import NodeKind
from ucloud.model.guard import RunLock, Takeover, TakeoverPhase
from ucloud.model.migration import ENDS, Migration
from ucloud.model.placement import Placement
from ucloud.store import keys
from ucloud.store.codec import decode_as
from ucloud.store.etcd import EtcdStore

_LOOK_EVERY_S = 0.25
_RENEW_AFTER = 2  # takeovers: one more, and the next one waits for minutes, as it should
_BRAKED_AFTER = 3
_PREFIX = {"restart": "r", "none": "n"}


@dataclass(frozen=True, slots=True)
class Records:
    """What the store holds about VMs, by VM."""

    placements: dict[str, Placement]
    locks: dict[str, list[RunLock]]
    takeovers: list[Takeover]
    migrations: list[Migration]


@dataclass
class Fleet:
    """``braked`` counts the VMs that were lost too often, as the brake has it, and were made anew."""

    lab: Lab
    braked: int = 0
    unprotected: list[str] = field(default_factory=list)

    def prepare(self, schedule: Schedule, *, timeout_s: float) -> list[str]:
        """As many VMs as the schedule wants; their ids, those that may be restarted elsewhere first."""
        records = self._read()
        wanted = {"restart": schedule.restart, "none": schedule.none}
        vms = self.lab.vms()
        tired = {vm for vm, placement in records.placements.items() if len(placement.failovers) >= _RENEW_AFTER}
        kept: dict[str, list[str]] = {}
        for kind, count in wanted.items():
            fresh = [vm["id"] for vm in vms if vm["spec"]["failover"] == kind and vm["id"] not in tired]
            kept[kind] = sorted(fresh)[:count]
        self._delete(vm["id"] for vm in vms if vm["id"] not in {*kept["restart"], *kept["none"]})
        for kind, count in wanted.items():
            made = self.lab.create_vms(count - len(kept[kind]), prefix=_PREFIX[kind], failover=kind)
            kept[kind] += [vm["id"] for vm in made]
        self.settle(timeout_s=timeout_s)
        return [*kept["restart"], *kept["none"]]

    def settle(self, *, timeout_s: float) -> str:
        """Wait until nothing is wrong or under way any more. Returns what was so last, "" if nothing was.

        Raises DeadlineExceeded that says what is.
        """
        deadline_s, last = time.monotonic() + timeout_s, ""
        while True:
            try:
                problems = self._problems()
            except Error as error:
                problems = [error.message]
            if not problems:
                return last
            last = "; ".join(problems)
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(f"failed to see all well within {timeout_s:g} s: {last}")
            time.sleep(_LOOK_EVERY_S)

    def guests(self) -> dict[str, list[tuple[str, int]]]:
        """Host and pid of every QEMU, by VM, as the machine has them."""
        ids = [vm["id"] for vm in self.lab.vms()]
        found: dict[str, list[tuple[str, int]]] = {}
        for node in self.lab.nodes(NodeKind.HOST):
            for one in census.residents(census.namespaces_of((node,))):
                if one.name.startswith("qemu"):
                    vm_id = next((vm_id for vm_id in ids if vm_id in one.command), "unknown")
                    found.setdefault(vm_id, []).append((node.name, one.pid))
        return found

    def _problems(self) -> list[str]:
        lab = self.lab
        first = lifecycle.store_problem(lab.layout, lab.shape) or lifecycle.host_problem(lab.layout, lab.shape)
        if first:
            return [first]
        records, vms = self._read(), self.lab.vms()
        self._renew_braked(records, vms)
        found = [f"takeover of {one.host_id} is {one.phase}" for one in records.takeovers]
        found += [f"migration of {one.vm_id} is {one.phase}: {one.reason}" for one in records.migrations]
        guests = self.guests()
        for vm in vms:
            found += _problems_of(vm, records, guests.pop(vm["id"], []))
        found += [f"{vm_id} has processes: {places}" for vm_id, places in guests.items()]
        return found

    def _renew_braked(self, records: Records, vms: list[dict[str, Any]]) -> None:
        """Those that wait for minutes because they were lost too often."""
        tired = [vm["id"] for vm in vms if vm["status"]["word"] != "running" and _is_braked(records, vm["id"])]
        if tired:
            self.braked += len(tired)
            self._delete(tired)

    def _read(self) -> Records:
        return self.lab.with_store(_read_records)

    def _delete(self, vm_ids: Iterable[str]) -> None:
        ids = set(vm_ids)
        if not ids:
            return

        def delete(client: Client) -> None:
            for vm_id in ids:
                try:
                    client.delete("vm", vm_id)
                except NotFound:
                    continue

        self.lab.ask(delete, timeout_s=10.0)
        self.lab.wait(lambda: not ids & {vm["id"] for vm in self.lab.vms()}, "deleted VMs are gone", timeout_s=90.0)


def _problems_of(vm: dict[str, Any], records: Records, processes: list[tuple[str, int]]) -> list[str]:
    vm_id, status, failover = vm["id"], vm["status"], vm["spec"]["failover"]
    placement, locks = records.placements.get(vm_id), records.locks.get(vm_id, [])
    name = f"{vm['name']} ({vm_id})"
    if status["word"] != "running" or placement is None:
        return [f"{name} is {status['word']}: {status['reason']}"]
    host = placement.host_id
    found = []
    if [place for place, _ in processes] != [host]:
        found.append(f"{name} is placed on {host} and runs on {processes}")
    if [(lock.host_id, lock.generation) for lock in locks] != [(host, placement.generation)]:
        found.append(f"{name} is placed on {host} as {placement.generation}, its locks are {locks}")
    if status["host_id"] != host:
        found.append(f"{name} is placed on {host}, the API says {status['host_id']}")
    if failover == "none" and placement.failovers:
        found.append(f"{name} was taken over: it must not be")
    return found


def _is_braked(records: Records, vm_id: str) -> bool:
    placement = records.placements.get(vm_id)
    return placement is not None and len(placement.failovers) >= _BRAKED_AFTER


def _read_records(store: EtcdStore) -> Records:
    locks: dict[str, list[RunLock]] = {}
    for item in store.list(keys.locks()).items:
        lock = decode_as(RunLock, item.value)
        locks.setdefault(lock.vm_id, []).append(lock)
    takeovers = [decode_as(Takeover, item.value) for item in store.list(keys.takeovers()).items]
    migrations = [decode_as(Migration, item.value) for item in store.list(keys.migrations()).items]
    return Records(
        placements={
            (placement := decode_as(Placement, item.value)).vm_id: placement
            for item in store.list(keys.placements()).items
        },
        locks=locks,
        takeovers=[one for one in takeovers if one.phase is not TakeoverPhase.DONE],
        migrations=[one for one in migrations if one.phase not in ENDS],
    )
