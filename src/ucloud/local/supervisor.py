"""Keeps the processes of one cloud running: starts what does not run, again and again with a growing delay.

Finds processes of an earlier supervisor and watches them without restarting them. Ending the supervisor, gently or
not, stops nothing: VMs and control plane go on until the next one comes. It is ``ucloud down`` that stops them.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from ucloud.config import Config
from ucloud.local.processes import PROGRAMS, Program, running_pid
from ucloud.reconcile.loop import backoff_s
from ucloud.system import files
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.run import spawn

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
STABLE_AFTER_S = 5.0
STOP_TIMEOUT_S = 15.0


@dataclass(slots=True)
class Slot:
    """One process: who runs, and when to try again."""

    program: Program
    child: subprocess.Popen[bytes] | None = None
    pid: int = 0
    started_s: float = 0.0
    failures: int = 0
    not_before_s: float = 0.0
    starts: int = field(default=0)


def command_of(program: Program, config_file: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "ucloud", program.name, "--config", str(config_file))


class Supervisor:
    """``spawn_program`` starts a program and returns its process; ``find`` tells the pid of one that runs."""

    def __init__(self, config_file: Path, run_directory: Path, log_directory: Path, clock: Clock) -> None:
        self._config_file = config_file
        self._run_directory = run_directory
        self._log_directory = log_directory
        self._clock = clock
        self.slots = [Slot(program) for program in PROGRAMS]

    def run(self, stopping: threading.Event) -> None:
        """Tend the processes until ``stopping``; they are left running."""
        while not stopping.is_set():
            if self._tend_all():
                self._write_state()
            stopping.wait(LOOK_EVERY_S)

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
        pid = running_pid(self._run_directory, slot.program.name)
        if pid:
            found, slot.pid = slot.pid != pid, pid
            return found
        if now_s < slot.not_before_s:
            return False
        self._start(slot, now_s)
        return True

    def _start(self, slot: Slot, now_s: float) -> None:
        with (self._log_directory / f"{slot.program.name}.out").open("wb") as output:
            slot.child = spawn(command_of(slot.program, self._config_file), log=output)
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


def main(config: Config, config_file: Path, stopping: threading.Event) -> int:
    """``ucloud supervise``."""
    Supervisor(config_file, config.host.run_directory, config.log.directory, SystemClock()).run(stopping)
    return 0
