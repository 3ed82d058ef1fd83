"""The supervisor with tiny programs: it restarts what dies, waits longer each time, and adopts what runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.contract.guard_process import is_gone, wait_for
from ucloud.config import Config, HostSection, LogSection
from ucloud.local import keeper
from ucloud.local.processes import Program, lock_file, running_pid
from ucloud.local.supervisor import Supervisor, keep_short
from ucloud.system import files
from ucloud.system.clock import SystemClock

LASTING = """
import sys, time
from pathlib import Path
from ucloud.config import Config, HostSection, LogSection
from ucloud.local import keeper
from ucloud.local.processes import only_one
from ucloud.system.clock import SystemClock
with only_one(Path(sys.argv[1]), sys.argv[2], SystemClock()):
    while True:
        print("x" * 1000, flush=True)
        time.sleep(0.005)
"""
SHORT = "print('no')"
LIMIT_KIB = 8


@dataclass
class House:
    directory: Path
    script: str = LASTING
    tidy: Callable[[], None] = lambda: None

    def supervisor(self) -> Supervisor:
        return Supervisor(
            self.directory,
            self.directory,
            SystemClock(),
            programs=(Program("one", ""), Program("two", "")),
            command=lambda program: (sys.executable, "-c", self.script, self.directory, program.name),
            tidy=self.tidy,
        )

    @contextlib.contextmanager
    def supervised(self) -> Iterator[Supervisor]:
        stopping = threading.Event()
        supervisor = self.supervisor()
        thread = threading.Thread(target=supervisor.run, args=(stopping,))
        thread.start()
        try:
            yield supervisor
        finally:
            stopping.set()
            thread.join()
            for slot in supervisor.slots:
                self.end(slot.program.name)
                if slot.child is not None:
                    slot.child.kill()
                    slot.child.wait()

    def end(self, name: str) -> None:
        if pid := running_pid(self.directory, name):
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: is_gone(pid))

    def pids(self) -> tuple[int, int]:
        """Both, once both run."""

        def look() -> tuple[int, int] | None:
            one, two = (running_pid(self.directory, name) for name in ("one", "two"))
            return (one, two) if one and two else None

        return wait_for(look)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_what_dies_is_started_again_at_once_and_the_others_stay(house: House) -> None:
    with house.supervised():
        one, two = house.pids()
        os.kill(one, signal.SIGKILL)
        wait_for(lambda: running_pid(house.directory, "one") not in (0, one))
        assert running_pid(house.directory, "two") == two
        wait_for(lambda: files.read_json(house.directory / "processes.json")["one"]["starts"] == 2)


def test_what_dies_young_again_and_again_waits_longer(house: House) -> None:
    house.script = SHORT
    with house.supervised() as supervisor:
        slot = supervisor.slots[0]
        wait_for(lambda: slot.failures >= 3)
        clock = SystemClock()
        assert slot.not_before_s - clock.monotonic_s() > 0.5
        assert slot.starts <= slot.failures + 1
        assert (house.directory / "one.out").read_text().count("no") == slot.failures


def test_another_supervisor_adopts_what_runs(house: House) -> None:
    with subprocess.Popen([sys.executable, "-c", LASTING, house.directory, "one"], stdout=subprocess.DEVNULL) as found:
        wait_for(lambda: running_pid(house.directory, "one"))
        with house.supervised() as supervisor:
            one, _ = house.pids()
            assert one == found.pid
            wait_for(lambda: supervisor.slots[0].pid == one)
            assert supervisor.slots[0].starts == 0
            found.kill()
            found.wait()
            wait_for(lambda: running_pid(house.directory, "one") not in (0, one))


def test_no_second_copy_of_one_that_has_only_just_begun(house: House) -> None:
    """It holds its lock and has not written its pid yet."""
    with lock_file(house.directory, "one").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with house.supervised() as supervisor:
            wait_for(lambda: running_pid(house.directory, "two"))
            assert supervisor.slots[0].starts == 0
            file.close()
            assert house.pids()


def test_what_is_written_without_an_end_is_kept_short(house: House, tmp_path: Path) -> None:
    config = Config(
        host=HostSection(state_directory=tmp_path, run_directory=tmp_path, serial_log_kib=LIMIT_KIB),
        log=LogSection(directory=tmp_path, limit_kib=LIMIT_KIB),
    )
    limit = LIMIT_KIB * 1024
    quiet = [tmp_path / keeper.MEMBER_LOG, tmp_path / "vms" / "vm-1" / "serial.log"]
    for path in quiet:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a" * limit + b"end")
    house.tidy = lambda: keep_short(config)
    with house.supervised():
        house.pids()
        output = house.directory / "one.out"
        for _ in range(2):
            wait_for(lambda: output.stat().st_size > limit * 3 // 4)
            wait_for(lambda: output.stat().st_size < limit * 3 // 4)
        for path in quiet:
            assert len(path.read_bytes()) == limit // 2
            assert path.read_bytes().endswith(b"aend")
        assert b"\0" not in output.read_bytes()


def test_ending_the_supervisor_ends_nothing(house: House) -> None:
    stopping = threading.Event()
    supervisor = house.supervisor()
    thread = threading.Thread(target=supervisor.run, args=(stopping,))
    thread.start()
    pids = house.pids()
    stopping.set()
    thread.join()
    assert house.pids() == pids
    for slot in supervisor.slots:
        assert slot.child is not None
        slot.child.kill()
        slot.child.wait()
