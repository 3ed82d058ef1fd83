"""A guest from order to end: addresses, names, key and user data inside; stop, start, reboot, and nothing left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.cloud import Cloud, CommandFailed

USER_DATA = "#!/bin/sh\necho ran > /root/user-data\n"


@pytest.fixture(scope="module")
def vm(cloud: Cloud) -> Iterator[dict[str, Any]]:
    script = cloud.directory / "user-data"
    script.write_text(USER_DATA)
    words = ("--image", "tiny", "--cpu", 1, "--memory", "128M", "--disk", "1G", "--network", "main", "--key", "mine")
    made = cloud.api("vm", "create", "web1", *words, "--user-data", script, "--wait")
    assert made["status"]["word"] == "running"
    yield made
    cloud.api("vm", "delete", made["id"], "--yes", "--wait")
    assert cloud.vm_leftovers() == {}


def test_the_guest_has_its_addresses(cloud: Cloud, vm: dict[str, Any]) -> None:
    nic = vm["spec"]["nics"][0]
    addresses = cloud.ssh(vm, "ip addr show dev eth0")
    assert nic["mac"] in addresses
    assert nic["ipv6"] in addresses
    assert nic["ipv4"] in addresses
    assert "mtu 1430" in addresses


def test_the_guest_has_its_name_key_and_user_data(cloud: Cloud, vm: dict[str, Any]) -> None:
    assert cloud.ssh(vm, "hostname").strip() == "web1"
    assert cloud.make_key().split()[1] in cloud.ssh(vm, "wget -qO- http://metadata/ssh-keys")
    assert cloud.ssh(vm, "cat /root/user-data").strip() == "ran"
    assert "web1" in cloud.ssh(vm, "wget -qO- http://169.254.169.254/openstack/latest/meta_data.json")


def test_the_guest_has_dns(cloud: Cloud, vm: dict[str, Any]) -> None:
    answer = cloud.ssh(vm, "nslookup web1")
    assert vm["spec"]["nics"][0]["ipv6"] in answer


def test_the_disk_grew(cloud: Cloud, vm: dict[str, Any]) -> None:
    size_mib = int(cloud.ssh(vm, "df -m / | tail -1").split()[1])
    assert size_mib > 900


def test_the_guest_cannot_reach_the_host_or_the_control_plane(cloud: Cloud, vm: dict[str, Any]) -> None:
    ports = (22, 2379, 8700, 8701, 8702, *(int(url.rsplit(":", 1)[1].split("/")[0]) for url in addresses(cloud)))
    tries = "; ".join(f"nc -w 1 -z $gateway {port} && echo open {port}" for port in sorted(set(ports)))
    gateways = "10.98.0.1 $(ip route show default | awk '{print $3; exit}') fe80::1%eth0"
    assert "open" not in cloud.ssh(vm, f"for gateway in {gateways}; do {tries}; done; true")


def addresses(cloud: Cloud) -> list[str]:
    import json

    report = json.loads(cloud.run("status", "--directory", cloud.directory, "--output", "json"))
    return list(report["addresses"].values())


def test_log_and_explanation(cloud: Cloud, vm: dict[str, Any]) -> None:
    assert "ucloud-tiny: ready" in cloud.run("--profile", cloud.profile, "vm", "log", vm["id"])
    assert cloud.api("vm", "explain", vm["id"])["decision"]["reason"]


def test_a_new_agent_adopts_the_guest(cloud: Cloud, vm: dict[str, Any]) -> None:
    before = cloud.qemu_pids()
    old_agent = cloud.pid("agent")
    cloud.kill("agent")
    cloud.wait(lambda: cloud.pid("agent") != old_agent, within_s=20, what="a new agent")
    cloud.wait_word(vm["id"], "running")
    assert cloud.qemu_pids() == before
    assert cloud.ssh(vm, "hostname").strip() == "web1"


def test_reboot_gives_a_new_boot(cloud: Cloud, vm: dict[str, Any]) -> None:
    before = cloud.qemu_pids()
    cloud.api("vm", "reboot", vm["id"], "--wait")
    cloud.wait(lambda: cloud.qemu_pids() not in ([], before), within_s=60, what="a new QEMU")
    assert float(cloud.ssh(vm, "cat /proc/uptime").split()[0]) < 60
    assert cloud.ssh(vm, "cat /root/user-data").strip() == "ran"


def test_a_guest_that_powers_itself_off_stays_off_until_started(cloud: Cloud, vm: dict[str, Any]) -> None:
    cloud.ssh(vm, "poweroff")
    stopped = cloud.wait_word(vm["id"], "stopped")
    assert "powered itself off" in stopped["status"]["reason"]
    cloud.api("vm", "start", vm["id"], "--wait")
    assert cloud.ssh(vm, "hostname").strip() == "web1"


def test_a_larger_size_waits_for_the_next_start(cloud: Cloud, vm: dict[str, Any]) -> None:
    changed = cloud.api("vm", "update", vm["id"], "--memory", "256M")
    waiting = cloud.wait(lambda: cloud.api("vm", "show", vm["id"])["status"]["pending"], within_s=10, what="pending")
    assert waiting == ["memory_mib"], changed
    cloud.api("vm", "stop", vm["id"], "--wait")
    assert cloud.qemu_pids() == []
    cloud.api("vm", "start", vm["id"], "--wait")
    total_kib = int(cloud.ssh(vm, "grep MemTotal /proc/meminfo").split()[1])
    assert 192 * 1024 < total_kib <= 256 * 1024


def test_what_is_in_use_cannot_be_deleted(cloud: Cloud, vm: dict[str, Any]) -> None:
    for noun, name in (("network", "main"), ("image", "tiny")):
        with pytest.raises(CommandFailed) as failed:
            cloud.api(noun, "delete", name, "--yes")
        assert failed.value.code == 4
        assert vm["id"] in failed.value.err


def test_a_vm_larger_than_every_host_says_why(cloud: Cloud) -> None:
    made = cloud.api("vm", "create", "huge", "--image", "tiny", "--memory", "900G", "--network", "main")
    found = cloud.wait_word(made["id"], "unschedulable", within_s=20)
    assert "MiB memory free" in found["status"]["reason"]
    cloud.api("vm", "delete", made["id"], "--yes", "--wait")
