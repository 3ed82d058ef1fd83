"""``ucloud lab up`` and ``down``: from nothing to a healthy cloud, and back to nothing at all.

Both can be interrupted and repeated, say what they do, and end with a deadline. ``down`` finds what there is by the
namespaces, so it needs nobody's memory: what was killed, orphaned or half made goes as well.
"""

from __future__ import annotations

import contextlib
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.errors import Conflict, DeadlineExceeded, Error, InvalidInput
from ucloud.lab import census, clocks, members, power, wires
from ucloud.lab.files import ensure_files, ensure_shape, remove_files
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import CLIENT, NodeKind, PoolKind, Shape
from ucloud.lab.timers import end_timers
from ucloud.local import doctor
from ucloud.local.processes import is_running
from ucloud.system import files
from ucloud.system.append_log import open_output
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.namespace import in_namespace, namespace_inode

Say = Callable[[str], None]

RECORDER = "recorder"
LOOK_EVERY_S = 0.1
_ASK_TIMEOUT_S = 2.0


def up(layout: LabLayout, wanted: Shape, *, timeout_s: float, say: Say) -> Shape:
    """Make what is missing, start what does not run, and wait until the cloud is healthy."""
    doctor.require_all(layout.directory)
    _require_passage(layout.directory)
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + timeout_s
    shape = ensure_shape(layout, wanted)
    with _alone(layout):
        ensure_files(layout, shape)
        say(f"lab {shape.name} in {layout.directory}: {shape.etcd} etcd, {shape.apis} APIs, {shape.hosts} hosts")
        wires.ensure_switch(shape)
        _start_all(layout, shape, say)
    waiter = _Waiter(layout, shape, deadline_s, clock)
    waiter.wait(lambda: store_problem(layout, shape))
    members.publish(layout, shape)
    say("etcd has a leader")
    waiter.wait(lambda: api_problem(layout, shape))
    say("the APIs answer")
    _enrol_hosts(layout, shape)
    waiter.wait(lambda: host_problem(layout, shape))
    say(f"the lab is ready: {shape.hosts} hosts")
    return shape


def down(layout: LabLayout, *, keep: bool, say: Say) -> None:
    """End and remove everything; ``keep`` leaves the history and the logs."""
    shape = layout.read_shape()
    with _alone(layout):
        ended = end_timers(layout)
        _end_recorder(layout, shape)
        ended += census.kill_all(
            census.namespaces_of(shape.nodes) | {namespace_inode(wires.switch_namespace(shape))} - {0}
        )
        say(f"ended {ended} processes")
        power.collect_ended()
        wires.remove_all(shape)
        say("removed namespaces and links")
        clocks.remove_leftovers(layout, shape)
        remove_files(layout, keep=keep)
    say(f"the lab in {layout.directory} is gone")


def _require_passage(directory: Path) -> None:
    """Raises InvalidInput if QEMUs, which run as users of their own, could not reach their disks below it."""
    for parent in directory.parents:
        if parent.exists() and not parent.stat().st_mode & stat.S_IXOTH:
            raise InvalidInput(
                f"failed to make a lab in {directory}: other users may not pass through {parent}",
                hint=f"chmod o+x {parent}, or choose another directory",
                code="bad_directory",
            )


@contextlib.contextmanager
def _alone(layout: LabLayout) -> Iterator[None]:
    """One at a time changes what a lab is made of. The lock lies beside the lab, for ``down`` removes its files."""
    path = layout.directory.with_name(f".{layout.directory.name}.lab-lock")
    try:
        with files.locked(path):
            yield
            path.unlink(missing_ok=True)
    except Conflict as error:
        if error.code != "locked":
            raise
        raise Conflict(f"failed to change the lab in {layout.directory}: another command does so") from error


def _start_all(layout: LabLayout, shape: Shape, say: Say) -> None:
    """All at once: every process copes with the others not being there."""
    wires.ensure_node(shape, shape.node(CLIENT))
    ensure_recorder(layout, shape)
    started = [node.name for node in shape.nodes if power.start_node(layout, shape, node)]
    if started:
        say(f"started {', '.join(started)}")


def ensure_recorder(layout: LabLayout, shape: Shape) -> None:
    if is_running(layout.run, RECORDER):
        return
    layout.history_socket.unlink(missing_ok=True)  # of one that was killed: nobody listens there
    words = (sys.executable, "-m", "ucloud", "lab", "record", "--directory", layout.directory)
    with open_output(layout.log, RECORDER) as output:
        child = power.start_inside(shape.node(CLIENT).namespace, words, output=output)
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 10.0
    while not layout.history_socket.exists():
        if child.poll() is not None or clock.monotonic_s() > deadline_s:
            raise DeadlineExceeded("failed to start the recorder", hint=f"see {layout.log / RECORDER}.out")
        clock.sleep(0.02)


