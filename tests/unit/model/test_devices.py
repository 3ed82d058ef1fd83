"""Names and addresses of devices: short enough, told apart, and right."""

from __future__ import annotations

import pytest

from ucloud.model import devices


def test_names_fit_and_differ() -> None:
    names = devices.network_devices("fff", 0xFFFFFF)
    all_names = [names.vxlan, names.bridge, names.gateway, names.uplink, devices.tap_device("fff", "abcdefgh")]

    assert all(len(name) <= 15 for name in all_names)
    assert len(set(all_names)) == len(all_names)
    assert names.namespace == "ucloud-fff-ffffff"


def test_two_clouds_share_no_prefix() -> None:
    one, two = devices.device_prefixes("0a0"), devices.device_prefixes("0a1")

    assert not one.tap.startswith(two.tap)
    assert devices.tap_device("0a1", "abcdefgh").startswith(two.tap)


def test_the_cloud_of_an_uplink() -> None:
    assert devices.cloud_of_uplink(devices.network_devices("0a1", 0xFFFFFF).uplink) == "0a1"
    for other in ("uup", "uup0a1", "uupxyz64", "uup0a1xyz", "uup0a1fffffff", "eth0", "ut0a1abcdefgh"):
        assert devices.cloud_of_uplink(other) == ""


@pytest.mark.parametrize(
    ("vni", "group"),
    [(100, "ff05::64"), (9999, "ff05::270f"), (10_000, "ff05::2710"), (16_777_215, "ff05::ff:ffff")],
)
def test_group_is_the_number_not_its_digits(vni: int, group: str) -> None:
    assert devices.group_address("ff05::", vni) == group


def test_eui64() -> None:
    assert devices.link_local_of("02:00:00:00:00:01") == "fe80::ff:fe00:1"
    # RFC 4291, appendix A: 34-56-78-9A-BC-DE gives 3656:78FF:FE9A:BCDE
    assert devices.eui64_address("2001:db8::/64", "34:56:78:9a:bc:de") == "2001:db8::3656:78ff:fe9a:bcde"
    assert devices.eui64_address("fd00:1::7/64", "52:54:00:12:34:56") == "fd00:1::5054:ff:fe12:3456"


def test_gateway_addresses() -> None:
    assert devices.gateway_ipv4("10.0.0.0/24") == "10.0.0.1"
    assert devices.gateway_ipv4("") == ""
    assert devices.gateway_ipv6("fd00:1::/64") == "fd00:1::1"


def test_uplink_address_is_never_the_metadata_address() -> None:
    addresses = {devices.uplink_ipv4(vni) for vni in range(1 << 15)}

    assert devices.METADATA_IPV4 not in addresses
    assert devices.UPLINK_HOST_IPV4 not in addresses


@pytest.mark.parametrize(
    ("name", "label"),
    [("web1", "web1"), ("My VM", "my-vm"), ("-a-", "a"), ("ü\n,#", "vm"), ("x" * 300, "x" * 63)],
)
def test_dns_label(name: str, label: str) -> None:
    assert devices.dns_label(name) == label
