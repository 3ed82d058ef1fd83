"""Plans of networks: complete from any state, empty when complete, stable under small wishes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from ucloud.config.sections import NetworkSection
from ucloud.model.network import Egress
from ucloud.model.wanted import WantedName, WantedNetwork, WantedPeer
from ucloud.network.plan import (
    NetworkTarget,
    ObservedNetwork,
    Step,
    plan_network,
    plan_peers,
    plan_removal,
    target_of,
)

WANTED = WantedNetwork("network-a", "main", 100, False, "fd00:1::/64", "10.0.0.0/24", Egress.NAT)
SETTINGS = NetworkSection()


def target(wanted: WantedNetwork = WANTED, settings: NetworkSection = SETTINGS, rules: str = "r") -> NetworkTarget:
    return target_of(wanted, settings, rules=rules, forwarders=("192.0.2.53",))


def after(step: Step, target: NetworkTarget, seen: ObservedNetwork) -> ObservedNetwork:
    """What a host looks like after a step, in the simplest world."""
    match step:
        case Step.MAKE_BRIDGE:
            return replace(seen, bridge=target.bridge_digest, present=True)
        case Step.MAKE_VXLAN:
            return replace(seen, vxlan=target.vxlan_digest, forwards={}, present=True)
        case Step.UPDATE_PEERS:
            changes = plan_peers(target, seen)
            kept = {mac: host for mac, host in seen.forwards.items() if mac not in changes.remove}
            return replace(seen, told=target.peers, forwards={**kept, **changes.keep, **changes.replace})
        case Step.MAKE_GATEWAY:
            # A new namespace: what ran in the old one counts no more.
            return replace(seen, gateway=target.gateway_digest, services="", present=True)
        case Step.WRITE_NAMES:
            return replace(seen, names=target.names, present=True)
        case Step.START_SERVICES:
            return replace(seen, services=target.services_digest, present=True)
        case _:
            return after_removal(step, seen)


def after_removal(step: Step, seen: ObservedNetwork) -> ObservedNetwork:
    match step:
        case Step.STOP_SERVICES:
            return replace(seen, services="")
        case Step.REMOVE_GATEWAY:
            return replace(seen, gateway="")
        case Step.REMOVE_LINKS:
            return replace(seen, bridge="", vxlan="")
        case _:
            return ObservedNetwork()


def digests(right: str) -> st.SearchStrategy[str]:
    return st.sampled_from(("", "other", right))


MACS = tuple(f"02:00:00:00:00:{last:02x}" for last in range(4))
PLACES = st.dictionaries(st.sampled_from(MACS), st.sampled_from(("2001:db8::1", "2001:db8::2")))


def with_peers(peers: Mapping[str, str]) -> WantedNetwork:
    return replace(WANTED, peers=tuple(WantedPeer(mac, host) for mac, host in peers.items()))


@st.composite
def observed(draw: st.DrawFn) -> ObservedNetwork:
    one = target()
    return ObservedNetwork(
        bridge=draw(digests(one.bridge_digest)),
        vxlan=draw(digests(one.vxlan_digest)),
        gateway=draw(digests(one.gateway_digest)),
        services=draw(digests(one.services_digest)),
        names=draw(st.sampled_from((None, "other", one.names))),
        told=draw(st.one_of(st.none(), PLACES)),
        forwards=draw(PLACES),
        present=True,
    )


@given(observed(), PLACES, st.integers(0, 6))
def test_every_state_converges_also_when_cut_short(seen: ObservedNetwork, peers: Mapping[str, str], cut: int) -> None:
    one = target(with_peers(peers))
    for step in plan_network(one, seen)[:cut]:
        seen = after(step, one, seen)
    for step in plan_network(one, seen):
        seen = after(step, one, seen)
    assert plan_network(one, seen) == ()
    assert peers.keys() <= seen.forwards.keys()


@given(PLACES, PLACES, PLACES)
def test_old_news_never_undo_what_was_learned(
    told: Mapping[str, str], peers: Mapping[str, str], learned: Mapping[str, str]
) -> None:
    seen = ObservedNetwork(told=told, forwards=learned)
    changes = plan_peers(target(with_peers(peers)), seen)
    for mac in peers.keys() & told.keys() & learned.keys():
        assert (mac in changes.replace) == (peers[mac] != told[mac] and peers[mac] != learned[mac])
    assert set(changes.remove) == (told.keys() - peers.keys()) & learned.keys()
    assert not changes.keep.keys() & learned.keys()


def test_peers_alone_touch_no_device() -> None:
    peers = {MACS[0]: "2001:db8::1"}

    assert plan_network(target(with_peers(peers)), complete(target())) == (Step.UPDATE_PEERS,)


def test_a_peer_without_a_usable_address_is_left_to_flooding() -> None:
    peers = {MACS[0]: "", MACS[1]: "192.0.2.1", MACS[2]: "2001:DB8::0:1", MACS[3]: "2001:db8::9"}

    one = target_of(with_peers(peers), SETTINGS, rules="r", forwarders=(), local="2001:db8::9")
    assert one.peers == {MACS[2]: "2001:db8::1"}


def test_another_address_makes_the_device_anew() -> None:
    moved = target_of(WANTED, SETTINGS, rules="r", forwarders=("192.0.2.53",), local="2001:db8::9")

    assert plan_network(moved, complete(target())) == (Step.MAKE_VXLAN,)


@given(observed(), st.integers(0, 4))
def test_removal_converges_also_when_cut_short(seen: ObservedNetwork, cut: int) -> None:
    for step in plan_removal(seen)[:cut]:
        seen = after(step, target(), seen)
    for step in plan_removal(seen):
        seen = after(step, target(), seen)
    assert plan_removal(seen) == ()


def test_a_fresh_host_needs_every_step_in_order() -> None:
    assert plan_network(target(), ObservedNetwork()) == (
        Step.MAKE_BRIDGE,
        Step.MAKE_VXLAN,
        Step.MAKE_GATEWAY,
        Step.WRITE_NAMES,
        Step.START_SERVICES,
    )


def complete(one: NetworkTarget) -> ObservedNetwork:
    return ObservedNetwork(
        one.bridge_digest, one.vxlan_digest, one.gateway_digest, one.services_digest, one.names, present=True
    )


def test_a_new_name_only_rewrites_the_names() -> None:
    named = replace(WANTED, names=(WantedName("web1", "02:00:00:00:00:01", "fd00:1::5", "10.0.0.5"),))

    assert plan_network(target(named), complete(target())) == (Step.WRITE_NAMES,)


def test_what_a_change_touches() -> None:
    def steps(wanted: WantedNetwork = WANTED, settings: NetworkSection = SETTINGS, rules: str = "r") -> set[Step]:
        return set(plan_network(target(wanted, settings, rules), complete(target())))

    assert steps(rules="other") == {Step.MAKE_GATEWAY, Step.START_SERVICES}
    assert steps(settings=NetworkSection(vxlan_port=4790)) == {Step.MAKE_VXLAN}
    assert steps(replace(WANTED, egress=Egress.NONE)) == {Step.MAKE_GATEWAY, Step.START_SERVICES}
    assert Step.MAKE_BRIDGE in steps(settings=NetworkSection(underlay_mtu=9000))


def test_a_network_without_ipv4_can_ask_ipv4_name_servers() -> None:
    one = target(replace(WANTED, ipv4_subnet=""))

    assert one.gateway.uplink_ipv4 == "169.254.0.100"
    assert one.gateway.subnets == ("fd00:1::/64",)
    assert "dhcp-range=10" not in one.services


def test_without_egress_no_name_servers() -> None:
    assert "server=" in target().services
    assert "server=" not in target(replace(WANTED, egress=Egress.NONE)).services
