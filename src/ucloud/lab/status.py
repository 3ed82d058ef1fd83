"""``ucloud lab status``: nodes, their processes and memory, what API and etcd say of them, and what is wrong."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ucloud.cli.tables import render_table
from ucloud.errors import Error
from ucloud.lab import census, lifecycle, members
from ucloud.lab.driver import Lab
from ucloud.lab.fault_commands import describe
from ucloud.lab.nodes import Node, NodeKind
from ucloud.local.processes import SUPERVISOR, is_running

_MIB = 1 << 20
_BAD_WORDS = ("off", "silent", "no leader", "lost", "unknown")


@dataclass(frozen=True, slots=True)
class NodeReport:
    """``word`` is the API's of a host, the member's own of etcd. ``missing`` are processes that should run."""

    name: str
    kind: str
    address: str
    word: str
    processes: int
    missing: tuple[str, ...]
    guests: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class LabReport:
    name: str
    directory: str
    leader: str
    nodes: tuple[NodeReport, ...]
    faults: tuple[str, ...]
    recording: bool
    error: str = ""

    @property
    def healthy(self) -> bool:
        whole = all(not node.missing and node.word not in _BAD_WORDS for node in self.nodes)
        return whole and self.recording and bool(self.leader) and not self.error and not self.faults

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "healthy": self.healthy}


def examine(lab: Lab) -> LabReport:
    """Raises InvalidInput if there is no lab in the directory."""
    shape = lab.shape
    states = {state.name: state for state in members.member_states(lab.layout, shape)}
    hosts, error = _host_words(lab)
    words = hosts | {state.name: _member_word(state) for state in states.values()}
    return LabReport(
        name=shape.name,
        directory=str(lab.layout.directory),
        leader=members.leader_of(list(states.values())),
        nodes=tuple(_examine_node(lab, node, words) for node in shape.nodes),
        faults=tuple(describe(fault) for fault in lab.faults.active()),
        recording=is_running(lab.layout.run, lifecycle.RECORDER),
        error=error,
    )


def _host_words(lab: Lab) -> tuple[dict[str, str], str]:
    try:
        found = lab.ask(lambda client: list(client.each("host")), timeout_s=2.0, patience_s=0.0)
    except Error as error:
        return {}, error.message
    return {host["id"]: host["status"]["word"] for host in found}, ""


def _member_word(state: members.MemberState) -> str:
    if not state.answers:
        return "silent"
    return "leader" if state.leads else "follower" if state.has_leader else "no leader"


def _examine_node(lab: Lab, node: Node, words: dict[str, str]) -> NodeReport:
    found = census.residents(census.namespaces_of((node,)))
    run = lab.layout.node(node.name).run
    wanted = (SUPERVISOR, *node.programs) if node.programs else ()
    return NodeReport(
        name=node.name,
        kind=node.kind.value,
        address=node.address,
        word=words.get(node.name, "unknown" if node.kind is NodeKind.HOST else "") if found else "off",
        processes=len(found),
        missing=tuple(name for name in wanted if not is_running(run, name)),
        guests=sum(one.name.startswith("qemu") for one in found),
        memory_mib=_memory_bytes(one.pid for one in found) // _MIB,
    )


def _memory_bytes(pids: Any) -> int:
    """Proportional: what several processes share is counted once."""
    return sum(_pss_kib(pid) for pid in pids) * 1024


def _pss_kib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def render(report: LabReport) -> str:
    rows = [
        (
            node.name,
            node.kind,
            node.word,
            str(node.processes),
            ",".join(node.missing),
            str(node.guests or ""),
            f"{node.memory_mib} MiB",
            node.address,
        )
        for node in report.nodes
    ]
    word = "healthy" if report.healthy else f"NOT healthy{': ' + report.error if report.error else ''}"
    titles = ("NODE", "KIND", "STATUS", "PROCESSES", "MISSING", "GUESTS", "MEMORY", "ADDRESS")
    parts = [
        f"lab {report.name} in {report.directory}: {word}; etcd leader {report.leader or 'none'}"
        f"{'' if report.recording else '; NOBODY RECORDS'}\n",
        render_table(titles, rows),
        "".join(f"fault: {fault}\n" for fault in report.faults),
    ]
    return "\n".join(part for part in parts if part).rstrip("\n")
