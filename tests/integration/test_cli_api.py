"""The CLI against the real API process, over a store in memory and without hosts."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import make_parser
from ucloud.cli import commands
from ucloud.client import Client, Profile, render_profile
from ucloud.errors import Conflict, PreconditionFailed
from ucloud.system.run import spawn

HERE = Path(__file__).parent
DISK = bytes(510) + b"\x55\xaa" + bytes(1024 * 1024 - 512)
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGXF3bDyBnJ8Zx2u1yZ0wKZJbKXq8Q3GgTQ6yq0m9f2r me"

Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Profile]:
    directory = tmp_path_factory.mktemp("api")
    (directory / "token").write_text("a-token-for-tests")
    with socket.create_server(("127.0.0.1", 0)) as listening, (directory / "log").open("wb") as log:
        listening.set_inheritable(True)
        argv = [sys.executable, HERE / "memory_api.py", directory, str(listening.fileno())]
        server = spawn(argv, log=log, pass_fds=[listening.fileno()])
        profile = Profile(f"http://127.0.0.1:{listening.getsockname()[1]}/v1", directory / "token")
        (directory / "client.toml").write_text(render_profile(profile))
        try:
            with Client(profile, patience_s=20) as client:
                client.get_health()
            yield profile
        finally:
            server.terminate()
            assert server.wait(15) == 0, (directory / "log").read_text()[-4000:]


@pytest.fixture
def ask(profile: Profile, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs a command; gives its JSON, or for ``fails=N`` its message."""
    monkeypatch.setenv("UCLOUD_PROFILE", str(profile.token_file.with_name("client.toml")))

    def call(*words: str, fails: int = 0) -> Any:
        code = commands.run(make_parser().parse_args(["-o", "json", *words]))
        captured = capsys.readouterr()
        assert code == fails, captured.err
        return captured.err if fails else json.loads(captured.out)

    return call


@pytest.fixture
def furnished(ask: Ask, profile: Profile, tmp_path: Path) -> None:
    """The network, image and key that VMs of these tests use; made by the first of them."""
    if ask("network", "list", "--name", "main"):
        return
    disk = tmp_path / "tiny.raw"
    disk.write_bytes(DISK)
    ask("network", "create", "main", "--ipv4-subnet", "10.0.0.0/24")
    ask("image", "import", str(disk), "--user", "debian", "--label", "os=tiny")
    ask("key", "create", "mine", "--public-key", PUBLIC_KEY)


@pytest.mark.usefixtures("furnished")
def test_the_life_of_a_vm(ask: Ask) -> None:
    words = "vm create web1 --image tiny --cpu 1 --memory 256M --disk 1G --network main --key mine --label role=web"
    assert ask(*words.split(), "--dry-run")["would"] == "create"
    made = ask(*words.split())
    assert made["spec"]["nics"][0]["ipv6"]
    assert ask("vm", "show", "web1")["id"] == made["id"]
    assert [one["name"] for one in ask("vm", "list", "--label", "role=web", "--status", "scheduling")] == ["web1"]
    changed = ask("vm", "update", "web1", "--memory", "512M", "--label", "tier=1", "--remove-label", "role")
    assert (changed["spec"]["memory_mib"], changed["labels"]) == (512, {"tier": "1"})
    assert ask("vm", "stop", "web1", "--grace", "5s")["spec"]["power"] == "stopped"
    assert ask("vm", "start", "web1", "--dry-run")["would"] == "start"
    assert ask("vm", "start", "web1")["spec"]["boots"] == 2
    assert ask("vm", "reboot", "web1")["spec"]["boots"] == 3
    assert "vm_created" in {event["kind"] for event in ask("event", "list", "--vm", "web1")}
    assert "still scheduling" in ask("vm", "reboot", "web1", "--wait", "--timeout", "0.2s", fails=5)
    assert "used by" in ask("network", "delete", "main", "--yes", fails=4)
    ask("vm", "delete", "web1", "--yes", "--wait", "--timeout", "20s")
    assert "no such id or name" in ask("vm", "show", "web1", fails=3)


