"""Which columns each noun's table has. Pure; an object may lack any field (an older or newer API)."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ucloud.cli.human import format_age, format_bytes, format_mib
from ucloud.client import Object

Column = tuple[str, Callable[[Object, datetime.datetime], str]]


def _field(path: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: _text(_at(one, path))


def _age(path: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: format_age(str(_at(one, path) or ""), now)


def _mib(path: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: _sized(_at(one, path), format_mib)


def _bytes(path: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: _sized(_at(one, path), format_bytes)


def _gib(path: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: _sized(_at(one, path), lambda gib: format_mib(gib * 1024))


def _used(claimed: str, total: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: f"{_text(_at(one, claimed)) or 0}/{_text(_at(one, total)) or '?'}"


def _used_mib(claimed: str, total: str) -> Callable[[Object, datetime.datetime], str]:
    return lambda one, now: f"{format_mib(_at(one, claimed) or 0)}/{format_mib(_at(one, total) or 0)}"


def _addresses(one: Object, now: datetime.datetime) -> str:
    nics = _at(one, "spec.nics") or []
    return ",".join(nic.get("ipv6") or nic.get("ipv4") or "" for nic in nics)


def _about(one: Object, now: datetime.datetime) -> str:
    return f"{one.get('about', '')} {one.get('about_id', '')}".strip()


def _sent(one: Object, now: datetime.datetime) -> str:
    """How much of its memory, as the source says."""
    sent, total = _at(one, "source.sent_mib"), _at(one, "source.total_mib")
    return f"{format_mib(sent or 0)}/{format_mib(total)} {one.get('percent', 0)}%" if total else ""


def _takeover_word(one: Object, now: datetime.datetime) -> str:
    """The same words as in the list of hosts."""
    phase = _at(one, "takeover.phase")
    return {"held": "held", "done": "taken_over"}.get(str(phase), "lost")


_NAME: Sequence[Column] = (("NAME", _field("name")), ("ID", _field("id")), ("STATUS", _field("status.word")))
_AGE: Sequence[Column] = (("AGE", _age("created_at")),)

COLUMNS: Mapping[str, Sequence[Column]] = {
    "vm": (
        *_NAME,
        ("HOST", _field("status.host_id")),
        ("CPUS", _field("spec.cpus")),
        ("MEMORY", _mib("spec.memory_mib")),
        ("DISK", _gib("spec.disk_gib")),
        ("ADDRESS", _addresses),
        *_AGE,
    ),
    "network": (
        *_NAME,
        ("VNI", _field("spec.vni")),
        ("IPV6", _field("spec.ipv6_prefix")),
        ("IPV4", _field("spec.ipv4_subnet")),
        ("EGRESS", _field("spec.egress")),
        ("VMS", _field("status.vms")),
        *_AGE,
    ),
    "image": (
        *_NAME,
        ("FORMAT", _field("spec.format")),
        ("SIZE", _bytes("spec.size_bytes")),
        ("DISK", _bytes("spec.virtual_size_bytes")),
        ("USER", _field("spec.user")),
        ("VMS", _field("status.vms")),
        *_AGE,
    ),
    "key": (("NAME", _field("name")), ("ID", _field("id")), ("FINGERPRINT", _field("spec.fingerprint")), *_AGE),
    "host": (
        *_NAME,
        ("CPUS", _used("status.claimed.cpus", "status.cpus")),
        ("MEMORY", _used_mib("status.claimed.memory_mib", "status.memory_mib")),
        ("FREE", _mib("status.disk_free_mib")),
        ("VMS", _field("status.vms")),
        ("ACCELERATOR", _field("status.accelerator")),
        ("SEEN", _age("status.last_report_at")),
    ),
    "migration": (
        ("VM", _field("vm_id")),
        ("STATUS", _field("phase")),
        ("FROM", _field("record.source")),
        ("TO", _field("record.target")),
        ("SENT", _sent),
        ("SINCE", _age("since")),
        ("REASON", _field("reason")),
    ),
    "lost": (
        ("NAME", _field("name")),
        ("ID", _field("host_id")),
        ("STATUS", _takeover_word),
        ("LOST", _age("takeover.lost_at")),
        ("UNTIL", _field("takeover.until")),
        ("VMS", lambda one, now: str(len(one.get("vms") or ()))),
        ("OFF", lambda one, now: "yes" if one.get("confirmed_off") else "no"),
        ("REASON", _field("takeover.reason")),
    ),
    "event": (
        ("AGE", _age("at")),
        ("KIND", _field("kind")),
        ("ABOUT", _about),
        ("MESSAGE", _field("message")),
    ),
}


def titles_of(noun: str) -> list[str]:
    return [title for title, _ in COLUMNS[noun]]


def row_of(noun: str, one: Object, now: datetime.datetime) -> list[str]:
    return [value(one, now) for _, value in COLUMNS[noun]]


def _at(one: Any, path: str) -> Any:
    for name in path.split("."):
        one = one.get(name) if isinstance(one, Mapping) else None
    return one


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _sized(value: Any, render: Callable[[Any], str]) -> str:
    return "" if value is None else render(value)
