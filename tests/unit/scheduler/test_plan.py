"""Decisions: each rule, each tie-break, the explanation and its size."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import samples
from ucloud.config import SchedulerSection
from ucloud.model.placement import Placement
from ucloud.model.seen import Fence, SeenPool
from ucloud.scheduler.feasible import RULES, refusal_of
from ucloud.scheduler.plan import plan_placement
from ucloud.scheduler.rank import SCORES, score_of
from ucloud.scheduler.snapshot import Candidate, Resources, Snapshot, build_snapshot
from ucloud.store.codec import encode

SETTINGS = SchedulerSection()


def candidate(number: int = 1, **fields: object) -> Candidate:
    plain = Candidate(
        host_id=f"host-{number}",
        name=f"h{number}",
        schedulable=True,
        alive=True,
        reported=True,
        silent=False,
        pool_full=False,
        images=frozenset(),
        capacity=Resources(16, 16384, 100),
        claimed=Resources(),
    )
    return replace(plain, **fields)


def snapshot(*candidates: Candidate) -> Snapshot:
    return Snapshot(7, {one.host_id: one for one in candidates}, {"image-1": samples.DIGEST})


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        ("alive", {"alive": False}),
        ("reported", {"reported": False}),
        ("reported", {"silent": True}),
        ("schedulable", {"schedulable": False}),
        ("pool", {"pool_full": True}),
        ("proof", {"unproved": True, "pool_id": "nfs"}),
        ("cpus", {"claimed": Resources(cpus=15)}),
        ("memory", {"claimed": Resources(memory_mib=16000)}),
        ("disk", {"claimed": Resources(disk_gib=95)}),
    ],
)
def test_each_rule_refuses(rule: str, fields: dict[str, object]) -> None:
    refusal = refusal_of(Resources(2, 512, 10), candidate(**fields))
    assert refusal is not None
    assert refusal.rule == rule
    assert refusal_of(Resources(2, 512, 10), candidate()) is None


def test_every_rule_has_a_test() -> None:
    tested = {case[0] for case in test_each_rule_refuses.pytestmark[0].args[1]}
    assert tested == set(RULES)


@pytest.mark.parametrize(
    ("own", "of_the_other", "other_lives", "refused"),
    [
        (("host-2",), ("host-1",), True, False),
        ((), ("host-3",), True, True),
        ((), (), True, False),
        ((), ("host-3",), False, False),
    ],
)
def test_a_host_proves_its_pool_before_it_gets_vms_if_others_have(
    own: tuple[str, ...], of_the_other: tuple[str, ...], other_lives: bool, refused: bool
) -> None:
    seen = {
        f"host-{number}": samples.report(number, pool=SeenPool("nfs", Fence.LOCK, proved))
        for number, proved in ((1, own), (2, of_the_other))
    }
    made = build_snapshot(
        revision=1,
        hosts=[samples.host(1), samples.host(2)],
        seen=seen,
        alive=frozenset({"host-1", "host-2"} if other_lives else {"host-1"}),
        placements=[],
        digests={},
        settings=SETTINGS,
    )
    assert made.candidates["host-1"].unproved is refused


def test_exactly_what_is_free_fits() -> None:
    assert refusal_of(Resources(16, 16384, 100), candidate()) is None
    assert refusal_of(Resources(16, 16385, 100), candidate()) is not None


def test_the_emptier_host_wins() -> None:
    full = candidate(1, claimed=Resources(8, 8192, 50))
    placement = plan_placement(samples.vm(1), snapshot(full, candidate(2)))
    assert placement.host_id == "host-2"
    assert placement.decision.reason == "host-2 scored best of 2 possible hosts"


def test_the_host_with_the_image_wins_among_equals() -> None:
    placement = plan_placement(samples.vm(1), snapshot(candidate(1), candidate(2, images=frozenset({samples.DIGEST}))))
    assert placement.host_id == "host-2"


def test_a_tie_goes_to_the_first_id() -> None:
    assert plan_placement(samples.vm(1), snapshot(candidate(2), candidate(1))).host_id == "host-1"


def test_scores_are_between_0_and_1_and_weights_sum_to_1() -> None:
    assert sum(weight for weight, _ in SCORES.values()) == pytest.approx(1)
    score = score_of(Resources(2, 512, 10), samples.DIGEST, candidate())
    assert all(0 <= part <= 1 for part in score.parts.values())


def test_a_vm_that_fits_nowhere_says_why_for_each_host() -> None:
    hosts = (candidate(1, alive=False), candidate(2, claimed=Resources(memory_mib=16384)))
    placement = plan_placement(samples.vm(1, memory_mib=4096), snapshot(*hosts))
    assert placement.host_id == ""
    assert placement.decision.refused == {"alive": 1, "memory": 1}
    assert "host-2 has 0 of 16384 MiB memory free, 4096 needed" in placement.decision.reason


def test_no_host_at_all() -> None:
    assert plan_placement(samples.vm(1), snapshot()).decision.reason == "there is no host"


def test_the_stored_explanation_is_small() -> None:
    hosts = [candidate(number, alive=number % 2 == 0) for number in range(10_000)]
    assert len(encode(plan_placement(samples.vm(1), snapshot(*hosts)))) <= 4096


def test_a_placed_vm_keeps_its_host_and_grows_there() -> None:
    previous = plan_placement(samples.vm(1), snapshot(candidate(1)))
    host = candidate(1, claimed=Resources(2, 512, 10))
    grown = plan_placement(samples.vm(1, memory_mib=2048), snapshot(host, candidate(2)), previous=previous)
    assert (grown.host_id, grown.memory_mib, grown.generation) == ("host-1", 2048, previous.generation)


def test_growth_that_does_not_fit_keeps_the_old_sizes_and_says_so() -> None:
    previous = plan_placement(samples.vm(1), snapshot(candidate(1)))
    host = candidate(1, claimed=Resources(2, 16000, 10))
    kept = plan_placement(samples.vm(1, memory_mib=8192), snapshot(host), previous=previous)
    assert kept.memory_mib == 512
    assert "old sizes" in kept.decision.reason
    assert "896 MiB" in kept.decision.reason


def test_shrinking_is_always_granted() -> None:
    previous = plan_placement(samples.vm(1), snapshot(candidate(1)))
    gone: Placement = plan_placement(samples.vm(1, memory_mib=256), snapshot(), previous=previous)
    assert gone.memory_mib == 256


@given(
    cpus=st.integers(-(2**40), 2**40), memory_mib=st.integers(-(2**40), 2**40), disk_mib=st.integers(-(2**40), 2**40)
)
def test_nonsense_reports_give_no_negative_capacity(cpus: int, memory_mib: int, disk_mib: int) -> None:
    made = build_snapshot(
        revision=1,
        hosts=[samples.host(1)],
        seen={"host-1": samples.report(1, cpus=cpus, memory_mib=memory_mib, disk_mib=disk_mib)},
        alive=frozenset({"host-1"}),
        placements=[],
        digests={},
        settings=SETTINGS,
    )
    capacity = made.candidates["host-1"].capacity
    assert min(capacity.cpus, capacity.memory_mib, capacity.disk_gib) >= 0


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(64, 8192), st.integers(1, 40)), max_size=12))
def test_no_host_is_ever_given_more_than_it_has(sizes: list[tuple[int, int, int]]) -> None:
    world = snapshot(candidate(1), candidate(2))
    for number, (cpus, memory_mib, disk_gib) in enumerate(sizes):
        placement = plan_placement(samples.vm(number, cpus=cpus, memory_mib=memory_mib, disk_gib=disk_gib), world)
        if placement.host_id:
            world = world.with_claim(placement.host_id, Resources(cpus, memory_mib, disk_gib))
    for one in world.candidates.values():
        assert min(one.free.cpus, one.free.memory_mib, one.free.disk_gib) >= 0
