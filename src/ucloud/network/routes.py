"""May a network's subnets become routes of this host? Pure arithmetic over what the kernel was seen to have.

A host sends to its guests by routes. Those must take nothing from the host itself: no address, no link, no route that
it has for another reason, be it one of another cloud on the same machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_network

from ucloud.system.netlink import Occupied

# 0.0.0.0/1 and 2000::/3 are ways to write a default route.
_DEFAULT_BITS = 3


@dataclass(frozen=True, slots=True)
class Overlap:
    subnet: str
    occupied: Occupied


def find_overlap(subnets: Iterable[str], occupied: Iterable[Occupied], *, own_device: int) -> Overlap | None:
    """The first of ``occupied`` that is in the way. What goes by ``own_device`` is the network's own."""
    wanted = [ip_network(subnet) for subnet in subnets]
    for one in occupied:
        prefix = ip_network(one.prefix)
        if one.device == own_device or prefix.prefixlen <= _DEFAULT_BITS:
            continue
        for subnet in wanted:
            if subnet.version != prefix.version or not subnet.overlaps(prefix):
                continue
            # A null route of a whole site is what a router has below its more specific ones.
            if not (one.null and prefix.prefixlen < subnet.prefixlen):
                return Overlap(str(subnet), one)
    return None
