"""The files of a lab's nodes: directories, certificates of one authority, settings. Made once, repeated safely."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from ucloud.client.profile import Profile, render_profile
from ucloud.config import render_config
from ucloud.errors import Conflict
from ucloud.lab.layout import LabLayout
from ucloud.lab.nodes import Node, NodeKind, PoolKind, Shape, choose_first_tag
from ucloud.lab.settings import client_urls, node_config
from ucloud.local import certificates
from ucloud.system import files, namespace

_TOKEN_BYTES = 32
_CERTIFICATES = {
    NodeKind.HOST: ("store", "host"),
    NodeKind.ETCD: ("store", "etcd"),
    NodeKind.API: ("store", "host"),
    NodeKind.CLIENT: ("store",),
    NodeKind.STORAGE: ("store",),
}


def ensure_shape(layout: LabLayout, wanted: Shape) -> Shape:
    """The lab's shape, written down at the first call. Raises Conflict if there is a lab of another one."""
    if layout.shape_file.exists():
        found = layout.read_shape()
        if {**wanted.plain(), "first_tag": found.first_tag} != found.plain():
            raise Conflict(
                f"failed to make a lab in {layout.directory}: there is one of another shape",
                hint="end it with 'ucloud lab down', or name another directory",
                code="lab_exists",
            )
        return found
    if namespace.list_namespaces(f"{wanted.name}-"):
        raise Conflict(
            f"failed to make a lab called {wanted.name}: this machine has namespaces of that name",
            hint="choose another with --name",
            code="lab_exists",
        )
    shape = Shape(**{**wanted.plain(), "pool": wanted.pool, "first_tag": _free_tags(layout, wanted)})
    files.ensure_directory(layout.directory)
    files.write_json(layout.shape_file, shape.plain())
    return shape


def _free_tags(layout: LabLayout, wanted: Shape) -> int:
    taken = [name.split("-")[1] for name in namespace.list_namespaces("ucloud-")]
    hexadecimal = [tag for tag in taken if len(tag) == 3 and set(tag) <= set("0123456789abcdef")]
    return choose_first_tag(str(layout.directory), wanted.hosts, hexadecimal)


def ensure_files(layout: LabLayout, shape: Shape) -> None:
    for directory in (layout.run, layout.log, layout.fast, layout.nodes):
        files.ensure_directory(directory)
    for passed in (layout.directory, layout.nodes):
        passed.chmod(0o711)  # QEMU runs as other users and must reach its own folder below
    if shape.pool is not PoolKind.LOCAL:
        files.ensure_directory(layout.pool)
        layout.pool.chmod(0o711)
    certificates.ensure_authority(layout.tls)
    if not layout.token_file.exists():
        files.write_atomic(layout.token_file, secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
    for node in shape.nodes:
        _ensure_node(layout, shape, node)
    urls = client_urls(shape)
    profile = Profile(urls[0], layout.token_file, others=urls[1:])
    files.write_if_changed(layout.client_profile, render_profile(profile))


def _ensure_node(layout: LabLayout, shape: Shape, node: Node) -> None:
    own = layout.node(node.name)
    for directory in (own.directory, own.run, own.logs, own.tls):
        files.ensure_directory(directory)
    for passed in (own.directory, own.run):
        passed.chmod(0o711)
    for name in ("ca.pem", "ca.key"):  # only for signing here: nodes are told the path of the lab's own ca.pem
        _link(own.tls / name, layout.tls / name)
    for name in _CERTIFICATES[node.kind]:
        certificates.ensure_certificate(own.tls, name, addresses=(node.address, "::1"))
    files.write_if_changed(own.config_file, render_config(node_config(layout, shape, node)))


def _link(path: Path, target: Path) -> None:
    if not path.is_symlink():
        path.symlink_to(target)


def remove_files(layout: LabLayout, *, keep: bool) -> None:
    """All that the lab made; ``keep`` leaves its history and the logs of its nodes. What it did not make stays."""
    shutil.rmtree(layout.fast, ignore_errors=True)
    kept = {layout.history, layout.log} if keep else set()
    for path in (layout.pool, layout.tls, layout.run, layout.log, layout.directory / "fast"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
    for node in layout.nodes.iterdir() if layout.nodes.is_dir() else ():
        logs = layout.node(node.name).logs
        if keep and logs.is_dir():
            layout.log.mkdir(exist_ok=True)
            shutil.rmtree(layout.log / node.name, ignore_errors=True)
            logs.rename(layout.log / node.name)
    shutil.rmtree(layout.nodes, ignore_errors=True)
    # The shape goes last: as long as it is there, an interrupted "down" can be repeated.
    for file in (layout.history, layout.token_file, layout.faults_file, layout.shape_file):
        if file not in kept:
            file.unlink(missing_ok=True)
    if layout.directory.is_dir() and not any(layout.directory.iterdir()):
        layout.directory.rmdir()
