"""KVM only where it works."""

from __future__ import annotations

import pytest

from ucloud.errors import InvalidInput, MissingPrerequisite
from ucloud.hypervisor.accelerator import CpuFacts, choose_accelerator, parse_cpu_flags

INTEL = CpuFacts("x86_64", frozenset({"vmx", "sse4_2"}), kvm_usable=True)
AMD = CpuFacts("x86_64", frozenset({"svm"}), kvm_usable=True)
NESTED = CpuFacts("x86_64", frozenset({"sse4_2"}), kvm_usable=True)
BARE = CpuFacts("x86_64", frozenset({"vmx"}), kvm_usable=False)
ARM = CpuFacts("aarch64", frozenset(), kvm_usable=True)


@pytest.mark.parametrize(
    ("facts", "chosen"), [(INTEL, "kvm"), (AMD, "kvm"), (NESTED, "tcg"), (BARE, "tcg"), (ARM, "kvm")]
)
def test_auto(facts: CpuFacts, chosen: str) -> None:
    assert choose_accelerator("auto", facts) == chosen
    assert choose_accelerator("tcg", facts) == "tcg"


@pytest.mark.parametrize("facts", [NESTED, BARE])
def test_kvm_as_a_must(facts: CpuFacts) -> None:
    assert choose_accelerator("kvm", INTEL) == "kvm"
    with pytest.raises(MissingPrerequisite):
        choose_accelerator("kvm", facts)


def test_an_unknown_word() -> None:
    with pytest.raises(InvalidInput):
        choose_accelerator("hvf", INTEL)


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("", set()),
        ("processor : 0\nflags\t\t: fpu vmx\n\nflags : x", {"fpu", "vmx"}),
        ("Features : fp asimd", {"fp", "asimd"}),
    ],
)
def test_cpuinfo(text: str, flags: set[str]) -> None:
    assert parse_cpu_flags(text) == flags
