"""``ucloud status``: the processes of the cloud on this machine, its addresses, and whether it is healthy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ucloud import __version__
from ucloud.cli.tables import render_table
from ucloud.client import Client
from ucloud.client.profile import load_profile
from ucloud.config import load_config
from ucloud.errors import Error, InvalidInput
from ucloud.local.layout import Layout
from ucloud.local.processes import PROGRAMS, SUPERVISOR, Program, running_pid
from ucloud.system import files


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """``pid`` is 0 for one that does not run; ``starts`` counts those of the present supervisor."""

    name: str
    about: str
    pid: int
    starts: int


@dataclass(frozen=True, slots=True)
class Report:
    directory: str
    version: str
    addresses: dict[str, str]
    processes: tuple[ProcessReport, ...]
    health: dict[str, Any]
    hosts: tuple[dict[str, Any], ...]
    error: str

    @property
    def healthy(self) -> bool:
        return not self.error and self.health.get("word") == "ok" and all(one.pid for one in self.processes)

    def plain(self) -> dict[str, Any]:
        return {
            "directory": self.directory,
            "version": self.version,
            "healthy": self.healthy,
            "error": self.error,
            "addresses": self.addresses,
            "processes": [
                {"name": one.name, "about": one.about, "pid": one.pid, "starts": one.starts} for one in self.processes
            ],
            "health": self.health,
            "hosts": list(self.hosts),
        }


def examine(layout: Layout) -> Report:
    """Raises InvalidInput if there is no cloud in the directory."""
    if not layout.config_file.exists():
        raise InvalidInput(
            f"failed to look at the cloud in {layout.directory}: there is none", hint="start one with 'ucloud up'"
        )
    config = load_config(layout.config_file)
    addresses = {
        "api": f"http://{config.api.listen}/v1",
        "stream": f"ws://{config.api.stream_listen}/v1",
        "agent": f"https://{config.host.door_listen}",
        "etcd": config.etcd.client_url,
    }
    health, hosts, error = _ask(layout)
    return Report(str(layout.directory), __version__, addresses, _processes(layout), health, hosts, error)


def _processes(layout: Layout) -> tuple[ProcessReport, ...]:
    starts = files.read_json(layout.run / "processes.json") or {}
    programs = (Program(SUPERVISOR, "restarts what dies"), *PROGRAMS)
    return tuple(
        ProcessReport(
            program.name,
            program.about,
            running_pid(layout.run, program.name),
            int(starts.get(program.name, {}).get("starts", 0)),
        )
        for program in programs
    )


def _ask(layout: Layout) -> tuple[dict[str, Any], tuple[dict[str, Any], ...], str]:
    try:
        with Client(load_profile(layout.client_file), timeout_s=5.0, patience_s=0.0) as client:
            return client.get_health(), tuple(client.each("host")), ""
    except Error as error:
        return {}, (), error.message


def render(report: Report) -> str:
    """The report as text for people."""
    word = "healthy" if report.healthy else f"NOT healthy{': ' + report.error if report.error else ''}"
    rows = [
        (one.name, "running" if one.pid else "stopped", str(one.pid or ""), str(one.starts or ""), one.about)
        for one in report.processes
    ]
    parts = [
        (name, "ok" if part["ok"] else "down", str(part.get("reason", "")))
        for name, part in sorted(report.health.get("parts", {}).items())
    ]
    sections = [
        f"cloud in {report.directory}, version {report.version}: {word}\n",
        render_table(("PROCESS", "STATUS", "PID", "STARTS", "FOR"), rows),
        render_table(("PART", "STATUS", "REASON"), parts) if parts else "",
        render_table(("DOOR", "ADDRESS"), sorted(report.addresses.items())),
        "".join(f"host {host['name']}: {problem}\n" for host in report.hosts for problem in host["status"]["problems"]),
    ]
    return "\n".join(section for section in sections if section).rstrip("\n")
