"""A network never takes a route of the host it comes to: neither the host's own nor one of another cloud's network."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import require
from tests.integration.lab_host import HOST_IPV4, OUTSIDE_IPV4, OUTSIDE_IPV6, LabHost, make_network
from ucloud.config.sections import HostSection, NetworkSection
from ucloud.errors import Conflict
from ucloud.model.devices import network_devices
from ucloud.model.wanted import WantedNetwork
from ucloud.network.room import NetworkRoom
from ucloud.system.netlink import open_links
from ucloud.system.sysctl import read_sysctl

NETWORK = make_network("main", 100, ipv4="10.77.0.0/24")


@pytest.fixture
def host() -> Iterator[LabHost]:
    for part in ("root", "ip", "nft", "dnsmasq"):
        require(part)
    with LabHost() as one:
        one.add_outside()
        ip(one, "-4", "route", "add", "default", "via", OUTSIDE_IPV4)
        ip(one, "-6", "route", "add", "default", "via", OUTSIDE_IPV6)
        yield one


def ip(host: LabHost, *words: str) -> str:
    return host.do(lambda: subprocess.run(["ip", *words], check=True, text=True, capture_output=True).stdout)


def routes(host: LabHost) -> str:
    return "".join(ip(host, family, "route", "show", "table", "all") for family in ("-4", "-6"))


def carry(host: LabHost, network: WantedNetwork = NETWORK) -> None:
    host.do(lambda: host.network.ensure_network(network))


def refusal(host: LabHost, network: WantedNetwork) -> Conflict:
    before = routes(host)
    with pytest.raises(Conflict) as caught:
        carry(host, network)
    assert caught.value.code == "route_conflict"
    assert routes(host) == before
    assert host.do(lambda: host.network.observe().namespaces) == ()
    return caught.value


@pytest.mark.parametrize("subnet", ["192.0.2.0/24", "192.0.0.0/16", "192.0.2.0/29", "192.0.2.128/25"])
def test_the_hosts_lan_is_its_own(host: LabHost, subnet: str) -> None:
    error = refusal(host, replace(NETWORK, ipv4_subnet=subnet))
    assert "192.0.2.0/24 of device world" in error.message
    assert f"dev world proto kernel scope link src {HOST_IPV4}" in ip(host, "route", "show", "192.0.2.0/24")
    assert "via 192.0.2.1" in ip(host, "route", "show", "default")


def test_the_hosts_ipv6_prefix_is_its_own(host: LabHost) -> None:
    assert "2001:db8::/64 of device world" in refusal(host, replace(NETWORK, ipv6_prefix="2001:db8::/64")).message


@pytest.mark.parametrize(
    ("route", "subnet"),
    [
        (["10.0.0.0/8", "via", OUTSIDE_IPV4], "10.77.0.0/24"),
        (["10.77.0.5/32", "via", OUTSIDE_IPV4], "10.77.0.0/24"),
        (["10.77.0.0/24", "dev", "world"], "10.77.0.0/24"),
        (["10.77.0.0/24", "nexthop", "via", OUTSIDE_IPV4, "nexthop", "via", "192.0.2.9"], "10.77.0.0/24"),
        (["blackhole", "10.77.0.0/24"], "10.77.0.0/24"),
        (["local", "10.77.0.0/25", "dev", "lo"], "10.77.0.0/24"),
    ],
)
def test_routes_of_the_host_stay(host: LabHost, route: list[str], subnet: str) -> None:
    ip(host, "route", "add", *route)
    refusal(host, replace(NETWORK, ipv4_subnet=subnet))


def test_an_address_counts_also_without_a_route(host: LabHost) -> None:
    ip(host, "link", "add", "down0", "type", "bridge")
    ip(host, "addr", "add", "10.77.0.9/24", "dev", "down0")
    assert "device down0" in refusal(host, NETWORK).message


def test_defaults_and_null_routes_of_a_whole_site_are_no_obstacle(host: LabHost) -> None:
    for route in (["0.0.0.0/1", "dev", "world"], ["unreachable", "10.0.0.0/8"]):
        ip(host, "route", "add", *route)
    for route in (["2000::/3", "via", OUTSIDE_IPV6], ["unreachable", "fc00::/7"], ["blackhole", "2001:db8:1::/48"]):
        ip(host, "-6", "route", "add", *route)
    carry(host, replace(NETWORK, ipv6_prefix="2001:db8:1:5::/64"))
    assert network_devices(host.tag, 100).uplink in ip(host, "route", "show", "10.77.0.0/24")


def test_own_routes_are_made_again(host: LabHost) -> None:
    carry(host)
    uplink = network_devices(host.tag, 100).uplink
    ip(host, "link", "set", uplink, "alias", "half made")
    carry(host)
    assert host.do(lambda: host.network.ensure_network(NETWORK)) == ()

    def again() -> None:
        with open_links() as links:
            links.add_route("10.77.0.0/24", links.get(uplink).index, via="fe80::2")

    host.do(again)
    assert ip(host, "route", "show", "10.77.0.0/24").count("\n") == 1


def test_a_route_is_never_replaced(host: LabHost) -> None:
    """Also if it came after the look at all routes."""
    carry(host)

    def take() -> None:
        with open_links() as links:
            links.add_route("10.77.0.0/24", links.get("world").index, via="fe80::2")

    before = routes(host)
    with pytest.raises(Conflict, match=r"10\.77\.0\.0/24") as caught:
        host.do(take)
    assert caught.value.code == "route_conflict"
    assert routes(host) == before


def test_uplink_addresses_that_meet_cost_no_network(host: LabHost) -> None:
    """Gateways without IPv4 have one of 2^15 addresses: two VNIs of a host may have the same."""
    one, two = make_network("one", 300), make_network("two", 300 + (1 << 15))
    carry(host, one)
    before = ip(host, "route", "show", "169.254.0.0/17", "root", "169.254.0.0/17")
    carry(host, two)
    assert host.do(lambda: host.network.ensure_network(two)) == ()
    assert ip(host, "route", "show", "169.254.0.0/17", "root", "169.254.0.0/17") == before


@pytest.fixture
def second(host: LabHost) -> Iterator[NetworkRoom]:
    """Another cloud on the same machine."""
    tag = "fff" if host.tag != "fff" else "ffe"
    section = HostSection(state_directory=host.directory / "second", run_directory=host.directory / "second/run")
    room = NetworkRoom(section, NetworkSection(tag=tag, vxlan_port=4790), host.firewall.gateway_rules)
    yield room
    host.do(room.remove_all)


def test_another_clouds_network_keeps_its_routes(host: LabHost, second: NetworkRoom) -> None:
    host.do(lambda: second.ensure_network(NETWORK))
    assert f"device {network_devices('fff', 100).uplink}" in refusal(host, NETWORK).message


def test_the_last_cloud_on_a_machine_switches_forwarding_off(host: LabHost, second: NetworkRoom) -> None:
    def forwards() -> bool:
        return host.do(lambda: read_sysctl("net/ipv6/conf/all/forwarding")) == "1"

    assert not forwards()
    carry(host)
    host.do(lambda: second.ensure_network(make_network("other", 101, ipv4="10.78.0.0/24")))

    host.do(host.network.remove_all)
    assert forwards(), "the second cloud's guests lost the way out"

    host.do(second.remove_all)
    host.do(host.network.remove_all)
    assert not forwards()
