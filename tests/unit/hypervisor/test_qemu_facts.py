"""What QEMU says of itself."""

from __future__ import annotations

import pytest

from ucloud.errors import MissingPrerequisite
from ucloud.hypervisor.qemu_facts import parse_machine_type, parse_version

HELP = """Supported machines are:
pc-q35-7.1           Standard PC (Q35 + ICH9, 2009)
q35                  Standard PC (Q35 + ICH9, 2009) (alias of pc-q35-7.2)
pc-q35-7.2           Standard PC (Q35 + ICH9, 2009)
"""


def test_version() -> None:
    assert parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\n") == "7.2.22"
    assert parse_version("?") == ""


def test_machine_type() -> None:
    assert parse_machine_type(HELP) == "pc-q35-7.2"
    with pytest.raises(MissingPrerequisite):
        parse_machine_type("virt QEMU 7.2 ARM Virtual Machine (alias of virt-7.2)")
