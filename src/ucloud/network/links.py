"""The layer-2 half of a network on a host: underlay, VXLAN device, bridge, and NICs as ports of it.

The host itself takes no part in guest networks: IPv6 is off on all these devices, they have no IPv4 address, and the
firewall drops what a guest sends to a bridge. Ports of NICs and gateways learn no addresses: theirs are pinned.
"""

from __future__ import annotations

from ipaddress import IPv6Address

from ucloud.config.sections import NetworkSection
from ucloud.errors import MissingPrerequisite, NotFound
from ucloud.model import devices
from ucloud.model.wanted import WantedNic
from ucloud.network.plan import NetworkTarget
from ucloud.system.netlink import Link, Links, Vxlan
from ucloud.system.sysctl import disable_ipv6, ensure_sysctl

UNDERLAY_ADDRESS = "fe80::7563:6c6f/64"
_UNPINNED = " unpinned"


def ensure_underlay(links: Links, settings: NetworkSection) -> Link:
    """The configured device, or a bridge of our own without ports: nothing leaves the machine by that."""
    if settings.underlay_device:
        return _configured_underlay(links, settings)
    name = devices.device_prefixes(settings.tag).underlay
    found = links.find(name)
    if found is not None and found.alias == "ready" and found.mtu == settings.underlay_mtu:
        return found
    if found is None:
        links.add_bridge(name)
        found = links.get(name)
    ensure_sysctl(f"net/ipv6/conf/{name}/addr_gen_mode", "1")
    links.set_up(found.index, mtu=settings.underlay_mtu)
    links.add_address(found.index, UNDERLAY_ADDRESS)
    links.set_alias(found.index, "ready")
    return found


def _configured_underlay(links: Links, settings: NetworkSection) -> Link:
    name = settings.underlay_device
    found = links.find(name)
    if found is None:
        raise MissingPrerequisite(
            f"failed to use underlay device {name}: there is none",
            hint="set network.underlay_device to a device of this host",
        )
    if found.mtu < settings.underlay_mtu:
        raise MissingPrerequisite(
            f"failed to use underlay device {name}: its MTU of {found.mtu} is less than {settings.underlay_mtu}",
            hint=f"ip link set {name} mtu {settings.underlay_mtu}, or set network.underlay_mtu on every host",
        )
    return found


def underlay_address(links: Links, settings: NetworkSection) -> str:
    """Where other hosts reach this one's VXLAN device, "" if there are no others or the device has no address yet."""
    if settings.underlay_address:
        return str(IPv6Address(settings.underlay_address))
    if not settings.underlay_device:
        return ""
    found = links.find(settings.underlay_device)
    return links.global_ipv6(found.index) if found is not None else ""


def make_bridge(links: Links, target: NetworkTarget) -> None:
    name = target.devices.bridge
    if links.find(name) is None:
        links.add_bridge(name)
    bridge = links.get(name)
    disable_ipv6(name)
    links.set_up(bridge.index, mtu=target.mtu)
    links.set_alias(bridge.index, target.bridge_digest)


def make_vxlan(links: Links, settings: NetworkSection, target: NetworkTarget) -> None:
    name = target.devices.vxlan
    underlay = ensure_underlay(links, settings)
    found = links.find(name)
    if found is not None and found.alias != target.vxlan_digest:
        links.remove(name)
        found = None
    if found is None:
        links.add_vxlan(Vxlan(name, target.vni, target.group, underlay.index, target.port, target.local))
    vxlan = links.get(name)
    disable_ipv6(name)
    links.set_up(vxlan.index, mtu=target.mtu, master=links.get(target.devices.bridge).index)
    links.set_alias(vxlan.index, target.vxlan_digest)


def attach_nic(links: Links, nic: WantedNic, *, tap: str, bridge: str, pinned: bool) -> bool:
    """Make the NIC's device, if there is one, a port of its bridge. Returns whether there is one.

    Not ``pinned``: the port floods to its guest, but frames for its MAC still go where that was heard last.
    """
    link = links.find(tap)
    if link is None:
        return False
    port_of = links.get(bridge)
    label = nic.mac if pinned else f"{nic.mac}{_UNPINNED}"
    if link.master == port_of.index and link.up and link.alias == label:
        return True
    prepare_nic(links, link, mtu=port_of.mtu)
    links.attach(link.index, port_of.index)
    (links.pin_mac if pinned else links.unpin_mac)(link.index, nic.mac)
    links.set_up(link.index)
    links.set_alias(link.index, label)
    return True


def pin_nic(links: Links, nic: WantedNic, *, tap: str) -> None:
    """From here on all frames for the NIC's MAC go to its port, whatever the bridge had heard of it."""
    link = links.get(tap)
    if not link.master:
        raise NotFound(f"failed to pin NIC {nic.id}: its device {tap} is not connected", code="no_device")
    links.pin_mac(link.index, nic.mac)
    links.set_alias(link.index, nic.mac)


def detach_nic(links: Links, tap: str) -> bool:
    """Frames for its MAC leave the host from here on. Returns whether it was connected."""
    link = links.find(tap)
    if link is None or not link.master:
        return False
    links.detach(link.index)
    return True


def prepare_nic(links: Links, link: Link, *, mtu: int) -> None:
    disable_ipv6(link.name)
    links.set_mtu(link.index, mtu)


def remove_links(links: Links, target: NetworkTarget) -> None:
    links.remove(target.devices.vxlan)
    links.remove(target.devices.bridge)
