"""A layer-2 network and its subnets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ucloud.model.meta import Meta


class Egress(StrEnum):
    """How a network reaches the world: not at all, or by translation to the host's address."""

    NONE = "none"
    NAT = "nat"


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """``ipv6_prefix`` is a /64; ``ipv4_subnet`` is "" for none. The first address of each is the gateway's."""

    vni: int
    ipv6_prefix: str
    ipv4_subnet: str = ""
    egress: Egress = Egress.NAT


@dataclass(frozen=True, slots=True)
class Network:
    meta: Meta
    spec: NetworkSpec
