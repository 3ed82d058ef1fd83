"""The thread that fences: it does what the rules say about the mortals, at the deadline and not a disk's time later.

Its path has no disk, log, name service, fork or netlink: it signals, looks whether that was obeyed, and tells.
Must hold: it never waits for another thread; what could not be stopped within K is said, and the machine reset if that
is wished.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ucloud.guard.life import Life
from ucloud.guard.mortals import Mortals
from ucloud.guard.notes import Notes
from ucloud.guard.rules import Action, LifeState, next_action
from ucloud.system.clock import Clock
from ucloud.system.history import History

_LOOK_EVERY_S = 0.1  # waits do not count time in which the machine slept
_STILL_EVERY_S = 0.005
_SYSRQ = Path("/proc/sysrq-trigger")


class Fencer:
    """``wake`` is called when the main thread has something to do: to reap, or (``ended``) to end this guard.

    ``shut`` is set when traffic must stop. ``reset_fd`` is an open /proc/sysrq-trigger, or −1.
    """

    def __init__(
        self,
        life: Life,
        mortals: Mortals,
        *,
        clock: Clock,
        history: History,
        notes: Notes,
        wake: Callable[[], None],
        shut: threading.Event,
        reset_fd: int = -1,
    ) -> None:
        self._life = life
        self._mortals = mortals
        self._clock = clock
        self._history = history
        self._notes = notes
        self._wake = wake
        self._shut = shut
        self._reset_fd = reset_fd
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="fencer", daemon=True)
        self._fencing = ""
        self.ended = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def turn(self) -> Action:
        """Look once, and do what is to be done now."""
        state = self._life.pass_time()
        action = next_action(state, self._clock.monotonic_s(), frozen=self._mortals.any_frozen)
        match action:
            case Action.FENCE | Action.END:
                reason = "no evidence" if action is Action.FENCE else "fenced" if state.fenced else "replaced"
                self._stop_all(action, reason, state)
            case Action.THAW:
                self._mortals.do(action)
                self._notes.info("evidence came back: frozen VMs go on")
        return action

    def _stop_all(self, action: Action, reason: str, state: LifeState) -> None:
        began_s = self._clock.monotonic_s()
        self._mortals.do(action)
        self._shut.set()
        first = self._fencing != reason
        self._fencing = reason
        still = self._wait_still(began_s + self._life.identity.kill_s)
        self._mortals.tell_frozen()
        took_s = round(self._clock.monotonic_s() - began_s, 3)
        if still:
            self._fencing = ""
            self._mortals.clear_stuck()
            if action is Action.FENCE:
                self._life.close()
            self.ended = action is Action.END
        elif self._mortals.note_moving():
            self.reset()
        if first:
            self._say(action, reason, state, began_s=began_s, took_s=took_s, still=still)
        self._wake()

    def _say(
        self, action: Action, reason: str, state: LifeState, *, began_s: float, took_s: float, still: bool
    ) -> None:
        """F is told with a fence that it was the cause of: only that one can come too early."""
        facts = {"fence_s": state.fence_s} if action is Action.FENCE else {}
        age_s = round(state.evidence_age_s(began_s), 3)
        self._history.tell(
            "fence",
            host=self._life.identity.host_id,
            incarnation=self._life.identity.incarnation,
            reason=reason,
            evidence_age_s=age_s,
            took_s=took_s,
            still=still,
            **facts,
        )
        count, overdue_s = len(tuple(self._mortals)), max(0.0, began_s - state.deadline_s)
        self._notes.error(f"fenced: {reason}; {count} VMs, {overdue_s:.3f} s after the deadline, took {took_s} s")
        if not still:
            self._notes.error(f"killed but not gone within K: {', '.join(self._mortals.stuck)}")

    def _wait_still(self, until_s: float) -> bool:
        """Whether all have ended or stand still before ``until_s``."""
        while self._mortals.any_moving():
            if self._clock.monotonic_s() >= until_s:
                return False
            self._clock.sleep(_STILL_EVERY_S)
        return True

    def reset(self) -> None:
        """If wished, restart the machine at once, without syncing: what cannot be killed may still write."""
        if self._reset_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._reset_fd, b"b")

    def _keep(self) -> None:
        while not (self._stop.is_set() or self.ended):
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - who ends here leaves a host that never fences
                self._notes.error(f"a turn of the fencer failed: {error}")
            left_s = self._life.state.deadline_s - self._clock.monotonic_s()
            pause_s = min(max(left_s, 0.0), _LOOK_EVERY_S) if left_s > 0 else _LOOK_EVERY_S
            if not self._life.over.is_set():
                self._life.over.wait(pause_s)
            else:
                self._stop.wait(_LOOK_EVERY_S)


def open_reset(wished: bool) -> int:
    """A descriptor that resets the machine when "b" is written, or −1. Raises OSError if it is wished and not allowed.

    Opened long before it is needed: then no file needs to be found any more.
    """
    return os.open(_SYSRQ, os.O_WRONLY | os.O_CLOEXEC) if wished else -1
