"""What a guest wrote, made safe to show on a terminal: text, newlines and tabs, and nothing that steers it. Pure.

A guest decides what is in its log. Escape sequences could change the terminal's title, its colours, or, on some, what
it types; so they go, whole where they are recognised, and in any case without their ESC.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

# ECMA-48: control sequences; strings (OSC, DCS, SOS, PM, APC), which may lack their end; other escapes.
_SEQUENCES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]?"
    r"|\x1b[\]PX^_][^\x07\x1b\n\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_KEPT = "\n\t"
_UNSAFE = ("Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp")  # Cf has the marks that turn the direction of writing


class PlainText:
    """One log, given piece by piece: a character may be split between two pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._after_return = False

    def clean(self, data: bytes) -> str:
        text = _SEQUENCES.sub("", self._decoder.decode(data))
        if self._after_return:
            text = text.removeprefix("\n")  # the second half of an end of line
        self._after_return = text.endswith("\r") if text else self._after_return
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        return "".join(letter for letter in text if letter in _KEPT or unicodedata.category(letter) not in _UNSAFE)
