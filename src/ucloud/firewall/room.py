"""The firewall room's door for the agent: all rules of the host, each change in one transaction.

Nothing is done while the wanted rules are those of the last application and nobody has touched the kernel's. Tables
that were removed come back with the next pass. Any other change by anybody moves the kernel's generation of all rules;
the guard's gate moves it all the time, so that alone makes everything be applied anew only once in a while.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_interface

from ucloud.config.sections import NetworkSection
from ucloud.firewall import nft, rules
from ucloud.firewall.rules import HostRules
from ucloud.model.wanted import WantedNetwork, WantedNic
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.netlink import open_links
from ucloud.system.nft import apply_ruleset, remove_table, ruleset_generation, table_handle

_FAMILIES = ("bridge", "inet")
_DOUBT_S = 30.0  # so long a change of unknown rules is taken for the gate's


class FirewallRoom:
    def __init__(self, settings: NetworkSection, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock if clock else SystemClock()
        self._lock = threading.Lock()
        self._applied: HostRules | None = None
        self._generation = -1
        self._tables: tuple[int, ...] = ()
        self._applied_at_s = 0.0

    def plan(self, nics: Iterable[WantedNic], networks: Iterable[WantedNetwork]) -> HostRules:
        """What ``ensure`` would make the host's rules."""
        return rules.host_rules(
            nics,
            networks,
            tag=self._settings.tag,
            vxlan_port=self._settings.vxlan_port,
            refused=_prefixes_of(self._settings.underlay_device, self._settings.underlay_address),
        )

    def ensure(self, nics: Sequence[WantedNic], networks: Sequence[WantedNetwork]) -> bool:
        """Make these the host's rules: all NICs and networks that the host carries. Returns whether it had to apply."""
        wanted = self.plan(nics, networks)
        with self._lock:
            untouched = self._is_untouched()
            if untouched and wanted == self._applied:
                return False
            text = self._text(wanted, untouched=untouched)
            self._applied = None  # if it fails, everything is said anew
            apply_ruleset(text)
            if not untouched:
                self._applied_at_s = self._clock.monotonic_s()
            self._applied, self._generation, self._tables = wanted, ruleset_generation(), self._handles()
            return True

    def _is_untouched(self) -> bool:
        if self._applied is None or self._handles() != self._tables:
            return False
        fresh = self._clock.monotonic_s() - self._applied_at_s < _DOUBT_S
        return fresh or ruleset_generation() == self._generation

    def _handles(self) -> tuple[int, ...]:
        return tuple(table_handle(family, nft.bridge_table(self._settings.tag)) for family in _FAMILIES)

    def _text(self, wanted: HostRules, *, untouched: bool) -> str:
        """The least that must be said: a change where only NICs changed since the last time, else everything."""
        former = self._applied
        if untouched and former is not None and replace(former, nics=wanted.nics) == wanted:
            return nft.render_change(former, wanted)
        return nft.render_host(wanted)

    def gateway_rules(self, network: WantedNetwork) -> str:
        """The rules inside a network's gateway, for the network room to load when it makes one."""
        return nft.render_gateway(rules.gateway_rules(network))

    def remove_all(self) -> None:
        """Only after all taps are gone: without rules a tap would be free to send anything."""
        with self._lock:
            for family in _FAMILIES:
                remove_table(family, nft.bridge_table(self._settings.tag))
            self._applied, self._generation = None, -1


def _prefixes_of(underlay: str, address: str) -> tuple[str, ...]:
    """The prefixes that the host shares with others on its underlay, and its own address there."""
    if not underlay:
        return ()
    with open_links() as links:
        link = links.find(underlay)
        addresses = links.addresses(link.index) if link is not None else []
    networks = (ip_interface(one).network for one in (*addresses, *([address] if address else [])))
    return tuple(sorted({str(network) for network in networks if not network.is_link_local}))
