"""``ucloud demo``: the whole path once, through the public API, with the time of each step.

Starts the cloud, builds and imports the tiny image, makes a network and a VM, and logs in to it by ssh with a key
that only the metadata service can have given to the guest. Works again on a cloud that has all of it already.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.errors import CommandFailed, DeadlineExceeded, NotFound
from ucloud.local.image_build import build_tiny
from ucloud.local.layout import Layout
from ucloud.local.lifecycle import up
from ucloud.system import files
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.run import run

Say = Callable[[str], None]

IMAGE, NETWORK, KEY, VM = "tiny", "main", "demo", "demo"
RUNNING_TIMEOUT_S = 120.0
LOGIN_TIMEOUT_S = 120.0
GONE_TIMEOUT_S = 120.0
_TRY_AGAIN_S = 0.5


@dataclass(slots=True)
class Steps:
    """The seconds that each step took."""

    clock: Clock
    say: Say
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str, about: str) -> Iterator[None]:
        self.say(f"{about} …")
        started_s = self.clock.monotonic_s()
        yield
        self.seconds[name] = round(self.clock.monotonic_s() - started_s, 2)
        self.say(f"  {self.seconds[name]:.1f} s")


def demo(directory: Path, *, say: Say) -> dict[str, float]:
    """Raises the first error. Returns the time of each step; the cloud and the VM stay."""
    layout, clock = Layout(directory), SystemClock()
    steps = Steps(clock, say)
    with steps.step("up_s", "starting the cloud"):
        config = up(directory, timeout_s=60.0, say=lambda text: say(f"  {text}"))
    with Client(load_profile(layout.client_file)) as client:
        with steps.step("image_s", f"image {IMAGE}: built from Debian packages and imported"):
            image = ensure_image(client, layout, say)
        with steps.step("network_s", f"network {NETWORK}"):
            network = ensure(client, "network", NETWORK, {"ipv4_subnet": subnet_of(config.network.tag)})
        with steps.step("key_s", f"ssh key {KEY}"):
            key = ensure(client, "key", KEY, {"public_key": make_key(layout)})
        with steps.step("running_s", f"VM {VM}: from the API call until it runs"):
            vm = ensure_vm(client, image["id"], network["id"], key["id"])
        with steps.step("login_s", "logging in by ssh"):
            hostname = log_in(layout, vm, clock)
    if hostname != VM:
        raise CommandFailed(f"failed the demo: the guest calls itself {hostname!r}, not {VM!r}")
    say(f"the VM answered as {hostname} at {vm['spec']['nics'][0]['ipv6']}")
    return steps.seconds


def subnet_of(tag: str) -> str:
    """An IPv4 subnet for the demo's network that another cloud on this machine does not take: no two share a tag."""
    number = int(tag, 16)
    return f"10.{96 + (number >> 8)}.{number & 255}.0/24"


def ensure(client: Client, noun: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The object of that name, made if there is none or if the one that is there is being deleted."""
    try:
        found = client.find(noun, name)
    except NotFound:
        return client.create(noun, {"name": name, **fields})
    if not found["deleted_at"]:
        return found
    client.wait_gone(noun, found["id"], GONE_TIMEOUT_S)
    return client.create(noun, {"name": name, **fields})


def ensure_image(client: Client, layout: Layout, say: Say) -> dict[str, Any]:
    try:
        return client.find("image", IMAGE)
    except NotFound:
        path = layout.cache / "tiny.qcow2"
        built = build_tiny(path, work_directory=layout.cache / "tiny", progress=lambda text: say(f"  {text}"))
        return client.upload_image(path, {"name": IMAGE, "sha256": built.sha256})


def make_key(layout: Layout) -> str:
    """The public half of the demo's own ssh key, made at the first call."""
    private = key_file(layout)
    if not private.exists():
        files.ensure_directory(private.parent)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ucloud-demo", "-f", private])
    return private.with_suffix(".pub").read_text().strip()


def key_file(layout: Layout) -> Path:
    return layout.directory / "demo" / "id_ed25519"


def ensure_vm(client: Client, image_id: str, network_id: str, key_id: str) -> dict[str, Any]:
    """The demo's VM, running: made, or started if it is there and stopped."""
    body = {
        "image": image_id,
        "cpus": 1,
        "memory_mib": 256,
        "disk_gib": 1,
        "networks": [{"network": network_id}],
        "keys": [key_id],
    }
    vm = ensure(client, "vm", VM, body)
    client.act(vm["id"], "start")
    return client.wait_for(vm["id"], ("running",), RUNNING_TIMEOUT_S)


def log_in(layout: Layout, vm: dict[str, Any], clock: Clock) -> str:
    """What ``hostname`` says in the guest, over ssh to its IPv6 address, tried until the guest is up."""
    address = vm["spec"]["nics"][0]["ipv6"]
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "5",
        "StrictHostKeyChecking": "accept-new",
        "UserKnownHostsFile": str(layout.directory / "demo" / "known_hosts"),
        "HostKeyAlias": vm["id"],
        "IdentitiesOnly": "yes",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command: list[str | Path] = ["ssh", "-q", *words, "-i", key_file(layout), f"root@{address}", "hostname"]
    deadline_s = clock.monotonic_s() + LOGIN_TIMEOUT_S
    while True:
        try:
            return run(command, timeout_s=15.0).stdout.strip()
        except (CommandFailed, DeadlineExceeded) as error:
            if clock.monotonic_s() > deadline_s:
                raise DeadlineExceeded(
                    f"failed to log in to {address}: {error.message}", hint=f"see 'ucloud vm log {VM}'"
                ) from error
            clock.sleep(_TRY_AGAIN_S)


def render_result(seconds: dict[str, float]) -> str:
    total = round(sum(seconds.values()), 2)
    return f"demo: ok\n{json.dumps({**seconds, 'total_s': total})}"
