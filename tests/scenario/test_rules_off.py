"""Each rule of safety is needed: without it the checker finds something in a story that with it is safe."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pytest

from tests.scenario.simulation.cloud import Plan, VmPlan
from tests.scenario.simulation.schedule import without
from tests.scenario.simulation.story import Story, parse_steps, tell_story
from tests.scenario.simulation.switches import Rules
from ucloud.model.seen import Fence
from ucloud.model.vm import Failover

ON_H1 = (VmPlan("vm-1", "h1"),)


@dataclass(frozen=True)
class Case:
    """A story in which the rule decides. The second line is off unless it is what the story is about."""

    steps: str
    plan: Plan = Plan(vms=ON_H1, second_line=False)  # noqa: RUF009 - frozen


CASES = {
    # The answer to a question sent just before the life sign vanished takes 0.98 s.
    "evidence_counts_from_sending": Case(
        """
        0 prepare h2 0
        2 slow-answers h1 980
        7.45 clock-step 3600
        7.5 cut h1 all out
        until 25"""
    ),
    # A leader whose disk hangs, alone with a host, renews its lease for ever (trap 2).
    "renewals_are_no_evidence": Case(
        """
        5 hang-etcd leader
        5 cut e1 e2,e3
        5 cut h1 e2,e3,c1,c2
        until 20"""
    ),
    "guard_fences": Case("5 cut h1\nuntil 20"),
    "takeover_waits_w": Case("5 cut h1\nuntil 20"),
    # The life sign is seen gone; then etcd stops, which is evidence (b); then it goes on in another term.
    "takeover_in_one_term": Case(
        """
        5 cut h1
        6.1 stop-etcd all
        6.2 heal h1
        7.2 cut h1
        7.25 start-etcd all
        until 25"""
    ),
    # It registers again and is lost again while the scheduler does not look.
    "takeover_compares_registered": Case(
        """
        0 prepare h2 0
        5 cut h1
        6.3 freeze-scheduler c1
        6.35 heal h1
        6.95 cut h1
        8.1 thaw-scheduler c1
        until 25"""
    ),
    # Two followers miss their leader for a moment; it still leads, in the same term.
    "every_voter_must_say_so": Case(
        """
        5 cut h1
        6.2 cut e1 e2,e3
        6.9 heal h1 e2,e3
        7.07 cut h1
        7.08 heal e1 e2,e3
        until 25"""
    ),
    # Frozen on a pool with a verb, taken over; then all of etcd stops, and its keepers say so.
    "rounds_never_revive": Case(
        """
        5 cut h1
        15 stop-etcd all
        16 heal h1
        until 25""",
        Plan(vms=ON_H1, pool_fence=Fence.VERB),
    ),
    "refusals_are_no_answers": Case("5 reject h1 etcd\nuntil 20"),
    # A process born with failover none, whose spec was changed when its host was lost (trap 11).
    "lock_is_compared_at_placement": Case(
        "5 cut h1\n8 set-failover vm-1 restart\nuntil 20",
        Plan(vms=(VmPlan("vm-1", "h1", Failover.NONE),), second_line=False),
    ),
    # Placed anew between the agent's look and its lock.
    "placement_is_compared_at_lock": Case(
        """
        3 stop-vm vm-1
        8 slow h1 150
        8.5 start-vm vm-1
        9.05 drain h1
        until 20"""
    ),
    # A registration and a lock that arrive after the mark.
    "fenced_mark_is_compared": Case(
        """
        3 stop-vm vm-1
        4 slow h1 200
        5 cut h1
        9.1 heal h1
        9.2 start-vm vm-1
        until 25""",
        Plan(vms=(VmPlan("vm-1", "h1", Failover.NONE),), second_line=False),
    ),
    # Lock taken, 10 s of preparation; another guard by then (trap 7).
    "start_needs_its_incarnation": Case("0 prepare h1 10\n3 cut h1 etcd\n8.5 heal h1 etcd\nuntil 25"),
    "start_needs_evidence": Case("0 prepare h1 10\n3 cut h1 etcd\nuntil 25"),
    # The guard stands still and its guest runs on.
    "pools_are_fenced_first": Case(
        "5 freeze-guard h1\n20 thaw-guard h1\nuntil 30", Plan(vms=ON_H1, pool_fence=Fence.VERB)
    ),
    "move_waits_for_both": Case("5 migrate vm-1 h2\nuntil 15"),
    # The move has no answer, the target's copy ends, the source goes on, and then the move arrives (trap 10).
    "move_compares_the_record": Case(
        """
        5 migrate vm-1 h2
        5.9 slow-answers e3 40
        6.1 freeze-etcd e3
        6.5 crash h2 vm-1
        9 thaw-etcd e3
        until 25"""
    ),
    # The target goes on by itself (trap 8).
    "resume_needs_the_lock": Case("5 migrate vm-1 h2\nuntil 15"),
    # No answer is taken as failed (trap 10).
    "abort_is_committed_first": Case("5 migrate vm-1 h2\n6.03 stop-etcd all\n9 start-etcd all\nuntil 25"),
    # What was sent whole ends and is started anew, while the move is on its way.
    "restart_waits_for_the_abort": Case(
        """
        0 prepare h1 0
        5 migrate vm-1 h2
        5.9 slow c1 300
        6.1 crash h1 vm-1
        until 25"""
    ),
}


def test_every_rule_has_a_case() -> None:
    assert set(CASES) == {field.name for field in fields(Rules)}


@pytest.mark.parametrize("rule", CASES)
def test_with_the_rule_it_is_safe(rule: str) -> None:
    told = tell_story(_story(CASES[rule]))
    assert not told.violations, "\n".join(told.lines)


@pytest.mark.parametrize("rule", CASES)
def test_without_the_rule_the_checker_finds_something(rule: str) -> None:
    told = tell_story(_story(CASES[rule]), without(rule))
    assert told.violations, "\n".join(told.lines)


def _story(case: Case) -> Story:
    return Story(case.plan, *parse_steps(case.steps))
