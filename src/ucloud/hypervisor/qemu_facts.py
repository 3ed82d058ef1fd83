"""What the installed QEMU is: its version, and the machine type that new VMs get."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from ucloud.errors import MissingPrerequisite
from ucloud.system.run import run

_PROGRAM = "qemu-system-x86_64"
_SEARCH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class QemuFacts:
    """``program`` is absolute; ``machine_type`` has its version, such as "pc-q35-7.2"."""

    program: str
    version: str
    machine_type: str


def observe_qemu() -> QemuFacts:
    """Raises MissingPrerequisite if there is none."""
    program = shutil.which(_PROGRAM, path=_SEARCH)
    if program is None:
        raise MissingPrerequisite(
            f"failed to find {_PROGRAM}: it is not installed", hint="install the Debian package qemu-system-x86"
        )
    version = parse_version(run([program, "--version"]).stdout)
    return QemuFacts(program, version, parse_machine_type(run([program, "-machine", "help"]).stdout))


def parse_version(text: str) -> str:
    """ "7.2.22" of ``qemu --version``; "" if it does not say."""
    found = re.search(r"version (\d+(?:\.\d+)+)", text)
    return found[1] if found else ""


def parse_machine_type(text: str) -> str:
    """What ``q35`` stands for in ``qemu -machine help``. Raises MissingPrerequisite if it is not there."""
    found = re.search(r"^q35 .*\(alias of (pc-q35-[\d.]+)\)", text, re.MULTILINE)
    if found is None:
        raise MissingPrerequisite("failed to choose a machine type: this QEMU has no q35", hint="install QEMU ≥ 7.2")
    return found[1]
