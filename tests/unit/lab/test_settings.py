"""The settings of a lab's nodes."""

from __future__ import annotations

from pathlib import Path

from ucloud.config import render_config
from ucloud.config.load import parse_config
from ucloud.lab.layout import DEFAULT_DIRECTORY, LabLayout, default_name
from ucloud.lab.nodes import NodeKind, PoolKind, Shape
from ucloud.lab.settings import client_urls, node_config

LAYOUT = LabLayout(Path("/labs/one"))


def test_every_nodes_settings_survive_their_file() -> None:
    shape = Shape("lab", pool=PoolKind.FENCED)
    for node in shape.nodes:
        config = node_config(LAYOUT, shape, node)
        assert parse_config(render_config(config), origin="file") == config


def test_hosts_differ_where_they_must_and_share_their_pool() -> None:
    shape = Shape("lab", hosts=3, fence_s=2.25)
    configs = [node_config(LAYOUT, shape, node) for node in shape.of_kind(NodeKind.HOST)]
    for differ in ("id", "state_directory", "run_directory", "door_listen", "uid_base"):
        assert len({getattr(config.host, differ) for config in configs}) == 3
    assert len({config.network.tag for config in configs}) == 3
    assert {(config.host.pool_id, config.host.pool_directory) for config in configs} == {("lab", LAYOUT.pool)}
    assert {config.guard.fence_s for config in configs} == {2.25}
    assert [config.host.id for config in configs] == ["h1", "h2", "h3"]


def test_local_pools_are_shared_with_nobody() -> None:
    shape = Shape("lab", hosts=2, pool=PoolKind.LOCAL)
    configs = [node_config(LAYOUT, shape, node) for node in shape.of_kind(NodeKind.HOST)]
    assert {config.host.pool_id for config in configs} == {""}
    assert len({config.host.pool_directory for config in configs}) == 2


def test_all_members_are_known_to_all_in_any_order() -> None:
    shape = Shape("lab", etcd=3)
    endpoints = {node_config(LAYOUT, shape, node).store.endpoints for node in shape.nodes}
    assert len({frozenset(one) for one in endpoints}) == 1
    assert len(endpoints) > 1


def test_nothing_has_an_ipv4_address() -> None:
    shape = Shape("lab", pool=PoolKind.FENCED)
    for node in shape.nodes:
        config = node_config(LAYOUT, shape, node)
        used = (config.api.listen, config.api.stream_listen, config.host.door_listen, *config.store.endpoints)
        assert all("[" in place and "." not in place for place in used)
    assert all(url.startswith("http://[fd") for url in client_urls(shape))


def test_labs_in_two_directories_have_two_names() -> None:
    assert default_name(DEFAULT_DIRECTORY) == "lab"
    assert default_name(Path("/a")) != default_name(Path("/b"))
