"""Rules as text for nft. Pure; this file is the only one that knows nft's language.

Two tables on the host, replaced in one transaction:
- ``bridge``: what a NIC may use as its own are elements of sets, keyed by its device. All NICs share the same few
  chains, so the cost does not grow with their number, and one more NIC is a few more elements. A tap without elements
  is mute. The chains sit in ``prerouting``, before the bridge learns an address. What is addressed to the bridge
  itself is dropped: the host has no part in guest networks.
- ``inet``: guests reach the host and each other's networks not at all, the world by translation.
And one table inside each gateway. Bridge frames have no connection tracking here (the kernel may lack it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address

from ucloud.firewall.rules import GatewayRules, HostRules, NicRules
from ucloud.model import devices
from ucloud.model.devices import DevicePrefixes, device_prefixes

# IANA protocol numbers of extension headers: hop-by-hop, routing, fragment, authentication, destination options,
# mobility, HIP, shim6, and two for experiments. What hides behind them is not looked at: it is dropped.
_EXTENSION_HEADERS = "{ 0, 43, 44, 51, 60, 135, 139, 140, 253, 254 }"
_MULTICAST_REPORTS = "{ 131, 132, 143 }"
_PLAIN_ICMPV6 = "{ 1, 2, 3, 4, 128, 129 }"
# ICMPv6 router solicitation to redirect; DHCP ports of both versions.
_GATEWAY_ICMPV6 = "{ 133, 134, 137 }"
_DHCP_PORTS = "{ 67, 68, 546, 547 }"


def bridge_table(tag: str) -> str:
    return f"ucloud_{tag}"


GATEWAY_TABLE = "ucloud"


def render_host(rules: HostRules) -> str:
    """The text that replaces both tables of the host."""
    name = bridge_table(rules.tag)
    return "".join(
        (
            _replace("bridge", name),
            _table("bridge", name, _bridge_blocks(rules)),
            _replace("inet", name),
            _table("inet", name, _inet_blocks(rules)),
        )
    )


def render_gateway(rules: GatewayRules) -> str:
    """The text that replaces the table inside a gateway's namespace."""
    guests, uplink = f'iifname "{devices.INSIDE_GUESTS}"', f'iifname "{devices.INSIDE_UPLINK}"'
    outwards = f'{guests} oifname "{devices.INSIDE_UPLINK}"'
    input_rules = [
        'iifname "lo" accept',
        "ct state established,related accept",
        "ct state invalid drop",
        f"{guests} udp dport {{ 53, 67, 547 }} accept",
        f"{guests} tcp dport {{ 53, {devices.METADATA_PORT} }} accept",
        f"{guests} icmp type echo-request accept",
        f"{guests} icmpv6 type {{ 128, 133, 135, 136 }} accept",
        f"{uplink} ip6 hoplimit 255 icmpv6 type {{ 135, 136 }} accept",
        f"{uplink} icmpv6 type 128 accept",
        f"{uplink} icmp type echo-request accept",
    ]
    forward_rules = [
        f'{uplink} oifname "{devices.INSIDE_GUESTS}" accept',
        *(f"{outwards} {_family(source)} saddr {source} accept" for source in rules.sources),
    ]
    blocks = [
        _chain("input", input_rules, hook="type filter hook input priority filter; policy drop;"),
        _chain("forward", forward_rules, hook="type filter hook forward priority filter; policy drop;"),
    ]
    return _replace("inet", GATEWAY_TABLE) + _table("inet", GATEWAY_TABLE, blocks)


def render_change(old: HostRules, new: HostRules) -> str:
    """The text that makes the rules of ``old`` those of ``new``; "" if nothing but NICs may differ and they do not.

    Only for rules that differ in their NICs: anything else is a matter for ``render_host``.
    """
    name = bridge_table(new.tag)
    before, after = set(old.nics), set(new.nics)
    removed = _nic_elements(nic for nic in old.nics if nic not in after)
    added = _nic_elements(nic for nic in new.nics if nic not in before)
    lines = [
        f"{verb} element bridge {name} {one} {_set(elements)}\n"
        for verb, changed in (("delete", removed), ("add", added))
        for one, elements in changed.items()
        if elements
    ]
    return "".join(lines)


