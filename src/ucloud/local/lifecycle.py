"""``ucloud up`` and ``ucloud down``: a cloud of one machine from nothing to healthy, and back to nothing running.

Both say what they do, can be interrupted and repeated, and end with a deadline. ``down`` keeps all state: the next
``up`` starts the VMs that were wanted running.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.config import Config, load_config
from ucloud.errors import Conflict, DeadlineExceeded, Error, InvalidInput, Unavailable
from ucloud.local import doctor, teardown
from ucloud.local.layout import Layout, ensure_cloud, is_port_free
from ucloud.local.processes import PROGRAMS, SUPERVISOR, is_running, stop_process
from ucloud.system.append_log import open_output
from ucloud.system.clock import Clock, SystemClock
from ucloud.system.run import spawn

Say = Callable[[str], None]

LOOK_EVERY_S = 0.1


def up(directory: Path, *, timeout_s: float, say: Say) -> Config:
    """Start what does not run yet and wait until the cloud is healthy and this host can take VMs."""
    layout = Layout(directory)
    try:
        directory.exists()  # raises for what no path can be, before anything else is looked at
        doctor.require_all(directory)
        config = ensure_cloud(layout)
    except OSError as error:
        raise InvalidInput(
            f"failed to make a cloud in {directory}: {error.strerror or error}", hint="name another with --directory"
        ) from error
    clock = SystemClock()
    if is_running(layout.run, SUPERVISOR):
        say(f"the cloud in {directory} runs already")
    else:
        say(f"starting the cloud in {directory}")
        require_ports(layout, config)
        start_supervisor(layout, clock)
    deadline_s = clock.monotonic_s() + timeout_s
    with Client(load_profile(layout.client_file), patience_s=0.0) as client:
        _wait(lambda: _api_problem(client), deadline_s, clock, layout)
        say(f"the API answers at http://{config.api.listen}/v1")
        enrol_host(client, config)
        _wait(lambda: _health_problem(client, config), deadline_s, clock, layout)
    say("the cloud is healthy")
    return config


def require_ports(layout: Layout, config: Config) -> None:
    """Raises Conflict if a port of a process that does not run yet is taken by somebody else."""
    doors = {
        "api": ("api.listen", config.api.listen),
        "stream": ("api.stream_listen", config.api.stream_listen),
        "agent": ("host.door_listen", config.host.door_listen),
        "etcd": ("etcd.client_url", urlsplit(config.etcd.client_url).netloc),
    }
    for name, (setting, address) in doors.items():
        host, _, port = address.rpartition(":")
        if not is_running(layout.run, name) and not is_port_free(host.strip("[]"), int(port)):
            raise Conflict(
                f"failed to start the cloud: {address} is in use by another program",
                hint=f"stop that program, or change {setting} in {layout.config_file}",
                code="port_taken",
            )


def start_supervisor(layout: Layout, clock: Clock) -> None:
    """Leave a supervisor running in a session of its own."""
    command = (sys.executable, "-m", "ucloud", SUPERVISOR, "--config", layout.config_file)
    with open_output(layout.logs, SUPERVISOR) as output:
        child = spawn(command, log=output)
    deadline_s = clock.monotonic_s() + 10.0
    while not is_running(layout.run, SUPERVISOR):
        if child.poll() is not None or clock.monotonic_s() > deadline_s:
            raise Unavailable("failed to start the supervisor", hint=f"see {layout.logs / SUPERVISOR}.out")
        clock.sleep(0.02)


def enrol_host(client: Client, config: Config) -> None:
    """Tell the cloud of this host; nothing happens if it knows it."""
    name = socket.gethostname().split(".")[0].lower() or "host"
    try:
        client.create("host", {"name": name, "id": config.host.id}, idempotency_key=f"enrol-{config.host.id}")
    except Conflict:
        client.get("host", config.host.id)


def _api_problem(client: Client) -> str:
    try:
        client.get_version()
    except Error as error:
        return error.message
    return ""


def _health_problem(client: Client, config: Config) -> str:
    """What keeps the cloud from being healthy, "" for nothing."""
    try:
        health = client.get_health()
        bad = [f"{name}: {part.get('reason', '')}" for name, part in health["parts"].items() if not part["ok"]]
        word = client.get("host", config.host.id)["status"]["word"]
    except Error as error:
        return error.message
    return "; ".join(bad) or ("" if word == "ready" else f"host {config.host.id} is {word}")


def _wait(problem: Callable[[], str], deadline_s: float, clock: Clock, layout: Layout) -> None:
    while said := problem():
        if clock.monotonic_s() > deadline_s:
            raise DeadlineExceeded(
                f"failed to see the cloud in {layout.directory} healthy in time: {_first_death(layout) or said}",
                hint=f"it goes on starting; see 'ucloud status' and the logs in {layout.logs}",
            )
        clock.sleep(LOOK_EVERY_S)


def _first_death(layout: Layout) -> str:
    """The last words of a process that does not stay up, "" if all do."""
    for program in PROGRAMS:
        output = layout.logs / f"{program.name}.out"
        words = output.read_text(errors="replace").strip().splitlines() if output.exists() else []
        if words and not is_running(layout.run, program.name):
            return f"{program.name} does not stay up: {words[-1][:300]}"
    return ""


def down(directory: Path, *, timeout_s: float, say: Say) -> None:
    """Stop the control plane, then the VMs (ACPI, after ``timeout_s`` by force), then the network and the rest."""
    layout = Layout(directory)
    if not layout.config_file.exists():
        raise InvalidInput(f"failed to stop a cloud: there is none in {directory}", hint="name it with --directory")
    config = load_config(layout.config_file)
    clock = SystemClock()
    last = ("etcd", "guard", "metadata")
    for name in (SUPERVISOR, *(program.name for program in reversed(PROGRAMS) if program.name not in last)):
        if stop_process(layout.run, name, clock):
            say(f"stopped {name}")
    teardown.stop_vms(config, layout.config_file, clock, timeout_s=timeout_s, say=say)
    teardown.remove_network(config, say=say)
    for name in reversed(last):
        if stop_process(layout.run, name, clock):
            say(f"stopped {name}")
    say(f"the cloud in {directory} is down; 'ucloud up' starts it again as it was")
