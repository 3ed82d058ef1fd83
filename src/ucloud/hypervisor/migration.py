"""What QEMU is told in a live migration, over QMP.

Guests' memory flows through a descriptor that the agent hands in (``getfd`` over SCM_RIGHTS, then ``fd:``): QEMU
opens no address. The target stands with ``-S -incoming defer``; nothing here lets any guest run but ``go_on``.

Facts, tried with QEMU 7.2 (TCG, one machine, a shared qcow2 with ``locking=on``, ``-action shutdown=pause``):

- Success: source ``finish-migrate`` → ``postmigrate``; target ``inmigrate`` → ``paused`` (with ``-S``; a guest that
  had powered off or panicked arrives as ``shutdown``, ``guest-panicked``). The events socket tells ``STOP`` and
  ``MIGRATION {status: completed}``; ``postmigrate`` is left by ``cont`` alone. ``query-migrate`` says "completed" for
  ever after, also of a source that went on: only ``query-status`` tells whether it stands.
- From the end of the migration until a ``cont`` **neither side holds the image's lock** (late-block-activate): a third
  QEMU could open the disk. Only the run lock keeps it out. Whoever is told ``cont`` first gets the image's lock; the
  other is refused ('Failed to get "write" lock') and stays as it was.
- The target dies, the stream breaks, or anybody's end of it is closed while memory is sent: source "failed" and
  ``running`` all the time. The stream breaks after the target has everything but before the source heard so (the
  return path's last message): the target stands ``paused`` with a whole copy, **and the source goes on by itself**.
  So only ``postmigrate`` of the source counts, never the target's word alone.
- The source dies or cancels while it sends: the target exits with code 1 ("load of migration failed"). After it
  has sent everything, its death changes nothing for the target.
- ``migrate_cancel`` works also while the target is frozen, and does nothing when nothing is being sent. After
  a failure or a cancel the same source can migrate again.
- ``cont`` of a guest that arrived as ``shutdown`` is refused; of a source that had powered off before its end, it
  is not.
"""

from __future__ import annotations

from pathlib import Path

from ucloud.hypervisor.qmp import Qmp

_FD_NAME = "migration"
_MIB = 1 << 20
_QMP_TIMEOUT_S = 3.0
_UNLIMITED_BYTES_S = 1 << 50
_ANNOUNCE = {"initial": 50, "max": 550, "rounds": 5, "step": 100}
_SOURCE_CAPABILITIES = ("return-path", "auto-converge", "events")
_TARGET_CAPABILITIES = ("return-path", "late-block-activate", "events")


def receive(qmp_socket: Path, descriptor: int) -> None:
    """Let a QEMU that was started ``incoming`` take its guest from ``descriptor``. Once in its life.

    Raises GuestError if it has one already.
    """
    with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
        _set_capabilities(qmp, _TARGET_CAPABILITIES)
        qmp.execute("migrate-set-parameters", {"announce-rounds": 0})  # else it announces what may still run elsewhere
        qmp.execute("getfd", {"fdname": _FD_NAME}, descriptors=(descriptor,))
        qmp.execute("migrate-incoming", {"uri": f"fd:{_FD_NAME}"})


def send(qmp_socket: Path, descriptor: int, *, bandwidth_mib_s: int, downtime_ms: int) -> None:
    """Begin to send the guest to ``descriptor``, at most at that speed (0: any); it goes on running meanwhile.

    Raises GuestError if QEMU refuses: a migration is under way, or a device cannot move.
    """
    limits = {
        "max-bandwidth": bandwidth_mib_s * _MIB or _UNLIMITED_BYTES_S,
        "downtime-limit": downtime_ms,
    }
    with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
        _set_capabilities(qmp, _SOURCE_CAPABILITIES)
        qmp.execute("migrate-set-parameters", limits)
        qmp.execute("getfd", {"fdname": _FD_NAME}, descriptors=(descriptor,))
        qmp.execute("migrate", {"uri": f"fd:{_FD_NAME}"})


def cancel(qmp_socket: Path) -> None:
    """Stop sending; nothing happens if nothing is being sent."""
    with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
        qmp.execute("migrate_cancel")


def go_on(qmp_socket: Path, *, announce: bool) -> None:
    """Let a guest that stands still run. Only with its run lock, and with the guard's permit.

    ``announce``: tell the network where its NICs are. Raises GuestError if another QEMU holds the image's lock.
    """
    with Qmp.connect(qmp_socket, timeout_s=_QMP_TIMEOUT_S) as qmp:
        qmp.execute("cont")
        if announce:
            qmp.execute("announce-self", _ANNOUNCE)


def _set_capabilities(qmp: Qmp, names: tuple[str, ...]) -> None:
    """Those of the other role are switched off: a target of one migration may be the source of the next."""
    known = sorted({*_SOURCE_CAPABILITIES, *_TARGET_CAPABILITIES})
    states = [{"capability": name, "state": name in names} for name in known]
    qmp.execute("migrate-set-capabilities", {"capabilities": states})