# What nft must know of each set of NICs' own things. ``@th`` counts bits from the start of ICMPv6 (RFC 4861): a target
# at 64; the first option (type, length, address) behind it at 192, or at 64 in router solicitations. ``@nh`` counts
# from the start of RARP (RFC 903): the sender's MAC at 64, the target's at 144.
_NIC_SETS = {
    "macs": "type ifname . ether_addr",
    "arps": "type ifname . ether_addr . ipv4_addr",
    "ipv4": "type ifname . ipv4_addr",
    "ipv6": "type ifname . ipv6_addr",
    "targets": "typeof iifname . @th,64,128",
    "links": "typeof iifname . @th,192,64",
    "router_links": "typeof iifname . @th,64,64",
    "announcers": "typeof iifname . @nh,64,48 . @nh,144,48",
}


def _nic_elements(nics: Iterable[NicRules]) -> dict[str, list[str]]:
    """The elements of every set of _NIC_SETS."""
    elements: dict[str, list[str]] = {name: [] for name in _NIC_SETS}
    for nic in nics:
        device, digits = f'"{nic.device}"', nic.mac.replace(":", "")
        elements["macs"].append(f"{device} . {nic.mac}")
        elements["arps"] += [f"{device} . {nic.mac} . {address}" for address in nic.ipv4]
        elements["ipv4"] += [f"{device} . {address}" for address in nic.ipv4]
        elements["ipv6"] += [f"{device} . {address}" for address in nic.ipv6]
        elements["targets"] += [f"{device} . 0x{int(IPv6Address(address)):032x}" for address in nic.ipv6]
        # Options 1 (source) and 2 (target link-layer address), one unit of 8 bytes long.
        elements["links"] += [f"{device} . 0x0101{digits}", f"{device} . 0x0201{digits}"]
        elements["router_links"].append(f"{device} . 0x0101{digits}")
        elements["announcers"].append(f"{device} . 0x{digits} . 0x{digits}")
    return elements


def _bridge_blocks(rules: HostRules) -> list[list[str]]:
    prefixes = device_prefixes(rules.tag)
    vxlans, taps = f'"{prefixes.vxlan}*"', f'"{prefixes.tap}*"'
    elements = _nic_elements(rules.nics)
    return [
        *(_block("set", name, kind, elements[name]) for name, kind in _NIC_SETS.items()),
        *(_chain(name, chain) for name, chain in _GUEST_CHAINS.items()),
        _chain("between_hosts", _between_hosts_rules()),
        _chain(
            "prerouting",
            [f"iifname {taps} goto guest", f"iifname {vxlans} goto between_hosts"],
            hook="type filter hook prerouting priority -300; policy accept;",
        ),
        _chain(
            "forward",
            [f"oifname {vxlans} goto between_hosts"],
            hook="type filter hook forward priority -200; policy accept;",
        ),
        _chain(
            "input",
            [f'iifname "{port}*" drop' for port in (prefixes.tap, prefixes.vxlan, prefixes.gateway)],
            hook="type filter hook input priority -200; policy accept;",
        ),
    ]


# QEMU tells where a guest is after a migration, in its NIC's name (qemu_announce_self): "who am I?", asked by its own
# MAC about its own MAC, without any address. htype 1, ptype 0x0800, hlen 6, plen 4, operation 3 are the first 64 bits.
_RARP = "ether daddr ff:ff:ff:ff:ff:ff @nh,0,64 0x0001080006040003 @nh,112,32 0 @nh,192,32 0"
_ARP = "arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4"

