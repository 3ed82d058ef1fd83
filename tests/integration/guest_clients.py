"""Small clients of the services that a gateway offers, for use inside a guest: DHCPv4, DHCPv6, DNS, HTTP."""

from __future__ import annotations

import http.client
import secrets
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

_COOKIE = b"\x63\x82\x53\x63"


def ask_dhcp(mac: str, *, timeout_s: float = 5.0) -> dict[int, bytes]:
    """The options of the ACK to a REQUEST for what was offered (RFC 2131); 0 is the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        door.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        door.bind(("0.0.0.0", 68))
        door.settimeout(timeout_s)
        offer = _dhcp_call(door, mac, {53: b"\1", 55: bytes((1, 3, 6, 15, 26, 121))})
        request = {53: b"\3", 50: offer[0], 54: offer[54], 55: bytes((1, 3, 6, 12, 15, 26, 121))}
        return _dhcp_call(door, mac, request)


def _dhcp_call(door: socket.socket, mac: str, options: dict[int, bytes]) -> dict[int, bytes]:
    number = secrets.token_bytes(4)
    hardware = bytes.fromhex(mac.replace(":", ""))
    head = struct.pack("!BBBB4sHH", 1, 1, 6, 0, number, 0, 0x8000) + bytes(16) + hardware.ljust(16, b"\0") + bytes(192)
    body = b"".join(bytes((code, len(value))) + value for code, value in options.items())
    door.sendto(head + _COOKIE + body + b"\xff", ("255.255.255.255", 67))
    while True:
        answer = door.recv(2000)
        if answer[4:8] == number and answer[0] == 2:
            return {0: answer[16:20], **_dhcp_options(answer[240:])}


def _dhcp_options(data: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    while data and data[0] != 0xFF:
        if data[0] == 0:
            data = data[1:]
            continue
        options[data[0]] = data[2 : 2 + data[1]]
        data = data[2 + data[1] :]
    return options


def ask_dhcp6(mac: str, *, timeout_s: float = 5.0) -> str:
    """The address that a DHCPv6 server advertises (RFC 8415, Solicit → Advertise)."""
    hardware = bytes.fromhex(mac.replace(":", ""))
    number = secrets.token_bytes(3)
    client = struct.pack("!HHHH", 1, 10, 3, 1) + hardware
    wanted = struct.pack("!HHIII", 3, 12, 1, 0, 0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        door.bind(("::", 546))
        door.settimeout(timeout_s)
        index = socket.if_nametoindex("eth0")
        door.sendto(b"\1" + number + client + wanted + struct.pack("!HHH", 8, 2, 0), ("ff02::1:2", 547, 0, index))
        answer = door.recv(2000)
    assert answer[0] == 2
    assert answer[1:4] == number
    address = answer.index(struct.pack("!HH", 5, 24)) + 4
    return str(IPv6Address(answer[address : address + 16]))


def resolve(server: str, name: str, *, ipv6: bool) -> list[str]:
    """The A or AAAA records of a name, [] if it has none."""
    kind = 28 if ipv6 else 1
    question = b"".join(bytes((len(label),)) + label.encode() for label in name.split(".")) + b"\0"
    family = socket.AF_INET6 if ":" in server else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as door:
        door.settimeout(5)
        door.connect((server, 53))
        door.send(struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + question + struct.pack("!HH", kind, 1))
        answer = door.recv(2000)
    count = struct.unpack_from("!H", answer, 6)[0]
    offset = 12 + len(question) + 4
    found = []
    for _ in range(count):
        size = struct.unpack_from("!H", answer, offset + 10)[0]
        data = answer[offset + 12 : offset + 12 + size]
        found.append(str(IPv6Address(data) if ipv6 else IPv4Address(data)))
        offset += 12 + size
    return found


def fetch(address: str, path: str, *, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Status and body of ``http://address/path``."""
    connection = http.client.HTTPConnection(address, 80, timeout=5)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
