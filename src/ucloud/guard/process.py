"""``ucloud guard``: the process that is the parent of this host's QEMUs and keeps its life sign.

One thread serves requests, forks and reaps; another keeps the life sign. It ends on SIGTERM and SIGINT: then, as
after any other end, the VMs that may be started elsewhere end with it, and its life sign is given up after them.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ucloud.config.sections import Config, StoreSection
from ucloud.errors import Error, InvalidInput
from ucloud.guard.life import Identity, LifeSignKeeper
from ucloud.guard.namespace import PidNamespace
from ucloud.guard.processes import ProcessTable
from ucloud.guard.server import Server
from ucloud.hypervisor.guard_protocol import Hello, parse_named, parse_only, parse_start
from ucloud.store.api import Store
from ucloud.store.connect import open_store
from ucloud.system import files, process_unix
from ucloud.system.clock import Clock, SystemClock, format_time

_log = logging.getLogger(__name__)

_TICK_S = 1.0
_STOP_TIMEOUT_S = 3.0


class Guard:
    """Requests, as functions of the table and the life sign."""

    def __init__(self, identity: Identity, table: ProcessTable, keeper: LifeSignKeeper, clock: Clock) -> None:
        self._identity = identity
        self._table = table
        self._keeper = keeper
        self._clock = clock

    def handle(self, op: str, plain: Mapping[str, Any], descriptors: Sequence[int]) -> Any:
        match op:
            case "hello":
                return self._hello()
            case "start":
                self._table.reap()
                return self._table.start(parse_start(plain), descriptors)
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

    def seal_if_told(self) -> None:
        state = self._keeper.state
        if (state.fenced or state.replaced) and not self._table.sealed:
            _log.error("sealed: this guard is %s", "fenced" if state.fenced else "replaced by another")
            self._table.sealed = True

    def _hello(self) -> Hello:
        state = self._keeper.state
        return Hello(
            host_id=self._identity.host_id,
            incarnation=self._identity.incarnation,
            since=self._identity.since,
            alive=state.alive,
            fenced=state.fenced,
            sealed=self._table.sealed,
            evidence_age_s=round(state.evidence_age_s(self._clock.monotonic_s()), 3),
            longest_gap_s=round(state.longest_gap_s, 3),
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
    clock = SystemClock()
    wake = _catch_signals()
    _harden()
    identity = Identity(config.host.id, os.urandom(8).hex(), format_time(clock.now()))
    with contextlib.ExitStack() as stack:
        namespace = PidNamespace()
        table = ProcessTable(
            run_directory / "guard", incarnation=identity.incarnation, namespace=namespace, clock=clock
        )
        store = make_store(config.store)
        stack.callback(store.close)
        keeper = LifeSignKeeper(store, identity, ttl_s=config.guard.ttl_s, clock=clock)
        stack.callback(keeper.stop, timeout_s=_STOP_TIMEOUT_S)  # last of what ends, after the VMs
        stack.callback(namespace.close)
        stack.callback(table.close)
        stack.callback(table.end_mortals)
        table.recover()
        guard = Guard(identity, table, keeper, clock)
        server = Server(guard_socket(run_directory), guard.handle, clock)
        stack.callback(server.close)
        keeper.start()
        gc.collect()
        gc.freeze()  # what is here now stays: no collection needs to touch it again
        _log.info("guard %s of host %s is ready", identity.incarnation, identity.host_id)
        return _loop(server, table, guard, namespace=namespace, wake=wake)


def _loop(server: Server, table: ProcessTable, guard: Guard, *, namespace: PidNamespace, wake: int) -> int:
    while True:
        ready = server.serve((wake, namespace.first_pidfd, *table.pidfds()), _TICK_S)
        table.reap()
        with contextlib.suppress(OSError, Error):  # a full disk is no reason to end all VMs
            table.trim_logs()
        guard.seal_if_told()
        if namespace.first_pidfd in ready:
            _log.error("the PID namespace ended, and all VMs in it")
            return 1
        if wake in ready:
            _log.info("told to end")
            return 0


def _catch_signals() -> int:
    """A descriptor that becomes readable when this process is told to end."""
    wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return wake


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
