"""Reading and writing the configuration file. Pure but for ``load_config``, which reads the file."""

from __future__ import annotations

import tomllib
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ucloud.config.sections import Config
from ucloud.errors import InvalidInput

# Settings of earlier versions that have no reader any more: a file that still has them is not wrong.
RETIRED = frozenset({"guard.ttl_s", "api.idempotency_hours", "host.report_s"})


def load_config(path: Path) -> Config:
    """The settings of a file; what it does not say has its default. Raises InvalidInput naming the key."""
    try:
        text = path.read_text()
    except OSError as error:
        raise InvalidInput(
            f"failed to read {path}: {error.strerror}", hint="is this cloud up? Try 'ucloud up'", code="no_config"
        ) from error
    return parse_config(text, origin=str(path))


def parse_config(text: str, *, origin: str) -> Config:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"failed to parse {origin}: {error}", code="bad_config") from error
    sections = typing.get_type_hints(Config)
    _refuse_unknown(document, sections, origin)
    parsed = {name: _parse_section(cls, document.get(name, {}), origin, name) for name, cls in sections.items()}
    return Config(**parsed)


def render_config(config: Config) -> str:
    """The file that parses to ``config``: what differs from the defaults, so that better defaults reach old clouds."""
    sections = []
    for section in fields(config):
        values, defaults = getattr(config, section.name), getattr(Config(), section.name)
        names = [field.name for field in fields(values)]
        changed = [name for name in names if getattr(values, name) != getattr(defaults, name)]
        lines = [f"{name} = {_render(getattr(values, name))}" for name in changed]
        if lines:
            sections.append("\n".join([f"[{section.name}]", *lines]))
    return "\n\n".join(sections) + "\n"


def _parse_section(cls: type, table: Any, origin: str, section: str) -> Any:
    if not isinstance(table, Mapping):
        raise InvalidInput(f"failed to parse {origin}: {section}: expected a [section]", code="bad_config")
    hints = typing.get_type_hints(cls)
    kept = {name: value for name, value in table.items() if f"{section}.{name}" not in RETIRED}
    _refuse_unknown(kept, hints, f"{origin}: {section}")
    return cls(
        **{name: _parse_value(hints[name], value, f"{origin}: {section}.{name}") for name, value in kept.items()}
    )


def _refuse_unknown(table: Mapping[str, Any], known: Mapping[str, Any], where: str) -> None:
    unknown = sorted(set(table) - set(known))
    if unknown:
        hint = f"known are: {', '.join(sorted(known))}"
        raise InvalidInput(f"failed to parse {where}: unknown {', '.join(unknown)}", hint=hint, code="bad_config")


def _parse_value(hint: Any, value: Any, where: str) -> Any:
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if typing.get_origin(hint) is tuple and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise InvalidInput(f"failed to parse {where}: {value!r} has the wrong type", code="bad_config")


def _render(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_render(one) for one in value) + "]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
