"""The one door to nftables: whole texts, applied in one transaction, in the namespace of the calling thread.

``ruleset_generation`` is the kernel's count of changes to all rules of the namespace (by anybody), ``table_handle`` a
number that no second table of the same name gets: cheap ways to know that what was applied is still there.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

from ucloud.errors import CommandFailed, Error
from ucloud.system.run import run

_NETLINK_NETFILTER = 12
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_GETTABLE = 1
_NFT_MSG_GETGEN = 16
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_NFTA_GEN_ID = 1
_NFTA_TABLE_NAME = 1
_NFTA_TABLE_HANDLE = 4
_FAMILIES = {"inet": 1, "bridge": 7}
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
    found = _ask(_NFT_MSG_GETGEN, socket.AF_UNSPEC, b"", _NFTA_GEN_ID)
    if found is None:
        raise Error("failed to read the generation of the firewall rules: the kernel does not tell it")
    return int(struct.unpack(">I", found)[0])


def table_handle(family: str, name: str) -> int:
    """The table's handle; 0 if there is none. ``family`` is inet or bridge."""
    value = name.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), _NFTA_TABLE_NAME) + value
    padded = attribute.ljust(-(-len(attribute) // 4) * 4, b"\0")
    found = _ask(_NFT_MSG_GETTABLE, _FAMILIES[family], padded, _NFTA_TABLE_HANDLE)
    return int(struct.unpack(">Q", found)[0]) if found is not None else 0


def _ask(kind: int, family: int, attributes: bytes, wanted: int) -> bytes | None:
    """One attribute of the kernel's answer; None if it is not in it, or if what was asked about is not there."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as door:
        door.settimeout(5.0)
        door.bind((0, 0))
        body = struct.pack("=BBH", family, 0, 0) + attributes
        kind = _NFNL_SUBSYS_NFTABLES << 8 | kind
        door.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, 1, 0) + body)
        return _parse_attribute(door.recv(4096), wanted)


def _parse_attribute(message: bytes, wanted: int) -> bytes | None:
    length, kind, _, _, _ = _HEADER.unpack_from(message)
    if kind == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", message, _HEADER.size)
        if -number == errno.ENOENT:
            return None
        raise Error(f"failed to look at the firewall rules: {os.strerror(-number)}")
    offset = _HEADER.size + 4
    while offset + _ATTRIBUTE.size <= length:
        size, attribute = _ATTRIBUTE.unpack_from(message, offset)
        if attribute == wanted:
            return message[offset + _ATTRIBUTE.size : offset + size]
        offset += max(_ATTRIBUTE.size, (size + 3) & ~3)
    return None
