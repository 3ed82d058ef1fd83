"""Tables and details as text. Pure: rows in, lines out."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from ucloud.cli.human import clean

_COLOURS = {"green": "32", "red": "31", "yellow": "33", "bold": "1"}
_GOOD = {"running", "ready", "ok", "drained", "done"}
_BAD = {"failed", "crashed", "lost", "held", "taken_over", "unschedulable", "unknown", "down"}
_QUIET = {"stopped", "paused", ""}


def render_table(titles: Sequence[str], rows: Sequence[Sequence[str]], *, colours: bool = False) -> str:
    """Left-aligned columns, two spaces apart; "-" for nothing. The column STATUS is coloured by its word."""
    cells = [[clean(cell) or "-" for cell in row] for row in rows]
    widths = [max(map(_width, column)) for column in zip(titles, *cells, strict=True)]
    lines = [_line(titles, titles, widths, styles=["bold"] * len(titles) if colours else [])]
    for row in cells:
        styles = [_style(title, cell) if colours else "" for title, cell in zip(titles, row, strict=True)]
        lines.append(_line(titles, row, widths, styles=styles))
    return "\n".join(lines) + "\n"


def render_details(value: Mapping[str, Any], *, indent: int = 0) -> str:
    """A whole object, nested values indented, nothing left out but what is empty."""
    shown = {key: one for key, one in value.items() if one not in ("", [], {}, None)}
    width = max((len(key) for key, one in shown.items() if _is_plain(one)), default=0) + 2
    lines = []
    for key, one in shown.items():
        if _is_plain(one):
            lines.append(f"{' ' * indent}{key:<{width}}{_plain(one)}\n")
        elif isinstance(one, Mapping):
            lines.append(f"{' ' * indent}{key}\n{render_details(one, indent=indent + 2)}")
        else:
            lines.append(f"{' ' * indent}{key}\n" + "".join(_render_element(element, indent + 2) for element in one))
    return "".join(lines)


def colour(text: str, name: str) -> str:
    return f"\x1b[{_COLOURS[name]}m{text}\x1b[0m" if name else text


def word_colour(word: str) -> str:
    """Green for as it should be, red for in need of somebody, yellow for on its way."""
    if word in _GOOD:
        return "green"
    if word in _BAD:
        return "red"
    return "" if word in _QUIET else "yellow"


def _line(titles: Sequence[str], cells: Sequence[str], widths: Sequence[int], *, styles: Sequence[str]) -> str:
    padded = [cell + " " * (width - _width(cell)) for cell, width in zip(cells, widths, strict=True)]
    padded[-1] = cells[-1]
    if styles:
        padded = [colour(cell, style) for cell, style in zip(padded, styles, strict=True)]
    return "  ".join(padded).rstrip()


def _style(title: str, cell: str) -> str:
    return word_colour(cell) if title == "STATUS" else ""


def _width(text: str) -> int:
    """Columns on a terminal: East Asian wide letters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in text
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return not any(isinstance(one, (list, Mapping)) for one in value)
    return not isinstance(value, Mapping)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return clean(value)


def _render_element(element: Any, indent: int) -> str:
    """One mapping of a list: its first line begins with a dash."""
    text = render_details(element, indent=indent + 2) if isinstance(element, Mapping) else f"{_plain(element)}\n"
    return f"{' ' * indent}- {text.lstrip()}"
