"""The guard against a real etcd that is cut off, stopped or says that this host was taken over."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import require
from tests.contract.etcd_server import Cluster, etcd_cluster
from tests.contract.guard_keepers import kept_cluster
from tests.contract.guard_process import GuardProcess, guard_process, is_gone, wait_for
from ucloud.config.sections import GuardSection, StoreSection
from ucloud.errors import Conflict, Unavailable
from ucloud.guard.process import TAKEN_OVER
from ucloud.hypervisor.guard_protocol import Named, StartRequest, VmProcess
from ucloud.model.guard import Fenced, Members, Voter
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.api import Delete, Put, Txn
from ucloud.store.codec import encode

UID = 600_124
F, K = 2.0, 0.25
SLACK_S = 0.35  # a machine that others use as well
GUARD = GuardSection(fence_s=F, kill_s=K)


class Listener:
    """Takes what the guard tells."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self._told: list[dict[str, Any]] = []

    def told(self, kind: str, vm_id: str = "") -> list[dict[str, Any]]:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._told.append(json.loads(self._socket.recv(65536)))
        return [one for one in self._told if one["kind"] == kind and vm_id in ("", one.get("vm"))]

    def close(self) -> None:
        self._socket.close()


class Site:
    """A host with an etcd of its own."""

    def __init__(self, cluster: Cluster, guard: GuardProcess, listener: Listener) -> None:
        self.cluster = cluster
        self.guard = guard
        self.listener = listener

    def signal_etcd(self, number: signal.Signals) -> None:
        for member in self.cluster.members:
            member.signal(number)

    def start(self, vm_id: str, failover: Failover = Failover.RESTART, fence: Fence = Fence.LOCK) -> VmProcess:
        request = StartRequest(vm_id, 1, 1, failover, UID, UID, ("/bin/sleep", "1000"), pool_fence=fence)
        return self.guard.client.start(request)

    def wait_evidence(self) -> str:
        """This guard's incarnation, once it has evidence."""
        hello = wait_for(lambda: one if (one := self.guard.client.hello()).left_s > 0 else None)
        return hello.incarnation

    def commit(self, *writes: Put | Delete) -> None:
        with contextlib.closing(self.cluster.store()) as store:
            assert store.commit(Txn((), writes)).ok

    def fence(self, incarnation: str) -> None:
        host_id = self.guard.host.id
        mark = encode(Fenced(host_id, incarnation, "now", "test"))
        self.commit(Delete(keys.alive(host_id)), Put(keys.fenced(host_id, incarnation), mark))


@contextlib.contextmanager
def make_site(size: int = 1) -> Iterator[Site]:
    require("root")
    require("etcd")
    with tempfile.TemporaryDirectory(prefix="ucloud-test-") as name, etcd_cluster(size) as cluster:
        listener = Listener(Path(name) / "history")
        tls = cluster.tls
        settings = StoreSection(
            endpoints=tuple(cluster.endpoints), ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file
        )
        with guard_process(Path(name), store=settings, guard=GUARD, history=Path(name) / "history") as guard:
            site = Site(cluster, guard, listener)
            site.wait_evidence()
            yield site
        listener.close()


@pytest.fixture
def site() -> Iterator[Site]:
    with make_site() as made:
        yield made


def boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def wait_dead(process: VmProcess, timeout_s: float = F + 3) -> float:
    """When it was dead."""
    wait_for(lambda: is_gone(process.pid), timeout_s=timeout_s)
    return boot_s()


def test_a_cut_longer_than_f_kills_what_may_run_elsewhere_and_nothing_else(site: Site) -> None:
    mortal, lasting = site.start("vm-a"), site.start("vm-b", Failover.NONE)
    cut_s = boot_s()
    site.signal_etcd(signal.SIGSTOP)
    dead_s = wait_dead(mortal)
    assert cut_s + F - 1.0 < dead_s < cut_s + F + K + SLACK_S
    wait_for(lambda: site.listener.told("fence"))
    (exit_told,) = wait_for(lambda: site.listener.told("vm_exit", "vm-a"))
    (kill_told,) = site.listener.told("vm_kill", "vm-a")
    assert exit_told["pid"] == kill_told["pid"] == mortal.pid
    shown = {one.vm_id: one for one in site.guard.client.list()}
    assert (shown["vm-a"].running, shown["vm-a"].lost) == (False, True)
    assert shown["vm-b"] == lasting
    with pytest.raises(Unavailable) as caught:
        site.start("vm-c")
    assert caught.value.code == "no_evidence"
    with pytest.raises(Unavailable):
        site.guard.client.permit(Named("vm-b", 1, 1), site.guard.client.hello().incarnation)
    site.signal_etcd(signal.SIGCONT)
    incarnation = site.wait_evidence()
    assert site.start("vm-c").running
    site.guard.client.permit(Named("vm-b", 1, 1), incarnation)
    assert not is_gone(lasting.pid)


