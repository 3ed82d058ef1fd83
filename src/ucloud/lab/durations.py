"""Times and shares as people write them: ``200ms``, ``10s``, ``-1h``, ``30%``. Pure."""

from __future__ import annotations

import argparse
import re

_DURATION = re.compile(r"([+-]?\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_FACTOR = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_S = 3650 * 86400.0
_SHORTEST_S = 0.001
NEGATIVE = re.compile(r"-\d+(?:\.\d+)?(ms|s|m|h|d|)$")
"""What looks like an option on a command line and is a duration."""


def parse_offset_s(text: str) -> float:
    """How far a clock is off: forwards or backwards, but not so far that dates have no name."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 200ms, 10s or 1h")
    seconds = float(found[1]) * _FACTOR[found[2]]
    if abs(seconds) > _LONGEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {_LONGEST_S / _FACTOR['d']:g} days")
    return seconds


def parse_duration_s(text: str) -> float:
    seconds = parse_offset_s(text)
    if seconds < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return seconds


def parse_while_s(text: str) -> float:
    """Of what must end: not none at all."""
    seconds = parse_duration_s(text)
    if seconds < _SHORTEST_S:
        raise argparse.ArgumentTypeError(f"{text!r} is too short: at least 1ms")
    return seconds


def parse_percent(text: str) -> float:
    number = text.removesuffix("%")
    if not re.fullmatch(r"\d+(\.\d+)?", number) or float(number) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 30%")
    return float(number)
