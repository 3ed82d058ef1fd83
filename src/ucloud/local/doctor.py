"""What this machine must have to run a cloud, looked at without changing anything that stays.

Each check says ok, warning or failure, and how to get what is missing. ``up`` refuses to start after a failure.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from ucloud.errors import Error, MissingPrerequisite
from ucloud.system.run import run

SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
MIN_FREE_DISK_GIB = 2
MIN_MEMORY_MIB = 1536
_PROBE = "ucloud-doctor"


class Grade(StrEnum):
    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """``advice`` says how to mend it, "" if all is well."""

    check: str
    grade: Grade
    detail: str
    advice: str = ""


# program → Debian package
PROGRAMS = {
    "etcd": "etcd-server",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "ip": "iproute2",
}


def examine(directory: Path) -> list[Finding]:
    """All checks, in the order in which they should be mended."""
    findings = [_root(), *(_program(name, package) for name, package in PROGRAMS.items())]
    findings += [_device("/dev/net/tun", "taps for VMs", "modprobe tun"), _acceleration()]
    findings += [_ipv6(), *_kernel_links(), _disk(directory), _memory()]
    return findings


def require_all(directory: Path) -> None:
    """Raises MissingPrerequisite naming every failure."""
    failures = [finding for finding in examine(directory) if finding.grade is Grade.FAILURE]
    if failures:
        told = "; ".join(f"{finding.check}: {finding.detail}" for finding in failures)
        advice = "; ".join(dict.fromkeys(finding.advice for finding in failures if finding.advice))
        raise MissingPrerequisite(f"failed to start: this machine lacks something: {told}", hint=advice)


def _root() -> Finding:
    if os.geteuid() == 0:
        return Finding("root", Grade.OK, "yes")
    return Finding("root", Grade.FAILURE, "not root", "run it as root: networks and VMs need it")


def _program(name: str, package: str) -> Finding:
    path = shutil.which(name, path=SEARCH_PATH)
    if path:
        return Finding(name, Grade.OK, path)
    return Finding(name, Grade.FAILURE, "not installed", f"apt-get install {package}")


def _device(path: str, purpose: str, advice: str) -> Finding:
    if Path(path).exists():
        return Finding(path, Grade.OK, purpose)
    return Finding(path, Grade.FAILURE, f"missing ({purpose})", advice)


def _acceleration() -> Finding:
    flags = Path("/proc/cpuinfo").read_text()
    if Path("/dev/kvm").exists() and (" vmx" in flags or " svm" in flags):
        return Finding("kvm", Grade.OK, "hardware acceleration")
    detail = "no hardware acceleration: VMs run, but slowly"
    return Finding("kvm", Grade.WARNING, detail, "switch on virtualization in the firmware, or nesting outside")


def _ipv6() -> Finding:
    if Path("/proc/net/if_inet6").exists():
        return Finding("ipv6", Grade.OK, "on")
    return Finding("ipv6", Grade.FAILURE, "the kernel has no IPv6", "boot without ipv6.disable=1")


def _kernel_links() -> list[Finding]:
    """Tries each kind of link in a network namespace that is removed again."""
    if os.geteuid() != 0 or shutil.which("ip", path=SEARCH_PATH) is None:
        return []
    name = f"{_PROBE}-{os.getpid()}"
    kinds = {
        "bridge": ("type", "bridge"),
        "vxlan": ("type", "vxlan", "id", "1", "dstport", "4789"),
        "veth": ("type", "veth"),
    }
    try:
        run(["ip", "netns", "add", name])
    except Error as error:
        return [Finding("network namespaces", Grade.FAILURE, error.message, "use a kernel with CONFIG_NET_NS")]
    try:
        return [_link(name, kind, words) for kind, words in kinds.items()]
    finally:
        run(["ip", "netns", "delete", name], check=False)


def _link(namespace: str, kind: str, words: tuple[str, ...]) -> Finding:
    try:
        run(["ip", "-n", namespace, "link", "add", "probe0", *words])
        run(["ip", "-n", namespace, "link", "delete", "probe0"])
    except Error as error:
        return Finding(kind, Grade.FAILURE, error.message, f"use a kernel with {kind} (modprobe {kind})")
    return Finding(kind, Grade.OK, "works")


def _disk(directory: Path) -> Finding:
    place = next(path for path in (directory, *directory.parents) if path.exists())
    free_gib = shutil.disk_usage(place).free / 2**30
    detail = f"{free_gib:.1f} GiB free at {place}"
    if free_gib >= MIN_FREE_DISK_GIB:
        return Finding("disk", Grade.OK, detail)
    return Finding("disk", Grade.FAILURE, detail, f"free at least {MIN_FREE_DISK_GIB} GiB, or use --directory")


def _memory() -> Finding:
    memory_mib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    if memory_mib >= MIN_MEMORY_MIB:
        return Finding("memory", Grade.OK, f"{memory_mib} MiB")
    return Finding("memory", Grade.WARNING, f"{memory_mib} MiB", "a small VM may not fit")
