"""Migrations, drains, lost hosts: what the API writes, shows and refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit import samples
from tests.unit.api.service import Service
from ucloud.api.schemas.failover import FailoverShown
from ucloud.api.schemas.host import HostDryRun, HostShown
from ucloud.api.schemas.migration import MigrationShown
from ucloud.api.schemas.vm import VmDryRun, VmShown
from ucloud.model.guard import LifeSign, Takeover, TakeoverPhase
from ucloud.model.migration import Migration, MigrationRequest, MigrationState, Phase, Role, SeenMigration
from ucloud.model.placement import Placement
from ucloud.model.seen import Fence, GuestState, SeenPool
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Txn
from ucloud.store.codec import decode_as, encode

ONE, TWO = "host-1", "host-2"


class Hosts:
    """The VM web1 runs on host-1; host-2 shares its pool."""

    def __init__(self, service: Service, vm: Any) -> None:
        self.service = service
        self.vm_id = vm["id"]
        self.vm_path = f"/v1/vms/{vm['id']}"
        for number, other in ((1, TWO), (2, ONE)):
            host_id = f"host-{number}"
            service.post("/v1/hosts", {"name": f"h{number}", "id": host_id})
            pool = SeenPool("pool-a", Fence.LOCK, proved_with=(other,))
            sign = encode(LifeSign(host_id, f"inc-{number}", samples.AT, fence_s=3.0, kill_s=0.25))
            service.seed(
                Put(keys.alive(host_id), sign),
                Put(keys.registered(host_id), sign),
                Put(keys.seen(host_id, "host", "self"), encode(samples.report(number, pool=pool))),
            )
        spec = vm["spec"]
        placement = Placement(
            self.vm_id,
            ONE,
            1,
            1,
            spec["cpus"],
            spec["memory_mib"],
            spec["disk_gib"],
            samples.AT,
            samples.DECISION,
            "pool-a",
        )
        self.put(keys.placement(self.vm_id), placement)
        self.put(keys.lock(ONE, self.vm_id), replace(samples.RUN_LOCK, vm_id=self.vm_id))
        service.seed_seen(vm, GuestState.RUNNING, boots=1)

    def put(self, key: str, value: Any) -> None:
        self.service.seed(Put(key, encode(value)))

    def lose(self, host_id: str = ONE, phase: TakeoverPhase | None = None, reason: str = "", until: str = "") -> None:
        revision = self.service.store.commit(Txn((), (Delete(keys.alive(host_id)),))).revision
        self.service.cache.wait_for(revision, 5.0)
        if phase is not None:
            takeover = Takeover(host_id, "inc-" + host_id[-1], phase, reason, self.now, self.now, until)
            self.put(keys.takeover(host_id), takeover)

    @property
    def now(self) -> str:
        return str(self.service.get(self.vm_path)["created_at"])

    def record(self, phase: Phase = Phase.SENDING, **fields: Any) -> Migration:
        at = samples.AT
        plain = Migration(self.vm_id, "m1", ONE, TWO, 1, phase, "so", started_at=at, since=at, until=at)
        record = replace(plain, **fields)
        self.put(keys.migration(self.vm_id), record)
        return record

    def request(self) -> MigrationRequest:
        item = self.service.store.get(keys.spec("migration", self.vm_id))
        assert item is not None
        return decode_as(MigrationRequest, item.value)

    def act(self, action: str, body: Any = None, *, status: int = 202, **options: Any) -> Any:
        return self.service.post(f"{self.vm_path}/actions/{action}", body or {}, status=status, **options)

    def refused(self, action: str, body: Any = None) -> Any:
        return self.service.problem("POST", f"{self.vm_path}/actions/{action}", 409, json=body or {})

    def host(self, host_id: str = ONE) -> Any:
        shown = self.service.get(f"/v1/hosts/{host_id}")
        HostShown.model_validate_json(self.service.ask("GET", f"/v1/hosts/{host_id}").data)
        return shown


@pytest.fixture
def hosts(ready: Service, vm: Any) -> Hosts:
    return Hosts(ready, vm)


# Migrations


def test_a_request_is_written_once(hosts: Hosts) -> None:
    first = hosts.act("migrate", headers={"Idempotency-Key": "k1"})
    assert first["id"] == hosts.vm_id
    request = hosts.request()
    assert (request.vm_id, request.to_host_id, request.cancelled) == (hosts.vm_id, "", False)
    hosts.act("migrate", headers={"Idempotency-Key": "k1"})
    assert hosts.request() == request
    assert hosts.refused("migrate")["code"] == "vm_migrating"
    assert "vm_migrate_asked" in {event["kind"] for event in hosts.service.get("/v1/events")["items"]}


def test_the_target_is_named_by_id_or_name_and_checked(hosts: Hosts) -> None:
    assert hosts.refused("migrate", {"to_host": ONE})["code"] == "no_target"
    path = f"{hosts.vm_path}/actions/migrate"
    assert hosts.service.problem("POST", path, 404, json={"to_host": "h9"})["code"] == "not_found"
    hosts.act("migrate", {"to_host": "h2"})
    assert hosts.request().to_host_id == TWO


def test_a_dry_run_tells_where_to(hosts: Hosts) -> None:
    answer = hosts.service.ask("POST", f"{hosts.vm_path}/actions/migrate?dry_run=true", json={})
    assert answer.status_code == 200, answer.text
    told = VmDryRun.model_validate_json(answer.data)
    assert told.would == "migrate"
    assert told.migration is not None
    assert told.migration.to_host_id == TWO
    assert hosts.service.store.get(keys.spec("migration", hosts.vm_id)) is None


def test_what_cannot_move_is_refused_with_the_reason(hosts: Hosts) -> None:
    hosts.put(keys.seen(ONE, "host", "self"), samples.report(1))
    problem = hosts.refused("migrate")
    assert problem["code"] == "cannot_migrate"
    assert "in a pool that only host host-1 has" in problem["detail"]


def test_a_migration_is_shown(hosts: Hosts) -> None:
    hosts.service.problem("GET", f"{hosts.vm_path}/migration", 404)
    hosts.act("migrate")
    waiting = hosts.service.get(f"{hosts.vm_path}/migration")
    assert (waiting["phase"], waiting["record"]) == ("waiting", None)
    hosts.record(request_id=hosts.request().id)
    part = SeenMigration("m1", Role.SOURCE, MigrationState.SENDING, sent_mib=128, total_mib=512)
    hosts.put(keys.seen(ONE, "vm", hosts.vm_id), replace(samples.SEEN_VM, vm_id=hosts.vm_id, migration=part))
    answer = hosts.service.ask("GET", f"{hosts.vm_path}/migration")
    shown = MigrationShown.model_validate_json(answer.data)
    assert (shown.phase, shown.percent) == ("sending", 25)
    assert shown.source is not None
    assert (shown.source.sent_mib, shown.target) == (128, None)
    vm = hosts.service.get(hosts.vm_path)
    assert vm["status"]["word"] == "migrating"
    hosts.record(Phase.DONE, request_id=hosts.request().id)
    assert hosts.service.get(f"{hosts.vm_path}/migration")["percent"] == 100


def test_cancelling(hosts: Hosts) -> None:
    assert hosts.refused("cancel-migration")["code"] == "not_migrating"
    hosts.act("migrate")
    hosts.act("cancel-migration")
    assert hosts.request().cancelled
    hosts.act("migrate")  # a new one
    assert not hosts.request().cancelled
    hosts.record(id="drain-7", cause="drain", request_id=hosts.request().id)
    hosts.act("cancel-migration", status=200, query_string={"dry_run": "true"})
    hosts.act("cancel-migration")
    assert (hosts.request().id, hosts.request().cancelled) == ("drain-7", True)
    hosts.act("cancel-migration")
    hosts.record(Phase.MOVED)
    assert hosts.refused("cancel-migration")["code"] == "migration_too_late"


@pytest.mark.parametrize("change", [{"cpus": 2}, {"memory_mib": 1024}, {"disk_gib": 20}, {"failover": "none"}])
def test_what_may_not_change_on_the_way(hosts: Hosts, change: dict[str, object]) -> None:
    hosts.record()
    assert hosts.service.problem("PATCH", hosts.vm_path, 409, json=change)["code"] == "vm_migrating"
    hosts.record(Phase.DONE)
    hosts.service.patch(hosts.vm_path, change)


def test_what_may_change_on_the_way(hosts: Hosts) -> None:
    hosts.record()
    hosts.service.patch(hosts.vm_path, {"labels": {"a": "b"}, "cpus": 1})
    hosts.act("stop")
    assert hosts.service.ask("DELETE", hosts.vm_path).status_code == 202


def test_a_migration_that_begins_meanwhile_is_noticed(hosts: Hosts) -> None:
    def intrude(_: Txn) -> None:
        hosts.service.store.before_commit = lambda _: None
        hosts.record()

    hosts.service.store.before_commit = intrude
    assert hosts.service.problem("PATCH", hosts.vm_path, 409, json={"cpus": 2})["code"] == "vm_migrating"


# Hosts


def test_drain_and_undrain(hosts: Hosts) -> None:
    drained = hosts.service.post(f"/v1/hosts/{ONE}/actions/drain", {}, status=202)
    assert (drained["spec"]["drain"], drained["status"]["word"]) == ("move", "draining")
    assert drained["status"]["drain"] == {"left": [hosts.vm_id], "moving": [], "blocked": []}
    hosts.record()
    assert hosts.host()["status"]["drain"]["moving"] == [hosts.vm_id]
    hosts.record(Phase.DONE)
    assert hosts.service.post(f"/v1/hosts/{ONE}/actions/drain", {"stop": True}, status=202)["spec"]["drain"] == "stop"
    hosts.put(keys.seen(ONE, "host", "self"), samples.report(1))
    blocked = hosts.host()["status"]["drain"]["blocked"]
    assert blocked == [{"vm_id": hosts.vm_id, "reason": "its disk is in a pool that only host host-1 has"}]
    assert "VMs left: 1, moving: 0, blocked: 1" in hosts.host()["status"]["reason"]
    undrained = hosts.service.post(f"/v1/hosts/{ONE}/actions/undrain", {}, status=202)
    assert (undrained["spec"]["drain"], undrained["status"]["word"]) == ("none", "ready")
    assert undrained["status"]["drain"] is None


def test_an_empty_host_is_drained_at_once(hosts: Hosts) -> None:
    drained = hosts.service.post(f"/v1/hosts/{TWO}/actions/drain", {}, status=202)
    assert drained["status"]["word"] == "drained"


def test_dry_runs_of_hosts(hosts: Hosts) -> None:
    for action in ("drain", "undrain"):
        answer = hosts.service.ask("POST", f"/v1/hosts/{ONE}/actions/{action}?dry_run=true", json={})
        assert HostDryRun.model_validate_json(answer.data).dry_run
    assert hosts.host()["spec"]["drain"] == "none"


def test_a_host_shows_what_failover_needs_of_it(hosts: Hosts) -> None:
    status = hosts.host()["status"]
    assert status["pool"] == {"id": "pool-a", "fence": "lock", "proved_with": [TWO], "has_verb": False}
    assert (status["fence_s"], status["longest_gap_s"], status["takeover"]) == (3.0, 0.0, None)


@pytest.mark.parametrize(
    ("phase", "word"),
    [
        (None, "lost"),
        (TakeoverPhase.WAITING, "lost"),
        (TakeoverPhase.FENCED, "lost"),
        (TakeoverPhase.HELD, "held"),
        (TakeoverPhase.DONE, "taken_over"),
    ],
)
def test_the_words_of_a_lost_host(hosts: Hosts, phase: TakeoverPhase | None, word: str) -> None:
    hosts.lose(phase=phase, reason="so it is", until="2026-01-31T13:00:00.000Z")
    status = hosts.host()["status"]
    assert status["word"] == word
    if phase is not None:
        assert status["reason"] == "so it is (until 2026-01-31T13:00:00.000Z)"
        assert status["takeover"]["phase"] == phase.value
    vm = hosts.service.get(hosts.vm_path)
    VmShown.model_validate_json(hosts.service.ask("GET", hosts.vm_path).data)
    assert vm["status"]["word"] == "lost"


def test_a_lost_host_is_not_drained(hosts: Hosts) -> None:
    hosts.lose()
    problem = hosts.service.problem("POST", f"/v1/hosts/{ONE}/actions/drain", 409, json={})
    assert problem["code"] == "host_lost"
    assert hosts.host()["spec"]["drain"] == "none"


def test_confirming_that_a_host_is_off(hosts: Hosts) -> None:
    path = f"/v1/hosts/{ONE}/actions/confirm-off"
    assert hosts.service.problem("POST", path, 409, json={})["code"] == "host_alive"
    hosts.service.post("/v1/hosts", {"name": "h3", "id": "host-3"})
    assert hosts.service.problem("POST", "/v1/hosts/host-3/actions/confirm-off", 409, json={})["code"] == "host_new"
    hosts.lose()
    assert hosts.service.post(path, {}, status=202)["spec"]["confirmed_off"] == "inc-1"
    assert hosts.service.post(path, {}, status=202)["generation"] == 2
    assert failover(hosts).lost[0].confirmed_off
    registered = hosts.service.store.get(keys.registered(ONE))
    assert registered is not None
    hosts.service.seed(Put(keys.registered(ONE), registered.value))
    assert not failover(hosts).lost[0].confirmed_off, "it has registered since"
    assert hosts.service.post(path, {}, status=202)["generation"] == 3
    assert failover(hosts).lost[0].confirmed_off


def test_a_host_that_returns_at_that_moment_is_not_confirmed(hosts: Hosts) -> None:
    sign = hosts.service.store.get(keys.alive(ONE))
    assert sign is not None
    hosts.lose()

    def intrude(_: Txn) -> None:
        hosts.service.store.before_commit = lambda _: None
        hosts.service.seed(Put(keys.alive(ONE), sign.value))

    hosts.service.store.before_commit = intrude
    path = f"/v1/hosts/{ONE}/actions/confirm-off"
    assert hosts.service.problem("POST", path, 409, json={})["code"] == "host_alive"


def test_removing_a_host(hosts: Hosts) -> None:
    problem = hosts.service.problem("DELETE", f"/v1/hosts/{ONE}", 409)
    assert (problem["code"], problem["users"]) == ("in_use", [hosts.vm_id])
    assert hosts.service.problem("DELETE", f"/v1/hosts/{TWO}?dead=true", 409)["code"] == "host_alive"
    assert hosts.service.ask("DELETE", f"/v1/hosts/{TWO}?dry_run=true").get_json()["would"] == "delete"
    removed = hosts.service.ask("DELETE", f"/v1/hosts/{TWO}")
    assert (removed.status_code, removed.get_json()["status"]["word"]) == (202, "deleting")
    hosts.lose()
    removed = hosts.service.ask("DELETE", f"/v1/hosts/{ONE}?dead=true")
    document = removed.get_json()
    assert (removed.status_code, document["spec"]["confirmed_off"]) == (202, "inc-1")
    assert document["status"]["reason"] == "VMs still placed there: 1; delete them, or wait"
    problem = hosts.service.problem("POST", f"/v1/hosts/{ONE}/actions/drain", 409, json={})
    assert problem["code"] == "being_deleted"


def test_a_vm_placed_meanwhile_keeps_its_host(hosts: Hosts) -> None:
    def intrude(_: Txn) -> None:
        hosts.service.store.before_commit = lambda _: None
        placed = replace(samples.PLACEMENT, vm_id="vm-9", host_id=TWO)
        hosts.service.seed(Put(keys.placement("vm-9"), encode(placed)), Put(keys.budget(TWO), b"{}"))

    hosts.service.store.before_commit = intrude
    assert hosts.service.problem("DELETE", f"/v1/hosts/{TWO}", 409)["users"] == ["vm-9"]


# VMs of lost hosts


def test_a_lost_vm_is_left_alone(hosts: Hosts) -> None:
    hosts.lose(phase=TakeoverPhase.HELD, reason="too many at once")
    for action in ("start", "reboot"):
        problem = hosts.refused(action)
        assert problem["code"] == "host_lost"
        assert "too many at once" in problem["detail"]
    assert hosts.service.problem("PATCH", hosts.vm_path, 409, json={"disk_gib": 20})["code"] == "host_lost"
    assert hosts.refused("migrate")["code"] == "cannot_migrate"
    hosts.service.patch(hosts.vm_path, {"labels": {"a": "b"}})
    hosts.act("stop")
    assert hosts.service.ask("DELETE", hosts.vm_path).status_code == 202


def test_failover_of_a_lost_vm_changes_only_when_its_host_is_off(hosts: Hosts) -> None:
    hosts.lose()
    assert hosts.service.problem("PATCH", hosts.vm_path, 409, json={"failover": "none"})["code"] == "host_lost"
    hosts.service.patch(hosts.vm_path, {"failover": "restart"})  # as it is
    hosts.service.post(f"/v1/hosts/{ONE}/actions/confirm-off", {}, status=202)
    hosts.service.patch(hosts.vm_path, {"failover": "none"})


def condition(hosts: Hosts) -> tuple[bool, str]:
    found = {one["type"]: one for one in hosts.service.get(hosts.vm_path)["conditions"]}["failover_possible"]
    return found["status"], found["reason"]


def test_whether_failover_is_possible(hosts: Hosts) -> None:
    assert condition(hosts) == (False, "it was started without: from its next start on")
    lock = replace(samples.RUN_LOCK, vm_id=hosts.vm_id, failover=samples.VM.spec.failover)
    hosts.put(keys.lock(ONE, hosts.vm_id), lock)
    assert condition(hosts) == (True, "")
    hosts.put(keys.registered(ONE), LifeSign(ONE, "inc-1", samples.AT))
    assert "never fences" in condition(hosts)[1]
    hosts.put(keys.seen(ONE, "host", "self"), samples.report(1, pool=SeenPool("pool-a", Fence.LOCK)))
    assert "has not proved" in condition(hosts)[1]
    hosts.put(keys.seen(ONE, "host", "self"), samples.report(1))
    assert "only host host-1 has" in condition(hosts)[1]
    hosts.service.patch(hosts.vm_path, {"failover": "none"})
    assert condition(hosts) == (False, "nobody asked for it: spec.failover is none")


# The brake


def failover(hosts: Hosts) -> FailoverShown:
    return FailoverShown.model_validate_json(hosts.service.ask("GET", "/v1/failover").data)


def test_failover_is_shown(hosts: Hosts) -> None:
    calm = failover(hosts)
    assert (calm.word, calm.lost, calm.brake.on, calm.brake.limit, calm.brake.hosts) == ("ok", [], False, 1, 2)
    hosts.lose(ONE, TakeoverPhase.WAITING, "its time runs")
    one = failover(hosts)
    assert (one.word, one.brake.on, one.brake.lost_in_window) == ("lost", False, 1)
    hosts.lose(TWO, TakeoverPhase.HELD, "2 hosts were lost")
    both = failover(hosts)
    assert (both.word, both.brake.on, both.brake.lost_in_window) == ("held", True, 2)
    assert [lost.host_id for lost in both.lost] == [ONE, TWO]
    first = both.lost[0]
    assert (first.name, first.vms, first.incarnation, first.confirmed_off) == ("h1", [hosts.vm_id], "inc-1", False)
    assert first.takeover is not None
    assert first.takeover.reason == "its time runs"
    hosts.service.post(f"/v1/hosts/{ONE}/actions/confirm-off", {}, status=202)
    assert failover(hosts).lost[0].confirmed_off