def test_a_blip_shorter_than_f_does_nothing(site: Site) -> None:
    mortal = site.start("vm-a")
    for _ in range(3):
        site.signal_etcd(signal.SIGSTOP)
        time.sleep(0.6 * F)
        site.signal_etcd(signal.SIGCONT)
        wait_for(lambda: site.guard.client.hello().evidence_age_s < 0.5)
    assert not is_gone(mortal.pid)
    assert site.listener.told("fence") == []
    assert max(one["gap_s"] for one in site.listener.told("evidence_gap")) > 1.0
    assert site.guard.client.hello().longest_gap_s > 1.0


def test_on_a_pool_with_a_verb_it_freezes_and_goes_on(site: Site) -> None:
    mortal = site.start("vm-a", fence=Fence.VERB)
    site.signal_etcd(signal.SIGSTOP)
    wait_for(lambda: site.guard.client.list("vm-a")[0].frozen)
    wait_for(lambda: state_of(mortal.pid) == "T" and site.listener.told("vm_freeze", "vm-a"))
    with pytest.raises(Unavailable):
        site.guard.client.permit(Named("vm-a", 1, 1), mortal.incarnation)
    site.signal_etcd(signal.SIGCONT)
    wait_for(lambda: state_of(mortal.pid) == "S")
    assert not site.guard.client.list("vm-a")[0].frozen
    assert [len(site.listener.told(kind, "vm-a")) for kind in ("vm_freeze", "vm_thaw", "vm_exit")] == [1, 1, 0]


@pytest.mark.parametrize("fence", [Fence.LOCK, Fence.VERB])
def test_a_host_that_was_taken_over_kills_at_once_and_begins_anew(site: Site, fence: Fence) -> None:
    mortal, lasting = site.start("vm-a", fence=fence), site.start("vm-b", Failover.NONE)
    incarnation = site.wait_evidence()
    fenced_s = boot_s()
    site.fence(incarnation)
    assert wait_dead(mortal) < fenced_s + 0.5 + SLACK_S
    assert site.guard.wait() == TAKEN_OVER
    assert not is_gone(lasting.pid)
    site.guard.start()
    assert site.wait_evidence() != incarnation
    site.guard.client.permit(Named("vm-b", 1, 1), incarnation)  # what outlived its guard goes on under its old lock
    with pytest.raises(Conflict) as caught:
        site.guard.client.permit(Named("vm-b", 1, 1), "another")
    assert caught.value.code == "guard_replaced"
    with pytest.raises(Conflict) as caught:  # the lock of the old incarnation starts nothing
        site.guard.client.start(
            StartRequest("vm-c", 1, 1, Failover.NONE, UID, UID, ("/bin/sleep", "9"), incarnation=incarnation)
        )
    assert caught.value.code == "guard_replaced"


def test_frozen_ones_die_when_the_host_was_taken_over_meanwhile(site: Site) -> None:
    mortal = site.start("vm-a", fence=Fence.VERB)
    site.guard.client.hello()
    incarnation = site.wait_evidence()
    with frozen(site.guard.pid):  # the takeover happens while this host hears nothing
        site.fence(incarnation)
        time.sleep(F)
    assert site.guard.wait() == TAKEN_OVER
    assert is_gone(mortal.pid)


def test_a_lost_life_sign_is_made_again_and_kills_nothing(site: Site) -> None:
    mortal = site.start("vm-a")
    for count in range(len(site.listener.told("registered")) + 1, 5):
        site.commit(Delete(keys.alive(site.guard.host.id)))
        wait_for(lambda count=count: len(site.listener.told("registered")) == count)
    site.wait_evidence()
    assert not is_gone(mortal.pid)
    assert site.listener.told("fence") == []


