"""The end of a guard: its life sign is given up only if nothing that may run elsewhere outlives it."""

from __future__ import annotations

import os
import threading

import pytest

from ucloud.guard.fencer import Fencer
from ucloud.guard.life import Identity, Life
from ucloud.guard.mortals import Mortals
from ucloud.guard.notes import Notes
from ucloud.guard.process import Ending
from ucloud.store import keys
from ucloud.store.memory import MemoryStore
from ucloud.system.clock import SystemClock
from ucloud.system.history import Silence


@pytest.mark.parametrize("left", [(), ("vm-1",)])
def test_what_outlives_the_guard_keeps_the_life_sign_and_resets_the_machine(left: tuple[str, ...]) -> None:
    clock, notes, history = SystemClock(), Notes(), Silence()
    store = MemoryStore(clock=clock)
    life = Life(Identity("h1", "one", "now", fence_s=3.0), ttl_s=60, clock=clock, history=history, notes=notes)
    life.look(store)
    reading, writing = os.pipe2(os.O_NONBLOCK)
    fencer = Fencer(
        life,
        Mortals(history, host_id="h1"),
        clock=clock,
        history=history,
        notes=notes,
        wake=lambda: None,
        shut=threading.Event(),
        reset_fd=writing,
    )
    ending = Ending(lambda: left, life, fencer)
    ending.run()
    life.give_up(store)
    os.close(writing)
    assert ending.is_clean == (not left)
    assert (store.get(keys.alive("h1")) is not None) == bool(left)
    assert os.read(reading, 10) == (b"b" if left else b"")
    os.close(reading)
