"""The door of a lab for commands, tests and benchmarks: up, down, faults, and asking its cloud from the client node."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.errors import DeadlineExceeded, Error
from ucloud.lab import guest, lifecycle, members
from ucloud.lab.checker import Violation, check_history
from ucloud.lab.faults import Faults
from ucloud.lab.layout import LabLayout, default_name
from ucloud.lab.nodes import CLIENT, Node, NodeKind, PoolKind, Shape
from ucloud.lab.settings import node_config
from ucloud.lab.telling import LabHistory, read_history, wait_recorded
from ucloud.store.connect import open_store
from ucloud.store.etcd import EtcdStore
from ucloud.system.clock import SystemClock
from ucloud.system.namespace import in_namespace
from ucloud.system.run import run

T = TypeVar("T")
Object = dict[str, Any]

_ASK_TIMEOUT_S = 5.0
_PATIENCE_S = 5.0
_LOOK_EVERY_S = 0.05


class Lab:
    """One lab. May be used from several threads; nothing is kept between calls but the shape."""

    def __init__(self, directory: Path, *, say: Callable[[str], None] = lambda text: None) -> None:
        self.layout = LabLayout(directory.absolute())
        self.say = say

    @property
    def shape(self) -> Shape:
        return self.layout.read_shape()

    def up(
        self,
        *,
        hosts: int = 4,
        etcd: int = 3,
        apis: int = 2,
        fence_s: float = 3.0,
        pool: PoolKind = PoolKind.DIRECTORY,
        failover_share_percent: int = 100,
        name: str = "",
        timeout_s: float = 120.0,
    ) -> Shape:
        chosen = name or default_name(self.layout.directory)
        wanted = Shape(
            chosen,
            hosts=hosts,
            etcd=etcd,
            apis=apis,
            fence_s=fence_s,
            pool=pool,
            failover_share_percent=failover_share_percent,
        )
        return lifecycle.up(self.layout, wanted, timeout_s=timeout_s, say=self.say)

    def down(self, *, keep: bool = False) -> None:
        """Everything goes; ``keep`` leaves the history and the logs."""
        lifecycle.down(self.layout, keep=keep, say=self.say)

    def nodes(self, kind: NodeKind) -> tuple[Node, ...]:
        return self.shape.of_kind(kind)

    def inside(self, node: str, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread inside the node's network namespace."""
        return in_namespace(self.shape.node(node).namespace, work)

    def ask(
        self, work: Callable[[Client], T], *, timeout_s: float = _ASK_TIMEOUT_S, patience_s: float = _PATIENCE_S
    ) -> T:
        """What ``work`` gets from the API, as a client on the client node that knows all APIs."""

        def body() -> T:
            with Client(load_profile(self.layout.client_profile), timeout_s=timeout_s, patience_s=patience_s) as client:
                return work(client)

        return self.inside(CLIENT, body)

    def with_store(self, work: Callable[[EtcdStore], T]) -> T:
        """What ``work`` gets from etcd itself, asked from the client node."""

        def body() -> T:
            store = open_store(node_config(self.layout, self.shape, self.shape.node(CLIENT)).store)
            try:
                return work(store)
            finally:
                store.close()

        return self.inside(CLIENT, body)

    def hosts(self) -> dict[str, Object]:
        """The API's word on each host."""
        return {host["id"]: host for host in self.ask(lambda client: list(client.each("host")))}

    def vm(self, reference: str) -> Object:
        return self.ask(lambda client: client.find("vm", reference))

    def vms(self) -> list[Object]:
        return self.ask(lambda client: list(client.each("vm")))

    def wait_vm(self, reference: str, *words: str, timeout_s: float = 60.0, host: str = "") -> Object:
        """The VM when it has one of the words (and is on ``host``). Raises DeadlineExceeded."""

        def look() -> Object | None:
            vm = self.vm(reference)
            on = vm["status"].get("host_id") or ""
            return vm if vm["status"]["word"] in words and host in ("", on) else None

        return self.wait(look, f"vm {reference} is {' or '.join(words)}", timeout_s=timeout_s)

    def wait(self, look: Callable[[], T | None], what: str, *, timeout_s: float) -> T:
        """What ``look`` finds. Errors of the API are waited out."""
        deadline_s = time.monotonic() + timeout_s
        last = ""
        while True:
            try:
                found = look()
                last = ""
            except Error as error:
                found, last = None, f": {error.message}"
            if found:
                return found
            if time.monotonic() > deadline_s:
                raise DeadlineExceeded(f"failed to see in {timeout_s:g} s that {what}{last}")
            time.sleep(_LOOK_EVERY_S)

    def wait_all(self, word: str, *, timeout_s: float = 60.0) -> list[Object]:
        """All VMs, when each has this word."""

        def look() -> list[Object] | None:
            found = self.vms()
            return found if found and all(vm["status"]["word"] == word for vm in found) else None

        return self.wait(look, f"all VMs are {word}", timeout_s=timeout_s)

    def wait_host(self, host_id: str, word: str, *, timeout_s: float = 30.0) -> Object:
        def look() -> Object | None:
            host = self.ask(lambda client: client.get("host", host_id))
            return host if host["status"]["word"] == word else None

        return self.wait(look, f"host {host_id} is {word}", timeout_s=timeout_s)

    def ensure_basics(self) -> None:
        """The network "main" and the halting guest's image."""
        self.ask(_ensure_basics, timeout_s=30.0)

    def create_vms(self, count: int, *, prefix: str = "vm", **fields: Any) -> list[Object]:
        """Halting guests called prefix and number; further ``fields`` as the API has them. Taken names are left out."""
        self.ensure_basics()

        def create(client: Client) -> list[Object]:
            taken = {vm["name"] for vm in client.each("vm")}
            names = (name for name in (f"{prefix}{number}" for number in itertools.count(1)) if name not in taken)
            bodies = [guest.vm_body(name, fields) for name in itertools.islice(names, count)]
            return [client.create("vm", body) for body in bodies]

        return self.ask(create, timeout_s=30.0)

    def run_inside(self, node: str, words: Sequence[str]) -> str:
        """What a program prints that runs on the node; ``ucloud`` is this one, with the client's profile."""
        return self.inside(node, lambda: run(self.command_inside(words), timeout_s=300.0).stdout)

    def command_inside(self, words: Sequence[str]) -> tuple[str, ...]:
        own = (sys.executable, "-m", "ucloud", *words[1:]) if words[0] == "ucloud" else tuple(words)
        return ("env", f"UCLOUD_PROFILE={self.layout.client_profile}", *own)

    @property
    def faults(self) -> Faults:
        return Faults(self.layout, self.shape)

    def check(self) -> list[Violation]:
        """What the history up to now proves to be wrong."""
        history = LabHistory(self.layout)
        wait_recorded(self.layout, history)
        events = list(read_history(self.layout.history))
        end = {"at_s": SystemClock().monotonic_s(), "kind": "history_end", "source": "lab"}
        return check_history([*events, end])

    def etcd_leader(self) -> str:
        """The node whose member leads, "" if none does."""
        return members.leader_of(members.member_states(self.layout, self.shape))


def _ensure_basics(client: Client) -> None:
    if not any(network["name"] == guest.NETWORK_NAME for network in client.each("network")):
        client.create("network", {"name": guest.NETWORK_NAME}, idempotency_key="lab-network")
    if not any(image["name"] == guest.IMAGE_NAME for image in client.each("image")):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "halt.raw"
            path.write_bytes(guest.halting_disk())
            client.upload_image(path, {"name": guest.IMAGE_NAME})
