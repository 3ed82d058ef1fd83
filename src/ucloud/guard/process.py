"""``ucloud guard``: the process that is the parent of this host's QEMUs and keeps its life sign.

The main thread serves requests, forks, reaps and writes the log: it alone may wait for a disk. Others look for
evidence, keep the traffic gate, and fence. It ends on SIGTERM and SIGINT, and with exit status 3 when this host was
taken over: then, as after any other end, the VMs that may be started elsewhere have ended with it, and its life sign is
given up after them. What cannot be ended is not hidden: then the life sign stays until its lease ends, the machine is
reset if that is wished, and the exit status is 1.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ucloud.config.sections import Config, StoreSection
from ucloud.errors import Error, InvalidInput
from ucloud.guard.fencer import Fencer, open_reset
from ucloud.guard.keepers import DialKeeper, keeper_dialler
from ucloud.guard.life import Identity, Life
from ucloud.guard.mortals import Mortals
from ucloud.guard.namespace import PidNamespace
from ucloud.guard.notes import Notes
from ucloud.guard.processes import ProcessTable
from ucloud.guard.rules import Hold
from ucloud.guard.server import Server
from ucloud.guard.traffic import TrafficGate
from ucloud.guard.witnesses import Witnesses, open_stores
from ucloud.hypervisor.guard_protocol import Hello, parse_named, parse_only, parse_permit, parse_start
from ucloud.store.api import Store
from ucloud.store.connect import open_store
from ucloud.store.etcd import Tls
from ucloud.store.etcd_members import client_context
from ucloud.system import files, process_unix
from ucloud.system.clock import Clock, SystemClock, format_time
from ucloud.system.history import open_history

_log = logging.getLogger(__name__)

_TICK_S = 1.0
TAKEN_OVER = 3
LEASE_TTL_S = 1  # the life sign's lease is for detection only, never for safety: the shortest that etcd can grant


class _Shared:
    """What the parts of one guard have in common; made before any thread."""

    def __init__(self, config: Config, make_store: Callable[[StoreSection], Store]) -> None:
        self._tag = config.network.tag
        self.clock: Clock = SystemClock()
        self.notes = Notes()
        self.shut = threading.Event()
        self.history = open_history(config.log.history_socket, source=f"guard/{config.host.id}")
        identity = Identity(
            config.host.id,
            os.urandom(8).hex(),
            format_time(self.clock.now()),
            fence_s=config.guard.fence_s,
            kill_s=config.guard.kill_s,
        )
        self.life = Life(identity, ttl_s=LEASE_TTL_S, clock=self.clock, history=self.history, notes=self.notes)
        self.stores = open_stores(config.store, identity.fence_s, make_store)
        self.dial: DialKeeper | None = None
        if identity.fence_s and config.store.endpoints:
            tls = Tls(config.store.ca_file, config.store.cert_file, config.store.key_file)
            self.dial = keeper_dialler(client_context(tls), self.clock)

    def make_traffic(self) -> TrafficGate | None:
        """None for a guard that never fences."""
        if not self.life.identity.fence_s:
            return None
        return TrafficGate(self._tag, self.life, clock=self.clock, notes=self.notes, shut=self.shut)


class Guard:
    """Requests, as functions of the table and the life sign."""

    def __init__(self, life: Life, table: ProcessTable, mortals: Mortals, clock: Clock) -> None:
        self._life = life
        self._table = table
        self._mortals = mortals
        self._clock = clock

    def handle(self, op: str, plain: Mapping[str, Any], descriptors: Sequence[int]) -> Any:
        match op:
            case "hello":
                return self._hello()
            case "start":
                self._table.reap()
                return self._table.start(parse_start(plain), descriptors)
            case "permit":
                return self._table.permit(parse_permit(plain))
            case "list":
                return self._table.list(parse_only(plain).vm_id)
            case "kill":
                return self._table.kill(parse_named(plain))
            case "forget":
                return self._table.forget(parse_named(plain))
            case "seal":
                self._table.sealed = True
                return None
        raise InvalidInput(f"failed to do {op[:40]!r}: no such operation", field="op")

    def _hello(self) -> Hello:
        state, identity, now_s = self._life.state, self._life.identity, self._clock.monotonic_s()
        left_s = -1.0
        if state.fence_s:
            left_s = max(0.0, state.deadline_s - now_s) if state.hold is Hold.OPEN and not state.is_over else 0.0
        return Hello(
            host_id=identity.host_id,
            incarnation=identity.incarnation,
            since=identity.since,
            alive=state.alive,
            fenced=state.fenced,
            sealed=self._table.sealed or state.is_over,
            evidence_age_s=round(state.evidence_age_s(now_s), 3),
            longest_gap_s=round(state.longest_gap_s, 3),
            fence_s=identity.fence_s,
            kill_s=identity.kill_s,
            left_s=round(left_s, 3),
            members_version=state.members_version,
            stuck=self._mortals.stuck,
        )


def guard_socket(run_directory: Path) -> Path:
    return run_directory / "guard.sock"


def main(config: Config, *, make_store: Callable[[StoreSection], Store] = open_store) -> int:
    """Run until told to end. The exit status is 1 if it could not begin or lost its namespace."""
    run_directory = files.ensure_directory(config.host.run_directory)
    try:
        with files.locked(run_directory / "guard.lock"):
            return _run(config, run_directory, make_store)
    except (Error, OSError) as error:
        _log.error("the guard ends: %s", error)
        return 1


def _run(config: Config, run_directory: Path, make_store: Callable[[StoreSection], Store]) -> int:
    told = _catch_signals()
    reset_fd = open_reset(config.guard.reset_machine)
    _harden()
    shared = _Shared(config, make_store)
    mortals = Mortals(shared.history, host_id=config.host.id)
    fencer = Fencer(
        shared.life,
        mortals,
        clock=shared.clock,
        history=shared.history,
        notes=shared.notes,
        wake=told.wake,
        shut=shared.shut,
        reset_fd=reset_fd,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(shared.notes.write)
        for store in shared.stores:
            stack.callback(store.close)
        witnesses = Witnesses(shared.life, shared.stores, shared.dial, shared.clock)
        stack.callback(witnesses.stop)  # the life sign is the last that ends, after the VMs
        traffic = shared.make_traffic()
        if traffic is not None:
            stack.callback(traffic.close)
        namespace = PidNamespace()
        stack.callback(namespace.close)
        table = ProcessTable(
            run_directory / "guard",
            shared.life,
            mortals=mortals,
            traffic=traffic,
            namespace=namespace,
            clock=shared.clock,
            history=shared.history,
        )
        stack.callback(table.close)
        stack.callback(fencer.stop)
        ending = Ending(table.end_mortals, shared.life, fencer)
        stack.callback(ending.run)
        table.recover()
        guard = Guard(shared.life, table, mortals, shared.clock)
        server = Server(guard_socket(run_directory), guard.handle, shared.clock)
        stack.callback(server.close)
        for one in (traffic, witnesses, fencer):
            if one is not None:
                one.start()
        gc.collect()
        gc.freeze()  # what is here now stays: no collection needs to touch it again
        _log.info("guard %s of host %s is ready", shared.life.identity.incarnation, config.host.id)
        status = _loop(server, table, fencer, shared.notes, namespace=namespace, told=told)
    return status if ending.is_clean else 1


class Ending:
    """What is done first when a guard ends. ``is_clean`` tells whether nothing mortal outlived it."""

    def __init__(self, end_mortals: Callable[[], tuple[str, ...]], life: Life, fencer: Fencer) -> None:
        self._end_mortals = end_mortals
        self._life = life
        self._fencer = fencer
        self.is_clean = True

    def run(self) -> None:
        left = self._end_mortals()
        if left:
            self.is_clean = False
            _log.error("this guard ends, and these VMs outlive it: %s", ", ".join(left))
            self._life.keep_sign()
            self._fencer.reset()


def _loop(
    server: Server, table: ProcessTable, fencer: Fencer, notes: Notes, *, namespace: PidNamespace, told: _Told
) -> int:
    while True:
        ready = server.serve((told.descriptor, namespace.first_pidfd, *table.pidfds()), _TICK_S)
        table.reap()
        notes.write()
        with contextlib.suppress(OSError, Error):  # a full disk is no reason to end all VMs
            table.trim_logs()
        if fencer.ended:
            _log.error("this host was taken over: all that may run elsewhere is dead, a new guard shall begin")
            return TAKEN_OVER
        if namespace.first_pidfd in ready:
            _log.error("the PID namespace ended, and all VMs in it")
            return 1
        if told.descriptor in ready and told.is_told_to_end():
            _log.info("told to end")
            return 0


class _Told:
    """Readable when a signal has come, or another thread wants the main one to turn."""

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def catch(self, numbers: Sequence[signal.Signals]) -> None:
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: None)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def is_told_to_end(self) -> bool:
        """Whether a signal was among what came; a byte of 0 is only a wake-up."""
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(self.descriptor, 4096).strip(b"\0"))
        return False


def _catch_signals() -> _Told:
    told = _Told()
    told.catch((signal.SIGTERM, signal.SIGINT))
    return told


def _harden() -> None:
    """Stay in memory, and be the last that the kernel ends when memory is short. Wishes: not all machines allow it."""
    process_unix.forbid_new_privileges()
    process_unix.keep_heap_small()
    try:
        process_unix.lock_memory()
    except OSError as error:
        _log.warning("failed to lock the guard's memory: %s", error)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("-900")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
