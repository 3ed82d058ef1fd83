"""A door of the storage service lets only so many in, and says so."""

from __future__ import annotations

import pytest

from ucloud.storage.service.room import Room


def test_it_is_full_and_has_room_again(caplog: pytest.LogCaptureFixture) -> None:
    room = Room(2, "NBD")
    assert [room.enter() for _ in range(4)] == [True, True, False, False]
    assert [record.message for record in caplog.records] == [
        "a connection to the storage service (NBD) is refused: 2 are open, as many as there may be; 1 refused so far"
    ]
    room.leave()
    assert room.enter()
