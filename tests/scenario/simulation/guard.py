"""A simulated guard: the real rules of ``guard/rules.py`` with questions, deadlines and processes around them.

Does what ``guard/life``, ``guard/witnesses``, ``guard/fencer`` and ``guard/mortals`` do, as events instead of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.scenario.simulation.engine import Place
from tests.scenario.simulation.qemu import Qemu, Spec
from tests.scenario.simulation.watcher import value_of
from ucloud.guard import rules
from ucloud.guard.rules import Action, AliveKey, Fate, Hold, KeeperAnswer, LeaderState, LifeState, Step
from ucloud.hypervisor.guard_protocol import StartMode
from ucloud.model.guard import LifeSign, Members
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.api import Committed, Item, Lease, Put, Reading, Txn, absent, unchanged
from ucloud.store.codec import encode
from ucloud.system.clock import format_time

if TYPE_CHECKING:
    from tests.scenario.simulation.host import SimulatedHost

LOOK_EVERY_S = 0.25
_TIMEOUT_S = 1.0
_ROUND_S = 0.25
_TTL_S = 1
_RENEW_EVERY_S = _TTL_S / 5


class Guard:
    """One incarnation. ``mortals`` die or stand still with it; ``processes`` of a host are all that it has started."""

    def __init__(self, host: SimulatedHost, incarnation: str) -> None:
        self.host = host
        self.cloud = host.cloud
        self.engine = host.cloud.engine
        self.incarnation = incarnation
        self.place = Place(f"{host.name}/guard", host.machine)
        self.state = LifeState(fence_s=host.fence_s)
        self._wanted = (keys.alive(host.name), keys.fenced(host.name, incarnation), keys.members())
        self._asked_s: dict[str, float] = {}
        self._renewed_s = -1.0
        self._registering = False
        self._fencing = ""
        self._turning_s = -1.0
        for index, member in enumerate(self.cloud.cluster.members):
            self.engine.after(0.01 + 0.08 * index, self._look, member, place=self.place)
        if host.fence_s:
            self.engine.after(0.1, self._maybe_round, place=self.place)

    # Looking

    def _look(self, member: str) -> None:
        self.engine.after(LOOK_EVERY_S, self._look, member, place=self.place)
        now_s = self.engine.now_s
        if now_s - self._asked_s.get(member, -_TIMEOUT_S) < _TIMEOUT_S:
            return
        self._asked_s[member] = now_s
        self._ask_once(member)

    def _ask_once(self, member: str) -> None:
        name, sent_s = self.host.name, self.engine.now_s
        alive, fenced, members = self._wanted

        def answered(answer: Any) -> None:
            if self._asked_s.get(member) == sent_s:
                del self._asked_s[member]
            if isinstance(answer, Reading) and self.engine.now_s - sent_s < _TIMEOUT_S:
                self._see(member, answer.items[alive], answer.items[fenced], answer.items[members], sent_s)

        self.cloud.cluster.ask(name, self.place, member, "read", (self._wanted,), answered, 0.0)
        if not self.cloud.rules.renewals_are_no_evidence:
            self._renew_as_evidence(member)

    def _see(self, member: str, item: Item | None, mark: Item | None, members: Item | None, sent_s: float) -> None:
        now_s = self.engine.now_s
        sign = value_of(item.value) if item else None
        key = AliveKey.LOST
        if sign is not None:
            key = AliveKey.OURS if sign.incarnation == self.incarnation else AliveKey.FOREIGN
        counted_s = sent_s if self.cloud.rules.evidence_counts_from_sending else now_s
        known: Members | None = value_of(members.value) if members else None
        before_s = self.state.evidence_at_s
        self.state = rules.see(
            self.state, key, fenced=mark is not None, sent_at_s=counted_s, now_s=now_s, members=known
        )
        if self.state.evidence_at_s > before_s:
            self._extended()
        step = rules.next_step(self.state, key)
        if step is Step.REGISTER:
            self._register(member, item)
        elif step is Step.RENEW and item is not None and now_s - self._renewed_s >= _RENEW_EVERY_S:
            self._renewed_s = now_s
            self._send(member, "keep_lease", (item.lease,), lambda answer: None)
        self.turn()

    def _extended(self) -> None:
        self._wake_at_deadline()

    def _send(self, member: str, op: str, arguments: tuple[Any, ...], reply: Callable[[Any], None]) -> None:
        self.cloud.cluster.ask(self.host.name, self.place, member, op, arguments, reply, _TIMEOUT_S)

    def _renew_as_evidence(self, member: str) -> None:
        sent_s = self.engine.now_s
        item = self.cloud.last_alive.get(self.host.name)
        if item is None:
            return

        def answered(answer: Any) -> None:
            if isinstance(answer, int) and answer > 0 and self.state.hold is Hold.OPEN:
                self.state = replace(self.state, evidence_at_s=max(sent_s, self.state.evidence_at_s))
                self._extended()

        self._send(member, "keep_lease", (item.lease,), answered)

    # Registering

    def _register(self, member: str, seen: Item | None) -> None:
        if self._registering:
            return
        self._registering = True

        def granted(answer: Any) -> None:
            if isinstance(answer, Lease):
                self._send(member, "commit", (self._registration(answer, seen),), committed)
            else:
                self._registering = False

        def committed(answer: Any) -> None:
            self._registering = False
            if isinstance(answer, Committed) and answer.ok:
                self.state = rules.registered(self.state, self.engine.now_s)
                self.cloud.tell("registered", host=self.host.name, incarnation=self.incarnation)
                self._ask_once(member)

        self._send(member, "grant_lease", (_TTL_S,), granted)

    def _registration(self, lease: Lease, seen: Item | None) -> Txn:
        name = self.host.name
        promised_s = self.host.fence_s if self.cloud.rules.takeover_waits_w else self.host.fence_s / 5
        sign = LifeSign(name, self.incarnation, format_time(self.engine.wall()), promised_s, self.host.kill_s)
        compares = [unchanged(keys.alive(name), seen.mod_revision if seen else 0)]
        if self.cloud.rules.fenced_mark_is_compared:
            compares.append(absent(keys.fenced(name, self.incarnation)))
        value = encode(sign)
        return Txn(tuple(compares), (Put(keys.alive(name), value, lease.id), Put(keys.registered(name), value)))

    # Rounds

    def _maybe_round(self) -> None:
        self.engine.after(0.1, self._maybe_round, place=self.place)
        state, now_s = self.state, self.engine.now_s
        revives = not self.cloud.rules.rounds_never_revive and state.hold is not Hold.OPEN
        if state.members is None or not (revives or rules.wants_round(state, now_s)):
            return
        members, answers = state.members, dict[str, KeeperAnswer]()
        for voter in members.voters:
            self._ask_keeper(members, voter.name, voter.member_id, answers)
        self.engine.after(_ROUND_S, self._round_over, members, answers, now_s, place=self.place)

    def _ask_keeper(self, members: Members, name: str, member_id: str, answers: dict[str, KeeperAnswer]) -> None:
        if name not in self.cloud.cluster.members:
            return

        def said(word: str) -> None:
            answers[member_id] = KeeperAnswer(members.cluster_id, member_id, LeaderState(word))

        if not self.cloud.rules.refusals_are_no_answers and not self.cloud.network.is_open(self.host.name, name):
            said("stopped")
        self.cloud.cluster.ask_keeper(self.host.name, self.place, name, said)

    def _round_over(self, members: Members, answers: dict[str, KeeperAnswer], started_s: float) -> None:
        answers = dict(answers)
        if not self.cloud.rules.every_voter_must_say_so:
            leaderless = [one for one in answers.values() if one.state is not LeaderState.LEADER]
            if 2 * len(leaderless) > len(members.voters):
                for voter in members.voters:
                    answers[voter.member_id] = KeeperAnswer(members.cluster_id, voter.member_id, LeaderState.NO_LEADER)
        before_s = self.state.evidence_at_s
        self.state = rules.see_round(self.state, members, answers, started_at_s=started_s, now_s=self.engine.now_s)
        revives = not self.cloud.rules.rounds_never_revive and self.state.hold is not Hold.OPEN
        if revives and rules.round_is_evidence(members, answers):
            self.state = replace(self.state, hold=Hold.OPEN, evidence_at_s=started_s)
        if self.state.evidence_at_s > before_s:
            self._extended()
        self.turn()

    # Fencing

    def _wake_at_deadline(self) -> None:
        """One timer is under way at a time; a deadline only ever moves back."""
        if self._turning_s >= self.engine.now_s or self.state.deadline_s == float("inf"):
            return
        self._turning_s = self.state.deadline_s
        self.engine.after(self.state.deadline_s - self.engine.now_s, self._deadline, place=self.place)

    def _deadline(self) -> None:
        self._turning_s = -1.0
        self.turn()
        if self.state.hold is Hold.OPEN:
            self._wake_at_deadline()

    def turn(self) -> None:
        """Look once, and do what is to be done now."""
        now_s = self.engine.now_s
        self.state = rules.pass_time(self.state, now_s)
        mortals = self.mortals()
        action = rules.next_action(self.state, now_s, frozen=any(one.frozen for one in mortals))
        if not self.cloud.rules.guard_fences and action is Action.FENCE:
            return
        match action:
            case Action.FENCE | Action.END:
                self._stop_all(action, mortals)
            case Action.THAW:
                self._fencing = ""
                self._do(action, mortals)
            case Action.NOTHING:
                if self.state.hold is Hold.OPEN:
                    self._fencing = ""

    def mortals(self) -> list[Qemu]:
        return [one for one in self.host.processes.values() if one.spec.failover is Failover.RESTART and not one.ended]

    def _stop_all(self, action: Action, mortals: list[Qemu]) -> None:
        reason = "no evidence" if action is Action.FENCE else "fenced" if self.state.fenced else "replaced"
        if self._fencing != reason:
            self._fencing = reason
            facts: dict[str, Any] = {}
            if action is Action.FENCE:
                facts = {"fence_s": self.host.fence_s, "evidence_age_s": self.state.evidence_age_s(self.engine.now_s)}
            self.cloud.tell("fence", host=self.host.name, reason=reason, **facts)
        self._do(action, mortals)
        self._wait_still(action)

    def _do(self, action: Action, mortals: list[Qemu]) -> None:
        for process in mortals:
            match rules.fate(action, process.spec.failover, self.cloud.disks.fence, frozen=process.frozen):
                case Fate.KILL:
                    self.host.kill(process)
                case Fate.FREEZE if not process.frozen:
                    process.frozen = True
                    self.host.tell_of(process, "vm_freeze")
                case Fate.THAW:
                    self.host.tell_of(process, "vm_thaw")
                    process.frozen = False
            self.cloud.disks.note(process)

    def _wait_still(self, action: Action) -> None:
        still = all(one.is_still if action is Action.FENCE else one.ended for one in self.mortals())
        if not still:
            self.engine.after(0.02, self.turn, place=self.place)
        elif action is Action.FENCE:
            self.state = rules.closed(self.state, self.engine.now_s)
        else:
            self.host.guard_exits(self)

    # Starting

    def start(self, spec: Spec, incarnation: str, reply: Callable[[str], None]) -> None:
        """``reply`` gets "" once it is born, or why not."""
        refused = self._refusal(incarnation)
        if refused or spec.vm in self.host.processes:
            reply(refused or "exists")
            return
        process = self.host.begin(spec, self.incarnation)
        self.engine.after(self.engine.span_s(0.005, 0.02), self._admit, process, incarnation, reply, place=self.place)

    def _refusal(self, incarnation: str) -> str:
        on = self.cloud.rules
        asked = incarnation if on.start_needs_its_incarnation else self.incarnation
        refused = rules.refusal(self.state, self.engine.now_s, sealed=False, own=self.incarnation, asked=asked)
        return "" if refused == "no_evidence" and not on.start_needs_evidence else refused

    def _admit(self, process: Qemu, incarnation: str, reply: Callable[[str], None]) -> None:
        refused = self._refusal(incarnation)
        if not refused and process.spec.mode is StartMode.RUN and not self.cloud.disks.open(process):
            refused = "volume_locked"
        if refused or process.killed:
            self.host.end(process)
            reply(refused or "killed")
            return
        self.host.born(process)
        reply("")

    def permit(self, process: Qemu, incarnation: str, reply: Callable[[str], None]) -> None:
        """Before any ``cont``. A process that outlived its guard (failover "none") is named by that one in its lock."""
        outlived = process.spec.failover is Failover.NONE and incarnation == process.incarnation
        refused = self._refusal(self.incarnation if outlived else incarnation)
        if not refused and (process.ended or process.killed or process.frozen):
            refused = "gone"
        if not refused and not self.cloud.disks.open(process):
            refused = "volume_locked"
        if not refused:
            self.host.resume(process)
        reply(refused)