# In the order in which nft can read them: a chain is known before others go there.
_GUEST_CHAINS = {
    "guest_arp": [
        f"{_ARP} arp operation {{ request, reply }} iifname . arp saddr ether . arp saddr ip @arps accept",
        # A probe (RFC 5227) has no sender address yet; it may ask for the own one only.
        f"{_ARP} arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @arps accept",
        "drop",
    ],
    "guest_rarp": [
        f"{_RARP} iifname . @nh,64,48 . @nh,144,48 @announcers accept",
        "drop",
    ],
    "guest_ip": [
        "ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        "iifname . ip saddr != @ipv4 drop",
        # Clients take answers of DHCP servers from any source port, so both ports are refused.
        "udp sport 67 drop",
        "udp dport 68 drop",
        "icmp type redirect drop",
        "accept",
    ],
    "guest_icmpv6": [
        f"icmpv6 type {_PLAIN_ICMPV6} accept",
        "ip6 hoplimit != 255 drop",
        # Neighbour discovery, bare or with one link-layer address, which must be the own one.
        "icmpv6 type 133 ip6 length 8 accept",
        "icmpv6 type 133 ip6 length 16 iifname . @th,64,64 @router_links accept",
        "icmpv6 type 135 ip6 length 24 accept",
        "icmpv6 type 135 ip6 length 32 @th,192,8 1 iifname . @th,192,64 @links accept",
        "icmpv6 type 136 iifname . @th,64,128 != @targets drop",
        "icmpv6 type 136 ip6 length 24 accept",
        "icmpv6 type 136 ip6 length 32 @th,192,8 2 iifname . @th,192,64 @links accept",
        "drop",
    ],
    "guest_unspecified": [
        # Duplicate detection, plain or with a nonce (RFC 7527), never with a link-layer address.
        "ip6 nexthdr 58 icmpv6 type 135 ip6 length 24 iifname . @th,64,128 @targets accept",
        "ip6 nexthdr 58 icmpv6 type 135 ip6 length 32 @th,192,8 14 iifname . @th,64,128 @targets accept",
        "ip6 nexthdr 58 icmpv6 type 133 ip6 length 8 accept",
        f"ip6 nexthdr 0 icmpv6 type {_MULTICAST_REPORTS} accept",
        "drop",
    ],
    "guest_ip6": [
        "ip6 saddr :: goto guest_unspecified",
        "iifname . ip6 saddr != @ipv6 drop",
        f"ip6 nexthdr 0 icmpv6 type {_MULTICAST_REPORTS} accept",
        f"ip6 nexthdr {_EXTENSION_HEADERS} drop",
        "ip6 nexthdr 58 goto guest_icmpv6",
        "udp sport 547 drop",
        "udp dport 546 drop",
        "accept",
    ],
    "guest": [
        "iifname . ether saddr != @macs drop",
        "ether type arp goto guest_arp",
        "ether type 0x8035 goto guest_rarp",
        "ether type ip goto guest_ip",
        "ether type ip6 goto guest_ip6",
        "drop",
    ],
}


def _between_hosts_rules() -> list[str]:
    """Gateways are local: what they and their clients say to each other stays on the host."""
    return [
        f"ether saddr {devices.GATEWAY_MAC} drop",
        f"ether daddr {devices.GATEWAY_MAC} drop",
        f"udp sport {_DHCP_PORTS} drop",
        f"udp dport {_DHCP_PORTS} drop",
        f"icmpv6 type {_GATEWAY_ICMPV6} drop",
    ]


