"""When the presets of a VXLAN device were made young."""

from __future__ import annotations

import pytest

from ucloud.network import peers


def test_devices_that_are_due_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(peers.time, "monotonic", lambda: now_s)
    ages = peers.Ages()
    assert ages.is_due(1)
    for index in range(1, 50):
        ages.note(index)
    assert not ages.is_due(1)
    now_s += peers.KEEP_EVERY_S
    assert ages.is_due(1)
    ages.note(50)
    assert list(ages._kept) == [50]
