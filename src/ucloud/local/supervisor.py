"""Keeps the processes of one cloud running: starts what does not run, again and again with a growing delay.

Finds processes of an earlier supervisor and watches them without restarting them. Ending the supervisor, gently or
not, stops nothing: VMs and control plane go on until the next one comes. It is ``ucloud down`` that stops them.
What nobody else bounds is kept short here: the output of the processes and of etcd, and the guests' serial logs, which
an agent that waits for the store does not look after.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ucloud.config import Config
from ucloud.errors import Error
from ucloud.hypervisor.directory import VmDirectories
from ucloud.local import keeper
from ucloud.local.processes import PROGRAMS, Program, is_running, running_pid
from ucloud.reconcile.loop import backoff_s
from ucloud.system import files
from ucloud.system.append_log import keep_tail, open_output
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.run import Process, spawn

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
STABLE_AFTER_S = 5.0
TIDY_EVERY_S = 1.0


@dataclass(slots=True)
class Slot:
    """One process: who runs, and when to try again."""

    program: Program
    child: Process | None = None
    pid: int = 0
    started_s: float = 0.0
    failures: int = 0
    not_before_s: float = 0.0
    starts: int = field(default=0)


def command_of(program: Program, config_file: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "ucloud", program.name, "--config", str(config_file))


class Supervisor:
    """``command`` is how a program is started; ``tidy`` is called about once a second."""

    def __init__(
        self,
        run_directory: Path,
        log_directory: Path,
        clock: Clock,
        *,
        command: Callable[[Program], Sequence[str | Path]],
        tidy: Callable[[], None],
        programs: Sequence[Program] = PROGRAMS,
    ) -> None:
        self._run_directory = run_directory
        self._log_directory = log_directory
        self._clock = clock
        self._command = command
        self._tidy = tidy
        self._tidy_at_s = 0.0
        self.slots = [Slot(program) for program in programs]

    def run(self, stopping: threading.Event) -> None:
        """Tend the processes until ``stopping``; they are left running."""
        while not stopping.is_set():
            if self._tend_all():
                self._write_state()
            self._tidy_sometimes()
            stopping.wait(LOOK_EVERY_S)

    def _tidy_sometimes(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s < self._tidy_at_s:
            return
        self._tidy_at_s = now_s + TIDY_EVERY_S
        try:
            self._tidy()
        except (Error, OSError) as error:  # a full or broken disk is no reason to tend nobody
            logger.warning("failed to keep files short: %s", error)

    def _tend_all(self) -> bool:
        """Every process is looked after, whatever the ones before it did."""
        changes = [self._tend(slot) for slot in self.slots]
        return any(changes)

    def _tend(self, slot: Slot) -> bool:
        """Look after one process; whether something about it has changed."""
        now_s = self._clock.monotonic_s()
        if slot.child is not None and slot.child.poll() is None:
            if now_s - slot.started_s > STABLE_AFTER_S:
                slot.failures = 0
            return False
        if slot.child is not None:
            self._note_end(slot, now_s)
            return True
        if is_running(self._run_directory, slot.program.name):
            pid = running_pid(self._run_directory, slot.program.name)  # 0 as long as it has only just begun
            found, slot.pid = slot.pid != pid, pid
            return found
        if now_s < slot.not_before_s:
            return False
        self._start(slot, now_s)
        return True

    def _start(self, slot: Slot, now_s: float) -> None:
        with open_output(self._log_directory, slot.program.name) as output:
            slot.child = spawn(self._command(slot.program), log=output)
        slot.pid = slot.child.pid
        slot.started_s = now_s
        slot.starts += 1
        logger.info("started %s as %d", slot.program.name, slot.pid)

    def _note_end(self, slot: Slot, now_s: float) -> None:
        code = slot.child.returncode if slot.child else 0
        slot.child, slot.pid = None, 0
        # The first death is answered at once; one that dies young again and again waits longer each time.
        slot.not_before_s = now_s + (backoff_s(slot.failures) if slot.failures else 0.0)
        slot.failures += 1
        logger.warning("%s ended with %s; start %d follows", slot.program.name, code, slot.starts + 1)

    def _write_state(self) -> None:
        state = {slot.program.name: {"pid": slot.pid, "starts": slot.starts} for slot in self.slots}
        files.write_json(self._run_directory / "processes.json", state)


def keep_short(config: Config) -> None:
    """Cut what processes, etcd and guests write without an end to its limit."""
    for pattern in ("*.out", keeper.MEMBER_LOG):
        for path in config.log.directory.glob(pattern):
            keep_tail(path, limit_bytes=config.log.limit_kib * 1024)
    directories = VmDirectories(config.host.state_directory, config.host.run_directory, host_boot_id="")
    for vm_id in directories.vm_ids():
        keep_tail(directories.serial_log(vm_id), limit_bytes=config.host.serial_log_kib * 1024)


def main(
    config: Config,
    config_file: Path,
    stopping: threading.Event,
    *,
    programs: Sequence[Program] = PROGRAMS,
    under: Sequence[str] = (),
) -> int:
    """``ucloud supervise``; ``programs`` are those of this machine if it has only a part of a cloud.

    Each is run ``under`` a command that becomes it, if there is one (``env NAME=VALUE``).
    """
    supervisor = Supervisor(
        config.host.run_directory,
        config.log.directory,
        SystemClock(),
        command=lambda program: (*under, *command_of(program, config_file)),
        tidy=lambda: keep_short(config),
        programs=programs,
    )
    supervisor.run(stopping)
    return 0
