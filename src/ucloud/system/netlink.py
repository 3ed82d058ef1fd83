"""Links, addresses, routes and forwarding entries of the namespace of the calling thread: small typed verbs.

Owns no state but its netlink socket. One ``Links`` belongs to one thread and one piece of work (opening costs 0.3 ms).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from ucloud.errors import Conflict, Error, NotFound

_NTF_MASTER = 0x04
_NTF_STICKY = 0x40
_NUD_NOARP = 0x40
_IFA_F_NODAD = 0x02
_IFA_F_NOT_OURS_FOR_LONG = 0x01 | 0x08 | 0x20  # temporary, failed duplicate detection, deprecated
_RT_SCOPE_UNIVERSE = 0
_VXLAN_HOPS = 64  # the kernel's default for multicast is one hop, which a routed underlay does not forward
_TABLES = (253, 254, 255)  # default, main, local: what every lookup comes to
_NULL_ROUTES = (6, 7, 8, 9)  # blackhole, unreachable, prohibit, throw


@dataclass(frozen=True, slots=True)
class Link:
    """What is known of a device. ``alias`` is the text that its maker wrote on it."""

    index: int
    name: str
    kind: str
    mtu: int
    mac: str
    up: bool
    alias: str
    master: int


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device to make: packets of ``vni`` go to multicast ``group`` on device number ``underlay``.

    They come from ``local``, or from an address that the kernel chooses if it is "".
    """

    name: str
    vni: int
    group: str
    underlay: int
    port: int
    local: str = ""


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair to make: ``name`` here, ``peer`` in ``namespace``."""

    name: str
    peer: str
    namespace: str
    mtu: int
    peer_mac: str = ""


@dataclass(frozen=True, slots=True)
class Occupied:
    """A prefix that the kernel has an address or a route of. ``device`` is 0 for several or none.

    ``null``: what is sent there is thrown away.
    """

    prefix: str
    device: int
    null: bool = False


class Links:
    def __init__(self, route: Any) -> None:
        self._route = route

    def find(self, name: str) -> Link | None:
        try:
            (found,) = self._route.link("get", ifname=name)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise _failure(f"look for device {name}", error) from error
        return _parse_link(found)

    def get(self, name: str) -> Link:
        found = self.find(name)
        if found is None:
            raise NotFound(f"failed to use device {name}: there is none", code="no_device")
        return found

    def list_links(self, prefix: str) -> list[Link]:
        """All devices whose name begins with ``prefix``."""
        links = (_parse_link(message) for message in self._route.get_links())
        return [link for link in links if link.name.startswith(prefix)]

    def add_bridge(self, name: str) -> None:
        """A bridge without spanning tree and without snooping: multicast goes to every port."""
        with _named(f"make bridge {name}"):
            self._route.link("add", ifname=name, kind="bridge", br_stp_state=0, br_mcast_snooping=0, br_forward_delay=0)

    def add_vxlan(self, vxlan: Vxlan) -> None:
        try:
            self._route.link(
                "add",
                ifname=vxlan.name,
                kind="vxlan",
                vxlan_id=vxlan.vni,
                vxlan_group6=vxlan.group,
                vxlan_link=vxlan.underlay,
                vxlan_port=vxlan.port,
                vxlan_learning=1,
                vxlan_ttl=_VXLAN_HOPS,
                **({"vxlan_local6": vxlan.local} if vxlan.local else {}),
            )
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                raise Conflict(
                    f"failed to make VXLAN device {vxlan.name}: VNI {vxlan.vni} is in use on UDP port {vxlan.port}",
                    hint="a second cloud on this machine needs another network.vxlan_port",
                ) from error
            raise _failure(f"make VXLAN device {vxlan.name}", error) from error

    def add_veth(self, veth: Veth) -> None:
        peer: dict[str, Any] = {"ifname": veth.peer, "net_ns_fd": veth.namespace, "mtu": veth.mtu}
        if veth.peer_mac:
            peer["address"] = veth.peer_mac
        with _named(f"make device pair {veth.name}"):
            self._route.link("add", ifname=veth.name, kind="veth", mtu=veth.mtu, peer=peer)

    def add_pair(self, name: str, peer: str, mtu: int) -> None:
        """A veth pair with both ends here."""
        with _named(f"make device pair {name}"):
            self._route.link("add", ifname=name, kind="veth", mtu=mtu, peer={"ifname": peer, "mtu": mtu})

    def set_up(self, index: int, **settings: Any) -> None:
        """Switch a device on, together with other attributes (``mtu``, ``master``, ``ifalias``…) in the same call."""
        with _named(f"set up device {index}"):
            self._route.link("set", index=index, state="up", **settings)

    def set_alias(self, index: int, alias: str) -> None:
        with _named(f"label device {index}"):
            self._route.link("set", index=index, ifalias=alias)

    def set_mtu(self, index: int, mtu: int) -> None:
        with _named(f"set the MTU of device {index}"):
            self._route.link("set", index=index, mtu=mtu)

    def attach(self, index: int, bridge: int) -> None:
        """Make a device a port of ``bridge`` that learns no addresses: its own must be given by ``pin_mac``."""
        with _named(f"attach device {index}"):
            self._route.link("set", index=index, master=bridge)
            self._route.brport("set", index=index, learning=0, unicast_flood=0)

    def pin_mac(self, index: int, mac: str) -> None:
        """Frames to ``mac`` go to this port, and no frame from another port changes that (sticky)."""
        with _named(f"pin {mac} to device {index}"):
            self._route.fdb("replace", ifindex=index, lladdr=mac, state=_NUD_NOARP, flags=_NTF_MASTER | _NTF_STICKY)

    def detach(self, index: int) -> None:
        """Take a device off its bridge, with all that the bridge knew to be behind it."""
        with _named(f"detach device {index}"):
            self._route.link("set", index=index, master=0)

    def unpin_mac(self, index: int, mac: str) -> None:
        """The opposite of ``pin_mac``; also where nothing was pinned."""
        try:
            self._route.fdb("del", ifindex=index, lladdr=mac, state=_NUD_NOARP, flags=_NTF_MASTER)
        except NetlinkError as error:
            if error.code != errno.ENOENT:
                raise _failure(f"unpin {mac} from device {index}", error) from error

    def remove(self, name: str) -> bool:
        """Remove a device. Returns whether there was one."""
        link = self.find(name)
        if link is None:
            return False
        try:
            self._route.link("del", index=link.index)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return False
            raise _failure(f"remove device {name}", error) from error
        return True

    def add_address(self, index: int, address: str, *, deprecated: bool = False) -> None:
        """Add ``address/length``, usable at once (no duplicate detection); ``deprecated``: never chosen as a source."""
        interface = ip_interface(address)
        settings: dict[str, Any] = {}
        if interface.version == 6:
            settings["flags"] = _IFA_F_NODAD
            if deprecated:
                settings |= {"preferred": 0, "valid": 0xFFFFFFFF}
        with _named(f"add address {address}"):
            self._route.addr(
                "replace", index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **settings
            )

    def add_route(self, destination: str, index: int, *, via: str, source: str = "") -> None:
        """A route by an IPv6 next hop, also for IPv4 destinations. The default routes are 0.0.0.0/0 and ::/0.

        Raises Conflict if there is one of another device.
        """
        network = ip_interface(destination).network
        family = socket.AF_INET6 if network.version == 6 else socket.AF_INET
        hop: dict[str, Any] = {"gateway": via}
        if family == socket.AF_INET and ip_address(via).version == 6:
            hop = {"via": {"family": socket.AF_INET6, "addr": via}}
        if source:
            hop["prefsrc"] = source
        try:
            # Not "replace": what is there may be the host's own way to its network.
            self._route.route("add", family=family, dst=str(network), oif=index, **hop)
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise _failure(f"add route {destination}", error) from error
            if Occupied(str(network), index) not in self.list_occupied():
                raise Conflict(
                    f"failed to add route {destination}: there is another one already", code="route_conflict"
                ) from error

    def list_occupied(self) -> list[Occupied]:
        """All that the kernel has addresses or routes of."""
        found = [one for message in self._route.get_addr() for one in _parse_address(message)]
        routes = (message for message in self._route.get_routes() if message["table"] in _TABLES)
        return found + [_parse_route(message) for message in routes]

    def addresses(self, index: int) -> list[str]:
        """All addresses of a device, as ``address/length``."""
        found = self._route.get_addr(index=index)
        return [f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}" for message in found]

    def global_ipv6(self, index: int) -> str:
        """The device's first lasting IPv6 address that is no link-local one, "" if it has none."""
        for message in self._route.get_addr(index=index, family=socket.AF_INET6):
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if message["scope"] == _RT_SCOPE_UNIVERSE and not flags & _IFA_F_NOT_OURS_FOR_LONG:
                return str(message.get_attr("IFA_ADDRESS"))
        return ""


