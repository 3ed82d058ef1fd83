"""The gate for the mortals' traffic: a frame from or to one of their taps passes only while this host has evidence.

Owns the table ``bridge ucloud_guard_<tag>``. Its set ``live`` holds the taps until the deadline, by the kernel's clock,
and so covers a guard that is frozen, too. Must hold: no tap stays in ``live`` longer than until the deadline that the
evidence gives; VMs that may not be started elsewhere are in no set.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ucloud.errors import Error
from ucloud.guard.life import Life
from ucloud.guard.notes import Notes
from ucloud.guard.rules import Hold
from ucloud.system.clock import Clock
from ucloud.system.nft import apply_ruleset, remove_table
from ucloud.system.nft_elements import ElementsDoor, Family, Set, drop, put, refresh

_REFRESHES_PER_FENCE_TIME = 4
# Before the rules for guests, whose chains begin at -300.
_PRIORITY = -350


def table_name(tag: str) -> str:
    return f"ucloud_guard_{tag}"


def render_table(tag: str) -> str:
    """The table, without its elements, in place of what was there."""
    name = table_name(tag)
    return f"""table bridge {name}
delete table bridge {name}
table bridge {name} {{
 set mortal {{ type ifname; }}
 set live {{ type ifname; flags timeout; }}
 chain from {{
  type filter hook prerouting priority {_PRIORITY}; policy accept;
  iifname @mortal iifname != @live drop
 }}
 chain to {{
  type filter hook forward priority {_PRIORITY}; policy accept;
  oifname @mortal oifname != @live drop
 }}
 chain to_from_here {{
  type filter hook output priority {_PRIORITY}; policy accept;
  oifname @mortal oifname != @live drop
 }}
}}
"""


class TrafficGate:
    """Thread-safe. ``shut`` is set by whoever fences before the deadline: then the gate closes at once."""

    def __init__(self, tag: str, life: Life, *, clock: Clock, notes: Notes, shut: threading.Event) -> None:
        self._tag = tag
        self._life = life
        self._clock = clock
        self._notes = notes
        self._mortal = Set(Family.BRIDGE, table_name(tag), "mortal")
        self._live = Set(Family.BRIDGE, table_name(tag), "live")
        self._lock = threading.Lock()
        self._taps: dict[str, tuple[str, ...]] = {}
        self._door: ElementsDoor | None = None
        self._shut = shut
        self._stopping = False
        self._thread = threading.Thread(target=self._keep, name="traffic", daemon=True)

    def start(self) -> None:
        """Begin without a table: it is made for the first mortal. Taps of an earlier guard's are nobody's now."""
        try:
            remove_table("bridge", table_name(self._tag))
        except Error as error:
            self._notes.error(f"failed to remove an earlier guard's table: {error}")
        self._thread.start()

    def admit(self, vm_id: str, taps: Sequence[str]) -> None:
        """Let the traffic of a mortal's taps depend on evidence from now on. Raises Error if that cannot be done."""
        if not taps:
            return
        with self._lock:
            if self._door is None:
                apply_ruleset(render_table(self._tag))
                self._door = ElementsDoor()
            self._door.apply((*put(self._mortal, taps), *refresh(self._live, taps, timeout_ms=max(1, self._left_ms()))))
            self._taps[vm_id] = tuple(taps)

    def remove(self, vm_id: str) -> None:
        """Its taps may be anybody's again; nothing happens if it has none."""
        with self._lock:
            taps = self._taps.pop(vm_id, ())
            if taps and self._door is not None:
                try:
                    self._door.apply((*drop(self._mortal, taps), *drop(self._live, taps)))
                except Error as error:
                    self._notes.error(f"failed to take the taps of vm={vm_id} out of the gate: {error}")

    def close(self) -> None:
        """For an end in order, after all mortals are dead."""
        self._stopping = True
        self._shut.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        with self._lock:
            if self._door is not None:
                self._door.close()
                remove_table("bridge", table_name(self._tag))

    def turn(self) -> None:
        """Keep the gate open until the deadline, or close it."""
        with self._lock:
            taps = tuple(tap for taps in self._taps.values() for tap in taps)
            if not taps or self._door is None:
                return
            left_ms = self._left_ms()
            self._door.apply(refresh(self._live, taps, timeout_ms=left_ms) if left_ms > 0 else drop(self._live, taps))

    def _left_ms(self) -> int:
        """How long evidence still lasts; 0 if traffic must not pass."""
        state = self._life.state
        if state.is_over or state.hold is not Hold.OPEN:
            return 0
        return max(0, int((state.deadline_s - self._clock.monotonic_s()) * 1000))

    def _keep(self) -> None:
        period_s = self._life.identity.fence_s / _REFRESHES_PER_FENCE_TIME
        while not self._stopping:
            self._shut.wait(period_s)
            self._shut.clear()
            try:
                self.turn()
            except Exception as error:  # noqa: BLE001 - who ends here stops the traffic of all mortals
                self._notes.error(f"failed to keep the traffic gate: {error}")
