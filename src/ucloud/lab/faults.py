"""All that can go wrong in a lab: each fault a small method, each written down first, each undone by ``heal``.

What the checker of histories must know (a host is off, was frozen) is told on the safe side: that something stands
still only after it does, that it goes on before it does.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence

from ucloud.errors import Conflict, Error, InvalidInput, NotFound, Unavailable
from ucloud.lab import census, clocks, cuts, members, power, slow, storage_faults, timers, wires
from ucloud.lab.cuts import Way
from ucloud.lab.etcd_faults import EtcdFaults
from ucloud.lab.layout import LabLayout
from ucloud.lab.ledger import Fault, Ledger
from ucloud.lab.nodes import Node, NodeKind, PoolKind, Shape
from ucloud.lab.telling import LabHistory
from ucloud.local.processes import running_pid
from ucloud.system.clock import SystemClock
from ucloud.system.process_unix import read_start_ticks

FOREVER_S = 0.0
_START_S = 10.0
_GUARD = "guard"
_END_BY_THEMSELVES = ("blip_all", "storage_hang")
_LOOK_EVERY_S = 0.02


class Faults:
    """``etcd`` are those of etcd. Nodes are given by name."""

    def __init__(self, layout: LabLayout, shape: Shape) -> None:
        self._layout = layout
        self._shape = shape
        self._ledger = Ledger(layout)
        self._history = LabHistory(layout)
        self.etcd = EtcdFaults(layout, shape, self._ledger, freeze=self._freeze_one)

    def active(self) -> list[Fault]:
        """Those that are not over; some end by themselves."""
        now_s = SystemClock().monotonic_s()
        for fault in self._ledger.all():
            if fault.kind in _END_BY_THEMSELVES and 0 < fault.until_s <= now_s:
                self._ledger.remove(fault.id)
        return self._ledger.all()

    # Power

    def power_off(self, name: str) -> Fault:
        """All its processes die at once, and its cable with them."""
        node = self._node(name)
        known = [one for one in self.active() if (one.kind, one.node) == ("power_off", name)]
        fault = known[0] if known else self._ledger.add("power_off", name)
        killed = power.cut_power(self._shape, node)
        if node.kind is NodeKind.HOST:
            self._history.tell("host_off", host=name)
        return self._ledger.note(fault, killed=killed)

    def power_on(self, name: str) -> None:
        """Start it again, with its disk as it was; what else was wrong with it is over as well."""
        for fault in [one for one in self.active() if one.node == name and one.kind == "power_off"]:
            self._ledger.remove(fault.id)
        power.start_node(self._layout, self._shape, self._node(name))

    # Cables

    def cut(
        self,
        name: str,
        *,
        peers: Sequence[str] = (),
        way: Way = Way.BOTH,
        reject: bool = False,
        for_s: float = FOREVER_S,
    ) -> Fault:
        """From ``peers`` (names or kinds of nodes; none: from everybody). Without more the cable is pulled."""
        node = self._on(name)
        others = self._shape.choose(peers)
        facts = {"from": list(peers), "way": way.value, "reject": reject}
        fault = self._ledger.add("cut", name, for_s=for_s, **facts)
        if not peers and way is Way.BOTH and not reject:
            wires.set_link(self._shape, node, up=False)
        else:
            cuts.apply_cut(node, fault.id, others, way=way, reject=reject)
        return self._timed(fault)

    def slow(self, name: str, *, delay_s: float, loss: float, for_s: float = FOREVER_S) -> Fault:
        """Each frame, in both directions. ``loss`` is a share from 0 to 1."""
        node = self._on(name)
        if not delay_s and not loss:
            raise InvalidInput(f"failed to make {name} slow: neither delay nor loss", hint="--delay 200ms --loss 10%")
        if any(fault.kind == "slow" and fault.node == name for fault in self.active()):
            raise Conflict(f"failed to make {name} slow: it is already", hint="'ucloud lab heal' first")
        fault = self._ledger.add("slow", name, for_s=for_s, delay_s=delay_s, loss=loss)
        words = timers.delay_words(self._layout, name, delay_s, loss)
        child = power.start_inside(wires.switch_namespace(self._shape), words)
        deadline_s = time.monotonic() + _START_S
        while not slow.is_inserted(self._shape, node):
            if child.poll() is not None or time.monotonic() > deadline_s:
                raise Unavailable(f"failed to make {name} slow: the process that delays its frames does not start")
            time.sleep(_LOOK_EVERY_S)
        return self._timed(fault)

    # Frozen and killed processes

    def freeze(self, name: str, *, for_s: float = FOREVER_S) -> Fault:
        """SIGSTOP of all its processes; the kernel's part of it lives on."""
        node = self._on(name)
        fault = self._timed(self._ledger.add("freeze", name, for_s=for_s))
        stopped = census.stop_all(census.namespaces_of((node,)))
        self._history.tell("host_frozen", host=name)
        return self._ledger.note(fault, pids=[(one.pid, one.start_ticks) for one in stopped])

    def kill(self, name: str, program: str) -> None:
        """SIGKILL of one of its processes; its supervisor starts it again."""
        one = self._process(self._on(name), program)
        self._history.tell("killed", host=name, program=program)
        census.send(one, signal.SIGKILL)

    def freeze_program(self, name: str, program: str, *, for_s: float = FOREVER_S) -> Fault:
        node = self._on(name)
        return self._freeze_one(node, self._process(node, program), for_s=for_s)

    def _freeze_one(self, node: Node, one: census.Resident, *, for_s: float) -> Fault:
        facts = {"process": one.name, "pids": [(one.pid, one.start_ticks)]}
        fault = self._timed(self._ledger.add("freeze_process", node.name, for_s=for_s, **facts))
        census.send(one, signal.SIGSTOP)
        if one.name == _GUARD:
            self._history.tell("guard_frozen", host=node.name)
        return fault

    # Clocks and disks

    def clock_step(self, name: str, offset_s: float) -> Fault:
        """Its wall clock is off from now on; clocks that only count go on rightly."""
        node = self._on(name)
        clocks.require_steppable(node)
        fault = self._ledger.add("clock_step", name, offset_s=offset_s)
        clocks.step(self._layout, self._shape, node, offset_s)
        return fault

    def lock_linger(self, name: str, *, for_s: float) -> Fault:
        """The locks of its disks stay for a while, as if a storage kept them for a client that has died."""
        node = self._on(name)
        if self._shape.pool is PoolKind.FENCED:
            return self.spoil_storage("lock_linger", for_s=for_s)
        fault = self._ledger.add("lock_linger", name, for_s=for_s)
        storage_faults.lock_linger(self._layout, self._shape, node, fault.id, for_s=for_s)
        return fault

    def spoil_storage(self, kind: str, *, for_s: float) -> Fault:
        """``storage_hang`` for so long, or ``late_write`` (or locks) late by so much, of a fenced pool's service."""
        fault = self._ledger.add(kind, "", for_s=for_s if kind == "storage_hang" else FOREVER_S, by_s=for_s)
        try:
            storage_faults.tell_service(self._layout, self._shape, self.active())
        except Error:
            self._ledger.remove(fault.id)
            raise
        return fault

    # All hosts

    def blip_all(self, *, for_s: float) -> Fault:
        """Every host loses etcd. The kernel ends it, to the millisecond."""
        fault = self._ledger.add("blip_all", "", for_s=for_s)
        cuts.apply_blip(self._shape, for_s)
        self._history.tell("blip_all", for_s=for_s)
        return fault

    # Undoing

    def undo(self, fault_id: str) -> bool:
        """Whether there was such a fault."""
        fault = self._ledger.find(fault_id)
        if fault is None or not self._ledger.remove(fault_id):
            return False
        self._undo[fault.kind](self, fault)
        return True

    def heal(self) -> list[Fault]:
        """Undo everything, the newest first, and switch on what is off. Returns what was undone."""
        timers.end_timers(self._layout)
        undone, failures = [], []
        for fault in reversed(self.active()):
            try:
                if self.undo(fault.id):
                    undone.append(fault)
            except Error as error:
                self._ledger.add(fault.kind, fault.node, **fault.facts)
                failures.append(error.message)
        for node in self._shape.nodes:
            power.start_node(self._layout, self._shape, node)
        if failures:
            raise Unavailable(f"failed to heal the lab: {'; '.join(failures)}", hint="try 'ucloud lab heal' again")
        return undone

    def _uncut(self, fault: Fault) -> None:
        node = self._shape.node(fault.node)
        if not census.namespaces_of((node,)):
            return
        cuts.remove_cut(node, fault.id)
        if not any(one.kind == "cut" and one.node == fault.node and _is_pulled(one) for one in self.active()):
            wires.set_link(self._shape, node, up=True)

    def _thaw(self, fault: Fault) -> None:
        node = self._shape.node(fault.node)
        inodes = census.namespaces_of((node,))
        known = {tuple(pair) for pair in fault.facts.get("pids", ())}
        if fault.kind == "freeze":
            self._history.tell("host_thawed", host=fault.node)
        elif fault.facts["process"] == _GUARD:
            self._history.tell("guard_thawed", host=fault.node)
        for one in census.residents(inodes):
            if (one.pid, one.start_ticks) in known or "pids" not in fault.facts:
                census.send(one, signal.SIGCONT)

    def _unslow(self, fault: Fault) -> None:
        timers.end_delay(self._shape, fault.node)
        slow.remove_devices(self._shape, self._shape.node(fault.node))

    def _unlinger(self, fault: Fault) -> None:
        if fault.node:
            storage_faults.end_linger(self._layout, fault.id)
        else:
            self._unspoil(fault)

    def _unspoil(self, _: Fault) -> None:
        storage_faults.tell_service(self._layout, self._shape, self.active())

    _undo: Mapping[str, Callable[[Faults, Fault], object]] = {
        "power_off": lambda self, fault: self.power_on(fault.node),
        "cut": _uncut,
        "slow": _unslow,
        "freeze": _thaw,
        "freeze_process": _thaw,
        "clock_step": lambda self, fault: clocks.set_right(self._layout, fault.node),
        "lock_linger": _unlinger,
        "storage_hang": _unspoil,
        "late_write": _unspoil,
        "blip_all": lambda self, fault: cuts.remove_blip(self._shape),
        "etcd_stopped": lambda self, fault: self.etcd.start(fault.node),
        "etcd_nospace": lambda self, fault: members.activate_alarm(self._layout, self._shape, on=False),
    }

    def _timed(self, fault: Fault) -> Fault:
        if fault.until_s:
            timers.start_timer(self._layout, fault.id)
        return fault

    def _node(self, name: str) -> Node:
        node = self._shape.node(name)
        if node.kind is NodeKind.CLIENT:
            raise InvalidInput("failed to make a fault: nothing is ever wrong with the client", field="node")
        return node

    def _on(self, name: str) -> Node:
        node = self._node(name)
        if not census.namespaces_of((node,)):
            raise Conflict(f"failed to make a fault: {name} is off", hint=f"'ucloud lab fault power-on {name}'")
        return node

    def _process(self, node: Node, program: str) -> census.Resident:
        pid = running_pid(self._layout.node(node.name).run, program)
        if not pid:
            raise NotFound(f"failed to find the {program} of {node.name}: it does not run")
        return census.Resident(pid, read_start_ticks(pid), program, "", "")


def _is_pulled(fault: Fault) -> bool:
    facts = fault.facts
    return not facts["from"] and facts["way"] == Way.BOTH.value and not facts["reject"]
