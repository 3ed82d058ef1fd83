"""Shapes of labs: names, addresses, tags."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest

from ucloud.errors import InvalidInput, NotFound
from ucloud.lab.nodes import NodeKind, PoolKind, Shape, choose_first_tag, parse_shape


def test_every_node_has_a_name_an_address_and_a_namespace_of_its_own() -> None:
    shape = Shape("lab", hosts=12, etcd=3, apis=2, pool=PoolKind.FENCED)
    for field in ("name", "address", "namespace"):
        assert len({getattr(node, field) for node in shape.nodes}) == len(shape.nodes) == 12 + 3 + 2 + 1 + 1
    assert all(IPv6Address(node.address).is_private for node in shape.nodes)
    assert all(len(node.name) <= 10 for node in shape.nodes)


def test_every_host_has_a_tag_of_its_own() -> None:
    tags = [node.tag for node in Shape("lab", hosts=4, first_tag=0xFFE).of_kind(NodeKind.HOST)]
    assert tags == ["ffe", "fff", "000", "001"]
    assert not any(node.tag for node in Shape("lab").of_kind(NodeKind.ETCD))


def test_two_labs_share_no_address() -> None:
    one, other = Shape("lab", first_tag=1), Shape("other", first_tag=9)
    assert not {node.address for node in one.nodes} & {node.address for node in other.nodes}


def test_only_a_lab_with_a_fenced_pool_has_a_storage_service() -> None:
    assert not Shape("lab").of_kind(NodeKind.STORAGE)
    assert [node.name for node in Shape("lab", pool=PoolKind.FENCED).of_kind(NodeKind.STORAGE)] == ["s1"]


def test_nodes_are_chosen_by_name_and_by_kind() -> None:
    shape = Shape("lab")
    assert [node.name for node in shape.choose(["etcd", "h1", "e2"])] == ["e1", "e2", "e3", "h1"]
    with pytest.raises(NotFound):
        shape.choose(["h9"])


def test_a_shape_survives_its_file() -> None:
    shape = Shape("lab", hosts=2, etcd=1, apis=1, fence_s=2.25, pool=PoolKind.LOCAL, first_tag=7)
    assert parse_shape(shape.plain()) == shape


@pytest.mark.parametrize("wrong", [{"name": "Lab"}, {"name": "a-b"}, {"hosts": 0}, {"etcd": 8}, {"apis": 0}])
def test_a_lab_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        Shape(**{"name": "lab", **wrong})  # type: ignore[arg-type]


def test_tags_of_others_are_left_out() -> None:
    first = choose_first_tag("/somewhere", 4, [])
    assert choose_first_tag("/somewhere", 4, [f"{first + 2:03x}"]) == first + 3
    assert choose_first_tag("/somewhere", 4, []) == first


def test_a_node_has_the_same_card_whenever_it_is_switched_on() -> None:
    shape = Shape("lab")
    macs = [node.mac for node in shape.nodes]
    assert len(set(macs)) == len(macs)
    assert macs == [node.mac for node in Shape("lab").nodes]
    assert all(int(mac[:2], 16) & 3 == 2 for mac in macs), "of nobody's making, and of one card alone"


@pytest.mark.parametrize("fence_s", [0.1, -1.0, 61.0, float("nan")])
def test_a_lab_that_guards_would_refuse_is_refused_before_anything_is_made(fence_s: float) -> None:
    with pytest.raises(InvalidInput, match="fence_s"):
        Shape("lab", fence_s=fence_s)


@pytest.mark.parametrize("share", [-1, 101])
def test_the_brake_takes_a_share(share: int) -> None:
    with pytest.raises(InvalidInput, match="share"):
        Shape("lab", failover_share_percent=share)