@pytest.mark.usefixtures("furnished")
def test_other_nouns(ask: Ask) -> None:
    assert ask("image", "show", "tiny")["labels"] == {"os": "tiny"}
    assert ask("image", "update", "tiny", "--user", "root")["spec"]["user"] == "root"
    assert ask("key", "update", "mine", "--label", "a=b")["spec"]["fingerprint"].startswith("SHA256:")
    network = ask("network", "create", "lab", "--egress", "none", "--protect")
    assert network["spec"]["egress"] == "none"
    assert "rotect" in ask("network", "delete", "lab", "--yes", fails=4)
    ask("network", "update", "lab", "--protect", "no", "--name", "lab2")
    ask("network", "delete", "lab2", "--yes", "--wait", "--timeout", "20s")
    assert ask("host", "create", "rack1", "--id", "host-rack1")["id"] == "host-rack1"
    assert ask("host", "update", "rack1", "--schedulable", "no", "--label", "row=1")["spec"]["schedulable"] is False
    assert len(ask("event", "list", "--limit", "2")) == 2


def test_a_host_goes_out_of_service(ask: Ask) -> None:
    ask("host", "create", "rack7", "--id", "host-rack7")
    assert ask("host", "drain", "rack7", "--stop", "--dry-run")["would"] == "drain"
    assert ask("host", "drain", "rack7", "--stop")["spec"]["drain"] == "stop"
    assert ask("host", "undrain", "rack7")["spec"]["drain"] == "none"
    assert "never registered" in ask("failover", "confirm", "rack7", "--yes", fails=4)
    state = ask("failover", "status")
    assert (state["word"], state["brake"]["on"], state["lost"]) == ("ok", False, [])
    ask("host", "remove", "rack7", "--yes", "--wait", "--timeout", "20s")
    assert ask("host", "show", "rack7", fails=3)


@pytest.mark.usefixtures("furnished")
def test_nothing_that_does_not_run_migrates(ask: Ask) -> None:
    made = ask("vm", "create", "still", "--image", "tiny", "--stopped")
    assert "it is on no host" in ask("vm", "migrate", "still", fails=4)
    assert "not migrating" in ask("vm", "cancel-migration", "still", fails=4)
    assert "there is none" in ask("vm", "migration", made["id"], fails=3)
    ask("vm", "delete", "still", "--yes", "--wait", "--timeout", "20s")


@pytest.mark.usefixtures("furnished")
def test_refusals(ask: Ask, tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(DISK)
    assert "SHA-256" in ask("image", "import", str(disk), "--sha256", "0" * 64, fails=4)
    assert "field name" in ask("network", "create", "a b", fails=1)
    assert "must be public" in ask("image", "import", "http://127.0.0.2:1/x.raw", fails=1)
    assert "ucloud image list" in ask("vm", "create", "x", "--image", "none", fails=3)
    assert ask("vm", "log", "none", fails=3)


def test_idempotency_and_generations(profile: Profile) -> None:
    with Client(profile) as client:
        first = client.create("network", {"name": "twice"}, idempotency_key="k1")
        assert client.create("network", {"name": "twice"}, idempotency_key="k1")["id"] == first["id"]
        with pytest.raises(Conflict) as caught:
            client.create("network", {"name": "other"}, idempotency_key="k1")
        assert caught.value.code == "idempotency_key_reused"
        with pytest.raises(PreconditionFailed):
            client.update("network", first["id"], {"egress": "none"}, generation=99)
        client.delete("network", first["id"])
        client.wait_gone("network", first["id"], 20)


def test_paging_through_many(profile: Profile) -> None:
    with Client(profile) as client:
        names = {f"key{number}" for number in range(5)}
        for name in names:
            client.create("key", {"name": name, "public_key": PUBLIC_KEY, "labels": {"many": "yes"}})
        query = [("label", "many=yes"), ("limit", "2")]
        page = client.get_page("key", query)
        found = [one["name"] for one in page["items"]]
        while page["next_page"]:
            page = client.get_page("key", [*query, ("page", page["next_page"])])
            found += [one["name"] for one in page["items"]]
        assert found == sorted(names)


def test_events_are_followed(profile: Profile) -> None:
    main = "from ucloud.main import main; raise SystemExit(main())"
    words = [sys.executable, "-c", main, "--profile", str(profile.token_file.with_name("client.toml"))]
    process = subprocess.Popen(
        [*words, "event", "list", "--follow", "--kind", "network_created"], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        with Client(profile) as client:
            client.create("network", {"name": "followed"})
        out = b""
        while b"followed" not in out:
            assert select.select([process.stdout], [], [], 30)[0]
            out += os.read(process.stdout.fileno(), 65536)
        assert b"network_created" in out
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        process.stdout.close()
