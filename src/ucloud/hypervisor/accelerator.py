"""Which accelerator QEMU uses on this host.

``auto`` takes KVM only if the CPU says that it can virtualize: a /dev/kvm without ``vmx`` or ``svm`` exists on
nested machines, opens, and then hangs every guest in its firmware.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ucloud.errors import InvalidInput, MissingPrerequisite

_KVM = Path("/dev/kvm")


class Accelerator(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class CpuFacts:
    """What decides: the machine's kind, the flags its CPUs report, and whether /dev/kvm can be used."""

    architecture: str
    flags: frozenset[str]
    kvm_usable: bool


def choose_accelerator(wish: str, facts: CpuFacts) -> Accelerator:
    """``wish`` is auto, kvm or tcg. Raises MissingPrerequisite if KVM is a must and cannot work."""
    if wish not in ("auto", *Accelerator):
        raise InvalidInput(
            f"failed to choose an accelerator: {wish!r} is none of auto, kvm, tcg", field="host.accelerator"
        )
    if wish == Accelerator.TCG:
        return Accelerator.TCG
    reason = _why_no_kvm(facts)
    if not reason:
        return Accelerator.KVM
    if wish == Accelerator.KVM:
        raise MissingPrerequisite(f"failed to use KVM: {reason}", hint="set host.accelerator to auto or tcg")
    return Accelerator.TCG


def _why_no_kvm(facts: CpuFacts) -> str:
    if not facts.kvm_usable:
        return "/dev/kvm is missing or not ours to open"
    if facts.architecture in ("x86_64", "amd64") and not facts.flags & {"vmx", "svm"}:
        return "the CPU reports neither vmx nor svm"
    return ""


def parse_cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The flags of the first CPU in the text of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def observe_cpu() -> CpuFacts:
    usable = os.access(_KVM, os.R_OK | os.W_OK)
    return CpuFacts(platform.machine(), parse_cpu_flags(Path("/proc/cpuinfo").read_text()), usable)


def observe_kvm_group() -> int:
    """The group that may open /dev/kvm, as a supplementary group for QEMU; 0 if there is none."""
    try:
        status = _KVM.stat()
    except FileNotFoundError:
        return 0
    return status.st_gid if status.st_mode & 0o060 == 0o060 else 0
