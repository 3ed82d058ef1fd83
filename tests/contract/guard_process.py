"""Starts and ends guards for tests, and sees to it that nothing of theirs outlives the test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ucloud.config.load import render_config
from ucloud.config.sections import Config, GuardSection, HostSection, LogSection, StoreSection
from ucloud.errors import Unavailable
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.guard_protocol import Hello, StartRequest, VmProcess
from ucloud.system.process_unix import read_start_ticks

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


def wait_for(look: Callable[[], T], *, timeout_s: float = 20.0) -> T:
    """What ``look`` returns once that is true."""
    deadline_s = time.monotonic() + timeout_s
    while not (seen := look()):
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(0.01)
    return seen


def is_gone(pid: int) -> bool:
    """No such process, or one that only waits to be reaped."""
    return read_start_ticks(pid) == 0


class FittingClient(GuardClient):
    """Starts for whichever incarnation the guard has, if the request names none."""

    def start(self, request: StartRequest, descriptors: Sequence[int] = ()) -> VmProcess:
        if not request.incarnation:
            request = replace(request, incarnation=self.hello().incarnation)
        return super().start(request, descriptors)


class GuardProcess:
    """A guard that can be ended and started again on the same directories."""

    def __init__(
        self,
        directory: Path,
        *,
        store: StoreSection | None = None,
        guard: GuardSection | None = None,
        history: Path | None = None,
        namespace: str = "",
    ) -> None:
        self.host = HostSection(id="host-test", run_directory=directory / "run", state_directory=directory)
        self.config = Config(
            store=store or StoreSection(endpoints=()),
            host=self.host,
            guard=guard or GuardSection(),
            log=LogSection(directory=directory / "log", history_socket=str(history or "")),
        )
        self._config_file = directory / "config.toml"
        self._config_file.write_text(render_config(self.config))
        self._prefix = ["ip", "netns", "exec", namespace] if namespace else []
        self.client = FittingClient(self.host.run_directory / "guard.sock")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> Hello:
        self._process = self._spawn()
        return wait_for(self._hello)

    def run_to_end(self) -> int:
        """For a guard that cannot begin: its exit status."""
        return self._spawn().wait(timeout=20)

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        """The exit status."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        assert self._process is not None
        return self._process.wait(timeout=20)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [*self._prefix, sys.executable, "-m", "tests.contract.guard_runner", str(self._config_file)]
        return subprocess.Popen(command, cwd=ROOT)

    def close(self) -> None:
        """End the guard, and by what it wrote down all processes that it knew."""
        if self._process is not None and self._process.poll() is None:
            self.end()
        for path in (self.host.run_directory / "guard").glob("*.json"):
            known = json.loads(path.read_text())
            pid = known["process"]["pid"]
            if read_start_ticks(pid) == known["start_ticks"]:
                os.kill(pid, signal.SIGKILL)

    def _hello(self) -> Hello | None:
        assert self._process is not None
        assert self._process.poll() is None, (self.config.log.directory / "guard.log").read_text()
        with contextlib.suppress(Unavailable):
            hello = self.client.hello()
            return hello if hello.alive or self.config.store.endpoints else None
        return None


@contextlib.contextmanager
def guard_process(
    directory: Path,
    *,
    store: StoreSection | None = None,
    guard: GuardSection | None = None,
    history: Path | None = None,
    namespace: str = "",
) -> Iterator[GuardProcess]:
    """A running guard whose files are below ``directory``."""
    process = GuardProcess(directory, store=store, guard=guard, history=history, namespace=namespace)
    process.start()
    try:
        yield process
    finally:
        process.close()
