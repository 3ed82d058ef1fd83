"""How to reach a VM by ssh: which address, which command line, and whether its server answers yet.

Host keys are kept in a file of ucloud's own under the VM's id, so that an address used again by another VM raises no
false alarm, and a person's own known_hosts stays clean.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ucloud.client import Object
from ucloud.errors import Conflict, DeadlineExceeded
from ucloud.system.clock import Clock, SystemClock

_TRY_S = 2.0
_PAUSE_S = 0.3


@dataclass(frozen=True, slots=True)
class SshTarget:
    """``alias`` is what the host key is kept under."""

    address: str
    user: str
    alias: str
    known_hosts: Path
    identity: Path | None = None


def pick_address(vm: Object, *, family: int = 0) -> str:
    """The address of the first NIC that has one: IPv6 before IPv4, or only of one ``family`` (4 or 6)."""
    fields = [f"ipv{family}"] if family else ["ipv6", "ipv4"]
    for field in fields:
        for nic in vm["spec"].get("nics", ()):
            if nic.get(field):
                return str(nic[field])
    kind = f"IPv{family} address" if family else "address"
    raise Conflict(f"failed to reach vm {vm['name']}: it has no {kind}", code="no_address")


def render_ssh(target: SshTarget, command: Sequence[str] = ()) -> list[str]:
    options = [
        f"HostKeyAlias={target.alias}",
        f'UserKnownHostsFile="{target.known_hosts}"',
        "StrictHostKeyChecking=accept-new",
    ]
    argv = ["ssh", *(word for option in options for word in ("-o", option))]
    if target.identity:
        argv += ["-i", str(target.identity.expanduser()), "-o", "IdentitiesOnly=yes"]
    return [*argv, "-l", target.user, target.address, *(["--", *command] if command else [])]


def wait_for_ssh(address: str, port: int, timeout_s: float, *, clock: Clock | None = None) -> None:
    """Until an ssh server greets there. Raises DeadlineExceeded."""
    clock = clock or SystemClock()
    until_s = clock.monotonic_s() + timeout_s
    while not _greets(address, port):
        if clock.monotonic_s() >= until_s:
            raise DeadlineExceeded(
                f"failed to reach {address} port {port}: no ssh server answered in {timeout_s:g} s",
                hint="'ucloud vm log' shows how far the guest came",
            )
        time.sleep(_PAUSE_S)


def _greets(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=_TRY_S) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False
