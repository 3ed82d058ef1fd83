"""The guest's root file system as a directory, and its initramfs, put together from unpacked packages.

Owns ``root/`` in the work directory, which is made anew each time. Only what runs is copied: the whole guest is
busybox, an ssh server, a DHCP client and the C library.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from pathlib import Path

from ucloud.local.tiny import cpio
from ucloud.local.tiny.packages import find_file
from ucloud.system.files import ensure_directory
from ucloud.system.run import run

GUEST_FILES = Path(__file__).parent / "guest"

_LIBRARIES = "lib/x86_64-linux-gnu"
_SHARED_LIBRARIES = {
    "libc6": ("libc.so.6", "libresolv.so.2"),
    "libcom-err2": ("libcom_err.so.2",),
    "libcrypt1": ("libcrypt.so.1",),
    "libext2fs2": ("libext2fs.so.2", "libe2p.so.2"),
    "libgmp10": ("libgmp.so.10",),
    "libtomcrypt1": ("libtomcrypt.so.1",),
    "libtommath1": ("libtommath.so.1",),
    "zlib1g": ("libz.so.1",),
}
_PROGRAMS = {
    "dhcpcd-base": ("sbin/dhcpcd",),
    "dropbear-bin": ("sbin/dropbear", "bin/dropbearkey"),
    "e2fsprogs": ("sbin/resize2fs",),
}
_DIRECTORIES = (
    "bin",
    "dev",
    "etc/acpi",
    "etc/dropbear",
    "etc/ucloud",
    "proc",
    "root/.ssh",
    "run",
    "sys",
    "tmp",
    "usr",
    "var/lib/dhcpcd",
    "var/lib/ucloud",
)
# One directory for all programs: the others are names that scripts and programs expect.
_LINKS = {
    "sbin": "bin",
    "usr/bin": "../bin",
    "usr/sbin": "../bin",
    "var/run": "../run",
    "etc/mtab": "../proc/mounts",
    "etc/resolv.conf": "../run/resolv.conf",
}
SCRIPTS = {
    "boot": "etc/ucloud/boot",
    "dns": "etc/ucloud/dns",
    "metadata": "etc/ucloud/metadata",
    "network": "etc/ucloud/network",
    "sshd": "etc/ucloud/sshd",
    "power-button": "etc/acpi/power-button",
}
SETTINGS = {
    "acpid.conf": "etc/acpid.conf",
    "dhcpcd.conf": "etc/dhcpcd.conf",
    "group": "etc/group",
    "inittab": "etc/inittab",
    "passwd": "etc/passwd",
    "profile": "etc/profile",
}
# What initramfs-init calls, besides the shell's own words.
_INITRAMFS_APPLETS = (
    "blockdev",
    "cat",
    "dd",
    "insmod",
    "mount",
    "reboot",
    "sh",
    "sleep",
    "switch_root",
    "usleep",
)


def build_root(root: Path, packages: Mapping[str, Path]) -> None:
    """Make the guest's root file system as the directory ``root``."""
    shutil.rmtree(root, ignore_errors=True)
    for name in _DIRECTORIES:
        ensure_directory(root / name, mode=0o755)
    for name, target in _LINKS.items():
        (root / name).symlink_to(target)
    for package, programs in _PROGRAMS.items():
        for program in programs:
            _install(find_file(packages[package], program), root / "bin" / Path(program).name, 0o755)
    _install_libraries(root, packages)
    _install_busybox(root, packages["busybox-static"])
    for name, target in SCRIPTS.items():
        _install(GUEST_FILES / name, root / target, 0o755)
    for name, target in SETTINGS.items():
        _install(GUEST_FILES / name, root / target, 0o644)
    _install(GUEST_FILES / "shadow", root / "etc/shadow", 0o600)
    (root / "etc/hostname").write_text("ucloud-tiny\n")
    (root / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    (root / "etc/shells").write_text("/bin/sh\n")
    for private in ("root", "root/.ssh", "etc/dropbear"):
        (root / private).chmod(0o700)


def _install(source: Path, target: Path, mode: int) -> None:
    shutil.copyfile(source, target)  # follows symlinks: the guest needs the file under this one name
    target.chmod(mode)


def _install_libraries(root: Path, packages: Mapping[str, Path]) -> None:
    ensure_directory(root / _LIBRARIES, mode=0o755)
    ensure_directory(root / "lib64", mode=0o755)
    for package, names in _SHARED_LIBRARIES.items():
        for name in names:
            _install(find_file(packages[package], f"{_LIBRARIES}/{name}"), root / _LIBRARIES / name, 0o644)
    loader = "ld-linux-x86-64.so.2"
    _install(find_file(packages["libc6"], f"{_LIBRARIES}/{loader}"), root / "lib64" / loader, 0o755)


def _install_busybox(root: Path, package: Path) -> None:
    busybox = find_file(package, "bin/busybox")
    _install(busybox, root / "bin/busybox", 0o755)
    for applet in run([busybox, "--list"]).stdout.split():
        link = root / "bin" / applet
        if not link.exists():
            link.symlink_to("busybox")


def render_initramfs(packages: Mapping[str, Path], modules: Mapping[str, bytes]) -> bytes:
    """The compressed initramfs: busybox, the modules in their order, and our init."""
    entries = [cpio.directory(name) for name in ("bin", "dev", "modules", "proc", "root", "sys")]
    entries.append(cpio.character_device("dev/console", 5, 1))
    busybox = find_file(packages["busybox-static"], "bin/busybox").read_bytes()
    entries.append(cpio.file("bin/busybox", busybox, executable=True))
    entries += [cpio.symlink(f"bin/{applet}", "busybox") for applet in _INITRAMFS_APPLETS]
    entries += [cpio.file(f"modules/{name}.ko", data) for name, data in modules.items()]
    order = "".join(f"{name}.ko\n" for name in modules)
    entries.append(cpio.file("modules/order", order.encode()))
    entries.append(cpio.file("init", (GUEST_FILES / "initramfs-init").read_bytes(), executable=True))
    return gzip.compress(cpio.render_cpio(entries), compresslevel=6, mtime=0)
