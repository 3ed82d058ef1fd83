"""Wanted VMs and moments, for the tests of this room."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

from ucloud.hypervisor.actions import Now
from ucloud.model.image import ImageFormat
from ucloud.model.vm import Failover, Power, Restart
from ucloud.model.wanted import WantedImage, WantedVm

VM_ID = "vm-k3v9t2m4xq7a"
_EPOCH = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)

WANTED = WantedVm(
    vm_id=VM_ID,
    name="web1",
    project="default",
    generation=1,
    spec_generation=1,
    gone=False,
    power=Power.RUNNING,
    boots=1,
    restart=Restart.ON_FAILURE,
    failover=Failover.RESTART,
    stop_timeout_s=60,
    cpus=2,
    memory_mib=256,
    disk_gib=1,
    image=WantedImage("sha256:0", ImageFormat.QCOW2),
)


def wanted(**changes: Any) -> WantedVm:
    return replace(WANTED, **changes)


def at(seconds: float) -> Now:
    """A moment: monotonic 1000 s is noon."""
    return Now(1000.0 + seconds, _EPOCH + datetime.timedelta(seconds=seconds))