def test_a_guard_that_was_frozen_for_too_long_kills_before_anything_else(site: Site) -> None:
    mortal = site.start("vm-a")
    with frozen(site.guard.pid):
        time.sleep(F + 0.3)
        assert not is_gone(mortal.pid)
        thawed_s = boot_s()
    assert wait_dead(mortal) < thawed_s + K + SLACK_S
    site.wait_evidence()


def test_it_fences_also_while_its_main_thread_hangs(site: Site) -> None:
    """As it would on a log or a record whose disk does not answer."""
    mortal = site.start("vm-a")
    with thread_stopped(site.guard.pid):
        cut_s = boot_s()
        site.signal_etcd(signal.SIGSTOP)
        assert wait_dead(mortal) < cut_s + F + K + SLACK_S
    site.signal_etcd(signal.SIGCONT)
    site.wait_evidence()
    assert site.guard.client.list("vm-a")[0].lost


def test_refusals_and_silence_of_keepers_are_no_evidence(site: Site) -> None:
    """Two doors: one where nobody listens, one that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        doors = [f"https://127.0.0.1:{one.getsockname()[1]}" for one in (silent, bound)]
        voters = tuple(Voter(f"m{index}", str(index), door) for index, door in enumerate(doors))
        site.commit(Put(keys.members(), encode(Members("1", 5, voters))))
        wait_for(lambda: site.guard.client.hello().members_version == 5)
        mortal = site.start("vm-a")
        cut_s = boot_s()
        for member in site.cluster.members:
            member.kill()
        assert cut_s + F - 1.0 < wait_dead(mortal) < cut_s + F + K + SLACK_S


def test_one_member_of_three_may_be_frozen_and_nothing_is_noticed() -> None:
    with make_site(3) as site:
        mortal = site.start("vm-a")
        leader = site.cluster.leader()
        follower = next(member for member in site.cluster.members if member is not leader)
        follower.signal(signal.SIGSTOP)
        time.sleep(F + 0.5)
        follower.signal(signal.SIGCONT)
        assert not is_gone(mortal.pid)
        assert len(site.listener.told("registered")) == 1
        assert site.guard.client.hello().longest_gap_s < 1.0


def test_etcd_that_is_wholly_stopped_kills_nobody_as_long_as_all_keepers_say_so(tmp_path: Path) -> None:
    require("root")
    require("etcd")
    with tempfile.TemporaryDirectory(prefix="ucloud-test-") as name, kept_cluster(tmp_path) as cluster:
        version = cluster.publish().version
        with guard_process(Path(name), store=cluster.store_section, guard=GUARD) as guard:
            wait_for(lambda: guard.client.hello().members_version == version)
            incarnation = wait_for(lambda: one.incarnation if (one := guard.client.hello()).left_s > 0 else "")
            request = StartRequest("vm-a", 1, 1, Failover.RESTART, UID, UID, ("/bin/sleep", "1000"))
            mortal = guard.client.start(request)
            for member in cluster.members:
                member.hold_file.touch()
            wait_for(lambda: cluster.states() == ["stopped"] * 3)
            time.sleep(3 * F)
            assert not is_gone(mortal.pid)
            for member in cluster.members:  # one by one, as after a power cut: a lone one answers no client
                member.hold_file.unlink()
                time.sleep(F)
                assert not is_gone(mortal.pid)
            wait_for(lambda: cluster.states() == ["leader"] * 3)
            wait_for(lambda: guard.client.hello().alive)
            assert guard.client.hello().incarnation == incarnation
            assert guard.client.hello().longest_gap_s < F

            for member in cluster.members:
                member.hold_file.touch()
            wait_for(lambda: cluster.states() == ["stopped"] * 3)
            cut_s = boot_s()
            cluster.members[1].kill()  # of this machine nobody knows anything now
            assert wait_dead(mortal) < cut_s + F + K + SLACK_S


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


@contextlib.contextmanager
def thread_stopped(tid: int) -> Iterator[None]:
    """One thread of a process stands still, the others do not (ptrace(2): seize, interrupt, detach)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    for request in (0x4206, 0x4207):
        assert libc.ptrace(request, tid, None, None) == 0, os.strerror(ctypes.get_errno())
    wait_for(lambda: state_of(tid) == "t")
    try:
        yield
    finally:
        assert libc.ptrace(17, tid, None, None) == 0, os.strerror(ctypes.get_errno())


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
