"""Bodies of migrations."""

from __future__ import annotations

from ucloud.api.schemas.fields import Body, Name, Shown, left_out
from ucloud.model.migration import MigrationState, Phase, Role


class VmMigrate(Body):
    """Without ``to_host`` (id or name) the scheduler chooses."""

    to_host: Name = left_out()


class VmCancelMigration(Body):
    """Nothing can be said about how to cancel."""


class MigrationRecordShown(Shown):
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
    cause: str
    cpus: int
    memory_mib: int
    disk_gib: int
    cancelled: bool
    source_incarnation: str
    target_incarnation: str
    request_id: str
    still_since: str
    downtime_ms: int
    lock_revision: int


class MigrationRequestShown(Shown):
    vm_id: str
    id: str
    to_host_id: str
    asked_at: str
    cancelled: bool


class MigrationPartShown(Shown):
    id: str
    role: Role
    state: MigrationState
    reason: str
    sent_mib: int
    total_mib: int
    downtime_ms: int


class MigrationShown(Shown):
    """``phase`` is the record's, or "waiting" for a request without one. ``record`` is what the scheduler keeps of the
    newest migration, ``request`` what was asked for last; ``source`` and ``target`` are what the hosts say.
    """

    vm_id: str
    phase: str
    reason: str
    since: str
    until: str
    percent: int
    record: MigrationRecordShown | None
    request: MigrationRequestShown | None
    source: MigrationPartShown | None
    target: MigrationPartShown | None


class MigrationPreview(Shown):
    to_host_id: str
    reason: str
