"""Which kernel modules the guest loads, and in which order. Pure, except for ``read_module``.

A kernel package that was never installed has no ``modules.dep``; each module names what it needs in its
``.modinfo`` section, and ``modules.builtin`` names what is compiled into the kernel.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ucloud.errors import MissingPrerequisite

WANTED = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "button", "evdev", "ext4", "ipv6", "af_packet")


def module_name(file_name: str) -> str:
    """``kernel/drivers/char/hw_random/virtio-rng.ko.xz`` → ``virtio_rng``: dashes and underscores are equal."""
    return file_name.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def parse_depends(module: bytes) -> tuple[str, ...]:
    """The modules that this one needs, from ``depends=a,b`` in its .modinfo section."""
    found = re.search(rb"\x00depends=([\w,-]*)\x00", module)
    return tuple(name.replace("-", "_") for name in found[1].decode().split(",") if name) if found else ()


def plan_load_order(
    wanted: Iterable[str], available: Mapping[str, Path], builtin: frozenset[str], read: Callable[[Path], bytes]
) -> tuple[str, ...]:
    """Names of modules, each after those it needs. Built-in ones are left out; an unknown one is an error."""
    order: list[str] = []
    visiting: set[str] = set()

    def visit(name: str) -> None:
        if name in builtin or name in order or name in visiting:
            return
        if name not in available:
            raise MissingPrerequisite(f"failed to find kernel module {name}: the kernel package lacks it")
        visiting.add(name)
        for needed in parse_depends(read(available[name])):
            visit(needed)
        order.append(name)

    for name in wanted:
        visit(name)
    return tuple(order)


def read_module(path: Path) -> bytes:
    """The module as the kernel wants it: Debian compresses them from release 13 on."""
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def read_modules(kernel_tree: Path) -> dict[str, bytes]:
    """The wanted modules of an unpacked kernel package, in load order: name → content."""
    lists = sorted((kernel_tree / "lib/modules").glob("*/modules.builtin")) or sorted(
        (kernel_tree / "usr/lib/modules").glob("*/modules.builtin")
    )
    if not lists:
        raise MissingPrerequisite(f"failed to read modules of {kernel_tree.name}: it has no modules.builtin")
    directory = lists[0].parent
    available = {module_name(path.name): path for path in directory.rglob("*.ko*")}
    # af_packet is CONFIG_PACKET=y in Debian's cloud kernel and then listed like any built-in.
    builtin = frozenset(module_name(line) for line in lists[0].read_text().splitlines())
    order = plan_load_order(WANTED, available, builtin, read_module)
    return {name: read_module(available[name]) for name in order}
