"""What is observed of a VM, and what can be done next: the values between the looks, the plans and the deeds."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from enum import StrEnum

from ucloud.hypervisor.guard_protocol import VmProcess
from ucloud.hypervisor.migration_status import MigrationStatus
from ucloud.hypervisor.record import End, VmRecord
from ucloud.model.migration import SeenMigration
from ucloud.model.seen import GuestState
from ucloud.system.clock import format_time


class Guest(StrEnum):
    """What QEMU says of its guest. ``silent``: it runs, but did not answer; ``none``: there is no QEMU.

    ``incoming``: it waits for its guest, or is getting it; ``sent``: its guest was sent away as a whole, and stands
    still until it is told to go on after all; ``finishing``: it stands still to be sent, and goes on if that fails.
    """

    NONE = "none"
    RUNNING = "running"
    PAUSED = "paused"
    IO_ERROR = "io_error"
    POWERED_OFF = "powered_off"
    CRASHED = "crashed"
    SILENT = "silent"
    INCOMING = "incoming"
    SENT = "sent"
    FINISHING = "finishing"


@dataclass(frozen=True, slots=True)
class ObservedVm:
    """``unknown`` says why nothing is known of the process, "" if it is; ``has_files``: its directory is here.

    ``qemu_version`` is that of the QEMU that runs, which may be older than the installed one. ``disowned`` says why
    the process may not go on, "" if it may: for an agent that compares it with the VM's run lock (docs/failover.md).
    """

    vm_id: str
    record: VmRecord
    has_files: bool = False
    process: VmProcess | None = None
    guest: Guest = Guest.NONE
    qemu_version: str = ""
    unknown: str = ""
    disowned: str = ""
    migration: MigrationStatus = field(default_factory=MigrationStatus)


@dataclass(frozen=True, slots=True)
class Now:
    """Both clocks at once: ``monotonic_s`` decides, ``wall`` is for people."""

    monotonic_s: float
    wall: datetime.datetime

    def text(self, at_s: float) -> str:
        """The wall-clock time of a monotonic one."""
        return format_time(self.wall + datetime.timedelta(seconds=at_s - self.monotonic_s))


@dataclass(frozen=True, slots=True)
class Start:
    """Run boot ``boots``. ``again``: it ran already and ended by itself, so this counts as a restart.

    ``waited``: its last try found the disk locked, and this one is the same start.
    """

    boots: int
    again: bool = False
    waited: bool = False


@dataclass(frozen=True, slots=True)
class Listen:
    """Start a QEMU that waits for its guest: it opens no disk for writing and needs no run lock."""

    boots: int
    migration_id: str


@dataclass(frozen=True, slots=True)
class Send:
    """Begin to send the guest to another host. Once per migration: it failed if nothing comes of it."""

    migration_id: str


@dataclass(frozen=True, slots=True)
class CancelSend:
    """Stop sending; the guest has run here all the time."""


@dataclass(frozen=True, slots=True)
class Continue:
    """Let a guest go on that stands still: on a migration's target once the run lock has moved there
    (``arrived``), on its source if it never did. The run lock was read, and is this process's.
    """

    generation: int
    boots: int
    arrived: bool


@dataclass(frozen=True, slots=True)
class Arrived:
    """Note that a guest from another host runs here: from now on it is like any other."""


@dataclass(frozen=True, slots=True)
class PowerDown:
    """Press the power button; the guest is killed ``timeout_s`` after the first time."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Quit:
    """Let QEMU end in order: its guest has ended already, in the way ``end`` says."""

    end: End
    detail: str


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to exactly this process; ``end`` and ``detail`` are what is noted of it."""

    generation: int
    boots: int
    end: End = End.STOPPED
    detail: str = "killed: it did not power off in time"


@dataclass(frozen=True, slots=True)
class Collect:
    """Note how an ended process ended, then let the guard forget it."""

    end: End
    detail: str


@dataclass(frozen=True, slots=True)
class CancelStop:
    """Forget the deadline of a stop that is wanted no more."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Let a guest go on that QEMU paused because its storage failed or was full."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the VM's files: all that is left of it in this room."""


Moving = Listen | Send | CancelSend | Continue | Arrived
Action = Start | Moving | PowerDown | Quit | Kill | Collect | CancelStop | Resume | Remove


@dataclass(frozen=True, slots=True)
class Plan:
    """``action`` None: nothing to do, or wait until ``wake_at_s`` (monotonic; 0: until something changes).

    ``state`` and ``reason`` are what to report of the VM meanwhile; ``until`` is the wait's end as text.
    ``migration`` is this host's part in one, to be reported. ``needs_lock``: what to do depends on the run lock, which
    was not given.
    """

    state: GuestState
    action: Action | None = None
    reason: str = ""
    until: str = ""
    wake_at_s: float = 0.0
    migration: SeenMigration | None = None
    needs_lock: bool = False
