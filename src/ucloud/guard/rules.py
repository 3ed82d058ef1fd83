"""What the guard does next about its life sign, decided purely from what it saw. (docs/failover.md, rules A2-A4.)

A linearizable read of ``alive/<host>`` that shows this incarnation is *evidence*, counted from the moment the read
was sent. Renewing a lease is none. What evidence is for, fencing after F seconds without it, stands on these values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class AliveKey(StrEnum):
    """What a read of our ``alive`` key showed."""

    OURS = "ours"
    LOST = "lost"  # gone, or on a lease that we no longer renew
    FOREIGN = "foreign"


class Step(StrEnum):
    RENEW = "renew"
    REGISTER = "register"
    YIELD = "yield"  # fenced or replaced: start nothing more


@dataclass(frozen=True, slots=True)
class LifeState:
    """All the guard knows of its life. Times are of CLOCK_BOOTTIME; ``evidence_at_s`` is 0 if there was none yet."""

    registered: bool = False
    alive: bool = False
    fenced: bool = False
    replaced: bool = False
    evidence_at_s: float = 0.0
    longest_gap_s: float = 0.0

    def evidence_age_s(self, now_s: float) -> float:
        """Seconds since the last evidence was sent; −1 if there never was any."""
        return now_s - self.evidence_at_s if self.evidence_at_s else -1.0


def see(state: LifeState, key: AliveKey, *, fenced: bool, sent_at_s: float) -> LifeState:
    """The state after a read sent at ``sent_at_s`` that showed ``key``."""
    fenced = fenced or state.fenced
    if key is not AliveKey.OURS:
        replaced = state.replaced or (key is AliveKey.FOREIGN and state.registered)
        return replace(state, alive=False, fenced=fenced, replaced=replaced)
    gap_s = sent_at_s - state.evidence_at_s if state.evidence_at_s else 0.0
    return replace(
        state,
        registered=True,
        alive=True,
        fenced=fenced,
        evidence_at_s=sent_at_s,
        longest_gap_s=max(state.longest_gap_s, gap_s),
    )


def next_step(state: LifeState, key: AliveKey) -> Step:
    """Whoever lost only its lease registers again and kills nothing; who is fenced or replaced does not."""
    if state.fenced or state.replaced:
        return Step.YIELD
    return Step.RENEW if key is AliveKey.OURS else Step.REGISTER
