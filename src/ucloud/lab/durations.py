"""Times and shares as people write them: ``200ms``, ``10s``, ``-1h``, ``30%``. Pure."""

from __future__ import annotations

import argparse
import re

_DURATION = re.compile(r"([+-]?\d+(?:\.\d+)?)(ms|s|m|h|d|)")
_FACTOR = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NEGATIVE = re.compile(r"-\d+(?:\.\d+)?(ms|s|m|h|d|)$")
"""What looks like an option on a command line and is a duration."""


def parse_duration_s(text: str) -> float:
    found = _DURATION.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 200ms, 10s or 1h")
    return float(found[1]) * _FACTOR[found[2]]


def parse_percent(text: str) -> float:
    number = text.removesuffix("%")
    if not re.fullmatch(r"\d+(\.\d+)?", number) or float(number) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 30%")
    return float(number)
