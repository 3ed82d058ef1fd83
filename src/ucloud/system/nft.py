"""The one door to nftables: whole texts, applied in one transaction, in the namespace of the calling thread.

``ruleset_generation`` is the kernel's count of changes to all rules of the namespace (by anybody). It is a cheap way to
know that what was applied is still untouched.
"""

from __future__ import annotations

import os
import socket
import struct

from ucloud.errors import CommandFailed, Error
from ucloud.system.run import run

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_GETGEN = 16
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_NFTA_GEN_ID = 1
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")


def apply_ruleset(text: str) -> None:
    """Apply ``text`` as a whole or not at all."""
    try:
        run(("nft", "-f", "-"), stdin=text)
    except CommandFailed as error:
        first = next((line for line in error.stderr.splitlines() if "Error" in line), error.message)
        raise CommandFailed(
            f"failed to apply firewall rules: {first}", exit_code=error.exit_code, stderr=error.stderr
        ) from error


def remove_table(family: str, name: str) -> None:
    """Adding the table first makes the removal succeed also where there is none."""
    apply_ruleset(f"table {family} {name}\ndelete table {family} {name}\n")


def ruleset_generation() -> int:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as door:
        door.settimeout(5.0)
        door.bind((0, 0))
        kind = _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_GETGEN
        body = struct.pack("=BBH", socket.AF_UNSPEC, 0, 0)
        door.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, 1, 0) + body)
        return _parse_generation(door.recv(4096))


def _parse_generation(message: bytes) -> int:
    length, kind, _, _, _ = _HEADER.unpack_from(message)
    if kind == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", message, _HEADER.size)
        raise Error(f"failed to read the generation of the firewall rules: {os.strerror(-number)}")
    offset = _HEADER.size + 4
    while offset + _ATTRIBUTE.size <= length:
        size, attribute = _ATTRIBUTE.unpack_from(message, offset)
        if attribute == _NFTA_GEN_ID:
            return int(struct.unpack_from(">I", message, offset + _ATTRIBUTE.size)[0])
        offset += max(_ATTRIBUTE.size, (size + 3) & ~3)
    raise Error("failed to read the generation of the firewall rules: the kernel does not tell it")
