"""The threads that look for evidence: one per etcd member, so that one that is dead or frozen holds up no other, and
one that asks the keepers when no member has answered for a while.

Must hold: each question has a deadline of its own; a store that is down or slow changes nothing by itself.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from ucloud.config.sections import StoreSection
from ucloud.errors import Error
from ucloud.guard.keepers import DialKeeper, ask_all, dial_all
from ucloud.guard.life import Life
from ucloud.guard.rules import Step, wants_round
from ucloud.model.guard import Members
from ucloud.store.api import Store
from ucloud.system.clock import Clock

LOOK_EVERY_S = 0.25
ROUND_S = 0.25
_PATIENCE, _LONGEST_S = 2 / 3, 2.0  # of F, and in seconds
_DIAL_S = 0.6  # a keeper's door waits for 1 s
_LEAST_PAUSE_S = 0.05
_REGISTERED_PAUSE_S = 0.02
_WATCH_AGE_EVERY_S = 0.1
_STOP_TIMEOUT_S = 1.0


def open_stores(
    settings: StoreSection, fence_s: float, make_store: Callable[[StoreSection], Store]
) -> tuple[Store, ...]:
    """One for each member, which gives up soon: an old question is worth little (rule A2 counts from its sending).

    But not at once: a member that is only slow is made slower by those who leave it and shake hands again.
    """
    if fence_s:
        settings = replace(settings, timeout_s=min(settings.timeout_s, fence_s * _PATIENCE, _LONGEST_S))
    alone = [replace(settings, endpoints=(endpoint,)) for endpoint in settings.endpoints] or [settings]
    return tuple(make_store(one) for one in alone)


class Witnesses:
    """``dial`` makes a connection to one keeper; None for a guard that never fences."""

    def __init__(self, life: Life, stores: Sequence[Store], dial: DialKeeper | None, clock: Clock) -> None:
        self._life = life
        self._stores = stores
        self._clock = clock
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._keep_looking, args=(store,), name=f"look-{index}", daemon=True)
            for index, store in enumerate(stores)
        ]
        if dial is not None:
            self._threads.append(threading.Thread(target=self._keep_asking, args=(dial,), name="rounds", daemon=True))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no more, and give the life sign up, if a member lets us in time."""
        self._stop.set()
        deadline_s = self._clock.monotonic_s() + _STOP_TIMEOUT_S
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, deadline_s - self._clock.monotonic_s()))
        for store in self._stores:
            with contextlib.suppress(Error):
                self._life.give_up(store)
                break

    def _keep_looking(self, store: Store) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            began_s = self._clock.monotonic_s()
            step = None
            try:
                step = self._life.look(store)
            except Exception as error:  # noqa: BLE001 - a life sign that ends silently would end this host's
                self._life.say(f"no contact with the store: {error}")
            took_s = self._clock.monotonic_s() - began_s
            # What was registered is evidence only once it was read; and what took long is asked again soon.
            pause_s = _REGISTERED_PAUSE_S if step is Step.REGISTER else max(_LEAST_PAUSE_S, LOOK_EVERY_S - took_s)

    def _keep_asking(self, dial: DialKeeper) -> None:
        pause_s = 0.0
        while not self._stop.wait(pause_s):
            members = self._life.state.members
            if members is None or not wants_round(self._life.state, self._clock.monotonic_s()):
                pause_s = _WATCH_AGE_EVERY_S
                continue
            pause_s = self._one_round(members, dial)

    def _one_round(self, members: Members, dial: DialKeeper) -> float:
        """Returns the pause before the next. Without a connection to every voter no question is put."""
        until_s = self._clock.monotonic_s() + _DIAL_S
        calls = dial_all(members.voters, dial, self._clock, until_s=until_s)
        try:
            if len(calls) < len(members.voters):
                return _WATCH_AGE_EVERY_S
            started_at_s = self._clock.monotonic_s()
            answers = ask_all(calls, self._clock, until_s=started_at_s + ROUND_S)
        finally:
            for call in calls.values():
                call.close()
        self._life.hear_round(members, answers, started_at_s=started_at_s)
        return max(0.0, started_at_s + ROUND_S - self._clock.monotonic_s())
