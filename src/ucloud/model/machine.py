"""What a guest sees of its machine: fixed at first start, and taken along when the VM moves to another host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """``slots`` maps device ids ("root", "rng", NIC ids) to slots of the root PCI bus.

    ``uid`` is whom QEMU runs as and whom the disk belongs to; every host of a site gives its uids from a range of its
    own, so a VM keeps its uid wherever it goes.
    """

    vm_id: str
    uuid: str
    uid: int
    machine_type: str
    machine_options: tuple[str, ...]
    cpu_model: str
    slots: Mapping[str, int]
