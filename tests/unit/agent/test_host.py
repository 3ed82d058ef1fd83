"""What a host says of itself: its pool and with whom that was proved, its guard, and what people should look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.unit.clock import ManualClock
from ucloud.agent.host import HOST, POOL, REPORT_S, HostPass
from ucloud.agent.reports import Reports
from ucloud.config import HostSection
from ucloud.errors import Unavailable
from ucloud.hypervisor.fake import FakeHypervisor, FakeMachine
from ucloud.hypervisor.guard_protocol import Hello
from ucloud.model.seen import Fence, SeenHost, SeenPool
from ucloud.storage.open import open_pool
from ucloud.storage.proof import Proof
from ucloud.store import keys
from ucloud.store.codec import decode_as
from ucloud.store.memory import MemoryStore

HELLO = Hello("h1", "guard-1", "", True, False, False, 0.1, 1.23456, members_version=3)


class Proofs:
    def __init__(self, proof: Proof) -> None:
        self.proof = proof

    def look(self) -> Proof:
        return self.proof

    def close(self) -> None:
        pass


def run(host: HostSection, proof: Proof, hello: Hello | None = HELLO) -> tuple[SeenHost, float]:
    def ask() -> Hello:
        if hello is None:
            raise Unavailable("failed to ask the guard: it is away")
        return hello

    clock, store = ManualClock(), MemoryStore()
    one = HostPass(
        host,
        FakeHypervisor(FakeMachine()),
        open_pool(host),
        Proofs(proof),
        Reports(store, host.id, clock),
        guard=ask,
        underlay_address=lambda: "2001:db8::1",
        dropped=frozenset,
        needed=frozenset,
        known=frozenset,
        clock=clock,
    )
    pool_again_s = one.run(POOL)
    assert pool_again_s == proof.look_again_s
    again_s = one.run(HOST)
    item = store.get(keys.seen(host.id, "host", "self"))
    assert item is not None
    return decode_as(SeenHost, item.value), again_s


def make_volume(host: HostSection) -> None:
    open_pool(host)
    (host.pool_directory / "volumes/vm-x").mkdir()


def test_a_host_with_a_pool_of_its_own(tmp_path: Path) -> None:
    host = HostSection(id="h1", pool_directory=tmp_path / "pool")
    make_volume(host)
    seen, again_s = run(host, Proof())

    assert seen.pool == SeenPool("h1")
    assert (seen.underlay_address, seen.longest_gap_s, seen.members_version) == ("2001:db8::1", 1.235, 3)
    assert seen.problems == ("vm vm-x is here, but the cloud knows no such VM: left alone",)
    assert again_s == REPORT_S


def test_volumes_of_others_in_a_shared_pool_are_no_problem(tmp_path: Path) -> None:
    host = HostSection(id="h1", pool_directory=tmp_path / "pool", pool_id="nfs")
    make_volume(host)
    seen, _ = run(host, Proof(Fence.LOCK, ("h2",), look_again_s=1.0))

    assert seen.pool == SeenPool("nfs", Fence.LOCK, ("h2",))
    assert seen.problems == ()


def test_what_people_should_look_at(tmp_path: Path) -> None:
    host = HostSection(id="h1", pool_directory=tmp_path / "pool")

    assert run(host, Proof(problem="locks fail"), None)[0].problems == ("locks fail", "the guard does not answer")
    stuck = replace(HELLO, stuck=("vm-1",))
    assert run(host, Proof(), stuck)[0].problems == ("the guard could not stop vm vm-1",)
    unknown = replace(HELLO, fence_s=3.0, members_version=0)
    assert "which etcd members vote" in run(host, Proof(), unknown)[0].problems[0]
