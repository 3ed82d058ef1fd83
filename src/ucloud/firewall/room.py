"""The firewall room's door for the agent: all rules of the host, each change in one transaction.

Nothing is done while the wanted rules and the kernel's generation of all rules are those of the last application: any
change by anybody moves the generation, so rules that were flushed or altered come back with the next pass.
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
from ucloud.system.netlink import open_links
from ucloud.system.nft import apply_ruleset, remove_table, ruleset_generation

_FAMILIES = ("bridge", "inet")


class FirewallRoom:
    def __init__(self, settings: NetworkSection) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._applied: HostRules | None = None
        self._generation = -1

    def plan(self, nics: Iterable[WantedNic], networks: Iterable[WantedNetwork]) -> HostRules:
        """What ``ensure`` would make the host's rules."""
        return rules.host_rules(
            nics,
            networks,
            tag=self._settings.tag,
            vxlan_port=self._settings.vxlan_port,
            refused=_prefixes_of(self._settings.underlay_device),
        )

    def ensure(self, nics: Sequence[WantedNic], networks: Sequence[WantedNetwork]) -> bool:
        """Make these the host's rules: all NICs and networks that the host carries. Returns whether it had to apply."""
        wanted = self.plan(nics, networks)
        with self._lock:
            before = ruleset_generation()
            untouched = before == self._generation
            if untouched and wanted == self._applied:
                return False
            apply_ruleset(self._text(wanted, untouched=untouched))
            after = ruleset_generation()
            # Another's change between the two may have touched our rules: then the next pass applies them anew.
            self._applied, self._generation = wanted, after if after == before + 1 else -1
            return True

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


def _prefixes_of(underlay: str) -> tuple[str, ...]:
    """The prefixes that the host shares with others on its underlay."""
    if not underlay:
        return ()
    with open_links() as links:
        link = links.find(underlay)
        addresses = links.addresses(link.index) if link is not None else []
    networks = (ip_interface(address).network for address in addresses)
    return tuple(sorted({str(network) for network in networks if not network.is_link_local}))
