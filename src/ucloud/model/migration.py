"""A live migration: the record that the scheduler keeps of it, and what hosts are told and tell. (docs/failover.md, E.)

One writer per key: people write the request (``spec/migration/<vm>``), the scheduler the record (``migration/<vm>``),
compose what each host shall do (in its wanted document), each agent what it sees (in its report).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CAUSE_ASKED = "asked"
CAUSE_DRAIN = "drain"


class Role(StrEnum):
    SOURCE = "source"
    TARGET = "target"


class Phase(StrEnum):
    """``preparing``: the target makes everything ready and listens; ``sending``: the source sends its memory;
    ``moved``: neither ran, and lock and placement were moved in one transaction: the target continues;
    ``aborting``: no move can happen any more: the target ends its copy, the source goes on if it is still there.
    ``done``, ``failed`` and ``cancelled`` are ends.
    """

    PREPARING = "preparing"
    SENDING = "sending"
    MOVED = "moved"
    ABORTING = "aborting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDS = (Phase.DONE, Phase.FAILED, Phase.CANCELLED)


@dataclass(frozen=True, slots=True)
class MigrationRequest:
    """What somebody asked for: ``to_host_id`` "" lets the scheduler choose. A newer ``id`` replaces an ended one."""

    vm_id: str
    id: str
    to_host_id: str
    asked_at: str
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Migration:
    """``generation`` is the placement's before, ``generation + 1`` after the move. ``until`` is the shared deadline.

    ``cause`` is "asked" or "drain". Sizes are what the VM takes of the target while both count. The incarnations are
    those of both guards when it began: a guard that was born since has ended what belonged to it. ``request_id`` is the
    newest request that this record, or one before it, is the answer to. ``still_since`` is when one side first said
    that the guest stands still: nobody waits long for the other then. ``downtime_ms`` is QEMU's own count, at the move.
    ``lock_revision`` is the source lock's when it began (0: unknown): a move never changes what a lock means.
    """

    vm_id: str
    id: str
    source: str
    target: str
    generation: int
    phase: Phase
    reason: str
    started_at: str
    since: str
    until: str
    cause: str = "asked"
    cpus: int = 0
    memory_mib: int = 0
    disk_gib: int = 0
    cancelled: bool = False
    source_incarnation: str = ""
    target_incarnation: str = ""
    request_id: str = ""
    still_since: str = ""
    downtime_ms: int = 0
    lock_revision: int = 0

    def answers(self, request: MigrationRequest) -> bool:
        """Whether this is what became of the request, or came after that."""
        return request.id in (self.id, self.request_id)

    @property
    def is_over(self) -> bool:
        return self.phase in ENDS

    @property
    def also_claims(self) -> str:
        """The host on which the VM takes its sizes besides the one of its placement; "" for none."""
        if self.is_over:
            return ""
        return self.source if self.phase is Phase.MOVED else self.target


def next_generation(placed: int, record: Migration | None) -> int:
    """The generation of a placement that replaces the one of generation ``placed`` in any way but by a migration.

    Not the one of a copy that a migration may have left somewhere: that copy must never look like the new VM.
    """
    copies = record.generation + 1 if record is not None else 0
    return max(placed, copies) + 1


@dataclass(frozen=True, slots=True)
class WantedMigration:
    """What one host shall do for a migration in ``phase``. ``peer_door`` is the other host's door (URL)."""

    id: str
    role: Role
    phase: Phase
    peer_host_id: str
    peer_door: str
    bandwidth_mib_s: int
    downtime_ms: int
    until: str


class MigrationState(StrEnum):
    """What a host saw of its part. Source: ``sending`` → ``completed`` (it stands still for ever). Target:
    ``listening`` → ``received`` (all is there, and it stands still) → ``resumed``. Both: ``failed``; ``withdrawn``
    after an abort.
    """

    NONE = "none"
    LISTENING = "listening"
    SENDING = "sending"
    COMPLETED = "completed"
    RECEIVED = "received"
    RESUMED = "resumed"
    FAILED = "failed"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class SeenMigration:
    """``sent_mib`` of ``total_mib`` is the progress of the source; ``downtime_ms`` is QEMU's own count at the end."""

    id: str
    role: Role
    state: MigrationState
    reason: str = ""
    sent_mib: int = 0
    total_mib: int = 0
    downtime_ms: int = 0