def _end_recorder(layout: LabLayout, shape: Shape) -> None:
    """Gently, so that the history has an end; hosts are still there, and nothing that runs is missed."""
    inodes = census.namespaces_of((shape.node(CLIENT),))
    own = [one for one in census.residents(inodes) if f"lab record --directory {layout.directory}" in one.command]
    for one in own:
        census.send(one, signal.SIGTERM)
    clock = SystemClock()
    deadline_s = clock.monotonic_s() + 3.0
    while any(one.pid in {found.pid for found in census.residents(inodes)} for one in own):
        if clock.monotonic_s() > deadline_s:
            return
        clock.sleep(0.02)


def store_problem(layout: LabLayout, shape: Shape) -> str:
    """ "" as soon as all members answer and one of them leads."""
    states = members.member_states(layout, shape)
    silent = [state.name for state in states if not state.has_leader]
    return f"etcd {', '.join(silent)} has no leader" if silent else ""


def api_problem(layout: LabLayout, shape: Shape) -> str:
    return in_namespace(shape.node(CLIENT).namespace, lambda: _api_problem(layout))


def _api_problem(layout: LabLayout) -> str:
    profile = load_profile(layout.client_profile)
    for url in (profile.url, *profile.others):
        alone = type(profile)(url, profile.token_file)
        with Client(alone, timeout_s=_ASK_TIMEOUT_S, patience_s=0.0) as client:
            try:
                parts = client.get_health()["parts"]
            except Error as error:
                return error.message
            bad = [f"{name}: {part['reason']}" for name, part in parts.items() if not part["ok"] and name != "hosts"]
            if bad:
                return f"{url}: {'; '.join(bad)}"
    return ""


def host_problem(layout: LabLayout, shape: Shape) -> str:
    return in_namespace(shape.node(CLIENT).namespace, lambda: _host_problem(layout, shape))


def _host_problem(layout: LabLayout, shape: Shape) -> str:
    """Hosts that share a pool must also have tried its locks with each other: before that no VM may fail over."""
    try:
        with Client(load_profile(layout.client_profile), timeout_s=_ASK_TIMEOUT_S, patience_s=0.0) as client:
            hosts = {host["id"]: host["status"] for host in client.each("host")}
    except Error as error:
        return error.message
    names = [node.name for node in shape.of_kind(NodeKind.HOST)]
    waiting = [f"{name} is {hosts.get(name, {}).get('word', 'unknown')}" for name in names]
    problems = [text for text in waiting if not text.endswith(" ready")]
    if shape.pool is not PoolKind.LOCAL and not problems:
        proved = {name: hosts[name].get("pool", {}).get("proved_with", ()) for name in names}
        problems = [f"the pool of {name} is not proved" for name in names if len(proved[name]) < len(names) - 1]
    return ", ".join(problems)


def _enrol_hosts(layout: LabLayout, shape: Shape) -> None:
    def body() -> None:
        with Client(load_profile(layout.client_profile)) as client:
            for node in shape.of_kind(NodeKind.HOST):
                with contextlib.suppress(Conflict):  # it is enrolled already
                    client.create("host", {"name": node.name, "id": node.name}, idempotency_key=f"enrol-{node.name}")

    in_namespace(shape.node(CLIENT).namespace, body)


@dataclass(frozen=True, slots=True)
class _Waiter:
    layout: LabLayout
    shape: Shape
    deadline_s: float
    clock: Clock

    def wait(self, problem: Callable[[], str]) -> None:
        """Until there is no ``problem``. Raises DeadlineExceeded naming it, or the process that does not stay up."""
        while said := problem():
            if self.clock.monotonic_s() > self.deadline_s:
                raise DeadlineExceeded(
                    f"failed to see the lab in {self.layout.directory} ready in time: {self._death() or said}",
                    hint=f"it goes on starting; see 'ucloud lab status' and the logs in {self.layout.nodes}/*/log",
                )
            self.clock.sleep(LOOK_EVERY_S)

    def _death(self) -> str:
        """The last words of a process that does not stay up, "" if all do."""
        for node in self.shape.nodes:
            own = self.layout.node(node.name)
            for name in node.programs:
                output = own.logs / f"{name}.out"
                words = output.read_text(errors="replace").strip().splitlines() if output.exists() else []
                if words and not is_running(own.run, name):
                    return f"{name} of {node.name} does not stay up: {words[-1][:300]}"
        return ""
