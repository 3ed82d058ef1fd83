"""The lab's wires: a namespace per node, a switch (a bridge in a namespace of its own), a cable from each node to it.

IPv6 only: nothing on the wires has an IPv4 address, the nodes not even on their loopback device. Addresses are usable
at once (no duplicate detection), for there is nobody else on these wires. A cable has the name of its node at the
switch, and ``UPLINK`` in the node. Everything here can be repeated, and cut short at any point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pyroute2 import IPRoute

from ucloud.lab.nodes import SWITCH, UPLINK, Node, NodeKind, Shape
from ucloud.system import namespace
from ucloud.system.netlink import Links, Veth, open_links
from ucloud.system.sysctl import disable_ipv6, ensure_sysctl

T = TypeVar("T")

BRIDGE = "switch"
MTU = 1500
# So many facts may wait for the recorder, which listens in the client's namespace.
_DATAGRAMS = "4096"
_LINK_SETTINGS = {"accept_dad": "0", "accept_ra": "0", "keep_addr_on_down": "1"}


def switch_namespace(shape: Shape) -> str:
    return shape.namespace(SWITCH)


def ensure_switch(shape: Shape) -> None:
    name = switch_namespace(shape)
    namespace.ensure_namespace(name)

    def body() -> None:
        with open_links() as links:
            if links.find(BRIDGE) is None:
                links.add_bridge(BRIDGE)
            disable_ipv6(BRIDGE)
            links.set_up(links.get(BRIDGE).index, mtu=MTU)

    namespace.in_namespace(name, body)


def ensure_node(shape: Shape, node: Node) -> None:
    """The node's namespace with its cable plugged in."""
    namespace.ensure_namespace(node.namespace)
    namespace.in_namespace(node.namespace, lambda: _prepare(node))
    in_switch(shape, lambda links: _plug(links, node))
    namespace.in_namespace(node.namespace, lambda: _address(node))


def remove_node(shape: Shape, node: Node) -> None:
    """The node without power: its cable, its namespace and those of its gateways go, with all that is in them."""
    for name in own_namespaces(node):
        if namespace.namespace_inode(name):
            namespace.in_namespace(name, _remove_devices)
    unplug(shape, node)
    for name in own_namespaces(node):
        namespace.remove_namespace(name)


def remove_all(shape: Shape) -> None:
    for node in shape.nodes:
        remove_node(shape, node)
    if namespace.namespace_inode(switch_namespace(shape)):
        namespace.in_namespace(switch_namespace(shape), _remove_devices)
    namespace.remove_namespace(switch_namespace(shape))


def unplug(shape: Shape, node: Node) -> None:
    """Take the cable away, with what an interrupted fault may have put between it and the switch."""
    if namespace.namespace_inode(switch_namespace(shape)):
        in_switch(shape, lambda links: [links.remove(link.name) for link in links.list_links(f"{node.name}-")])
        in_switch(shape, lambda links: links.remove(node.name))


def set_link(shape: Shape, node: Node, *, up: bool) -> None:
    """Pull the cable at the switch (the node loses its carrier), or plug it in again."""

    def body(links: Links) -> None:
        with IPRoute() as route:
            route.link("set", index=links.get(node.name).index, state="up" if up else "down")

    in_switch(shape, body)


def own_namespaces(node: Node) -> list[str]:
    """The node's and, of a host, those of the gateways that run on it; the gateways' first."""
    gateways = namespace.list_namespaces(f"ucloud-{node.tag}-") if node.kind is NodeKind.HOST else []
    return [*gateways, node.namespace]


def in_switch(shape: Shape, work: Callable[[Links], T]) -> T:
    def body() -> T:
        with open_links() as links:
            return work(links)

    return namespace.in_namespace(switch_namespace(shape), body)


def _prepare(node: Node) -> None:
    ensure_sysctl("net/unix/max_dgram_qlen", _DATAGRAMS)
    for key, value in _LINK_SETTINGS.items():
        ensure_sysctl(f"net/ipv6/conf/default/{key}", value)
    with open_links() as links:
        loopback = links.get("lo")
        links.set_up(loopback.index)
        if "127.0.0.1/8" in links.addresses(loopback.index):
            with IPRoute() as route:
                route.addr("del", index=loopback.index, address="127.0.0.1", prefixlen=8)


def _plug(links: Links, node: Node) -> None:
    if links.find(node.name) is None:
        links.add_veth(Veth(node.name, UPLINK, node.namespace, MTU, peer_mac=node.mac))
    disable_ipv6(node.name)
    links.set_up(links.get(node.name).index, master=links.get(BRIDGE).index)


def _address(node: Node) -> None:
    with open_links() as links:
        uplink = links.get(UPLINK)
        links.set_up(uplink.index)
        links.add_address(uplink.index, f"{node.address}/64")


def _remove_devices() -> None:
    """A process or socket that is still inside keeps a namespace alive, but no device may stay in it."""
    with open_links() as links:
        for link in links.list_links(""):
            if link.kind:
                links.remove(link.name)
