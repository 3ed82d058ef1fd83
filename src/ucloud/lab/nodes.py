"""Which nodes a lab has, how they are called and addressed. Pure.

All names and numbers follow from the lab's shape, which is written down once, at the first ``up``. Addresses are
``<prefix>:<kind>:<number>``; every host has a tag of its own and with it a range of uids, as every cloud of a machine.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from ipaddress import IPv6Address
from typing import Any

from ucloud.errors import InvalidInput, NotFound

UPLINK = "underlay"  # how every node's own end of its cable is called
SWITCH = "sw"
CLIENT = "client"
LIMITS = {"hosts": 60, "etcd": 7, "apis": 9}
_NAME = re.compile(r"[a-z][a-z0-9]{0,11}")
_TAGS = 0x1000


class NodeKind(StrEnum):
    HOST = "host"
    ETCD = "etcd"
    API = "api"
    CLIENT = "client"
    STORAGE = "storage"


class PoolKind(StrEnum):
    """``directory``: all hosts share one directory, QEMU's image locks guard it. ``fenced``: a storage service with a
    fence verb. ``local``: every host has a directory of its own.
    """

    DIRECTORY = "directory"
    FENCED = "fenced"
    LOCAL = "local"


_LETTER = {NodeKind.HOST: "h", NodeKind.ETCD: "e", NodeKind.API: "a", NodeKind.STORAGE: "s"}
_NUMBER = {NodeKind.HOST: 1, NodeKind.ETCD: 2, NodeKind.API: 3, NodeKind.CLIENT: 4, NodeKind.STORAGE: 5}
PROGRAMS: dict[NodeKind, tuple[str, ...]] = {
    NodeKind.HOST: ("guard", "metadata", "agent"),
    NodeKind.ETCD: ("etcd",),
    NodeKind.API: ("scheduler", "api", "stream"),
    NodeKind.CLIENT: (),
    NodeKind.STORAGE: ("storage-service",),
}


@dataclass(frozen=True, slots=True)
class Node:
    """``tag`` marks a host's devices ("" for other nodes)."""

    name: str
    kind: NodeKind
    address: str
    namespace: str
    tag: str = ""

    @property
    def mac(self) -> str:
        """Of its cable's end: a machine that was off comes back with the same, and its neighbours know it still."""
        digest = hashlib.sha256(self.address.encode()).digest()[:5]
        return ":".join(["02", *(f"{byte:02x}" for byte in digest)])

    @property
    def programs(self) -> tuple[str, ...]:
        return PROGRAMS[self.kind]


@dataclass(frozen=True)
class Shape:
    """What ``ucloud lab up`` was asked for. ``first_tag`` is the first of the hosts' tags, as a number.

    ``failover_share_percent`` is the brake's; 100 lets one host after the other be killed without a word from anybody.
    """

    name: str
    hosts: int = 4
    etcd: int = 3
    apis: int = 2
    fence_s: float = 3.0
    pool: PoolKind = PoolKind.DIRECTORY
    first_tag: int = 0
    failover_share_percent: int = 100

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InvalidInput(
                f"failed to name a lab {self.name!r}: a name is a letter and up to 11 letters and digits", field="name"
            )
        for field, limit in LIMITS.items():
            if not 1 <= getattr(self, field) <= limit:
                raise InvalidInput(f"failed to make a lab: {field} must be from 1 to {limit}", field=field)
        if not 2 <= self.fence_s <= 60:
            raise InvalidInput("failed to make a lab: fence_s must be from 2 to 60 seconds", field="fence_s")
        if not 0 <= self.failover_share_percent <= 100:
            raise InvalidInput("failed to make a lab: the failover share must be from 0 to 100", field="failover_share")

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """etcd first, then what stores disks, APIs, hosts, and the client."""
        return tuple(self._make())

    def _make(self) -> Iterator[Node]:
        storage = int(self.pool is PoolKind.FENCED)
        counts = (
            (NodeKind.ETCD, self.etcd),
            (NodeKind.STORAGE, storage),
            (NodeKind.API, self.apis),
            (NodeKind.HOST, self.hosts),
        )
        for kind, count in counts:
            for number in range(1, count + 1):
                yield self._node(kind, f"{_LETTER[kind]}{number}", number)
        yield self._node(NodeKind.CLIENT, CLIENT, 1)

    def _node(self, kind: NodeKind, name: str, number: int) -> Node:
        tag = f"{(self.first_tag + number - 1) % _TAGS:03x}" if kind is NodeKind.HOST else ""
        address = IPv6Address(f"{underlay_prefix(self.name, self.first_tag)}:{_NUMBER[kind]}:{number:x}")
        return Node(name, kind, str(address), self.namespace(name), tag)

    def namespace(self, node: str) -> str:
        return f"{self.name}-{node}"

    def of_kind(self, kind: NodeKind) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes if node.kind is kind)

    def node(self, name: str) -> Node:
        for node in self.nodes:
            if node.name == name:
                return node
        names = ", ".join(node.name for node in self.nodes)
        raise NotFound(f"failed to find node {name}: there is none", hint=f"nodes are: {names}", code="no_node")

    def choose(self, words: Iterable[str]) -> tuple[Node, ...]:
        """Nodes by name, or by kind: ``etcd`` (all members), ``api``, ``host``."""
        chosen: list[Node] = []
        for word in words:
            kinds = {kind.value for kind in NodeKind}
            found = self.of_kind(NodeKind(word)) if word in kinds else (self.node(word),)
            chosen += [node for node in found if node not in chosen]
        return tuple(chosen)

    def plain(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "hosts": self.hosts,
            "etcd": self.etcd,
            "apis": self.apis,
            "fence_s": self.fence_s,
            "pool": self.pool.value,
            "first_tag": self.first_tag,
            "failover_share_percent": self.failover_share_percent,
        }


def parse_shape(plain: dict[str, Any]) -> Shape:
    return Shape(
        name=str(plain["name"]),
        hosts=int(plain["hosts"]),
        etcd=int(plain["etcd"]),
        apis=int(plain["apis"]),
        fence_s=float(plain["fence_s"]),
        pool=PoolKind(plain["pool"]),
        first_tag=int(plain["first_tag"]),
        failover_share_percent=int(plain.get("failover_share_percent", 100)),
    )


def underlay_prefix(name: str, first_tag: int) -> str:
    """The first six groups of the addresses on the wires: a /48 of the lab's own (RFC 4193), its first /64."""
    digits = "fd" + hashlib.sha256(f"{name} {first_tag}".encode()).hexdigest()[:10]
    return f"{digits[:4]}:{digits[4:8]}:{digits[8:12]}:0:0:0"


def guest_prefix(name: str, first_tag: int) -> str:
    """The /48 that the lab's networks get their subnets from."""
    digits = "fd" + hashlib.sha256(f"guests of {name} {first_tag}".encode()).hexdigest()[:10]
    return f"{digits[:4]}:{digits[4:8]}:{digits[8:12]}::/48"


def choose_first_tag(seed: str, count: int, taken: Iterable[str]) -> int:
    """The first of ``count`` tags in a row that are nobody's, beginning somewhere that ``seed`` tells."""
    occupied = {int(tag, 16) for tag in taken}
    start = int(hashlib.sha256(seed.encode()).hexdigest()[:3], 16)
    for first in range(start, start + _TAGS):
        if not occupied & {(first + number) % _TAGS for number in range(count)}:
            return first % _TAGS
    raise InvalidInput("failed to make a lab: too many clouds use this machine")
