"""Which routes of a host are in a network's way."""

from __future__ import annotations

import pytest

from ucloud.network.routes import find_overlap
from ucloud.system.netlink import Occupied

SUBNETS = ("fd00:1::/64", "10.0.0.0/24")


@pytest.mark.parametrize("prefix", ["10.0.0.0/24", "10.0.0.0/8", "10.0.0.7/32", "fd00:1::/64", "fd00::/16", "fc00::/7"])
def test_what_overlaps_is_in_the_way_but_for_the_own(prefix: str) -> None:
    occupied = [Occupied("192.0.2.0/24", 2), Occupied(prefix, 3)]
    found = find_overlap(SUBNETS, occupied, own_device=9)
    assert found is not None
    assert found.occupied is occupied[1]
    assert find_overlap(SUBNETS, occupied, own_device=3) is None


@pytest.mark.parametrize("prefix", ["0.0.0.0/0", "::/0", "0.0.0.0/1", "10.0.1.0/24", "fd00:1:0:1::/64", "fe80::/64"])
def test_defaults_and_neighbours_are_not(prefix: str) -> None:
    assert find_overlap(SUBNETS, [Occupied(prefix, 3)], own_device=9) is None


def test_a_null_route_is_if_it_is_not_a_whole_sites() -> None:
    for prefix, free in (("10.0.0.0/8", True), ("10.0.0.0/24", False), ("10.0.0.7/32", False)):
        assert (find_overlap(SUBNETS, [Occupied(prefix, 0, null=True)], own_device=9) is None) == free
