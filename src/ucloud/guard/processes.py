"""All VM processes of this host, as the guard knows them: one entry per VM, running or ended.

Each entry is also a file (``records``), so that a new guard finds the processes that outlived the old one.
Must hold: at most one process per VM; kill and forget need its exact generation and boot; an entry stays until
somebody forgets it; of a VM whose file is damaged nothing is said and nothing started; what may be started elsewhere
is with the fencer (``mortals``) before it begins.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ucloud.errors import Conflict, NotFound, Unavailable
from ucloud.guard.birth import bear
from ucloud.guard.life import Life
from ucloud.guard.mortals import Mortals
from ucloud.guard.namespace import PidNamespace
from ucloud.guard.records import ProcessRecord, read_records, record_path, write_record
from ucloud.guard.rules import refusal
from ucloud.guard.traffic import TrafficGate
from ucloud.hypervisor.guard_protocol import STDERR_TAIL_BYTES, UNKNOWN_EXIT, Named, Permit, StartRequest, VmProcess
from ucloud.model.vm import Failover
from ucloud.system import files, process_unix
from ucloud.system.append_log import keep_tail
from ucloud.system.clock import Clock, format_time
from ucloud.system.history import History
from ucloud.system.readable import wait_readable

_log = logging.getLogger(__name__)

_REAP_TIMEOUT_S = 2.0
_LOG_LIMIT_BYTES = 64 * 1024
_REFUSALS = {
    "guard_replaced": "its run lock is not of this guard's incarnation",
    "guard_fenced": "this host was taken over",
    "guard_sealed": "this guard is sealed",
}


@dataclass(slots=True)
class _Entry:
    process: VmProcess
    start_ticks: int
    pidfd: int  # -1 once it has ended
    is_child: bool


class ProcessTable:
    """Used by the guard's main thread alone. ``traffic`` is None for a guard that never fences."""

    def __init__(
        self,
        directory: Path,
        life: Life,
        *,
        mortals: Mortals,
        traffic: TrafficGate | None,
        namespace: PidNamespace,
        clock: Clock,
        history: History,
    ) -> None:
        self._directory = files.ensure_directory(directory)
        self._life = life
        self._incarnation = life.identity.incarnation
        self._mortals = mortals
        self._traffic = traffic
        self._namespace = namespace
        self._clock = clock
        self._history = history
        self._boot_id = process_unix.read_boot_id()
        self._entries: dict[str, _Entry] = {}
        self._damaged: dict[str, str] = {}
        self.sealed = False

    def pidfds(self) -> tuple[int, ...]:
        """Become readable when their process ends."""
        return tuple(entry.pidfd for entry in self._entries.values() if entry.pidfd >= 0)

    def recover(self) -> None:
        """Read the files of earlier guards: adopt what may live on, end what may not.

        Raises Unavailable if something that must be dead is not: no new guard may begin before it is.
        """
        records, self._damaged = read_records(self._directory)
        for vm_id, why in self._damaged.items():
            _log.error("vm=%s is set aside, its file in %s cannot be read: %s", vm_id, self._directory, why)
        for vm_id, record in records.items():
            entry = self._entries[vm_id] = self._adopt(record)
            if entry.process != record.process:
                self._note(entry)

    def start(self, request: StartRequest, descriptors: Sequence[int]) -> VmProcess:
        """See GuardClient.start."""
        self._check_whole(request.vm_id)
        known = self._entries.get(request.vm_id)
        if known is not None:
            return self._answer_known(known.process, request)
        self._check_allowed(request.vm_id, request.incarnation)
        inside = self._namespace if request.failover is Failover.RESTART else None
        output = self._open_log(request.vm_id)
        self._tell("vm_start", request, mode=request.mode.value, failover=request.failover.value)
        try:
            if inside is not None and self._traffic is not None:
                self._traffic.admit(request.vm_id, request.taps)
            bear(request, descriptors, output=output, namespace=inside, record=lambda pid: self._enter(request, pid))
        except BaseException:
            self._drop(request.vm_id)
            self._tell("vm_exit", request, born=False)
            raise
        finally:
            os.close(output)
        return self._entries[request.vm_id].process

    def permit(self, permit: Permit) -> None:
        """See GuardClient.permit."""
        process = self._find(Named(permit.vm_id, permit.generation, permit.boots)).process
        self.reap()
        # Its lock is of the guard that bore it: one that outlived that guard goes on under the lock it was born with.
        self._check_allowed(permit.vm_id, permit.incarnation, own=process.incarnation)
        shown = self._shown(self._entries[permit.vm_id])
        if not shown.running or shown.frozen:
            state = "is frozen" if shown.running else "ended"
            raise Conflict(
                f"failed to let VM {permit.vm_id} go on: process {process.pid} {state}",
                code="frozen" if shown.running else "ended",
            )

    def list(self, vm_id: str = "") -> tuple[VmProcess, ...]:
        """See GuardClient.list. One whose file is damaged is left out, and an error if it is asked for by its id."""
        self._check_whole(vm_id)
        self.reap()
        entries = self._entries.values()
        return tuple(self._shown(entry) for entry in entries if vm_id in ("", entry.process.vm_id))

    def kill(self, named: Named) -> VmProcess:
        """See GuardClient.kill."""
        entry = self._find(named)
        self.reap()
        if entry.process.running:
            _log.info("killing vm=%s generation=%d boots=%d", named.vm_id, named.generation, named.boots)
            self._kill_and_wait(entry)
            self._reap_one(entry)
        return self._shown(entry)

    def forget(self, named: Named) -> None:
        """See GuardClient.forget."""
        self._check_whole(named.vm_id)
        entry = self._entries.get(named.vm_id)
        if entry is None or _name_of(entry.process) != named:
            return
        self.reap()
        if entry.process.running:
            raise Conflict(f"failed to forget VM {named.vm_id}: its process {entry.process.pid} runs", code="runs")
        self._drop(named.vm_id)

    def end_mortals(self) -> tuple[str, ...]:
        """End what must not outlive this guard, and reap it. Returns the VMs of which that could not be done."""
        self.reap()  # what ended by itself did not end with the guard
        self._namespace.kill()
        mortal = [entry for entry in self._entries.values() if _is_mortal(entry.process)]
        left = []
        for entry in mortal:
            if entry.pidfd >= 0:
                try:
                    self._kill_and_wait(entry)
                    self._reap_one(entry, lost=True)
                except Unavailable as error:
                    left.append(entry.process.vm_id)
                    _log.error("%s", error)
        return tuple(left)

    def reap(self) -> None:
        """Note every process that ended."""
        ready = wait_readable(self.pidfds(), 0)
        for entry in self._entries.values():
            if entry.pidfd in ready:
                self._reap_one(entry)

    def trim_logs(self) -> None:
        for vm_id in self._entries:
            keep_tail(self._log_path(vm_id), limit_bytes=_LOG_LIMIT_BYTES, keep_bytes=_LOG_LIMIT_BYTES // 4)

    def close(self) -> None:
        for pidfd in self.pidfds():
            os.close(pidfd)
        self._entries.clear()
        self._mortals.close()

    def _answer_known(self, known: VmProcess, request: StartRequest) -> VmProcess:
        same = _name_of(known) == Named(request.vm_id, request.generation, request.boots)
        if known.running and same:
            return known
        state = "runs" if known.running else "ended and was not forgotten"
        raise Conflict(
            f"failed to start VM {request.vm_id}: generation {known.generation}, boot {known.boots} {state}",
            code="runs" if known.running else "ended",
        )

    def _enter(self, request: StartRequest, pid: int) -> None:
        if request.failover is Failover.RESTART:
            self._mortals.admit(request, pid, lambda: self._check_allowed(request.vm_id, request.incarnation))
        self._tell("vm_born", request, pid=pid)
        process = VmProcess(
            vm_id=request.vm_id,
            generation=request.generation,
            boots=request.boots,
            incarnation=self._incarnation,
            failover=request.failover,
            pid=pid,
            running=True,
            started_at=format_time(self._clock.now()),
        )
        entry = _Entry(process, process_unix.read_start_ticks(pid), os.pidfd_open(pid), is_child=True)
        self._entries[request.vm_id] = entry
        self._write(entry)

    def _check_allowed(self, vm_id: str, incarnation: str, *, own: str = "") -> None:
        """Raises Conflict or Unavailable if this VM must not begin or go on now."""
        code = refusal(
            self._life.state,
            self._clock.monotonic_s(),
            sealed=self.sealed,
            own=own or self._incarnation,
            asked=incarnation,
        )
        if code == "no_evidence":
            raise Unavailable(
                f"failed to let VM {vm_id} run: nobody knows whether this host was taken over",
                hint="it may once etcd answers this host again",
                code=code,
            )
        if code:
            raise Conflict(f"failed to let VM {vm_id} run: {_REFUSALS[code]}", code=code)

    def _check_whole(self, vm_id: str) -> None:
        """Raises Conflict as long as the file of this VM is there and could not be read."""
        if vm_id not in self._damaged:
            return
        path = record_path(self._directory, vm_id)
        if not path.exists():  # an operator says by this that nothing of it runs
            del self._damaged[vm_id]
            return
        raise Conflict(
            f"failed to know what runs of VM {vm_id}: its record is damaged: {self._damaged[vm_id]}",
            code="record_damaged",
            hint=f"make sure that no QEMU of it runs on this host, then remove {path}",
        )

    def _find(self, named: Named) -> _Entry:
        self._check_whole(named.vm_id)
        entry = self._entries.get(named.vm_id)
        if entry is None or _name_of(entry.process) != named:
            have = "none" if entry is None else f"generation {entry.process.generation}, boot {entry.process.boots}"
            raise NotFound(
                f"failed to find generation {named.generation}, boot {named.boots} of VM {named.vm_id}: there is {have}"
            )
        return entry

    def _reap_one(self, entry: _Entry, *, lost: bool = False) -> None:
        """``lost``: it ended because this guard ends, not by its own doing."""
        exit_code, by_signal = _wait_child(entry.process.pid) if entry.is_child else (UNKNOWN_EXIT, 0)
        os.close(entry.pidfd)
        entry.pidfd = -1
        with_guard = by_signal == signal.SIGKILL and _is_mortal(entry.process) and self._namespace.is_ending()
        fenced = self._let_go(entry.process.vm_id)
        self._tell("vm_exit", entry.process, pid=entry.process.pid, exit_code=exit_code, signal=by_signal)
        entry.process = replace(
            entry.process,
            running=False,
            ended_at=format_time(self._clock.now()),
            exit_code=exit_code,
            signal=by_signal,
            lost=lost or with_guard or (fenced and by_signal == signal.SIGKILL),
        )
        _log.info("vm=%s ended exit_code=%d signal=%d", entry.process.vm_id, exit_code, by_signal)
        self._note(entry)

    def _note(self, entry: _Entry) -> None:
        """Write it down; if that fails, the file still says that it runs and a later guard sees that it does not."""
        try:
            self._write(entry)
        except OSError as error:
            _log.error("failed to note the end of vm=%s: %s", entry.process.vm_id, error)

    def _shown(self, entry: _Entry) -> VmProcess:
        vm_id = entry.process.vm_id
        if entry.process.running:
            return replace(entry.process, frozen=self._mortals.is_frozen(vm_id), stuck=self._mortals.is_stuck(vm_id))
        with contextlib.suppress(FileNotFoundError):
            tail = _read_tail(self._log_path(vm_id), STDERR_TAIL_BYTES)
            return replace(entry.process, stderr_tail=tail.decode(errors="replace"))
        return entry.process

    def _adopt(self, record: ProcessRecord) -> _Entry:
        """One that may live on goes on; one that may not is ended, if it is not yet."""
        process = record.process
        entry = _Entry(process, record.start_ticks, record.open_running(), is_child=False)
        if not process.running or (entry.pidfd >= 0 and not _is_mortal(process)):
            return entry
        if entry.pidfd >= 0:
            self._kill_and_wait(entry)
            os.close(entry.pidfd)
            entry.pidfd = -1
            self._tell("vm_exit", process, pid=process.pid)
        lost = _is_mortal(process) or record.boot_id != self._boot_id
        entry.process = replace(process, running=False, ended_at=format_time(self._clock.now()), lost=lost)
        return entry

    def _let_go(self, vm_id: str) -> bool:
        """It has ended: its taps are free, and nothing is left to fence. Whether it was killed for that."""
        if self._traffic is not None:
            self._traffic.remove(vm_id)
        return self._mortals.remove(vm_id)

    def _kill_and_wait(self, entry: _Entry) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(entry.pidfd, signal.SIGKILL)
        self._tell("vm_kill", entry.process, pid=entry.process.pid)
        if not wait_readable([entry.pidfd], _REAP_TIMEOUT_S):
            raise Unavailable(
                f"failed to end VM {entry.process.vm_id}: process {entry.process.pid} is killed but not gone",
                hint="it may hang in the kernel on its storage",
                code="not_reaped",
            )

    def _tell(self, kind: str, named: StartRequest | VmProcess, **facts: str | int | bool) -> None:
        self._history.tell(
            kind,
            host=self._life.identity.host_id,
            vm=named.vm_id,
            generation=named.generation,
            boots=named.boots,
            incarnation=named.incarnation,
            **facts,
        )

    def _write(self, entry: _Entry) -> None:
        write_record(self._directory, ProcessRecord(entry.process, entry.start_ticks, self._boot_id))

    def _drop(self, vm_id: str) -> None:
        entry = self._entries.pop(vm_id, None)
        if entry is not None and entry.pidfd >= 0:
            os.close(entry.pidfd)
        self._let_go(vm_id)
        record_path(self._directory, vm_id).unlink(missing_ok=True)
        self._log_path(vm_id).unlink(missing_ok=True)

    def _log_path(self, vm_id: str) -> Path:
        return self._directory / f"{vm_id}.log"

    def _open_log(self, vm_id: str) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._log_path(vm_id), flags, 0o600)


def _name_of(process: VmProcess) -> Named:
    return Named(process.vm_id, process.generation, process.boots)


def _is_mortal(process: VmProcess) -> bool:
    """Whether it may be started elsewhere, so that it must end with its guard."""
    return process.failover is Failover.RESTART


def _wait_child(pid: int) -> tuple[int, int]:
    """Exit code (or UNKNOWN_EXIT) and signal (or 0) of a child that has ended."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return (status, 0) if status >= 0 else (UNKNOWN_EXIT, -status)


def _read_tail(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - limit))
        return file.read(limit)
