"""What a network's VXLAN device is told of NICs on other hosts, so that only broadcast and the unknown is flooded.

What was told last is kept in a file: only what is new may replace what the device has learned since. Presets age like
learned entries; ``keep_peers`` makes them young again, and gives way to what was learned meanwhile.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from ucloud.network.plan import NetworkTarget, ObservedNetwork, Peers, plan_peers
from ucloud.system.files import ensure_directory, read_json, write_json
from ucloud.system.forwards import (
    AGEING_S,
    Forward,
    keep_forwards,
    list_forwards,
    remove_forwards,
    replace_forwards,
)
from ucloud.system.netlink import Link, Links

KEEP_EVERY_S = AGEING_S / 5


class Ages:
    """When the presets of each VXLAN device (by number) were made young. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: dict[int, float] = {}

    def is_due(self, index: int) -> bool:
        with self._lock:
            return time.monotonic() - self._kept.get(index, -KEEP_EVERY_S) >= KEEP_EVERY_S

    def note(self, index: int) -> None:
        now_s = time.monotonic()
        with self._lock:
            # What is due anyway need not be remembered: devices come and go, and each has a new number.
            self._kept = {one: at_s for one, at_s in self._kept.items() if now_s - at_s < KEEP_EVERY_S}
            self._kept[index] = now_s


def read_told(path: Path) -> Peers | None:
    """None if nothing was told yet, or nobody knows what: then what the device has learned stays."""
    try:
        plain = read_json(path)
    except ValueError:
        return None
    return plain if isinstance(plain, dict) else None


def observe_forwards(vxlan: Link | None) -> Peers:
    return {one.mac: one.address for one in list_forwards(vxlan.index)} if vxlan is not None else {}


def update_peers(links: Links, target: NetworkTarget, path: Path, ages: Ages) -> None:
    """The device first and then the file: cut short between them, the same is told again."""
    vxlan = links.get(target.devices.vxlan)
    now = ObservedNetwork(told=read_told(path), forwards=observe_forwards(vxlan))
    changes = plan_peers(target, now)
    remove_forwards(vxlan.index, [Forward(mac, "") for mac in changes.remove])
    replace_forwards(vxlan.index, _forwards(changes.replace))
    keep_forwards(vxlan.index, _forwards(changes.keep))
    ensure_directory(path.parent, mode=0o755)
    write_json(path, dict(target.peers))
    ages.note(vxlan.index)


def keep_peers(links: Links, target: NetworkTarget, ages: Ages) -> None:
    """Now and then: presets that nobody sends to must not age away."""
    vxlan = links.find(target.devices.vxlan)
    if vxlan is not None and target.peers and ages.is_due(vxlan.index):
        keep_forwards(vxlan.index, _forwards(target.peers))
        ages.note(vxlan.index)


def _forwards(peers: Peers) -> list[Forward]:
    return [Forward(mac, address) for mac, address in peers.items()]
