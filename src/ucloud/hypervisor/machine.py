"""What a guest sees of its machine and must find again at every boot: fixed at first start, kept in machine.json.

Machine type (with its version), CPU model, PCI slots, uuid and uid are never changed by themselves: a guest whose
hardware moves loses its network names, its licences, or the way back after a migration. Sizes (CPUs, memory) are the
spec's and may change with any boot.

The CPU model is the same for KVM and TCG, and names its features instead of taking the host's (``host`` and ``max``
cannot migrate): QEMU's baseline lifted to x86-64-v2, which all current distributions need, plus AES; every CPU since
2010 has them. ``enforce`` makes QEMU refuse to start rather than to leave something out silently.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ucloud.errors import Exhausted
from ucloud.model.machine import Machine

CPU_MODEL = "qemu64-v1,-svm,+aes,+popcnt,+sse4.1,+sse4.2,+ssse3,enforce"
MACHINE_OPTIONS = ("sata=off", "smbus=off", "vmport=off")
ROOT_DISK, RNG = "root", "rng"
_FIXED_SLOTS = {ROOT_DISK: 2, RNG: 3}
_NIC_SLOTS = range(8, 30)  # 4 to 7 are free for devices to come; 31 is the chipset's
_UUIDS = uuid.UUID("6d0b2a0e-6c5f-5e0b-9d3c-75636c6f7564")


def new_machine(vm_id: str, *, uid: int, machine_type: str) -> Machine:
    """A machine as it is made today. The uuid follows from the VM's id, so it is the same on every host."""
    return Machine(
        vm_id=vm_id,
        uuid=str(uuid.uuid5(_UUIDS, vm_id)),
        uid=uid,
        machine_type=machine_type,
        machine_options=MACHINE_OPTIONS,
        cpu_model=CPU_MODEL,
        slots=dict(_FIXED_SLOTS),
    )


def with_nics(machine: Machine, nic_ids: Iterable[str]) -> Machine:
    """The machine with a slot for each NIC. A known NIC keeps its slot, and one that left keeps it while others do.

    Raises Exhausted if there are more NICs than slots.
    """
    wanted = tuple(nic_ids)
    slots = dict(machine.slots)
    for nic_id in wanted:
        if nic_id in slots:
            continue
        if not _free_slots(slots):
            slots = {name: slot for name, slot in slots.items() if slot not in _NIC_SLOTS or name in wanted}
        free = _free_slots(slots)
        if not free:
            raise Exhausted(f"failed to attach NIC {nic_id}: VM {machine.vm_id} has {len(_NIC_SLOTS)} NICs already")
        slots[nic_id] = free[0]
    return machine if slots == machine.slots else replace(machine, slots=slots)


def settled_machine(here: Machine | None, stored: Machine | None) -> Machine | None:
    """The machine of a VM that has been on several hosts: ``stored`` came through the store with the VM, ``here`` is
    this host's file. What the store says of the whole machine is the truth once it says anything: then the VM has
    run with it. Slots that only this host knows yet, of devices that came since, are kept where they do not collide.
    """
    if here is None or stored is None:
        return here or stored
    used = set(stored.slots.values())
    own = {name: slot for name, slot in here.slots.items() if name not in stored.slots and slot not in used}
    settled = replace(stored, slots={**stored.slots, **own})
    return here if settled == here else settled


def lowest_free_uid(base: int, taken: Iterable[int]) -> int:
    used = set(taken)
    return next(uid for uid in range(base, base + len(used) + 1) if uid not in used)


def _free_slots(slots: Mapping[str, int]) -> list[int]:
    used = set(slots.values())
    return [slot for slot in _NIC_SLOTS if slot not in used]