def _inet_blocks(rules: HostRules) -> list[list[str]]:
    prefixes = device_prefixes(rules.tag)
    uplinks = f'"{prefixes.uplink}*"'
    return [
        _block("set", "ways_out", "type ifname", [f'"{one.device}"' for one in rules.uplinks if one.egress]),
        _block("set", "sources4", "type ipv4_addr\nflags interval\nauto-merge", _sources(rules, "ip")),
        _block("set", "sources6", "type ipv6_addr\nflags interval\nauto-merge", _sources(rules, "ip6")),
        _block("set", "gateways4", "type ipv4_addr", _gateways(rules, "ip")),
        _block("set", "gateways6", "type ipv6_addr", _gateways(rules, "ip6")),
        _chain("input", _host_input_rules(prefixes), hook="type filter hook input priority filter; policy accept;"),
        _chain("from_guests", _from_guests_rules(rules)),
        _chain(
            "forward",
            [
                f"iifname {uplinks} jump from_guests",
                f"oifname {uplinks} ct state established,related accept",
                f"oifname {uplinks} drop",
            ],
            hook="type filter hook forward priority filter; policy accept;",
        ),
        _chain(
            # Where bridge-nf-call-iptables is 1 (the kernel's default with br_netfilter), bridged packets come through
            # here too. Were they tracked, the same flow on its way out would be known already, and not be translated.
            "prerouting",
            [f'iifname "{prefixes.bridge}*" notrack'],
            hook="type filter hook prerouting priority raw; policy accept;",
        ),
        _chain(
            "postrouting",
            [
                f"oifname {uplinks} accept",
                "ip saddr @sources4 masquerade",
                "ip6 saddr @sources6 masquerade",
            ],
            hook="type nat hook postrouting priority srcnat; policy accept;",
        ),
    ]


def _host_input_rules(prefixes: DevicePrefixes) -> list[str]:
    uplinks = f'iifname "{prefixes.uplink}*"'
    return [
        f"{uplinks} ct state established,related accept",
        f"{uplinks} ip6 saddr fe80::/10 ip6 hoplimit 255 icmpv6 type {{ 135, 136 }} accept",
        f"{uplinks} drop",
        *(f'iifname "{one}*" drop' for one in (prefixes.bridge, prefixes.tap, prefixes.vxlan, prefixes.gateway)),
    ]


def _from_guests_rules(rules: HostRules) -> list[str]:
    prefixes = device_prefixes(rules.tag)
    return [
        f'oifname "{prefixes.uplink}*" drop',
        f'oifname "{prefixes.underlay}" drop',
        # A gateway asks the host's name servers, wherever they are.
        "iifname @ways_out ip saddr @gateways4 meta l4proto { tcp, udp } th dport 53 accept",
        "iifname @ways_out ip6 saddr @gateways6 meta l4proto { tcp, udp } th dport 53 accept",
        *(f"{_family(refused)} daddr {refused} drop" for refused in rules.refused),
        # Translated to the host's address, this would be taken for the host's own tunnel by others.
        f"udp dport {rules.vxlan_port} drop",
        "ct state established,related accept",
        "iifname @ways_out accept",
        "drop",
    ]


def _sources(rules: HostRules, family: str) -> list[str]:
    found = [source for one in rules.uplinks if one.egress for source in one.sources if _family(source) == family]
    return [*found, devices.UPLINK_GATEWAY_IPV4] if family == "ip" and rules.uplinks else found


def _gateways(rules: HostRules, family: str) -> list[str]:
    return [address for one in rules.uplinks for address in one.gateways if _family(address) == family]


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _set(values: Sequence[str]) -> str:
    return f"{{ {', '.join(values)} }}"


def _replace(family: str, name: str) -> str:
    """Naming the table first makes its removal succeed also where there is none."""
    return f"table {family} {name}\ndelete table {family} {name}\n"


def _table(family: str, name: str, blocks: Iterable[list[str]]) -> str:
    body = "".join(f"\t{line}\n" for block in blocks for line in block)
    return f"table {family} {name} {{\n{body}}}\n"


def _chain(name: str, rules: Iterable[str], *, hook: str = "") -> list[str]:
    lines = [hook] if hook else []
    return [f"chain {name} {{", *(f"\t{line}" for line in (*lines, *rules)), "}"]


def _block(kind: str, name: str, description: str, elements: Sequence[str]) -> list[str]:
    """A set or a map."""
    lines = [f"\t{line}" for line in description.splitlines()]
    return [f"{kind} {name} {{", *lines, *([f"\telements = {_set(elements)}"] if elements else []), "}"]
