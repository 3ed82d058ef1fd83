"""The command line, word by word."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ucloud.hypervisor.accelerator import Accelerator
from ucloud.hypervisor.command_line import Descriptors, Launch, NicDevice, quote, render_command_line, render_disk_nodes
from ucloud.hypervisor.machine import new_machine, with_nics
from ucloud.hypervisor.resources import Disk, DiskLayer

GOLDEN = Path(__file__).parent / "golden"
MACHINE = with_nics(new_machine("vm-k3v9t2m4xq7a", uid=600_000, machine_type="pc-q35-7.2"), ["nic-a", "nic-b"])
DISK = Disk(DiskLayer("/pool/volumes/a,b.qcow2", "qcow2"), (DiskLayer("/pool/blobs/0.raw", "raw"),))
LAUNCH = Launch(
    program="/usr/bin/qemu-system-x86_64",
    name="web1",
    machine=MACHINE,
    accelerator=Accelerator.TCG,
    cpus=2,
    memory_mib=256,
    disk=DISK,
    nics=(NicDevice("nic-a", "02:00:00:00:00:01", 1430, 7), NicDevice("nic-b", "02:00:00:00:00:02", 1430, 8)),
    descriptors=Descriptors(qmp=3, events=4, serial=5, serial_log=6),
)


def as_text(words: tuple[str, ...]) -> str:
    """One option per line."""
    return "".join(f"\n{word}" if word.startswith("-") else f" {word}" for word in words).lstrip() + "\n"


def test_the_whole_line_is_the_golden_one() -> None:
    assert as_text(render_command_line(LAUNCH)) == (GOLDEN / "command_line.txt").read_text()


def test_kvm_changes_the_accelerator_only() -> None:
    tcg = render_command_line(LAUNCH)
    kvm = render_command_line(replace(LAUNCH, accelerator=Accelerator.KVM))
    assert [(a, b) for a, b in zip(tcg, kvm, strict=True) if a != b] == [("tcg", "kvm")]


@pytest.mark.parametrize(
    ("name", "written"),
    [("web1", "web1"), ("a,b", "a,,b"), (",process=evil", ",,process=evil"), ("ünïcode x", "ünïcode x")],
)
def test_a_name_cannot_end_its_option(name: str, written: str) -> None:
    words = render_command_line(replace(LAUNCH, name=name))
    assert words[words.index("-name") + 1] == f"guest={written},debug-threads=off"


def test_quoting_doubles_commas() -> None:
    assert quote("a,b,,c") == "a,,b,,,,c"


def test_a_disk_without_backing_says_so() -> None:
    """Else QEMU would open whatever file the image's header names."""
    (node,) = render_disk_nodes(Disk(DiskLayer("/pool/a.qcow2", "qcow2")))
    assert node["backing"] is None


def test_only_the_top_of_a_chain_is_written() -> None:
    chain = Disk(DiskLayer("/a", "qcow2"), (DiskLayer("/b", "qcow2"), DiskLayer("/c", "raw")))
    nodes = render_disk_nodes(chain)
    assert [node["node-name"] for node in nodes] == ["root-2", "root-1", "root-0"]
    assert [node["read-only"] for node in nodes] == [True, True, False]
    assert [node.get("backing") for node in nodes] == [None, "root-2", "root-1"]
    assert all(node["file"]["locking"] == "on" for node in nodes)


def test_an_incoming_guest_changes_nothing_but_that_it_waits() -> None:
    words = render_command_line(LAUNCH)
    assert render_command_line(replace(LAUNCH, incoming=True)) == (*words, "-S", "-incoming", "defer")


def test_a_shared_disk_is_cached_by_no_host_below_its_top() -> None:
    base, top = render_disk_nodes(replace(DISK, direct=True))
    assert top["cache"] == top["file"]["cache"] == {"direct": True}
    assert "cache" not in base
    assert "cache" not in base["file"]


@pytest.mark.parametrize(
    ("location", "host"), [("[fd00::5]:10809/vm-1@h2.abc", "fd00::5"), ("10.0.0.5:10809/vm-1@h2.abc", "10.0.0.5")]
)
def test_a_volume_behind_a_storage_service(location: str, host: str) -> None:
    (node,) = render_disk_nodes(Disk(DiskLayer(location, "raw", "nbd"), direct=True))
    assert node["file"]["server"] == {"type": "inet", "host": host, "port": "10809"}
    assert (node["driver"], node["file"]["driver"], node["file"]["export"]) == ("raw", "nbd", "vm-1@h2.abc")
    assert "locking" not in node["file"]
