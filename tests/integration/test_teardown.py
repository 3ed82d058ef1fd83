"""What ``down`` does to VMs, with real guards and QEMUs: nothing is left running, whoever has died before."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.guard_process import GuardProcess, guard_process, is_gone, wait_for
from tests.contract.test_hypervisor import WISH, QemuRig, running
from tests.unit.hypervisor.wishes import VM_ID
from ucloud.config import GuardSection, StoreSection
from ucloud.errors import Unavailable
from ucloud.local.certificates import ensure_authority, ensure_certificate
from ucloud.local.layout import Layout
from ucloud.local.processes import GUARD, is_running
from ucloud.local.teardown import stop_vms
from ucloud.model.vm import Failover
from ucloud.system.clock import SystemClock

RECORD = f"run/guard/{VM_ID}.json"


@pytest.fixture
def directory() -> Iterator[Path]:
    require("root")
    require("qemu")
    with tempfile.TemporaryDirectory(prefix="ucloud-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture
def guard(directory: Path) -> Iterator[GuardProcess]:
    tls = Layout(directory).tls
    ensure_authority(tls)
    ensure_certificate(tls, "store")
    files = {"ca_file": tls / "ca.pem", "cert_file": tls / "store.pem", "key_file": tls / "store.key"}
    store = StoreSection(endpoints=("https://127.0.0.1:1",), **files)  # nobody is there
    with guard_process(directory, store=store, guard=GuardSection(fence_s=0.0)) as started:
        yield started


def stop(guard: GuardProcess, directory: Path) -> list[str]:
    """As ``down`` does it; what was said."""
    said: list[str] = []
    stop_vms(guard.config, directory / "config.toml", SystemClock(), timeout_s=10, say=said.append)
    return said


def test_vms_that_outlived_a_killed_guard_are_stopped_too(guard: GuardProcess, directory: Path) -> None:
    before = running(QemuRig(guard, directory), replace(WISH, failover=Failover.NONE))
    guard.end(signal.SIGKILL)
    assert not is_gone(before.pid)
    said = stop(guard, directory)
    assert is_gone(before.pid)
    assert f"stopping vm {VM_ID}" in said
    assert not is_running(guard.host.run_directory, GUARD.name)


def test_without_a_guard_and_without_vms_none_is_started(guard: GuardProcess, directory: Path) -> None:
    mortal = running(QemuRig(guard, directory), WISH)
    guard.end(signal.SIGKILL)
    wait_for(lambda: is_gone(mortal.pid))
    assert stop(guard, directory) == []


def test_a_damaged_record_is_named(guard: GuardProcess, directory: Path) -> None:
    guard.end(signal.SIGTERM)
    (directory / RECORD).write_text("{")
    (said,) = stop(guard, directory)
    assert str(directory / RECORD) in said
    (directory / RECORD).unlink()


def test_vms_without_a_guard_that_can_start_are_an_error(guard: GuardProcess, directory: Path) -> None:
    """Their network must not be taken from them while they run."""
    running(QemuRig(guard, directory), replace(WISH, failover=Failover.NONE))
    guard.end(signal.SIGKILL)
    guard.config.store.ca_file.unlink()
    with pytest.raises(Unavailable, match="failed to stop the VMs"):
        stop(guard, directory)
