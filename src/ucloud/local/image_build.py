"""``ucloud image build``: makes the tiny guest image from Debian packages, in seconds, without mounting anything.

The result is one qcow2 file that appears whole or not at all. Everything else stays in the work directory,
where packages are kept for the next build; one build at a time may use it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ucloud.errors import MissingPrerequisite
from ucloud.local.tiny import disk, modules, packages, tree
from ucloud.system.files import ensure_directory, locked
from ucloud.system.run import run

# What the build needs on this machine: program → the Debian package that brings it.
HOST_TOOLS = {
    "apt-get": "apt",
    "debugfs": "e2fsprogs",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "qemu-img": "qemu-utils",
    "syslinux": "syslinux",
}


SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class BuiltImage:
    path: Path
    sha256: str
    format: str
    virtual_size_bytes: int


def build_tiny(output: Path, *, work_directory: Path, progress: Callable[[str], None]) -> BuiltImage:
    """Write the tiny guest image to ``output``. Raises MissingPrerequisite if a tool or package is missing."""
    check_tools()
    ensure_directory(work_directory, mode=0o755)
    ensure_directory(output.parent, mode=0o755)
    with locked(work_directory / "lock"):
        trees = packages.fetch_packages(work_directory, progress)
        raw = work_directory / "disk.raw"
        size_bytes = _build_disk(raw, work_directory, trees, progress)
        progress("writing the image")
        _convert(raw, output)
        raw.unlink()
    digest = _sha256(output)
    progress(f"built {output}: {output.stat().st_size} bytes, sha256 {digest}")
    return BuiltImage(output, digest, "qcow2", size_bytes)


def check_tools() -> None:
    """Raises MissingPrerequisite that names all packages to install, not only the first."""
    missing = [tool for tool in HOST_TOOLS if shutil.which(tool, path=SEARCH_PATH) is None]
    if missing:
        names = " ".join(sorted({HOST_TOOLS[tool] for tool in missing}))
        raise MissingPrerequisite(
            f"failed to build image: programs are missing: {', '.join(missing)}",
            hint=f"apt-get install --no-install-recommends {names}",
        )


def _build_disk(raw: Path, work: Path, trees: dict[str, Path], progress: Callable[[str], None]) -> int:
    progress("assembling the boot partition")
    kernels = sorted((trees["kernel"] / "boot").glob("vmlinuz-*"))
    boot_files = {
        "vmlinuz": kernels[-1].read_bytes(),
        "initrd": tree.render_initramfs(trees, modules.read_modules(trees["kernel"])),
        "syslinux.cfg": (tree.GUEST_FILES / "syslinux.cfg").read_bytes(),
    }
    boot, root = work / "boot.img", work / "root.img"
    boot_sectors = disk.build_boot_partition(boot, boot_files)
    progress("assembling the root partition")
    tree.build_root(work / "root", trees)
    root_sectors = disk.build_root_partition(root, work / "root")
    size = disk.assemble_disk(raw, boot=boot, boot_sectors=boot_sectors, root=root, root_sectors=root_sectors)
    boot.unlink()
    root.unlink()
    return size


def _convert(raw: Path, output: Path) -> None:
    beside = output.with_name(f".{output.name}.new")
    try:
        run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, beside], timeout_s=120.0)
        beside.replace(output)
    finally:
        beside.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
