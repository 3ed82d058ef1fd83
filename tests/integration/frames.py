"""Ethernet frames by hand: what a hostile guest could send. Pure."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

BROADCAST = "ff:ff:ff:ff:ff:ff"
ALL_NODES_MAC = "33:33:00:00:00:01"
ALL_NODES = "ff02::1"

ARP, RARP, IPV4, IPV6, VLAN, QINQ = 0x0806, 0x8035, 0x0800, 0x86DD, 0x8100, 0x88A8
ICMPV4, UDP, ICMPV6, FRAGMENT, HOP_BY_HOP, DESTINATION = 1, 17, 58, 44, 0, 60


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def ether(target: str, source: str, kind: int, payload: bytes) -> bytes:
    return mac_bytes(target) + mac_bytes(source) + struct.pack("!H", kind) + payload


def tagged(kind: int, frame: bytes) -> bytes:
    """The frame with a VLAN tag (VLAN 0: priority only)."""
    return frame[:12] + struct.pack("!HH", kind, 0) + frame[12:]


def snap(frame: bytes) -> bytes:
    """The frame in 802.2 LLC/SNAP form."""
    payload = b"\xaa\xaa\x03\0\0\0" + frame[12:]
    return frame[:12] + struct.pack("!H", len(payload)) + payload


def arp(operation: int, sender: tuple[str, str], target: tuple[str, str]) -> bytes:
    """Sender and target are (MAC, address)."""
    parts = b"".join(mac_bytes(mac) + IPv4Address(address).packed for mac, address in (sender, target))
    return struct.pack("!HHBBH", 1, IPV4, 6, 4, operation) + parts


def announcement(mac: str) -> bytes:
    """What QEMU sends for a NIC of a guest that has moved (announce_self_create in net/announce.c), 60 bytes long."""
    frame = ether(BROADCAST, mac, RARP, arp(3, (mac, "0.0.0.0"), (mac, "0.0.0.0")))
    return frame.ljust(60, b"\0")


def ipv4(source: str, target: str, protocol: int, payload: bytes, *, fragment: int = 0) -> bytes:
    """``fragment`` is the field of flags and offset."""
    addresses = IPv4Address(source).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 7, fragment, 64, protocol, 0) + addresses
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + payload


def ipv6(source: str, target: str, header: int, payload: bytes, *, hops: int = 255) -> bytes:
    addresses = IPv6Address(source).packed + IPv6Address(target).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), header, hops) + addresses + payload


def udp(source: int, target: int, payload: bytes = b"12345678") -> bytes:
    return struct.pack("!HHHH", source, target, 8 + len(payload), 0) + payload


def icmpv6(source: str, target: str, kind: int, body: bytes, *, code: int = 0) -> bytes:
    message = struct.pack("!BBH", kind, code, 0) + body
    pseudo = IPv6Address(source).packed + IPv6Address(target).packed + struct.pack("!II", len(message), ICMPV6)
    return message[:2] + struct.pack("!H", _checksum(pseudo + message)) + message[4:]


def icmpv6_packet(source: str, target: str, kind: int, body: bytes, *, hops: int = 255) -> bytes:
    return ipv6(source, target, ICMPV6, icmpv6(source, target, kind, body), hops=hops)


def advertisement(source: str, mac: str, *, target: str = ALL_NODES) -> bytes:
    """A router advertisement, as ICMPv6."""
    return icmpv6(source, target, 134, struct.pack("!BBHII", 64, 0, 1800, 0, 0) + b"\1\1" + mac_bytes(mac))


def neighbour(claimed: str, mac: str) -> bytes:
    """The body of a neighbour advertisement (override) or solicitation, with the link-layer option of the former."""
    return struct.pack("!I", 0x20000000) + IPv6Address(claimed).packed + b"\2\1" + mac_bytes(mac)


def extension(following: int, *, length: int = 8) -> bytes:
    """A hop-by-hop or destination header that holds padding only."""
    return bytes((following, length // 8 - 1, 1, length - 4)) + bytes(length - 4)


def fragment_header(following: int, *, offset: int = 0, more: bool = False) -> bytes:
    return struct.pack("!BBHI", following, 0, offset | more, 99)


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