@contextmanager
def open_links() -> Iterator[Links]:
    with IPRoute() as route:
        yield Links(route)


@contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        raise _failure(what, error) from error


def _failure(what: str, error: NetlinkError) -> Error:
    return Error(f"failed to {what}: {error.args[1] if len(error.args) > 1 else error}", code="network_failed")


def _parse_address(message: Any) -> list[Occupied]:
    """Between two points the address is the other's, and the local one ours."""
    address, local = message.get_attr("IFA_ADDRESS"), message.get_attr("IFA_LOCAL")
    found = [f"{address}/{message['prefixlen']}"] + ([local] if local and local != address else [])
    return [Occupied(str(ip_interface(one).network), message["index"]) for one in found]


def _parse_route(message: Any) -> Occupied:
    nothing = "::" if message["family"] == socket.AF_INET6 else "0.0.0.0"
    prefix = f"{message.get_attr('RTA_DST') or nothing}/{message['dst_len']}"
    return Occupied(prefix, message.get_attr("RTA_OIF") or 0, message["type"] in _NULL_ROUTES)


def _parse_link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    return Link(
        index=message["index"],
        name=message.get_attr("IFLA_IFNAME"),
        kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        up=bool(message["flags"] & 1),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        master=message.get_attr("IFLA_MASTER") or 0,
    )
