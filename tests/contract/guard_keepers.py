"""Three etcd members, each under a keeper of its own, as ``ucloud etcd`` runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.contract.etcd_server import free_port
from tests.contract.guard_process import ROOT, wait_for
from ucloud.config.load import render_config
from ucloud.config.sections import Config, EtcdSection, HostSection, LogSection, StoreSection
from ucloud.errors import Error
from ucloud.guard.keepers import DialKeeper, keeper_dialler
from ucloud.guard.rules import KeeperAnswer
from ucloud.local import certificates
from ucloud.local.keeper import HOLD_FILE
from ucloud.local.members import ensure_members, observe_voters
from ucloud.model.guard import Members, Voter
from ucloud.store.api import Store
from ucloud.store.connect import open_store
from ucloud.store.etcd import Tls
from ucloud.store.etcd_members import client_context
from ucloud.system.clock import SystemClock

CLOCK = SystemClock()


class KeptMember:
    """One keeper and its member."""

    def __init__(self, directory: Path, name: str, store: StoreSection, tls: Path, peers: dict[str, int]) -> None:
        self.name = name
        self.door = f"127.0.0.1:{free_port()}"
        cluster = ",".join(f"{one}=https://127.0.0.1:{port}" for one, port in peers.items())
        self.config = Config(
            store=store,
            etcd=EtcdSection(
                member=name,
                data_directory=directory / name / "etcd",
                client_url=store.endpoints[int(name[1:])],
                peer_url=f"https://127.0.0.1:{peers[name]}",
                metrics_url=f"http://127.0.0.1:{free_port()}",
                initial_cluster=cluster,
                keeper_listen=self.door,
                cert_file=tls / "etcd.pem",
                key_file=tls / "etcd.key",
            ),
            host=HostSection(run_directory=directory / name / "run"),
            log=LogSection(directory=directory / name / "log"),
        )
        self.config.host.run_directory.mkdir(parents=True)
        self._config_file = directory / f"{name}.toml"
        self._config_file.write_text(render_config(self.config))
        self.process: subprocess.Popen[bytes] | None = None
        self.voter = Voter(name, "", f"https://{self.door}")

    @property
    def hold_file(self) -> Path:
        return self.config.host.run_directory / HOLD_FILE

    def start(self) -> None:
        command = [sys.executable, "-m", "ucloud", "etcd", "--config", str(self._config_file)]
        self.process = subprocess.Popen(command, cwd=ROOT)

    def member_pid(self) -> int:
        """0 as long as the member does not run."""
        assert self.process is not None
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            names = {int(pid): Path(f"/proc/{pid}/comm").read_text().strip() for pid in text}
            return next((pid for pid, name in names.items() if name == "etcd"), 0)
        return 0

    def signal_member(self, number: signal.Signals) -> None:
        os.kill(self.member_pid(), number)

    def kill(self) -> None:
        """The keeper, and with it the member."""
        if self.process is not None:
            with contextlib.suppress(OSError):
                os.kill(self.member_pid() or self.process.pid, signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None


class KeptCluster:
    def __init__(self, directory: Path) -> None:
        tls = directory / "tls"
        certificates.ensure_authority(tls)
        for name in ("etcd", "store"):
            certificates.ensure_certificate(tls, name)
        self.store_section = StoreSection(
            endpoints=tuple(f"https://127.0.0.1:{free_port()}" for _ in range(3)),
            ca_file=tls / "ca.pem",
            cert_file=tls / "store.pem",
            key_file=tls / "store.key",
        )
        peers = {f"m{index}": free_port() for index in range(3)}
        self.members = [KeptMember(directory, name, self.store_section, tls, peers) for name in peers]
        own = Tls(self.store_section.ca_file, self.store_section.cert_file, self.store_section.key_file)
        self._dial: DialKeeper = keeper_dialler(client_context(own), CLOCK)

    def ask(self, member: KeptMember) -> KeeperAnswer | None:
        until_s = CLOCK.monotonic_s() + 0.5
        call = self._dial(member.voter, until_s)
        if call is None:
            return None
        with contextlib.closing(call):
            return call.ask(until_s)

    def states(self) -> list[str]:
        """What each keeper says, "" for no answer."""
        answers = [self.ask(member) for member in self.members]
        return [answer.state.value if answer else "" for answer in answers]

    @contextlib.contextmanager
    def store(self) -> Iterator[Store]:
        with contextlib.closing(open_store(self.store_section)) as store:
            yield store

    def publish(self) -> Members:
        """Write down who votes, once etcd can tell."""
        doors = {member.name: member.voter.door for member in self.members}

        def attempt() -> Members | None:
            with contextlib.suppress(Error), self.store() as store:
                return ensure_members(store, *observe_voters(self.store_section, doors, CLOCK))
            return None

        return wait_for(attempt)


@contextlib.contextmanager
def kept_cluster(directory: Path) -> Iterator[KeptCluster]:
    """Running, with a leader."""
    cluster = KeptCluster(directory)
    try:
        for member in cluster.members:
            member.start()
        wait_for(lambda: cluster.states() == ["leader"] * 3)
        yield cluster
    finally:
        for member in cluster.members:
            member.kill()
