"""Sizes and times as people read them. Pure."""

from __future__ import annotations

import datetime
import unicodedata

_STEPS = ((86400, "d"), (3600, "h"), (60, "m"))


def format_mib(mib: int) -> str:
    """``256M``, ``1G``, ``1.5G``: the same words that the options take."""
    for factor, unit in ((1024 * 1024, "T"), (1024, "G")):
        if mib >= factor:
            return f"{mib / factor:.4g}{unit}"
    return f"{mib}M"


def format_bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def format_seconds(seconds: float) -> str:
    """The largest unit only: ``45s``, ``3m``, ``2h``, ``5d``."""
    for length_s, unit in _STEPS:
        if seconds >= length_s:
            return f"{int(seconds // length_s)}{unit}"
    return f"{int(max(seconds, 0))}s"


def format_age(moment: str, now: datetime.datetime) -> str:
    """How long ago an RFC 3339 time was; "" for no time."""
    if not moment:
        return ""
    try:
        then = datetime.datetime.fromisoformat(moment)
    except ValueError:
        return moment
    return format_seconds((now - then).total_seconds())


def clean(text: object) -> str:
    """``text`` without control characters: what others wrote must not steer this terminal."""
    return "".join(one if unicodedata.category(one)[0] != "C" else "?" for one in str(text))
