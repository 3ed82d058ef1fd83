"""Pool arithmetic: what is refused, what is free, and that full pools say so."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from ucloud.errors import Conflict, Exhausted, InvalidInput
from ucloud.ipam import plan


def chooser(seed: int = 1) -> plan.Choose:
    return random.Random(seed).randrange


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("10.0.0.0/30", "subnet_too_small"),
        ("10.0.0.0/32", "subnet_too_small"),
        ("10.0.0.0/15", "invalid_input"),
        ("10.0.0.0", "subnet_too_small"),
        ("10.0.0/24", "invalid_input"),
        ("fd00::/64", "invalid_input"),
        ("", "invalid_input"),
    ],
)
def test_a_bad_ipv4_subnet_is_refused(text: str, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        plan.parse_ipv4_subnet(text)
    assert (caught.value.code, caught.value.field) == (code, "ipv4_subnet")


def test_host_bits_are_cleared() -> None:
    assert str(plan.parse_ipv4_subnet("10.1.2.3/24")) == "10.1.2.0/24"


@pytest.mark.parametrize("text", ["fd00::/48", "fd00::/65", "10.0.0.0/24", "x", "fd00::1"])
def test_a_bad_ipv6_prefix_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        plan.parse_ipv6_prefix(text)


@pytest.mark.parametrize(
    "subnet",
    [
        "127.0.0.0/16",
        "169.254.0.0/16",
        "169.254.169.0/24",
        "224.1.0.0/16",
        "0.0.0.0/16",
        "255.255.255.0/24",
        "fe80:1::/64",
        "ff02::/64",
        "::/64",
        "0:0:0:ffff::/64",
    ],
)
def test_no_network_touches_a_reserved_range(subnet: str) -> None:
    parsed = plan.Subnet.__args__[1 if ":" in subnet else 0](subnet)
    with pytest.raises(Conflict) as caught:
        plan.check_free(parsed, [], field="subnet")
    assert caught.value.code == "subnet_overlaps"


def test_an_overlap_names_who_has_it() -> None:
    with pytest.raises(Conflict, match=r"10\.0\.0\.0/16 \(network n1\)"):
        plan.check_free(IPv4Network("10.0.7.0/24"), [("10.0.0.0/16", "network n1")], field="ipv4_subnet")


def test_other_versions_and_neighbours_do_not_overlap() -> None:
    taken = [("10.0.0.0/24", "a"), ("fd00::/64", "b")]
    plan.check_free(IPv4Network("10.0.1.0/24"), taken, field="x")
    plan.check_free(IPv6Network("fd00:0:0:1::/64"), taken, field="x")


@pytest.mark.parametrize(
    "subnet",
    [
        "10.0.0.0/16",
        "172.16.5.0/24",
        "172.31.0.0/16",
        "192.168.1.0/24",
        "100.127.0.0/16",
        "fd12:3456::/64",
        "fc00::/64",
    ],
)
def test_private_subnets_are_anybodys(subnet: str) -> None:
    plan.check_free(ip_network(subnet), [], field="x")


@pytest.mark.parametrize(
    "subnet",
    ["8.8.0.0/16", "172.32.0.0/16", "172.15.0.0/16", "100.128.0.0/16", "192.0.2.0/24", "2001:db8::/64", "2000::/64"],
)
def test_a_public_subnet_must_be_the_sites(subnet: str) -> None:
    """On a host, a network's subnet is a route: with anybody's, a user could take the host's own traffic."""
    network = ip_network(subnet)
    outside = ["198.51.100.0/24", "2001:db8:1::/48", str(network.supernet().supernet())]
    with pytest.raises(Conflict) as caught:
        plan.check_free(network, [], field="x", public=outside[:2])
    assert caught.value.code == "subnet_not_allowed"
    assert "network.public_prefixes" in caught.value.hint
    plan.check_free(network, [], field="x", public=outside)
    plan.check_free(network, [], field="x", public=[subnet])
    larger = [str(part) for part in network.subnets()]
    with pytest.raises(Conflict):
        plan.check_free(network, [], field="x", public=larger)


def test_a_site_prefix_does_not_open_a_reserved_range() -> None:
    for subnet in ("169.254.0.0/16", "fd75:636c:6f75:6400::/64"):
        with pytest.raises(Conflict, match=r"hosts and gateways|link-local"):
            plan.check_free(ip_network(subnet), [], field="x", public=[subnet])


def test_prefixes_of_a_small_site_run_out() -> None:
    taken: list[str] = []
    for _ in range(3):
        taken.append(str(plan.pick_ipv6_prefix("fd00:1::/62", taken, chooser())))
    assert sorted(taken) == ["fd00:1:0:1::/64", "fd00:1:0:2::/64", "fd00:1:0:3::/64"]
    with pytest.raises(Exhausted):
        plan.pick_ipv6_prefix("fd00:1::/62", taken, chooser())


def test_a_prefix_is_not_inside_a_larger_one_that_is_taken() -> None:
    prefix = plan.pick_ipv6_prefix("fd00:1::/62", ["fd00:1:0:2::/63"], chooser())
    assert str(prefix) == "fd00:1:0:1::/64"


@pytest.mark.parametrize("seed", range(5))
def test_addresses_are_given_once_and_run_out(seed: int) -> None:
    taken: set[str] = set()
    for _ in range(5):
        taken.add(plan.pick_ipv4("10.0.0.0/29", taken, chooser(seed)))
    assert taken == {f"10.0.0.{last}" for last in range(2, 7)}
    with pytest.raises(Exhausted, match="all 5 are taken"):
        plan.pick_ipv4("10.0.0.0/29", taken, chooser(seed))


def test_the_last_free_address_of_a_large_subnet_is_found() -> None:
    everything = {str(address) for address in IPv4Network("10.0.0.0/16")} - {"10.0.77.7"}
    assert plan.pick_ipv4("10.0.0.0/16", everything, chooser()) == "10.0.77.7"


@pytest.mark.parametrize(
    ("subnet", "address", "code"),
    [
        ("10.0.0.0/24", "10.0.1.5", "address_not_in_subnet"),
        ("10.0.0.0/24", "fd00::5", "address_not_in_subnet"),
        ("10.0.0.0/24", "10.0.0.0", "address_reserved"),
        ("10.0.0.0/24", "10.0.0.1", "address_reserved"),
        ("10.0.0.0/24", "10.0.0.255", "address_reserved"),
        ("fd00::/64", "fd00::", "address_reserved"),
        ("fd00::/64", "fd00::1", "address_reserved"),
        ("fd00::/64", "fd00::ffff:ffff:ffff:ffff", "address_reserved"),
        ("fd00::/64", "fd00:0:0:1::5", "address_not_in_subnet"),
    ],
)
def test_a_fixed_address_must_be_free_to_give(subnet: str, address: str, code: str) -> None:
    with pytest.raises(Conflict) as caught:
        plan.check_fixed(subnet, address)
    assert caught.value.code == code


def test_a_fixed_address_is_written_our_way() -> None:
    assert plan.check_fixed("fd00::/64", "FD00:0::00AB") == "fd00::ab"


def test_vnis_run_over_the_whole_range() -> None:
    assert plan.pick_vni(set(), lambda count: 0) == 256
    assert plan.pick_vni(set(), lambda count: count - 1) == 2**24 - 1
