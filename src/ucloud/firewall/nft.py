"""Rules as text for nft. Pure; this file is the only one that knows nft's language.

Two tables on the host, replaced in one transaction:
- ``bridge``: each tap jumps by a verdict map to the chain of its NIC, so the cost does not grow with their number.
  A tap without a chain is mute. Filters sit in ``prerouting``, before the bridge learns an address. What is addressed
  to the bridge itself is dropped: the host has no part in guest networks.
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


def _bridge_blocks(rules: HostRules) -> list[list[str]]:
    prefixes = device_prefixes(rules.tag)
    vxlans, taps = f'"{prefixes.vxlan}*"', f'"{prefixes.tap}*"'
    blocks = [block for nic in rules.nics for block in _nic_chains(nic)]
    blocks += [
        _chain("guest_ip", _guest_ip_rules()),
        _chain("guest_ip6", _guest_ip6_rules()),
        _chain("between_hosts", _between_hosts_rules()),
        _map("nics", {f'"{nic.device}"': f"jump nic_{nic.nic_id}" for nic in rules.nics}),
        _chain(
            "prerouting",
            ["iifname vmap @nics", f"iifname {taps} drop", f"iifname {vxlans} jump between_hosts"],
            hook="type filter hook prerouting priority -300; policy accept;",
        ),
        _chain(
            "forward",
            [f"oifname {vxlans} jump between_hosts"],
            hook="type filter hook forward priority -200; policy accept;",
        ),
        _chain(
            "input",
            [f'iifname "{port}*" drop' for port in (prefixes.tap, prefixes.vxlan, prefixes.gateway)],
            hook="type filter hook input priority -200; policy accept;",
        ),
    ]
    return blocks


def _nic_chains(nic: NicRules) -> Iterable[list[str]]:
    """The chain of a NIC, and that of its neighbour discovery. Every frame ends in accept or drop."""
    own_ipv6 = _set(nic.ipv6)
    rules = [f"ether saddr != {nic.mac} drop"]
    if nic.ipv4:
        own_ipv4 = _set(nic.ipv4)
        rules += [
            # An ARP probe (RFC 5227) has no sender address yet; a reply always has.
            "ether type arp arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4 "
            f"arp saddr ether {nic.mac} arp saddr ip {own_ipv4} arp operation {{ request, reply }} accept",
            "ether type arp arp htype 1 arp ptype 0x0800 arp hlen 6 arp plen 4 "
            f"arp saddr ether {nic.mac} arp saddr ip 0.0.0.0 arp operation request accept",
            f"ether type ip ip saddr {own_ipv4} goto guest_ip",
            "ether type ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept",
        ]
    rules += [
        f"ether type ip6 ip6 saddr {own_ipv6} ip6 nexthdr 58 icmpv6 type {{ 133, 135, 136 }} goto nd_{nic.nic_id}",
        f"ether type ip6 ip6 saddr {own_ipv6} goto guest_ip6",
        f"ether type ip6 ip6 saddr :: ip6 nexthdr 58 ip6 length {{ 24, 32 }} icmpv6 type 135 "
        f"@th,64,128 {_integers(nic.ipv6)} @th,192,8 != 1 accept",
        "ether type ip6 ip6 saddr :: ip6 nexthdr 58 ip6 length 8 icmpv6 type 133 accept",
        f"ether type ip6 ip6 saddr :: ip6 nexthdr 0 icmpv6 type {_MULTICAST_REPORTS} accept",
        "drop",
    ]
    yield _chain(f"nd_{nic.nic_id}", _neighbour_rules(nic))
    yield _chain(f"nic_{nic.nic_id}", rules)


def _neighbour_rules(nic: NicRules) -> list[str]:
    """RFC 4861 messages without options, or with one link-layer address that is the NIC's own (option types 1, 2).

    ``@th`` counts bits from the start of ICMPv6: target at 64, first option at 192 (behind a solicitation of routers,
    which has no target, at 64): type, length, address.
    """
    mac = f"0x{nic.mac.replace(':', '')}"
    targets = _integers(nic.ipv6)
    return [
        "ip6 hoplimit != 255 drop",
        "icmpv6 type 133 ip6 length 8 accept",
        f"icmpv6 type 133 ip6 length 16 @th,64,16 0x0101 @th,80,48 {mac} accept",
        "icmpv6 type 135 ip6 length 24 accept",
        f"icmpv6 type 135 ip6 length 32 @th,192,16 0x0101 @th,208,48 {mac} accept",
        f"icmpv6 type 136 ip6 length 24 @th,64,128 {targets} accept",
        f"icmpv6 type 136 ip6 length 32 @th,64,128 {targets} @th,192,16 0x0201 @th,208,48 {mac} accept",
        "drop",
    ]


def _guest_ip_rules() -> list[str]:
    """Clients take answers of DHCP servers from any source port, so both ports are refused."""
    return ["udp sport 67 drop", "udp dport 68 drop", "icmp type redirect drop", "accept"]


def _guest_ip6_rules() -> list[str]:
    return [
        f"ip6 nexthdr 0 icmpv6 type {_MULTICAST_REPORTS} accept",
        f"ip6 nexthdr {_EXTENSION_HEADERS} drop",
        f"ip6 nexthdr 58 icmpv6 type {_PLAIN_ICMPV6} accept",
        "ip6 nexthdr 58 drop",
        "udp sport 547 drop",
        "udp dport 546 drop",
        "accept",
    ]


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
        _map("ways_out", {f'"{uplink.device}"': "accept" for uplink in rules.uplinks if uplink.egress}),
        _address_set("sources4", "ipv4_addr", _sources(rules, "ip")),
        _address_set("sources6", "ipv6_addr", _sources(rules, "ip6")),
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
        *(f"{_family(refused)} daddr {refused} drop" for refused in rules.refused),
        # Translated to the host's address, this would be taken for the host's own tunnel by others.
        f"udp dport {rules.vxlan_port} drop",
        "ct state established,related accept",
        "iifname vmap @ways_out",
        "drop",
    ]


def _sources(rules: HostRules, family: str) -> list[str]:
    found = [source for one in rules.uplinks if one.egress for source in one.sources if _family(source) == family]
    return [*found, devices.UPLINK_GATEWAY_IPV4] if family == "ip" and rules.uplinks else found


def _family(address: str) -> str:
    return "ip6" if ":" in address else "ip"


def _set(values: Sequence[str]) -> str:
    return f"{{ {', '.join(values)} }}"


def _integers(addresses: Iterable[str]) -> str:
    """Addresses as nft wants them beside a raw piece of payload."""
    return _set([f"0x{int(IPv6Address(address)):032x}" for address in addresses])


def _replace(family: str, name: str) -> str:
    """Naming the table first makes its removal succeed also where there is none."""
    return f"table {family} {name}\ndelete table {family} {name}\n"


def _table(family: str, name: str, blocks: Iterable[list[str]]) -> str:
    body = "".join(f"\t{line}\n" for block in blocks for line in block)
    return f"table {family} {name} {{\n{body}}}\n"


def _chain(name: str, rules: Iterable[str], *, hook: str = "") -> list[str]:
    lines = [hook] if hook else []
    return [f"chain {name} {{", *(f"\t{line}" for line in (*lines, *rules)), "}"]


def _map(name: str, verdicts: dict[str, str]) -> list[str]:
    elements = [f"\telements = {_set([f'{key} : {verdict}' for key, verdict in verdicts.items()])}"] if verdicts else []
    return [f"map {name} {{", "\ttype ifname : verdict", *elements, "}"]


def _address_set(name: str, kind: str, values: Sequence[str]) -> list[str]:
    elements = [f"\telements = {_set(values)}"] if values else []
    return [f"set {name} {{", f"\ttype {kind}", "\tflags interval", "\tauto-merge", *elements, "}"]
