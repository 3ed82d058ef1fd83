"""The gateway of a network on a host: a namespace with the network's first addresses, and an uplink to the host.

Inside are two devices: ``guests``, a port of the network's bridge with the same MAC and addresses on every host, and
``uplink``. Between the ends of the uplink only link-local addresses are used, as next hops for IPv4 as well. The host's
end carries the digest of the whole as its alias, written last. Rules are loaded before the first device is up.
"""

from __future__ import annotations

import logging

from ucloud.errors import Conflict, NotFound
from ucloud.model import devices
from ucloud.network.plan import GatewayTarget, NetworkTarget
from ucloud.network.routes import find_overlap
from ucloud.system.namespace import ensure_namespace, in_namespace, namespace_inode, remove_namespace
from ucloud.system.netlink import Link, Links, Veth, open_links
from ucloud.system.nft import apply_ruleset
from ucloud.system.sysctl import disable_ipv6, ensure_sysctl

log = logging.getLogger(__name__)

_INSIDE_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv6/conf/all/forwarding": "1",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
    "net/ipv6/conf/default/addr_gen_mode": "1",
}
# The link-local address that SLAAC would make is not wanted on the host's end either.
_UPLINK_SYSCTLS = {"addr_gen_mode": "1", "accept_ra": "0", "accept_redirects": "0"}


def observe_gateway(links: Links, target: NetworkTarget) -> str:
    """The digest of the complete gateway, "" if any part is missing."""
    names = target.devices
    uplink = links.find(names.uplink)
    gateway = links.find(names.gateway)
    bridge = links.find(names.bridge)
    if uplink is None or gateway is None or bridge is None or not namespace_inode(names.namespace):
        return ""
    return uplink.alias if uplink.up and gateway.up and gateway.master == bridge.index else ""


def refuse_foreign_routes(links: Links, target: NetworkTarget) -> None:
    """Raises Conflict if the network's subnets would take addresses that the host uses otherwise."""
    uplink = links.find(target.devices.uplink)
    overlap = find_overlap(
        target.gateway.subnets, links.list_occupied(), own_device=uplink.index if uplink is not None else -1
    )
    if overlap is None:
        return
    names = {link.index: f"device {link.name}" for link in links.list_links("")}
    holder = names.get(overlap.occupied.device, "a route without a device of its own")
    raise Conflict(
        f"failed to carry network {target.network_id} on this host: {overlap.subnet} overlaps"
        f" {overlap.occupied.prefix} of {holder}",
        hint="make the network with another subnet, or free this one on the host",
        code="route_conflict",
    )


def make_gateway(links: Links, target: NetworkTarget) -> None:
    """Build it anew: what may be there is half built or of another shape."""
    names = target.devices
    remove_gateway(links, target)
    ensure_namespace(names.namespace)
    links.add_veth(Veth(names.gateway, devices.INSIDE_GUESTS, names.namespace, target.mtu, devices.GATEWAY_MAC))
    links.add_veth(Veth(names.uplink, devices.INSIDE_UPLINK, names.namespace, target.mtu))
    in_namespace(names.namespace, lambda: _configure_inside(target.gateway))
    _connect_guests(links, target)
    uplink = links.get(names.uplink)
    _connect_uplink(links, uplink, target.gateway)
    links.set_alias(uplink.index, target.gateway_digest)


def remove_gateway(links: Links, target: NetworkTarget) -> None:
    """The devices are removed by name, for a process that is still inside keeps the namespace alive."""
    links.remove(target.devices.uplink)
    links.remove(target.devices.gateway)
    remove_namespace(target.devices.namespace)


def _configure_inside(gateway: GatewayTarget) -> None:
    for key, value in _INSIDE_SYSCTLS.items():
        ensure_sysctl(key, value)
    apply_ruleset(gateway.rules)
    with open_links() as links:
        guests = _inside(links, devices.INSIDE_GUESTS)
        uplink = _inside(links, devices.INSIDE_UPLINK)
        links.set_up(links.get("lo").index)
        outside = [f"{devices.UPLINK_GATEWAY_LINK_LOCAL}/64"]
        if gateway.uplink_ipv4:
            outside.append(f"{gateway.uplink_ipv4}/32")
        for link, addresses in ((guests, gateway.addresses), (uplink, outside)):
            links.set_up(link.index)
            for address in addresses:
                links.add_address(link.index, address)
        # Deprecated: router advertisements come from fe80::1 alone.
        links.add_address(guests.index, f"{devices.METADATA_IPV6}/64", deprecated=True)
        _route_to_host(links, uplink, gateway)


def _inside(links: Links, name: str) -> Link:
    """The sysctls of new devices were inherited before ours were set."""
    for key, value in _UPLINK_SYSCTLS.items():
        ensure_sysctl(f"net/ipv6/conf/{name}/{key}", value)
    return links.get(name)


def _route_to_host(links: Links, uplink: Link, gateway: GatewayTarget) -> None:
    destinations = [f"{devices.UPLINK_HOST_IPV4}/32", f"{devices.UPLINK_HOST_IPV6}/128"]
    if gateway.egress:
        destinations += ["0.0.0.0/0", "::/0"]
    for destination in destinations:
        links.add_route(destination, uplink.index, via=devices.UPLINK_HOST_LINK_LOCAL)


def _connect_guests(links: Links, target: NetworkTarget) -> None:
    name = target.devices.gateway
    link = links.get(name)
    disable_ipv6(name)
    bridge = links.find(target.devices.bridge)
    if bridge is None:
        raise NotFound(f"failed to connect gateway {name}: bridge {target.devices.bridge} is gone", code="no_device")
    links.attach(link.index, bridge.index)
    links.pin_mac(link.index, devices.GATEWAY_MAC)
    links.set_up(link.index)


def _connect_uplink(links: Links, uplink: Link, gateway: GatewayTarget) -> None:
    for key, value in _UPLINK_SYSCTLS.items():
        ensure_sysctl(f"net/ipv6/conf/{uplink.name}/{key}", value)
    links.set_up(uplink.index)
    links.add_address(uplink.index, f"{devices.UPLINK_HOST_LINK_LOCAL}/64")
    links.add_address(uplink.index, f"{devices.UPLINK_HOST_IPV4}/32")
    links.add_address(uplink.index, f"{devices.UPLINK_HOST_IPV6}/128")
    for prefix in gateway.subnets:
        _route_to_guests(links, uplink, prefix)
    if gateway.uplink_ipv4:
        try:
            _route_to_guests(links, uplink, f"{gateway.uplink_ipv4}/32")
        except Conflict as error:
            # Two VNIs may have the same one. All that it is for are IPv4 name servers of a network without IPv4.
            log.warning("%s: a network's names are asked by IPv6 only: %s", uplink.name, error.message)


def _route_to_guests(links: Links, uplink: Link, prefix: str) -> None:
    source = devices.UPLINK_HOST_IPV6 if ":" in prefix else devices.UPLINK_HOST_IPV4
    links.add_route(prefix, uplink.index, via=devices.UPLINK_GATEWAY_LINK_LOCAL, source=source)
