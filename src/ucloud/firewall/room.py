"""The firewall room's door for the agent: all rules of the host, applied as one text.

Nothing is done while the text and the kernel's generation of all rules are those of the last application: any change by
anybody moves the generation, so rules that were flushed or altered come back with the next pass.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from ucloud.config.sections import NetworkSection
from ucloud.firewall import nft, rules
from ucloud.model.wanted import WantedNetwork, WantedNic
from ucloud.system.nft import apply_ruleset, list_table, remove_table, ruleset_generation

_FAMILIES = ("bridge", "inet")


class FirewallRoom:
    def __init__(self, settings: NetworkSection) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._applied = ""
        self._generation = -1

    def render(self, nics: Iterable[WantedNic], networks: Iterable[WantedNetwork]) -> str:
        """What ``ensure`` would apply."""
        return nft.render_host(
            rules.host_rules(nics, networks, tag=self._settings.tag, vxlan_port=self._settings.vxlan_port)
        )

    def ensure(self, nics: Sequence[WantedNic], networks: Sequence[WantedNetwork]) -> bool:
        """Make these the host's rules: all NICs and networks that the host carries. Returns whether it had to apply."""
        text = self.render(nics, networks)
        with self._lock:
            before = ruleset_generation()
            if text == self._applied and before == self._generation:
                return False
            apply_ruleset(text)
            after = ruleset_generation()
            # Another's change between the two may have touched our rules: then the next pass applies again.
            self._applied, self._generation = text, after if after == before + 1 else -1
            return True

    def gateway_rules(self, network: WantedNetwork) -> str:
        """The rules inside a network's gateway, for the network room to load when it makes one."""
        return nft.render_gateway(rules.gateway_rules(network))

    def read(self) -> str:
        """The live rules of this cloud on the host, as text."""
        name = nft.bridge_table(self._settings.tag)
        return "".join(list_table(family, name) for family in _FAMILIES)

    def remove_all(self) -> None:
        """Only after all taps are gone: without rules a tap would be free to send anything."""
        with self._lock:
            for family in _FAMILIES:
                remove_table(family, nft.bridge_table(self._settings.tag))
            self._applied, self._generation = "", -1
