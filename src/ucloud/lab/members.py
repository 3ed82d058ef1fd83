"""etcd's members as the lab knows them: who leads, what each says of itself, and the record of who votes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ucloud.errors import Error
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import CLIENT, Node, NodeKind, Shape
from ucloud.lab.settings import client_url, etcd_urls, keeper_door, node_config
from ucloud.local.members import ensure_members, observe_voters
from ucloud.store import etcd_wire
from ucloud.store.connect import open_store
from ucloud.store.etcd_calls import Calls, question
from ucloud.store.etcd_members import Tls
from ucloud.system.clock import SystemClock
from ucloud.system.namespace import in_namespace

MEMBER_LIST = "/v3/cluster/member/list"
ALARM = "/v3/maintenance/alarm"
_STATUS_TIMEOUT_S = 0.6


@dataclass(frozen=True, slots=True)
class MemberState:
    """What a member says of itself; ``term`` 0 and ``leads`` False if it does not answer."""

    name: str
    answers: bool = False
    leads: bool = False
    has_leader: bool = False
    term: int = 0
    db_bytes: int = 0


def ask(
    layout: LabLayout, shape: Shape, urls: tuple[str, ...], path: str, body: dict[str, Any], *, timeout_s: float = 5.0
) -> dict[str, Any]:
    """One call of etcd's own, from the client's namespace."""

    def body_of_thread() -> dict[str, Any]:
        tls = layout.node(CLIENT).tls
        own = Tls(layout.tls / "ca.pem", tls / "store.pem", tls / "store.key")
        calls = Calls(urls, own, None, timeout_s=timeout_s, clock=SystemClock())
        try:
            return calls.call(question(path, body))
        finally:
            calls.close()

    return in_namespace(shape.node(CLIENT).namespace, body_of_thread)


def member_state(layout: LabLayout, shape: Shape, node: Node) -> MemberState:
    try:
        answer = ask(layout, shape, (client_url(node),), etcd_wire.STATUS, {}, timeout_s=_STATUS_TIMEOUT_S)
    except Error:
        return MemberState(node.name)
    leader = answer.get("leader", "0")
    return MemberState(
        node.name,
        answers=True,
        leads=leader == answer["header"]["member_id"],
        has_leader=leader != "0",
        term=int(answer.get("raftTerm", 0)),
        db_bytes=int(answer.get("dbSize", 0)),
    )


def member_states(layout: LabLayout, shape: Shape) -> list[MemberState]:
    return [member_state(layout, shape, node) for node in shape.of_kind(NodeKind.ETCD)]


def leader_of(states: list[MemberState]) -> str:
    """The member that leads in the newest term, "" if none does."""
    leading = [state for state in states if state.leads]
    return max(leading, key=lambda state: state.term).name if leading else ""


def publish(layout: LabLayout, shape: Shape) -> None:
    """Write down who votes and where their keepers' doors are, unless it is written already."""
    doors = {node.name: keeper_door(node) for node in shape.of_kind(NodeKind.ETCD)}
    settings = node_config(layout, shape, shape.node(CLIENT)).store

    def body() -> None:
        cluster_id, voters = observe_voters(settings, doors, SystemClock())
        store = open_store(settings)
        try:
            ensure_members(store, cluster_id, voters)
        finally:
            store.close()

    in_namespace(shape.node(CLIENT).namespace, body)


def activate_alarm(layout: LabLayout, shape: Shape, *, on: bool) -> None:
    """NOSPACE: from then on etcd refuses all that needs room, until it is off again."""
    body = {"action": "ACTIVATE" if on else "DEACTIVATE", "memberID": "0", "alarm": "NOSPACE"}
    if on:
        answer = ask(layout, shape, etcd_urls(shape), MEMBER_LIST, {})
        body["memberID"] = answer["members"][0]["ID"]
        ask(layout, shape, etcd_urls(shape), ALARM, body)
        return
    listed = ask(layout, shape, etcd_urls(shape), ALARM, {"action": "GET"})
    for alarm in listed.get("alarms", ()):
        ask(layout, shape, etcd_urls(shape), ALARM, {**body, "memberID": alarm["memberID"]})
