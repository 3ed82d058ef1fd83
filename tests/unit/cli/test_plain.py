"""What a guest wrote, as a terminal may show it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ucloud.cli.plain import PlainText


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        (b"Debian 12\r\nlogin: ", "Debian 12\nlogin: "),
        (b"10%\r20%\n\ta\x08\x07\x00b", "10%\n20%\n\tab"),
        (b"\x1b[1;31mred\x1b[0m \x1b[2J\x1b[10;10Hhome", "red home"),
        (b"\x1b]0;title\x07a\x1b]52;c;aGk=\x1b\\b", "ab"),
        (b"\x1b]never ends\nnext line", "\nnext line"),
        (b"\x1bPq secret \x1b\\x\x1b(Bx\x1b7x\x1b", "xxx"),
        (b"\xc2\x9b31mx", "31mx"),
        ("grün ✓ \u202eback".encode(), "grün ✓ back"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_is_shown(written: bytes, shown: str) -> None:
    assert PlainText().clean(written) == shown


def test_pieces() -> None:
    plain = PlainText()
    pieces = ("ü\r".encode()[:1], "ü\r".encode()[1:], b"\nnext\r", b"", b"\nlast")
    assert "".join(plain.clean(piece) for piece in pieces) == "ü\nnext\nlast"


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_nothing_steers_the_terminal(pieces: list[bytes]) -> None:
    plain = PlainText()
    shown = "".join(plain.clean(piece) for piece in pieces)
    assert not [letter for letter in shown if (ord(letter) < 32 or 127 <= ord(letter) < 160) and letter not in "\n\t"]
