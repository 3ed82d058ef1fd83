"""What all tests share: ``require``, which turns a missing part into a skip, or, where CI names it, a failure."""

from __future__ import annotations

import os
import shutil

import pytest

_PROGRAMS = {
    "etcd": ("etcd",),
    "qemu": ("qemu-system-x86_64", "qemu-img"),
    "nft": ("nft",),
    "ip": ("ip",),
    "dnsmasq": ("dnsmasq",),
    "ssh": ("ssh", "ssh-keygen"),
    "image-tools": ("mke2fs", "debugfs", "mcopy", "mkfs.vfat", "syslinux", "qemu-img", "apt-get", "dpkg-deb"),
}


def require(part: str) -> None:
    """Skip the test if ``part`` is not on this machine; fail instead if UCLOUD_REQUIRE names it.

    Parts: the names of _PROGRAMS, and "root" (the test needs to be root). UCLOUD_REQUIRE is a list with commas.
    """
    if part == "root":
        missing = [] if os.geteuid() == 0 else ["root"]
    else:
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
        missing = [program for program in _PROGRAMS[part] if shutil.which(program, path=path) is None]
    if not missing:
        return
    reason = f"{part} is needed: {', '.join(missing)} missing"
    if part in os.environ.get("UCLOUD_REQUIRE", "").split(","):
        pytest.fail(reason)
    pytest.skip(reason)
