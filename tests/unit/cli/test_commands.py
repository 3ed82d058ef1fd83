"""The commands, their answers, messages and exit codes."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest

from tests.fake_api import FakeApi, problem
from tests.unit.cli.conftest import Cli

VM_SPEC = {
    "image_id": "image-1",
    "cpus": 2,
    "memory_mib": 512,
    "disk_gib": 4,
    "nics": [{"network_id": "network-1", "ipv6": "fd00::5", "ipv4": "10.0.0.5"}],
}


@pytest.fixture
def web(api: FakeApi) -> None:
    status = {"word": "running", "reason": "", "host_id": "host-local"}
    api.add("vm", "vm-aaaaaaaaaaaa", "web1", dict(VM_SPEC), status=status, labels={"role": "web"})


@pytest.mark.usefixtures("web")
def test_list_as_table_and_json(cli: Cli) -> None:
    table = cli("vm", "list")
    assert table.code == 0
    lines = table.out.splitlines()
    assert lines[0].split() == ["NAME", "ID", "STATUS", "HOST", "CPUS", "MEMORY", "DISK", "ADDRESS", "AGE"]
    assert lines[1].split()[:8] == ["web1", "vm-aaaaaaaaaaaa", "running", "host-local", "2", "512M", "4G", "fd00::5"]
    for words in (["-o", "json", "vm", "list"], ["vm", "list", "--output", "json"]):
        assert json.loads(cli(*words).out)[0]["id"] == "vm-aaaaaaaaaaaa"


def test_an_empty_list_keeps_stdout_clean(cli: Cli) -> None:
    assert cli("vm", "list").out == ""
    assert cli("vm", "list", "-o", "json").out == "[]\n"


@pytest.mark.usefixtures("web")
def test_list_sends_its_filters(api: FakeApi, cli: Cli) -> None:
    cli("vm", "list", "--label", "role=web", "--label", "tier=1", "--status", "running", "--sort", "name", "--reverse")
    query = api.seen[-1].query
    assert (query["label"], query["status"], query["sort"]) == (["role=web", "tier=1"], ["running"], ["-name"])


@pytest.mark.usefixtures("web")
def test_show(cli: Cli) -> None:
    out = cli("vm", "show", "web1").out
    assert "memory_mib" in out
    assert "fd00::5" in out
    assert json.loads(cli("vm", "show", "vm-aaaaaaaaaaaa", "-o", "json").out)["name"] == "web1"


def test_create_says_what_was_typed(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    user_data = tmp_path / "user-data"
    user_data.write_text("#cloud-config\n")
    words = (
        "vm create web1 --image tiny --cpu 1 --memory 256M --disk 1G --network main=fd00::7,10.0.0.7 --network lab"
        f" --key mine --key other --label role=web --restart never --failover none --stop-timeout 1m"
        f" --priority 7 --protect --project lab --user-data {user_data}"
    )
    done = cli(*words.split())
    assert done.code == 0
    assert "scheduling" in done.out
    assert api.seen[-1].json() == {
        "name": "web1",
        "image": "tiny",
        "cpus": 1,
        "memory_mib": 256,
        "disk_gib": 1,
        "networks": [{"network": "main", "ipv6": "fd00::7", "ipv4": "10.0.0.7"}, {"network": "lab"}],
        "keys": ["mine", "other"],
        "labels": {"role": "web"},
        "restart": "never",
        "failover": "none",
        "stop_timeout_s": 60,
        "priority": 7,
        "delete_protection": True,
        "project": "lab",
        "user_data": "#cloud-config\n",
    }
    assert api.seen[-1].headers["idempotency-key"]


def test_create_sends_only_what_was_typed(api: FakeApi, cli: Cli) -> None:
    cli("vm", "create", "web1", "--image", "tiny", "--stopped")
    assert api.seen[-1].json() == {"name": "web1", "image": "tiny", "power": "stopped"}


def test_user_data_that_is_no_text(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    packed = tmp_path / "user-data.gz"
    packed.write_bytes(b"\x1f\x8b\xff")
    cli("vm", "create", "web1", "--image", "tiny", "--user-data", str(packed))
    assert base64.b64decode(api.seen[-1].json()["user_data_base64"]) == b"\x1f\x8b\xff"


def test_create_and_wait_shows_each_change(api: FakeApi, cli: Cli) -> None:
    api.story = [("scheduling", "waits for the scheduler"), ("preparing", "fetches the image"), ("running", "")]
    done = cli("vm", "create", "web1", "--image", "tiny", "--wait")
    assert done.code == 0
    assert [line.split(" (")[0] for line in done.err.splitlines()] == [
        "vm web1 scheduling: waits for the scheduler",
        "vm web1 preparing: fetches the image",
        "vm web1 running",
    ]
    assert "running" in done.out


@pytest.mark.usefixtures("web")
def test_waiting_in_vain_is_exit_5(api: FakeApi, cli: Cli) -> None:
    api.story = [("preparing", "fetches the image")] * 50
    done = cli("vm", "start", "web1", "--wait", "--timeout", "0.2s")
    assert done.code == 5
    assert done.err.splitlines()[-1].startswith(
        "ucloud: failed to wait for vm vm-aaaaaaaaaaaa to be running: still preparing after 0.2 s: fetches the image ("
    )


def test_create_dry_run(api: FakeApi, cli: Cli) -> None:
    done = cli("vm", "create", "web1", "--image", "tiny", "--dry-run")
    assert done.code == 0
    assert "would create" in done.err
    assert api.objects.get("vm") is None
    assert "idempotency-key" not in api.seen[-1].headers


@pytest.mark.usefixtures("web")
def test_update_merges_labels_and_guards_them(api: FakeApi, cli: Cli) -> None:
    done = cli("vm", "update", "web1", "--label", "tier=1", "--remove-label", "role", "--memory", "1G")
    assert done.code == 0
    assert api.seen[-1].json() == {"memory_mib": 1024, "labels": {"tier": "1"}}
    assert api.seen[-1].headers["if-match"] == '"1"'


@pytest.mark.usefixtures("web")
def test_update_says_what_waits(api: FakeApi, cli: Cli) -> None:
    api.objects["vm"]["vm-aaaaaaaaaaaa"]["status"]["pending"] = ["cpus"]
    assert "cpus will change at the next start" in cli("vm", "update", "web1", "--cpu", "4").err


@pytest.mark.usefixtures("web")
def test_update_of_nothing_is_a_usage_error(cli: Cli) -> None:
    done = cli("vm", "update", "web1")
    assert done.code == 2
    assert "nothing to change" in done.err


@pytest.mark.usefixtures("web")
def test_delete_wants_yes_where_nobody_can_be_asked(api: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    refused = cli("vm", "delete", "web1")
    assert refused.code == 2
    assert "add --yes" in refused.err
    assert "vm-aaaaaaaaaaaa" in api.objects["vm"]
    done = cli("vm", "delete", "web1", "--yes", "--wait")
    assert (done.code, done.out) == (0, "")
    assert "deleted vm-aaaaaaaaaaaa" in done.err
    assert cli("vm", "show", "web1").code == 3


@pytest.mark.usefixtures("web")
def test_actions(api: FakeApi, cli: Cli) -> None:
    cli("vm", "stop", "web1", "--grace", "2m")
    assert api.seen[-1].path == "/v1/vms/vm-aaaaaaaaaaaa/actions/stop"
    assert api.seen[-1].json() == {"timeout_s": 120}
    cli("vm", "reboot", "web1")
    assert api.seen[-1].path.endswith("/actions/reboot")
    assert "would start" in cli("vm", "start", "web1", "--dry-run").err


@pytest.mark.usefixtures("web")
def test_explain(api: FakeApi, cli: Cli) -> None:
    api.objects["vm"]["vm-aaaaaaaaaaaa"]["placement"] = {
        "vm_id": "vm-aaaaaaaaaaaa",
        "host_id": "",
        "generation": 1,
        "at": "2026-01-31T12:00:00.000Z",
        "decision": {
            "revision": 9,
            "considered": 3,
            "refused": {"memory": 2},
            "examples": [{"host_id": "host-a", "rule": "memory", "reason": "needs 512 MiB, 100 MiB are free"}],
            "scores": [{"host_id": "host-b", "total": 0.5, "parts": {"memory": 0.25}}],
            "reason": "fits nowhere",
        },
    }
    out = cli("vm", "explain", "web1").out
    for text in ("fits nowhere", "REFUSED BY", "needs 512 MiB, 100 MiB are free", "0.500", "memory 0.250"):
        assert text in out


def test_log_on_a_terminal_does_not_steer_it(api: FakeApi, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    api.add("vm", "vm-aaaaaaaaaaaa", "web1")
    api.log = b"\x1b]0;title\x07boot\r\n\x1b[31mlogin: "
    assert cli("vm", "log", "web1").out == "\x1b]0;title\x07boot\r\n\x1b[31mlogin: "
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert cli("vm", "log", "web1").out == "boot\nlogin: "
    assert "\x1b" in cli("vm", "log", "web1", "--raw").out


def test_log(api: FakeApi, cli: Cli) -> None:
    api.add("vm", "vm-aaaaaaaaaaaa", "web1", dict(VM_SPEC))
    assert cli("vm", "log", "web1").out == "booting\nlogin: "
    assert cli("vm", "log", "web1", "--bytes", "7").out == "login: "


def test_image_import_of_a_file_and_of_a_url(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    image = tmp_path / "tiny.qcow2"
    image.write_bytes(b"QFI")
    done = cli("image", "import", str(image), "--user", "root")
    assert done.code == 0
    assert api.seen[-1].query["name"] == ["tiny"]
    assert "image tiny 3 B of 3 B, 100 %" in done.err
    done = cli("image", "import", "https://example.org/a/debian.qcow2?x=1", "--sha256", "AB")
    assert done.code == 0
    assert api.seen[-1].json() == {
        "name": "debian",
        "url": "https://example.org/a/debian.qcow2?x=1",
        "sha256": "ab",
    }
    assert cli("image", "import", str(image), "--sha256", "00").code == 1
    assert cli("image", "import", str(tmp_path / "none")).code == 2


def test_keys(api: FakeApi, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = tmp_path / "id.pub"
    public.write_text("ssh-ed25519 AAAA me\n")
    for source in (str(public), "~/id.pub", "ssh-ed25519 AAAA me"):
        assert cli("key", "create", "mine", "--public-key", source).code == 0
        assert api.seen[-1].json() == {"name": "mine", "public_key": "ssh-ed25519 AAAA me"}
    monkeypatch.setattr("sys.stdin", io.StringIO("ssh-rsa BBBB\n"))
    cli("key", "create", "mine", "--public-key", "-")
    assert api.seen[-1].json()["public_key"] == "ssh-rsa BBBB"


def test_a_private_key_stays_here(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    done = cli("key", "create", "mine", "--public-key", str(private))
    assert done.code == 2
    assert "private key" in done.err
    assert api.seen == []


def test_networks_and_hosts(api: FakeApi, cli: Cli) -> None:
    cli("network", "create", "main", "--ipv4-subnet", "10.0.0.0/24", "--egress", "none")
    assert api.seen[-1].json() == {"name": "main", "ipv4_subnet": "10.0.0.0/24", "egress": "none"}
    api.add("host", "host-local", "local")
    assert cli("host", "update", "host-local", "--schedulable", "no").code == 0
    assert api.seen[-1].json() == {"schedulable": False}
    assert cli("host", "list").out.splitlines()[1].startswith("local  host-local  ready")


def test_events_of_one_vm(api: FakeApi, cli: Cli) -> None:
    api.add("vm", "vm-aaaaaaaaaaaa", "web1", dict(VM_SPEC))
    for number in range(3):
        event = {"kind": "vm_started", "about": "vm", "about_id": "vm-aaaaaaaaaaaa", "message": f"boot {number}"}
        api.add("event", f"e{number}", "", at="2026-01-31T12:00:00.000Z", **event)
    out = cli("event", "list", "--vm", "web1", "--limit", "2").out
    assert "boot 0" not in out
    assert "boot 2" in out
    assert api.seen[-1].query["about_id"] == ["vm-aaaaaaaaaaaa"]


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [(400, "invalid_input", 1), (401, "unauthorized", 1), (404, "not_found", 3), (409, "in_use", 4), (412, "x", 4)],
)
def test_exit_codes(api: FakeApi, cli: Cli, status: int, code: str, exit_code: int) -> None:
    api.overrides.append(lambda seen: problem(status, code, "failed to do it: no", hint="do that"))
    done = cli("network", "list")
    assert done.code == exit_code
    assert done.err == "ucloud: failed to do it: no (do that)\n"


def test_failures_name_field_and_users(api: FakeApi, cli: Cli) -> None:
    api.overrides.append(lambda seen: problem(409, "in_use", "failed to delete: used", users=["vm-1", "vm-2"]))
    assert cli("network", "list").err == "ucloud: failed to delete: used (used by vm-1, vm-2)\n"
    api.overrides[:] = [lambda seen: problem(400, "invalid_input", "failed to read\x1b[31m it", field="spec.cpus")]
    assert cli("network", "list").err == "ucloud: failed to read?[31m it (field spec.cpus)\n"


def test_no_cloud(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UCLOUD_PROFILE", str(tmp_path / "none.toml"))
    done = cli("vm", "list")
    assert done.code == 1
    assert "ucloud up" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["vm"],
        ["vm", "frobnicate"],
        ["vm", "create", "web1"],
        ["vm", "create", "web1", "--image", "tiny", "--memory", "256"],
        ["vm", "create", "web1", "--image", "tiny", "--cpu", "0"],
        ["vm", "list", "--", "stray"],
        ["vm", "create", "web1", "--imag", "tiny"],
    ],
)
def test_usage_errors_are_one_line(cli: Cli, words: list[str]) -> None:
    done = cli(*words)
    assert done.code == 2
    assert done.err.startswith("ucloud: failed to understand the command: ")
    assert done.err.count("\n") == 1


def test_every_command_has_help_with_examples(cli: Cli) -> None:
    help_text = cli("vm", "create", "--help").out
    assert "examples:\n  ucloud vm create web1 --image tiny" in help_text
