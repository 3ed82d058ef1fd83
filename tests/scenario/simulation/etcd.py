"""An etcd cluster as its clients meet it: members, leaders and terms, leases, and every trap of docs/failover.md.

Must hold, as in etcd: a commit or a linearizable read happens at a leader that reaches a majority, and shows the raft
term of that leader; a term has one leader, which says that there is one as long as it is that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.scenario.simulation.engine import Engine, Place
from tests.scenario.simulation.ledger import Ledger
from tests.scenario.simulation.network import Network
from ucloud.errors import Error, OutcomeUnknown, StoreError, StoreUnavailable
from ucloud.store.api import LEASE_ENDED, Committed, Delete, Lease, Put, Reading, Txn

_EXPIRY_EVERY_S = 0.5
_AGAIN_S = 0.05
_SERVER_PATIENCE_S = 7.0
_WRITES = ("commit", "grant_lease", "revoke_lease")

Reply = Callable[[Any], None]


@dataclass(slots=True)
class Member:
    """``sees_leader`` is what its metrics say. ``hung``: its disk hangs, and it can commit nothing;
    ``leads_alone``: it was the leader then, and believes that it still is.
    """

    name: str
    place: Place
    running: bool = True
    sees_leader: bool = False
    hung: bool = False
    leads_alone: bool = False
    in_touch: bool = False
    round: int = 0
    missing_round: int = -1
    old_leases: dict[int, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Lease:
    ttl_s: float
    ends_s: float
    keys: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Request:
    """A question under way. ``settled``: the client has its answer, or has given up."""

    member: Member
    node: str
    place: Place
    op: str
    arguments: tuple[Any, ...]
    reply: Reply
    sent_s: float
    settled: bool = False


class Cluster:
    """``members`` by name, which is also that of their machine."""

    def __init__(self, engine: Engine, network: Network, machines: dict[str, Place]) -> None:
        self.ledger = Ledger()
        self.members = {name: Member(name, Place(f"{name}/etcd", place)) for name, place in machines.items()}
        self._known = dict(self.members)  # clients may ask one that was removed
        self.term = 1
        self.leader: Member | None = None
        self.no_space = False
        self.thaw_deletes = 0.3  # how often a thawed leader proposes its old list of ended leases
        self.tell: Callable[[str], None] = lambda text: None
        self._engine = engine
        self._network = network
        self._leases: dict[int, _Lease] = {}
        self._next_lease = 1000
        self._electing = False
        self._majorities: dict[str, bool] = {}  # until the next look
        network.changed = self.look
        self._lead(next(iter(self.members.values())))
        for member in self.members.values():
            member.sees_leader = True
        engine.after(_EXPIRY_EVERY_S, self._expire)

    # Leaders

    def _is_up(self, member: Member) -> bool:
        return member.running and not member.place.is_dead and not member.place.is_frozen

    def _hears(self, member: Member, leader: Member) -> bool:
        return self._is_up(member) and self._network.both_ways(member.name, leader.name)

    def has_majority(self, member: Member) -> bool:
        """Whether it can commit: up, with a disk, and in touch with most members."""
        known = self._majorities.get(member.name)
        if known is None:
            heard = sum(self._hears(other, member) for other in self.members.values())
            known = self._is_up(member) and not member.hung and heard * 2 > len(self.members)
            self._majorities[member.name] = known
        return known

    def look(self) -> None:
        """Something about members or links has changed: sooner or later there is another leader, or none."""
        self._majorities.clear()
        leader = self.leader
        is_led = leader is not None and self.has_majority(leader)
        if not (is_led or self._electing) and any(self.has_majority(member) for member in self.members.values()):
            self._electing = True
            self._engine.after(self._engine.span_s(0.5, 1.3), self._elect)
        self._look_at_members()

    def _look_at_members(self) -> None:
        """Who comes in touch with the leader sees it soon; who loses touch misses it an election timeout later."""
        leader = self.leader
        for member in self.members.values():
            led = leader is not None and self._is_up(leader) and self._hears(member, leader)
            touch = led and (member is leader or (leader is not None and not leader.hung))
            if touch == member.in_touch and touch == member.sees_leader:
                continue
            if touch != member.in_touch:
                member.in_touch = touch
                member.round += 1
            if touch:
                self._engine.after(0.0 if member is leader else 0.05, self._sees, member, member.round)
            elif member.sees_leader and member.missing_round != member.round:
                member.missing_round = member.round
                least_s, most_s = (0.75, 1.2) if member is leader else (0.5, 1.0)
                self._engine.after(self._engine.span_s(least_s, most_s), self._misses, member, member.round)

    def _sees(self, member: Member, round_: int) -> None:
        if member.round == round_:
            member.sees_leader = True

    def _misses(self, member: Member, round_: int) -> None:
        """No heartbeat for an election timeout; a leader without a majority steps down, unless its disk hangs."""
        if member.round != round_ or not self._is_up(member) or member.leads_alone:
            return
        if member is self.leader and self.has_majority(member):
            return
        member.sees_leader = False
        if member is self.leader:
            self.leader = None
            self.look()

    def _elect(self) -> None:
        self._electing = False
        if self.leader is not None and self.has_majority(self.leader):
            return
        able = [member for member in self.members.values() if self.has_majority(member)]
        if not able:
            self.leader = None
            return
        self._lead(able[self._engine.chance.randrange(len(able))])

    def _lead(self, member: Member) -> None:
        self.term += 1
        self.leader = member
        member.sees_leader = True
        for lease in self._leases.values():  # a new leader gives every lease its whole time again
            lease.ends_s = self._engine.now_s + lease.ttl_s
        self.tell(f"etcd {member.name} leads in term {self.term}")
        self._look_at_members()

    # Faults

    def stop(self, name: str) -> None:
        member = self.members[name]
        member.running = False
        member.sees_leader = False
        self.look()

    def remove(self, name: str) -> None:
        """It votes no more, and its process ends."""
        self.stop(name)
        del self.members[name]
        self.look()

    def start(self, name: str) -> None:
        self.members[name].running = True
        self.look()

    def freeze(self, name: str) -> None:
        member = self.members[name]
        if member is self.leader:
            member.old_leases = {lease_id: lease.ends_s for lease_id, lease in self._leases.items()}
        self._engine.freeze(member.place)
        self.look()

    def thaw(self, name: str) -> None:
        """A leader that slept proposes the list of what had ended by its own clock (trap 1)."""
        member = self.members[name]
        self._engine.thaw(member.place)
        ended = [lease_id for lease_id, ends_s in member.old_leases.items() if ends_s < self._engine.now_s]
        member.old_leases = {}
        if ended and self._engine.chooses(self.thaw_deletes):
            self.tell(f"etcd {name} proposes its old list of ended leases")
            self._engine.after(self._engine.span_s(0.01, 0.12), self._end_leases, ended)
        self.look()

    def hang(self, name: str, hung: bool) -> None:
        """Its disk hangs: as a leader it answers renewals for ever, and nothing else (trap 2)."""
        member = self.members[name]
        member.hung = hung
        member.leads_alone = hung and (member is self.leader or member.leads_alone)
        self.look()

    def step_clock(self, step_s: float) -> None:
        """The wall clock of the leader steps; by it 3.4 counts leases (trap 19)."""
        for lease in self._leases.values():
            lease.ends_s -= step_s

    def restore(self, items: dict[str, Any]) -> None:
        """A backup: what was written since is gone, revisions go on (docs/failover.md, F)."""
        now = dict(self.ledger.items)
        gone = [Delete(key) for key in now if key not in items]
        back = [Put(key, item.value) for key, item in items.items() if now.get(key) != item]
        self.ledger.write([*gone, *back])

    # Leases

    def _expire(self) -> None:
        self._engine.after(_EXPIRY_EVERY_S, self._expire)
        if self.leader is None or not self.has_majority(self.leader):
            return
        now_s = self._engine.now_s
        self._end_leases([lease_id for lease_id, lease in self._leases.items() if lease.ends_s <= now_s])

    def _end_leases(self, lease_ids: Sequence[int]) -> None:
        if self.leader is None or not self.has_majority(self.leader):
            return
        for lease_id in lease_ids:
            lease = self._leases.pop(lease_id, None)
            if lease is not None:
                items = self.ledger.items
                on_it = sorted(key for key in lease.keys if key in items and items[key].lease == lease_id)
                self.ledger.write([Delete(key) for key in on_it])

    # Requests

    def ask(
        self, node: str, place: Place, member: str, op: str, arguments: tuple[Any, ...], reply: Reply, timeout_s: float
    ) -> None:
        """``reply`` gets the answer or an Error, once, at ``place``; for a write without an answer OutcomeUnknown.

        ``timeout_s`` 0: who asks looks at the clock itself.
        """
        request = _Request(self._known[member], node, place, op, arguments, reply, self._engine.now_s)
        refused = StoreUnavailable(f"failed to reach {member}: connection refused")
        if not request.member.running:
            self._engine.after(0.001, self._settle, request, refused, place=place)
            return
        self._network.send(
            node,
            member,
            request.member.place,
            self._serve,
            request,
            refused=lambda: self._engine.happen(place, self._settle, (request, refused)),
        )
        if timeout_s:
            self._engine.after(timeout_s, self._give_up, request, place=place)

    def _settle(self, request: _Request, answer: Any) -> None:
        if not request.settled:
            request.settled = True
            request.reply(answer)

    def _give_up(self, request: _Request) -> None:
        if not request.settled:
            error: Error = StoreUnavailable(f"failed to ask {request.member.name}: no answer in time")
            if request.op in _WRITES:
                error = OutcomeUnknown(f"failed to hear of a {request.op}: no answer in time")
            self._settle(request, error)

    def _serve(self, request: _Request) -> None:
        """At the member: answer if there is a leader to ask, else wait a while for one."""
        member, leader = request.member, self.leader
        if not member.running or self._engine.now_s - request.sent_s > _SERVER_PATIENCE_S:
            return
        if request.op == "keep_lease" and member.leads_alone:
            self._answer(request)  # the one thing that a leader says without asking anybody
        elif leader is not None and self._hears(member, leader) and self.has_majority(leader):
            self._answer(request)
        else:
            self._engine.after(_AGAIN_S, self._serve, request, place=member.place)

    def _answer(self, request: _Request) -> None:
        if request.op == "keep_lease" and request.member.leads_alone:  # it is not known whether anybody follows
            self._network.send(request.member.name, request.node, request.place, self._settle, request, 1)
            return
        try:
            answer = getattr(self, f"_do_{request.op}")(*request.arguments)
        except StoreError as error:
            answer = error
        self._network.send(request.member.name, request.node, request.place, self._settle, request, answer)

    def _do_read(self, wanted: Sequence[str]) -> Reading:
        items = self.ledger.items
        return Reading({key: items.get(key) for key in wanted}, self.ledger.revision, self.term)

    def _do_get(self, key: str) -> Any:
        return self.ledger.items.get(key)

    def _do_list(self, prefix: str) -> Any:
        return self.ledger.list(prefix)

    def _do_commit(self, txn: Txn) -> Committed:
        puts = [write for write in txn.writes if isinstance(write, Put)]
        if self.no_space and puts:
            raise StoreError("failed to commit: etcd is out of space", code="store_no_space")
        if any(put.lease and put.lease not in self._leases for put in puts):
            raise StoreError("failed to use a lease: it has ended", code=LEASE_ENDED)
        before = {write.key: self.ledger.items.get(write.key) for write in txn.writes} if txn.writes else {}
        done = self.ledger.apply(txn)
        if done:
            for write in txn.writes:
                self._move_lease(write, before[write.key])
        return Committed(done, self.ledger.revision, self.term)

    def _move_lease(self, write: Put | Delete, before: Any) -> None:
        if before is not None and before.lease in self._leases:
            self._leases[before.lease].keys.discard(write.key)
        if isinstance(write, Put) and write.lease:
            self._leases[write.lease].keys.add(write.key)

    def _do_grant_lease(self, ttl_s: int) -> Lease:
        if self.no_space:
            raise StoreError("failed to grant a lease: etcd is out of space", code="store_no_space")
        self._next_lease += 1
        self._leases[self._next_lease] = _Lease(ttl_s, self._engine.now_s + ttl_s)
        return Lease(self._next_lease, ttl_s)

    def _do_keep_lease(self, lease_id: int) -> int:
        lease = self._leases.get(lease_id)
        if lease is None:
            return 0
        lease.ends_s = self._engine.now_s + lease.ttl_s
        return int(lease.ttl_s)

    def _do_revoke_lease(self, lease_id: int) -> None:
        self._end_leases([lease_id])

    # Keepers

    def ask_keeper(self, node: str, place: Place, member: str, reply: Callable[[str], None]) -> None:
        """What the keeper on the member's machine says: "leader", "no_leader" or "stopped"; nothing if it cannot."""
        machine = self._known[member].place.above
        assert machine is not None
        self._network.send(node, member, machine, self._keeper, member, node, place, reply)

    def _keeper(self, name: str, node: str, place: Place, reply: Callable[[str], None]) -> None:
        member = self._known[name]
        if member.place.is_frozen:
            return  # its metrics do not answer: the keeper cannot tell
        said = "stopped" if not member.running else "leader" if member.sees_leader else "no_leader"
        self._engine.after(
            self._engine.span_s(0.001, 0.05),
            self._network.send,
            name,
            node,
            place,
            reply,
            said,
            place=member.place.above,
        )
