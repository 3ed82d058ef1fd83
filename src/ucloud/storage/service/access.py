"""Who may write which volume: one holder each, taken by asking and never by writing. Pure; time is passed in.

A holder without a connection keeps its volume until somebody else asks for it and its time is over (``linger``), so
that a connection that breaks and comes back changes nothing. A fenced client never holds anything again; of probes
that is remembered for some minutes only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ucloud.errors import Conflict, Forbidden, InvalidInput

CONNECT_WITHIN_S = 30.0
# Hosts that try the fence verb have clients of such incarnations fenced, again and again; none is used twice.
PROBE = "probe-"
PROBES_KEPT_S, PROBES_LIMIT = 300.0, 1000
_EXPORT = re.compile(
    r"(?P<volume>[A-Za-z0-9][A-Za-z0-9_-]{0,62})@(?P<host>[A-Za-z0-9-]{1,63})\.(?P<incarnation>[A-Za-z0-9_-]{1,64})"
)


@dataclass(frozen=True, slots=True, order=True)
class Client:
    """All QEMUs of one guard's life on one host."""

    host: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Holder:
    """``free_at_s``: from when on another may have the volume, if there is no connection."""

    client: Client
    connections: int
    free_at_s: float


@dataclass(slots=True)
class Access:
    """``linger_s`` is how long the volume of a client that has gone stays locked."""

    linger_s: float = 0.0
    fenced: set[Client] = field(default_factory=set)
    probes: dict[Client, float] = field(default_factory=dict)
    holders: dict[str, Holder] = field(default_factory=dict)
    connected: dict[tuple[str, Client], int] = field(default_factory=dict)

    def acquire(self, volume: str, client: Client, *, now_s: float, moved_from: str = "") -> None:
        """Make ``client`` the only one that may write. Raises Conflict (``volume_locked``) or Forbidden (``fenced``).

        ``moved_from``: the host whose guest stands still for good; its hold goes over.
        """
        self.check_admitted(client)
        holder = self.holders.get(volume)
        if holder is not None and holder.client == client:
            return
        if holder is not None and not _gives_way(holder, client, now_s, moved_from):
            wait_s = holder.free_at_s - now_s
            until = "while it is connected" if holder.connections else f"for {wait_s:.1f} s more"
            raise Conflict(
                f"failed to lock volume {volume}: host {holder.client.host} holds it, {until}",
                hint="it is free when that host's guest has ended, or the host was fenced",
                code="volume_locked",
            )
        self.holders[volume] = Holder(client, self.connected.get((volume, client), 0), now_s + CONNECT_WITHIN_S)

    def release(self, volume: str, client: Client) -> bool:
        """Returns whether the client held it."""
        holder = self.holders.get(volume)
        if holder is None or holder.client != client:
            return False
        del self.holders[volume]
        return True

    def connect(self, volume: str, client: Client) -> None:
        """Anybody who is not fenced may read. Raises Forbidden."""
        self.check_admitted(client)
        self._count(volume, client, 1)

    def disconnect(self, volume: str, client: Client, *, now_s: float) -> None:
        self._count(volume, client, -1)
        holder = self.holders.get(volume)
        if holder is not None and holder.client == client and not holder.connections:
            self.holders[volume] = replace(holder, free_at_s=now_s + self.linger_s)

    def may_write(self, volume: str, client: Client) -> bool:
        holder = self.holders.get(volume)
        return holder is not None and holder.client == client and not self.is_fenced(client)

    def is_fenced(self, client: Client) -> bool:
        return client in self.fenced or client in self.probes

    def fence(self, client: Client, *, now_s: float) -> None:
        """For ever, unless it is a probe."""
        if is_probe(client):
            self._fence_probe(client, now_s)
        else:
            self.fenced.add(client)
        for volume in [volume for volume, holder in self.holders.items() if holder.client == client]:
            del self.holders[volume]

    def check_admitted(self, client: Client) -> None:
        if self.is_fenced(client):
            raise Forbidden(
                f"failed to admit {client.host}: its incarnation {client.incarnation} was fenced", code="fenced"
            )

    def restore(self, fenced: Iterable[Client], holders: dict[str, Client], *, now_s: float) -> None:
        """After a restart of the service: those who held may come back."""
        self.fenced = {client for client in fenced if not is_probe(client)}
        self.holders = {
            volume: Holder(client, 0, now_s + CONNECT_WITHIN_S)
            for volume, client in holders.items()
            if client not in self.fenced and not is_probe(client)
        }

    def _fence_probe(self, client: Client, now_s: float) -> None:
        """The oldest are first in the table."""
        self.probes[client] = now_s
        young = [(one, at_s) for one, at_s in self.probes.items() if now_s - at_s < PROBES_KEPT_S]
        self.probes = dict(young[-PROBES_LIMIT:])

    def _count(self, volume: str, client: Client, change: int) -> None:
        number = self.connected.get((volume, client), 0) + change
        if number:
            self.connected[volume, client] = number
        else:
            self.connected.pop((volume, client), None)
        holder = self.holders.get(volume)
        if holder is not None and holder.client == client:
            self.holders[volume] = replace(holder, connections=number)


def is_probe(client: Client) -> bool:
    return client.incarnation.startswith(PROBE)


def _gives_way(holder: Holder, client: Client, now_s: float, moved_from: str) -> bool:
    if moved_from and holder.client.host == moved_from:
        return True
    # A host knows best what became of its own earlier incarnation.
    return not holder.connections and (now_s >= holder.free_at_s or holder.client.host == client.host)


def parse_export(name: str) -> tuple[str, Client]:
    """``<volume>@<host>.<incarnation>``. Raises InvalidInput."""
    found = _EXPORT.fullmatch(name)
    if found is None:
        raise InvalidInput(f"failed to find export {name[:80]!r}: no volume@host.incarnation")
    return found["volume"], Client(found["host"], found["incarnation"])


def export_name(volume: str, client: Client) -> str:
    """Raises InvalidInput for what could not be parsed again."""
    name = f"{volume}@{client.host}.{client.incarnation}"
    parse_export(name)
    return name
