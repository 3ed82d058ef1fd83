"""A VM's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ucloud.errors import GuestError
from ucloud.hypervisor.directory import VmDirectories, trim_serial_log
from ucloud.hypervisor.record import End, VmRecord

RECORD = VmRecord("vm-a", "boot-1", 1, 2, 3, 1, (5.0,), stop_at_s=7.0, stop_until="x", end=End.CRASHED, ended_at_s=9.0)


@pytest.fixture
def directories(tmp_path: Path) -> VmDirectories:
    return VmDirectories(tmp_path / "state", tmp_path / "run", host_boot_id="boot-1")


def test_a_record_comes_back(directories: VmDirectories) -> None:
    assert directories.read_record("vm-a") == VmRecord("vm-a", "boot-1")
    directories.ensure("vm-a")
    directories.write_record(RECORD)
    assert directories.read_record("vm-a") == RECORD


def test_after_a_boot_of_the_host_its_times_mean_nothing(directories: VmDirectories, tmp_path: Path) -> None:
    directories.ensure("vm-a")
    directories.write_record(RECORD)
    later = VmDirectories(tmp_path / "state", tmp_path / "run", host_boot_id="boot-2").read_record("vm-a")
    assert (later.stop_at_s, later.ended_at_s, later.restarted_at_s, later.stop_until) == (0.0, 0.0, (), "")
    assert (later.boots, later.end, later.restarts) == (3, End.CRASHED, 1)


def test_a_machine_is_made_once(directories: VmDirectories) -> None:
    for vm_id in ("vm-a", "vm-b"):
        directories.ensure(vm_id)
    first = directories.ensure_machine("vm-a", uid_base=10, machine_type="pc-q35-7.2")
    assert directories.ensure_machine("vm-b", uid_base=10, machine_type="pc-q35-7.2").uid == 11
    assert directories.ensure_machine("vm-a", uid_base=99, machine_type="pc-q35-9.0") == first
    assert directories.vm_ids() == ("vm-a", "vm-b")
    directories.remove("vm-a")
    directories.remove("vm-a")
    assert directories.vm_ids() == ("vm-b",)
    directories.ensure("vm-c")
    assert directories.ensure_machine("vm-c", uid_base=10, machine_type="pc-q35-7.2").uid == 10


@pytest.mark.parametrize("text", ["", "{", "[]", '{"vm_id": 3}', '{"vm_id": "vm-a", "end": "eaten"}'])
def test_a_damaged_record_is_an_error_that_names_it(directories: VmDirectories, tmp_path: Path, text: str) -> None:
    directories.ensure("vm-a")
    path = tmp_path / "state/vms/vm-a/record.json"
    path.write_text(text)
    with pytest.raises(GuestError, match=r"record\.json"):
        directories.read_record("vm-a")


@pytest.mark.parametrize("vm_id", ["", ".", "..", "../x", "a/b", "a\0"])
def test_no_id_leads_elsewhere(directories: VmDirectories, vm_id: str) -> None:
    with pytest.raises(GuestError):
        directories.ensure(vm_id)


def test_a_serial_log_is_cut_to_its_last_half(tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    assert not trim_serial_log(log, limit_kib=1)
    with log.open("ab") as writer:
        writer.write(b"a" * 1000 + b"b" * 512)
        writer.flush()
        assert trim_serial_log(log, limit_kib=1)
        assert log.read_bytes() == b"b" * 512
        assert not trim_serial_log(log, limit_kib=1)
        writer.write(b"c")
        writer.flush()
    assert log.read_bytes() == b"b" * 512 + b"c"


def test_a_link_in_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 5000)
    (tmp_path / "serial.log").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        trim_serial_log(tmp_path / "serial.log", limit_kib=1)
    assert (tmp_path / "secret").stat().st_size == 5000


def test_records_ignore_what_a_newer_version_added(directories: VmDirectories, tmp_path: Path) -> None:
    directories.ensure("vm-a")
    (tmp_path / "state/vms/vm-a/record.json").write_text('{"vm_id": "vm-a", "host_boot_id": "boot-1", "colour": 1}')
    assert directories.read_record("vm-a") == replace(VmRecord("vm-a"), host_boot_id="boot-1")
