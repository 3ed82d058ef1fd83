"""Cuts between nodes as firewall rules: in the node's own namespace, or, for all hosts at once, in the switch.

A cut drops what it forbids without a word, or answers it with refusals (TCP RST, ICMP unreachable) as a router with a
reject rule does. Neighbour discovery goes on in both: it is the packets above it that are lost.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from enum import StrEnum

from ucloud.errors import NotFound
from ucloud.lab import wires
from ucloud.lab.nodes import UPLINK, Node, NodeKind, Shape
from ucloud.system.namespace import in_namespace
from ucloud.system.nft import apply_ruleset, remove_table

_BLIP = "ucloud_lab_blip"
_DISCOVERY = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept"
_REFUSALS = "tcp flags & rst == rst accept; icmpv6 type destination-unreachable accept"
_REFUSE = "meta l4proto tcp {match} reject with tcp reset; {match} reject with icmpv6 port-unreachable"


class Way(StrEnum):
    """What is lost: what the node would receive, what it sends, or both."""

    IN = "in"
    OUT = "out"
    BOTH = "both"


def table_of(fault_id: str) -> str:
    return f"ucloud_lab_{fault_id}"


def render_cut(fault_id: str, peers: Sequence[str], *, way: Way, reject: bool) -> str:
    """Rules for the node that is cut from the addresses of ``peers`` (none: from everybody). Pure."""
    others = "{ " + ", ".join(peers) + " }"
    incoming = f'iifname "{UPLINK}"' + (f" ip6 saddr {others}" if peers else "")
    outgoing = f'oifname "{UPLINK}"' + (f" ip6 daddr {others}" if peers else "")
    lines = [f"table inet {table_of(fault_id)} {{"]
    if way is not Way.OUT:
        lines += _chain("input", incoming, reject)
    if way is not Way.IN:
        lines += _chain("output", outgoing, reject)
    return "\n".join([*lines, "}", ""])


def _chain(hook: str, match: str, reject: bool) -> list[str]:
    verdicts = _REFUSE.format(match=match).split("; ") if reject else [f"{match} drop"]
    refusals = _REFUSALS.split("; ") if reject and hook == "output" else []
    rules = [_DISCOVERY, *refusals, *verdicts]
    head = f"  type filter hook {hook} priority -250; policy accept;"
    return [f" chain {hook} {{", head, *(f"  {rule}" for rule in rules), " }"]


def apply_cut(node: Node, fault_id: str, peers: Sequence[Node], *, way: Way, reject: bool) -> None:
    text = render_cut(fault_id, [peer.address for peer in peers], way=way, reject=reject)
    in_namespace(node.namespace, lambda: apply_ruleset(text))


def remove_cut(node: Node, fault_id: str) -> None:
    with contextlib.suppress(NotFound):  # it was switched off since
        in_namespace(node.namespace, lambda: remove_table("inet", table_of(fault_id)))


def render_blip(hosts: Sequence[str], etcd: Sequence[str], *, for_s: float) -> str:
    """Between these ports of the switch nothing passes for a while; the kernel itself ends it. Pure."""
    members = ", ".join(f'"{name}"' for name in etcd)
    elements = ", ".join(f'"{name}" timeout {round(for_s * 1000)}ms' for name in hosts)
    return f"""table bridge {_BLIP}
delete table bridge {_BLIP}
table bridge {_BLIP} {{
 set apart {{
  type ifname
  flags timeout
  elements = {{ {elements} }}
 }}
 chain forward {{
  type filter hook forward priority 0; policy accept;
  iifname @apart oifname {{ {members} }} drop
  iifname {{ {members} }} oifname @apart drop
 }}
}}
"""


def apply_blip(shape: Shape, for_s: float) -> None:
    hosts = [node.name for node in shape.of_kind(NodeKind.HOST)]
    etcd = [node.name for node in shape.of_kind(NodeKind.ETCD)]
    text = render_blip(hosts, etcd, for_s=for_s)
    in_namespace(wires.switch_namespace(shape), lambda: apply_ruleset(text))


def remove_blip(shape: Shape) -> None:
    with contextlib.suppress(NotFound):
        in_namespace(wires.switch_namespace(shape), lambda: remove_table("bridge", _BLIP))
