"""Kernel settings below /proc/sys. Those of ``net`` belong to the namespace of the calling thread."""

from __future__ import annotations

from pathlib import Path

from ucloud.errors import Error

_ROOT = Path("/proc/sys")


def read_sysctl(key: str) -> str | None:
    """The value of ``net/ipv4/ip_forward`` and the like; None if there is no such key."""
    try:
        return (_ROOT / key).read_text().strip()
    except FileNotFoundError:
        return None


def ensure_sysctl(key: str, value: str) -> bool:
    """Set ``key`` unless it has that value. Returns whether it was changed."""
    if read_sysctl(key) == value:
        return False
    try:
        (_ROOT / key).write_text(value)
    except OSError as error:
        raise Error(f"failed to set {key} to {value}: {error.strerror}", code="sysctl_failed") from error
    return True


def disable_ipv6(device: str) -> None:
    """Without an address of its own on ``device`` the host answers nobody there by IPv6."""
    ensure_sysctl(f"net/ipv6/conf/{device}/disable_ipv6", "1")


def ipv6_devices() -> list[str]:
    """The devices that have IPv6 settings."""
    directory = _ROOT / "net/ipv6/conf"
    return sorted(path.name for path in directory.iterdir() if path.name not in ("all", "default"))
