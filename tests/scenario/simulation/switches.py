"""The rules of safety that a simulation can switch off, to see that the checker then finds out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """All on. What each means is in docs/failover.md; the letters are its sections."""

    evidence_counts_from_sending: bool = True  # A2
    renewals_are_no_evidence: bool = True  # A2
    guard_fences: bool = True  # A3
    takeover_waits_w: bool = True  # A5
    takeover_in_one_term: bool = True  # A5
    takeover_compares_registered: bool = True  # A5
    every_voter_must_say_so: bool = True  # B
    rounds_never_revive: bool = True  # B
    refusals_are_no_answers: bool = True  # B
    lock_is_compared_at_placement: bool = True  # A1
    placement_is_compared_at_lock: bool = True  # A1
    fenced_mark_is_compared: bool = True  # A1, A4
    start_needs_its_incarnation: bool = True  # D
    start_needs_evidence: bool = True  # D
    pools_are_fenced_first: bool = True  # C
    move_waits_for_both: bool = True  # E
    move_compares_the_record: bool = True  # E
    resume_needs_the_lock: bool = True  # E
    abort_is_committed_first: bool = True  # E
    restart_waits_for_the_abort: bool = True  # E


ALL_ON = Rules()
