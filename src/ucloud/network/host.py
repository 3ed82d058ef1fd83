"""The settings of the host's kernel that routing for guests needs, and how to put them back.

A host that forwards IPv6 stops listening to router advertisements and loses its own default route, unless ``accept_ra``
is 2 where it was 1. The old values are written down before the first change, so that ``down`` finds them also after a
crash, and are written down once only, so that a second pass does not take our values for the host's.
"""

from __future__ import annotations

from pathlib import Path

from ucloud.system.files import ensure_directory, read_json, write_json
from ucloud.system.sysctl import ensure_sysctl, ipv6_devices, read_sysctl

_FORWARDING = ("net/ipv6/conf/all/forwarding", "net/ipv4/ip_forward")


def ensure_forwarding(record: Path) -> None:
    """Switch on forwarding; ``record`` is the file that keeps the former values."""
    if all(read_sysctl(key) == "1" for key in _FORWARDING):
        return
    wanted = _wanted()
    former: dict[str, str | None] = read_json(record) or {}
    missing = {key: read_sysctl(key) for key in wanted if key not in former}
    if missing:
        ensure_directory(record.parent, mode=0o755)
        write_json(record, former | missing)
    for key, value in wanted.items():
        ensure_sysctl(key, value)


def restore_sysctls(record: Path) -> None:
    former = read_json(record)
    if former is None:
        return
    # Forwarding first: its end resets accept_ra's meaning, not its value.
    for key in sorted(former, key=lambda key: key not in _FORWARDING):
        if former[key] is not None and read_sysctl(key) is not None:
            ensure_sysctl(key, former[key])
    record.unlink(missing_ok=True)


def _wanted() -> dict[str, str]:
    """In the order in which they must be set: accept_ra before forwarding."""
    keys = [f"net/ipv6/conf/{device}/accept_ra" for device in ipv6_devices()]
    wanted = {key: "2" for key in keys if read_sysctl(key) == "1"}
    return wanted | dict.fromkeys(_FORWARDING, "1")
