"""The tiny image: built from Debian packages, then booted, used, rebooted and switched off."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.tiny_guest import TinyGuest, wait_until
from ucloud.local.image_build import BuiltImage, build_tiny
from ucloud.model.image import ImageFormat
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.images import import_stream

_SILENT = [].append


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltImage:
    for part in ("image-tools", "qemu", "root"):
        require(part)
    directory = tmp_path_factory.mktemp("tiny")
    return build_tiny(directory / "tiny.qcow2", work_directory=directory / "work", progress=_SILENT)


@pytest.fixture
def disk(built: BuiltImage, tmp_path: Path) -> Path:
    path = tmp_path / "root.qcow2"
    overlay = ["-f", "qcow2", "-b", built.path, "-F", "qcow2", path, "1G"]
    subprocess.run(["qemu-img", "create", "-q", *overlay], check=True)
    return path


@pytest.fixture(params=[True, False], ids=["both families", "IPv6 only"])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyGuest]:
    for part in ("ip", "dnsmasq", "ssh"):
        require(part)
    guest = TinyGuest(tmp_path, ipv4=request.param)
    try:
        guest.start_network()
        yield guest
    finally:
        guest.close()


def test_a_second_build_gives_the_same_bytes(built: BuiltImage) -> None:
    said: list[str] = []
    work = built.path.parent / "work"
    again = build_tiny(built.path.with_name("again.qcow2"), work_directory=work, progress=said.append)
    assert again.sha256 == built.sha256
    assert not any("downloading" in line for line in said)
    assert sorted(path.name for path in work.iterdir()) == ["debs", "lock", "root", "unpacked"]


def test_the_image_is_small_and_passes_our_own_import(built: BuiltImage, tmp_path: Path) -> None:
    assert built.path.stat().st_size < 64 * 2**20
    pool = DirectoryPool(tmp_path / "pool", min_reserve_bytes=0, reserve_percent=0)
    with built.path.open("rb") as source:
        info = import_stream(pool, source, expected_sha256=built.sha256, max_bytes=2**30, progress=lambda _: None)
    assert (info.format, info.virtual_size_bytes) == (ImageFormat.QCOW2, built.virtual_size_bytes)


def test_a_guest_boots_logs_in_reboots_and_ends(guest: TinyGuest, disk: Path) -> None:
    guest.start_qemu(disk)
    guest.wait_for("ucloud-tiny: ready hostname=web1 ")
    guest.wait_for("user-data ran")
    check_network(guest)
    check_system(guest)
    check_key_change(guest)
    guest.ssh("reboot")
    guest.wait_for("ucloud-tiny: ready", times=2)
    # The same host key (known_hosts would refuse another), and user-data did not run again.
    assert guest.run("cat /root/runs") == "x\n"
    assert guest.power_down() < 10
    subprocess.run(["qemu-img", "check", "-q", disk], check=True)


def check_network(guest: TinyGuest) -> None:
    def addresses() -> str:
        return guest.run("ip -o addr show dev eth0 scope global")

    expected = ["fd75::ff:fe00:7/64", "/128"] + (["10.75.0."] if guest.ipv4 else [])
    wait_until(lambda: all(text in addresses() for text in expected), addresses)
    assert guest.run("wget -q -O - http://metadata/ssh-keys").startswith("ssh-ed25519")
    by_link_local = "wget -q -O - 'http://[fe80::a9fe:a9fe%eth0]/ssh-keys'"  # what a network without DNS leaves
    assert guest.run(by_link_local).startswith("ssh-ed25519")
    if guest.ipv4:
        assert "10.75.0.1" in guest.run("ip -4 route show default")
        address = addresses().split("inet 10.75.0.")[1].split("/")[0]
        assert guest.ssh("true", host=f"10.75.0.{address}").returncode == 0


def check_system(guest: TinyGuest) -> None:
    assert guest.run("hostname") == "web1\n"
    wait_until(lambda: int(guest.run("df -m / | tail -n 1").split()[1]) > 900, lambda: guest.run("df -m /"))
    assert guest.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")


def check_key_change(guest: TinyGuest) -> None:
    published = guest.directory / "metadata" / "ssh-keys"
    published.write_text(published.read_text() + "ssh-ed25519 AAAA another\n")
    keys = "killall sleep; cat /root/.ssh/authorized_keys"  # ends the pause before the next look
    wait_until(lambda: "another" in guest.run(keys), lambda: guest.run(keys))
