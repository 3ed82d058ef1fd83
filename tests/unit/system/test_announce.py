"""The frame that tells where a MAC is."""

from __future__ import annotations

from ucloud.system.announce import render_announcement


def test_the_frame_is_the_one_that_the_firewall_lets_guests_send() -> None:
    frame = render_announcement("02:00:00:00:00:07")
    mac = bytes.fromhex("020000000007")
    assert frame[:14] == b"\xff" * 6 + mac + b"\x80\x35"
    assert frame[14:42] == bytes.fromhex("0001080006040003") + mac + bytes(4) + mac + bytes(4)
    assert len(frame) == 60
