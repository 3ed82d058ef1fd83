"""The texts that dnsmasq reads for one network. Pure.

One dnsmasq per network and host: DHCPv4 and DHCPv6 for the NICs of this host only (fixed addresses, no pool), router
advertisements with SLAAC, DNS for the names of the whole network. A NIC is one file in a directory that it watches.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from ucloud.model import devices
from ucloud.model.wanted import WantedNetwork, WantedNic

LEASE_TIME = "1h"
_ADVERTISE_EVERY_S = 60
_ROUTER_LIFETIME_S = 1800


@dataclass(frozen=True, slots=True)
class ServiceFiles:
    """Where the files of one network are."""

    directory: Path

    @property
    def nics(self) -> Path:
        """One file per NIC, watched for DHCP."""
        return self.directory / "nics.d"

    @property
    def names(self) -> Path:
        """One file, in a directory watched for DNS."""
        return self.directory / "names.d" / "names"

    @property
    def peers(self) -> Path:
        """The MACs on other hosts that the VXLAN device was told last. Not for dnsmasq."""
        return self.directory / "peers.json"

    @property
    def run(self) -> Path:
        """The only directory that dnsmasq itself may write."""
        return self.directory / "run"

    @property
    def leases(self) -> Path:
        return self.run / "leases"

    @property
    def pid(self) -> Path:
        return self.directory / "dnsmasq.pid"

    def configuration(self, digest: str) -> Path:
        """The digest is in the name, so a process's command line says what it was started with."""
        return self.directory / f"dnsmasq-{digest}.conf"


def render_configuration(wanted: WantedNetwork, *, mtu: int, domain: str, forwarders: tuple[str, ...]) -> str:
    """Everything but the paths, which are arguments."""
    gateway6 = devices.gateway_ipv6(wanted.ipv6_prefix)
    zone = f"{devices.dns_label(wanted.name)}.{domain}"
    lines = [
        *("no-hosts", "no-resolv", "no-ping", "no-ident", "bind-interfaces"),
        *("quiet-dhcp", "quiet-dhcp6", "quiet-ra", "dhcp-authoritative", "enable-ra"),
        *("expand-hosts", "domain-needed", "bogus-priv", "cache-size=1000", "dns-forward-max=150", "local-ttl=5"),
        f"interface={devices.INSIDE_GUESTS}",
        "except-interface=lo",
        # The same DHCPv6 server identity on every host (32473 is RFC 5612's enterprise number for anybody).
        "dhcp-duid=32473,75:63:6c:6f:75:64",
        f"domain={zone}",
        f"local=/{zone}/",
        f"host-record=gateway,gateway.{zone},{_join(devices.gateway_ipv4(wanted.ipv4_subnet), gateway6)}",
        f"host-record=metadata,metadata.{zone},{devices.METADATA_IPV4},{gateway6}",
        f"ra-param={devices.INSIDE_GUESTS},mtu:{mtu},{_ADVERTISE_EVERY_S},{_ROUTER_LIFETIME_S}",
        f"dhcp-range={IPv6Network(wanted.ipv6_prefix).network_address},static,slaac,64,{LEASE_TIME}",
        f"dhcp-option=option6:dns-server,[{gateway6}]",
        f"dhcp-option=option6:domain-search,{zone}",
        *(f"server={forwarder}" for forwarder in forwarders),
        *_ipv4_lines(wanted, mtu),
    ]
    return "\n".join(lines) + "\n"


def _ipv4_lines(wanted: WantedNetwork, mtu: int) -> list[str]:
    if not wanted.ipv4_subnet:
        return []
    subnet = IPv4Network(wanted.ipv4_subnet)
    gateway = devices.gateway_ipv4(wanted.ipv4_subnet)
    return [
        f"dhcp-range={subnet.network_address},static,{subnet.netmask},{LEASE_TIME}",
        f"dhcp-option=option:router,{gateway}",
        f"dhcp-option=option:dns-server,{gateway}",
        # RFC 3442: a client that asks for these takes no other route, so the default route is repeated.
        f"dhcp-option=option:classless-static-route,{devices.METADATA_IPV4}/32,{gateway},0.0.0.0/0,{gateway}",
        # Forced, because not every client asks for the MTU, and all need it.
        f"dhcp-option-force=option:mtu,{mtu}",
    ]


def render_nic(nic: WantedNic, *, name: str = "") -> str:
    """One line for ``dhcp-hostsdir``."""
    return _join(nic.mac, nic.ipv4, f"[{nic.ipv6}]", devices.dns_label(name) if name else "", LEASE_TIME) + "\n"


def render_names(wanted: WantedNetwork, *, domain: str) -> str:
    """The names of all VMs of the network, in the form of /etc/hosts."""
    zone = f"{devices.dns_label(wanted.name)}.{domain}"
    lines = []
    for one in sorted(wanted.names, key=lambda name: (name.name, name.mac)):
        label = devices.dns_label(one.name)
        lines += [f"{address} {label}.{zone} {label}" for address in (one.ipv4, one.ipv6) if address]
    return "\n".join(lines) + "\n"


def parse_name_servers(text: str) -> tuple[str, ...]:
    """The usable name servers of a resolv.conf: a gateway reaches neither loopback nor addresses with a scope."""
    words = [line.split() for line in text.splitlines()]
    servers = [word[1] for word in words if len(word) > 1 and word[0] == "nameserver"]
    return tuple(one for one in servers if "%" not in one and not one.startswith(("127.", "::1", "fe80:")))


def _join(*words: str) -> str:
    return ",".join(word for word in words if word)
