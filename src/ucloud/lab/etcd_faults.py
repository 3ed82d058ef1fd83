"""Faults of etcd itself: members that stop, die or freeze, that come back one by one, or are out of space."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ucloud.errors import NotFound, Unavailable
from ucloud.lab import census, members
from ucloud.lab.layout import LabLayout
from ucloud.lab.ledger import Fault, Ledger
from ucloud.lab.nodes import Node, NodeKind, Shape
from ucloud.local.keeper import HOLD_FILE

MEMBER_PROCESS = "etcd"
_WAIT_S = 10.0
_LOOK_EVERY_S = 0.02


class Freeze(Protocol):
    def __call__(self, node: Node, one: census.Resident, *, for_s: float) -> Fault: ...


class EtcdFaults:
    """A member that is stopped has a file beside its keeper that says so: the keeper lives on and tells guards."""

    def __init__(self, layout: LabLayout, shape: Shape, ledger: Ledger, *, freeze: Freeze) -> None:
        self._layout = layout
        self._shape = shape
        self._ledger = ledger
        self._freeze = freeze

    def stop(self, names: list[str]) -> list[Fault]:
        """These members stop and stay so; their keepers say it to who asks."""
        faults = []
        for node in self._members(names):
            faults.append(self._ledger.add("etcd_stopped", node.name))
            self._hold_file(node).touch()
        for node in self._members(names):
            one = self._find(node)
            if one is not None:
                census.send(one, signal.SIGTERM)
                self._wait_gone(node, one)
        return faults

    def start(self, name: str) -> None:
        self._hold_file(self._shape.node(name)).unlink(missing_ok=True)

    def restart_slowly(self, *, apart_s: float, say: Callable[[str], None]) -> None:
        """All stop; then they come back one by one. Lasts as long as that takes."""
        faults = self.stop([])
        say("all members are stopped")
        for number, fault in enumerate(faults):
            if number:
                time.sleep(apart_s)
            self.start(fault.node)
            self._ledger.remove(fault.id)
            say(f"started {fault.node}")

    def kill_leader(self) -> str:
        """SIGKILL; its keeper starts it again. Which node it was."""
        node, one = self._leader()
        census.send(one, signal.SIGKILL)
        return node.name

    def freeze_leader(self, *, for_s: float) -> Fault:
        node, one = self._leader()
        return self._freeze(node, one, for_s=for_s)

    def nospace(self) -> Fault:
        """As if the quota were used up: all writes that need room are refused until it is healed."""
        fault = self._ledger.add("etcd_nospace", "")
        members.activate_alarm(self._layout, self._shape, on=True)
        return fault

    def _members(self, names: list[str]) -> list[Node]:
        """By name or number; none are all."""
        etcd = self._shape.of_kind(NodeKind.ETCD)
        wanted = {f"e{name}" if name.isdigit() else name for name in names}
        unknown = wanted - {node.name for node in etcd}
        if unknown:
            raise NotFound(f"failed to find etcd member {', '.join(sorted(unknown))}: there is none")
        return [node for node in etcd if not wanted or node.name in wanted]

    def _leader(self) -> tuple[Node, census.Resident]:
        name = members.leader_of(members.member_states(self._layout, self._shape))
        if not name:
            raise Unavailable("failed to find etcd's leader: none leads now", hint="try again in a moment")
        node = self._shape.node(name)
        one = self._find(node)
        if one is None:
            raise Unavailable(f"failed to find etcd's leader: {name} has just ended")
        return node, one

    def _find(self, node: Node) -> census.Resident | None:
        """The member's own process, not its keeper's."""
        found = census.residents(census.namespaces_of((node,)))
        return next((one for one in found if one.name == MEMBER_PROCESS), None)

    def _wait_gone(self, node: Node, one: census.Resident) -> None:
        deadline_s = time.monotonic() + _WAIT_S
        while (found := self._find(node)) is not None and found.pid == one.pid:
            if time.monotonic() > deadline_s:
                census.send(one, signal.SIGKILL)
                deadline_s += _WAIT_S
            time.sleep(_LOOK_EVERY_S)

    def _hold_file(self, node: Node) -> Path:
        return self._layout.node(node.name).run / HOLD_FILE
