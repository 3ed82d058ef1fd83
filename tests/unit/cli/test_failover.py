"""Migrations, drains and lost hosts on the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fake_api import CREATED_AT, FakeApi, Reply, Seen
from tests.unit.cli.conftest import Cli
from tests.unit.cli.test_completion import commands  # noqa: F401 a fixture
from ucloud.cli.completion import Command
from ucloud.cli.failover import render_brake
from ucloud.client import Object

VM, HOST = "vm-aaaaaaaaaaaa", "host-1"


def migration(phase: str, percent: int = 0, *, request: str = "migration-2", reason: str = "so") -> Object:
    source = {"state": "sending", "sent_mib": percent * 2, "total_mib": 200, "reason": "", "downtime_ms": 12}
    return {
        "vm_id": VM,
        "phase": phase,
        "reason": reason,
        "since": CREATED_AT,
        "until": CREATED_AT,
        "percent": percent,
        "record": {"source": "host-1", "target": "host-2", "cause": "asked", "started_at": CREATED_AT},
        "request": {"id": request},
        "source": source,
        "target": None,
    }


@pytest.fixture
def cloud(api: FakeApi) -> FakeApi:
    api.add("vm", VM, "web1")
    for number in (1, 2):
        api.add("host", f"host-{number}", f"h{number}", {"schedulable": True, "drain": "none"})
    return api


def test_migrate(cloud: FakeApi, cli: Cli) -> None:
    cloud.migrations = [migration("preparing")]
    done = cli("vm", "migrate", "web1", "--to", "h2")
    assert done.code == 0
    asked = next(seen for seen in cloud.seen if seen.method == "POST")
    assert asked.path == f"/v1/vms/{VM}/actions/migrate"
    assert asked.json() == {"to_host": "host-2"}
    lines = done.out.splitlines()
    assert lines[0].split() == ["VM", "STATUS", "FROM", "TO", "SENT", "SINCE", "REASON"]
    assert lines[1].split()[:4] == [VM, "preparing", "host-1", "host-2"]


def test_migrate_and_wait_shows_how_far_it_is(cloud: FakeApi, cli: Cli) -> None:
    old = migration("done", request="migration-1")
    steps = [migration("waiting"), migration("preparing", reason="it prepares")]
    steps += [migration("sending", percent) for percent in (0, 3, 50)]
    cloud.migrations = [old, old, *steps, migration("moved", 100), migration("done", 100)]
    done = cli("vm", "migrate", "web1", "--wait")
    assert done.code == 0
    assert [line.split(" (")[0] for line in done.err.splitlines()] == [
        "vm web1 waiting: waits for the scheduler",
        "vm web1 preparing: it prepares",
        "vm web1 sending: 0M of 200M, 0 %",
        "vm web1 sending: 100M of 200M, 50 %",
        "vm web1 moved: so",
        "vm web1 done: so",
    ]
    assert "done" in done.out


@pytest.mark.parametrize("phase", ["failed", "cancelled"])
def test_a_migration_that_did_not_happen_is_exit_4(cloud: FakeApi, cli: Cli, phase: str) -> None:
    cloud.migrations = [migration("done", request="migration-1"), migration(phase, reason="no room")]
    done = cli("vm", "migrate", "web1", "--wait")
    assert done.code == 4
    assert done.err.splitlines()[-1].startswith(f"ucloud: failed to migrate vm {VM}: {phase}: no room (it stays")


def test_a_migration_that_takes_long_is_exit_5(cloud: FakeApi, cli: Cli) -> None:
    cloud.migrations = [migration("done", request="migration-1"), migration("sending", 10)]
    done = cli("vm", "migrate", "web1", "--wait", "--timeout", "0.1s")
    assert done.code == 5
    assert "it goes on" in done.err


def test_an_interrupt_leaves_the_migration_alone(cloud: FakeApi, cli: Cli) -> None:
    cloud.migrations = [migration("done", request="migration-1")]

    def interrupt(*_: object, **__: object) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ucloud.client.calls.wait_migrated", interrupt)
        done = cli("vm", "migrate", "web1", "--wait")
    assert done.code == 130
    assert "the migration goes on: see 'ucloud vm migration web1'" in done.err
    assert not [seen for seen in cloud.seen if "cancel" in seen.path]


def test_a_dry_run_of_a_migration(cloud: FakeApi, cli: Cli) -> None:
    def answer(seen: Seen) -> Reply | None:
        if seen.method != "POST":
            return None
        chosen = {"to_host_id": "host-2", "reason": "scored best"}
        return Reply(200, {"dry_run": True, "would": "migrate", "object": {}, "migration": chosen})

    cloud.overrides.append(answer)
    done = cli("vm", "migrate", "web1", "--dry-run")
    assert "would migrate" in done.err
    assert "it would go to host-2: scored best" in done.err


def test_a_migration_is_shown(cloud: FakeApi, cli: Cli) -> None:
    assert cli("vm", "migration", "web1").code == 3
    cloud.migrations = [migration("sending", 25)]
    out = cli("vm", "migration", "web1").out
    for text in ("sending", "50M of 200M (25 %)", "host-1", "host-2", "12 ms"):
        assert text in out
    assert json.loads(cli("vm", "migration", "web1", "-o", "json").out)["percent"] == 25


def test_cancelling(cloud: FakeApi, cli: Cli) -> None:
    cloud.migrations = [migration("aborting", reason="it was cancelled")]
    done = cli("vm", "cancel-migration", "web1")
    assert (done.code, "aborting" in done.out) == (0, True)
    assert f"/v1/vms/{VM}/actions/cancel-migration" in [seen.path for seen in cloud.seen]


# Hosts


def drain_status(word: str, left: int, blocked: dict[str, str], *, moving: int = 0) -> Object:
    return {
        "word": word,
        "reason": f"VMs left: {left}",
        "drain": {
            "left": [f"vm-{number}" for number in range(left)],
            "moving": [f"vm-{number}" for number in range(moving)],
            "blocked": [{"vm_id": vm_id, "reason": reason} for vm_id, reason in blocked.items()],
        },
    }


def test_drain_names_what_cannot_move(cloud: FakeApi, cli: Cli) -> None:
    cloud.objects["host"][HOST]["status"] = drain_status("draining", 2, {"vm-7": "its disk is here only"}, moving=1)
    done = cli("host", "drain", "h1", "--stop")
    assert done.code == 0
    assert cloud.seen[-1].path == "/v1/hosts/host-1/actions/drain"
    assert cloud.seen[-1].json() == {"stop": True}
    lines = done.out.splitlines()
    assert "draining" in lines[1]
    assert lines[-2].split() == ["CANNOT", "MOVE", "REASON"]
    assert lines[-1].startswith("vm-7 ")
    assert lines[-1].endswith("its disk is here only")


def story(cloud: FakeApi, *steps: Object) -> None:
    """What the host is, each time that it is asked for; the last one stays."""
    left = list(steps)

    def answer(seen: Seen) -> Reply | None:
        if (seen.method, seen.path) != ("GET", f"/v1/hosts/{HOST}") or not left:
            return None
        status = left.pop(0) if len(left) > 1 else left[0]
        return Reply(200, cloud.objects["host"][HOST] | {"status": status})

    cloud.overrides.append(answer)


def test_drain_and_wait(cloud: FakeApi, cli: Cli) -> None:
    story(
        cloud,
        drain_status("draining", 2, {}, moving=2),
        drain_status("draining", 1, {}),
        drain_status("drained", 0, {}),
    )
    done = cli("host", "drain", HOST, "--wait")
    assert done.code == 0
    assert "host h1 drained" in done.err
    assert "drained" in done.out


def test_drain_does_not_wait_for_what_never_moves(cloud: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ucloud.client.calls._BLOCKED_S", 0.1)
    story(cloud, drain_status("draining", 1, {"vm-0": "no host can take it"}))
    done = cli("host", "drain", HOST, "--wait")
    assert done.code == 4
    assert "--stop" in done.err.splitlines()[-1]
    assert "no host can take it" in done.out


def test_a_drain_that_takes_too_long_names_what_cannot_move(cloud: FakeApi, cli: Cli) -> None:
    story(cloud, drain_status("draining", 2, {"vm-0": "no host can take it"}))
    done = cli("host", "drain", HOST, "--wait", "--timeout", "1s")
    assert done.code == 5
    assert "no host can take it" in done.out


def test_undrain(cloud: FakeApi, cli: Cli) -> None:
    assert cli("host", "undrain", "h1").code == 0
    assert cloud.seen[-1].path == "/v1/hosts/host-1/actions/undrain"
    assert "would undrain" in cli("host", "undrain", "h1", "--dry-run").err


def test_removing_wants_a_word(cloud: FakeApi, cli: Cli) -> None:
    refused = cli("host", "remove", "h1", "--dead")
    assert refused.code == 2
    assert "add --yes" in refused.err
    warning = "if that machine still runs, its VMs may run twice: look at it, or cut its power, first"
    assert warning in refused.err
    assert warning in cli("failover", "confirm", "h1").err
    assert warning not in cli("host", "remove", "h1").err
    done = cli("host", "remove", "h1", "--dead", "--yes")
    assert (done.code, done.out) == (0, "")
    assert cloud.seen[-1].query == {"dead": ["true"]}
    assert "removing host-1" in done.err
    cli("host", "remove", "h2", "--yes", "--wait")
    assert (
        "dead"
        not in next(seen for seen in cloud.seen if seen.path.endswith("host-2") and seen.method == "DELETE").query
    )


# Failover


BRAKE = {"on": True, "window_s": 600, "limit": 1, "lost_in_window": 2, "hosts": 4, "share_percent": 10}


def test_the_state_of_failover(cloud: FakeApi, cli: Cli) -> None:
    cloud.failover = {"word": "ok", "brake": {**BRAKE, "on": False, "lost_in_window": 0}, "lost": [], "revision": 7}
    calm = cli("failover", "status")
    assert (calm.code, calm.out) == (0, "")
    assert "no host is lost" in calm.err
    takeover = {
        "phase": "held",
        "lost_at": CREATED_AT,
        "until": "2026-01-31T12:10:00.000Z",
        "reason": "2 hosts were lost",
    }
    lost = {"name": "h1", "host_id": HOST, "vms": ["vm-1", "vm-2"], "confirmed_off": False, "takeover": takeover}
    cloud.failover = {"word": "held", "brake": BRAKE, "lost": [lost, {**lost, "takeover": None}], "revision": 8}
    shown = cli("failover", "status")
    assert "brake on: takeovers wait (2 of 4 hosts lost within 10 minutes; it comes on with more than 1)" in shown.err
    lines = shown.out.splitlines()
    assert lines[0].split() == ["NAME", "ID", "STATUS", "LOST", "UNTIL", "VMS", "OFF", "REASON"]
    assert lines[1].split()[:3] == ["h1", HOST, "held"]
    assert "2 hosts were lost" in lines[1]
    assert lines[2].split()[2] == "lost"
    assert json.loads(cli("failover", "status", "-o", "json").out)["word"] == "held"
    assert render_brake({**BRAKE, "on": False}).startswith("brake off")


def test_confirming_wants_a_word(cloud: FakeApi, cli: Cli) -> None:
    refused = cli("failover", "confirm", "h1")
    assert refused.code == 2
    assert "may run twice" in refused.err
    assert cli("failover", "confirm", "h1", "--yes").code == 0
    assert cloud.seen[-1].path == "/v1/hosts/host-1/actions/confirm-off"


@pytest.mark.usefixtures("cloud")
def test_hosts_and_vms_are_completed(commands: dict[str, Command]) -> None:  # noqa: F811 the fixture
    for path in ("host drain", "host undrain", "host remove", "failover confirm"):
        assert commands[path].place == "@host"
    for path in ("vm migrate", "vm migration", "vm cancel-migration"):
        assert commands[path].place == "@vm"
    options = {option.flags[-1]: option for option in commands["vm migrate"].options}
    assert options["--to"].values == "@host"
