"""The settings of each node, as a configuration file that differs from another cloud's in its values only. Pure."""

from __future__ import annotations

import ucloud.config.sections as sections
from ucloud.config import (
    ApiSection,
    Config,
    EtcdSection,
    GuardSection,
    HostSection,
    LogSection,
    NetworkSection,
    SchedulerSection,
    StoreSection,
)
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import UPLINK, Node, NodeKind, PoolKind, Shape, guest_prefix
from ucloud.local.layout import FIRST_UID, UIDS_PER_CLOUD

POOL_ID = "lab"
STORAGE_NODE = "s1"
CLIENT_PORT, PEER_PORT, METRICS_PORT, KEEPER_PORT = 2379, 2380, 2381, 2382
API_PORT, STREAM_PORT, DOOR_PORT, SERVICE_PORT = 8700, 8701, 8702, 8703
PROFILE_TIMEOUT_S = 3.0
_CPU_OVERCOMMIT = 64.0  # most guests of a lab only halt
_RESERVE_PERCENT = 1  # labs are small, and the disks that people try them on are often full


def place(node: Node, port: int) -> str:
    return f"[{node.address}]:{port}"


def node_config(layout: LabLayout, shape: Shape, node: Node) -> Config:
    own = layout.node(node.name)
    return Config(
        store=_store(layout, shape, node),
        etcd=_etcd(layout, shape, node) if node.kind is NodeKind.ETCD else EtcdSection(),
        api=ApiSection(
            listen=place(node, API_PORT), stream_listen=place(node, STREAM_PORT), token_file=layout.token_file
        ),
        host=_host(layout, shape, node),
        network=NetworkSection(
            tag=node.tag or sections.NetworkSection().tag,
            underlay_device=UPLINK,
            underlay_address=node.address,
            ula_prefix=guest_prefix(shape.name, shape.first_tag),
        ),
        guard=GuardSection(fence_s=shape.fence_s),
        scheduler=SchedulerSection(cpu_overcommit=_CPU_OVERCOMMIT, failover_share_percent=shape.failover_share_percent),
        log=LogSection(directory=own.logs, history_socket=str(layout.history_socket)),
    )


def client_urls(shape: Shape) -> tuple[str, ...]:
    return tuple(f"http://{place(node, API_PORT)}/v1" for node in shape.of_kind(NodeKind.API))


def etcd_urls(shape: Shape) -> tuple[str, ...]:
    return tuple(client_url(node) for node in shape.of_kind(NodeKind.ETCD))


def client_url(node: Node) -> str:
    return f"https://{place(node, CLIENT_PORT)}"


def keeper_door(node: Node) -> str:
    return f"https://{place(node, KEEPER_PORT)}"


def _store(layout: LabLayout, shape: Shape, node: Node) -> StoreSection:
    """Each node asks the members in an order of its own, so that they share the work."""
    urls = etcd_urls(shape)
    first = sum(node.name.encode()) % len(urls)
    tls = layout.node(node.name).tls
    return StoreSection(
        endpoints=urls[first:] + urls[:first],
        ca_file=layout.tls / "ca.pem",
        cert_file=tls / "store.pem",
        key_file=tls / "store.key",
        password_file=layout.node(node.name).directory / "store.password",
    )


def _etcd(layout: LabLayout, shape: Shape, node: Node) -> EtcdSection:
    members = shape.of_kind(NodeKind.ETCD)
    return EtcdSection(
        member=node.name,
        data_directory=layout.etcd_data(node.name),
        client_url=client_url(node),
        peer_url=_peer_url(node),
        metrics_url=f"http://[::1]:{METRICS_PORT}",
        initial_cluster=",".join(f"{member.name}={_peer_url(member)}" for member in members),
        keeper_listen=place(node, KEEPER_PORT),
        cert_file=layout.node(node.name).tls / "etcd.pem",
        key_file=layout.node(node.name).tls / "etcd.key",
    )


def _peer_url(node: Node) -> str:
    return f"https://{place(node, PEER_PORT)}"


def _host(layout: LabLayout, shape: Shape, node: Node) -> HostSection:
    own = layout.node(node.name)
    shared = shape.pool is not PoolKind.LOCAL
    fenced = shape.pool is PoolKind.FENCED
    # With pools of their own the APIs put imported images into the first host's, and the others fetch them there.
    local = layout.node("h1" if node.kind is NodeKind.API else node.name).directory / "pool"
    return HostSection(
        id=node.name,
        state_directory=own.directory,
        run_directory=own.run,
        pool_directory=layout.pool if shared else local,
        door_listen=place(node, DOOR_PORT),
        cert_file=own.tls / "host.pem",
        key_file=own.tls / "host.key",
        uid_base=FIRST_UID + int(node.tag or "0", 16) * UIDS_PER_CLOUD,
        pool_id=POOL_ID if shared else "",
        pool_kind="fenced" if fenced else "directory",
        pool_service=place(shape.node(STORAGE_NODE), SERVICE_PORT) if fenced else "",
        pool_reserve_percent=_RESERVE_PERCENT,
    )
