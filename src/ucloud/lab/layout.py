"""Where a lab keeps what: all below one directory, but for what must be fast or have a short path (``fast``)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ucloud.errors import InvalidInput
from ucloud.lab.nodes import Shape, parse_shape
from ucloud.local.layout import Layout
from ucloud.system import files

DEFAULT_DIRECTORY = Path("/var/lib/ucloud-lab")
_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own below it, with a name that nobody else uses


@dataclass(frozen=True)
class LabLayout:
    directory: Path

    @property
    def shape_file(self) -> Path:
        return self.directory / "lab.json"

    @property
    def nodes(self) -> Path:
        return self.directory / "nodes"

    def node(self, name: str) -> Layout:
        """A node's own files, laid out as those of a cloud of one machine."""
        return Layout(self.nodes / name)

    def clock_file(self, name: str) -> Path:
        """How far the wall clock of a node is off, for libfaketime."""
        return self.nodes / name / "clock"

    @property
    def tls(self) -> Path:
        return self.directory / "tls"

    @property
    def pool(self) -> Path:
        return self.directory / "pool"

    @property
    def client_profile(self) -> Path:
        return self.nodes / "client" / "client.toml"

    @property
    def token_file(self) -> Path:
        return self.directory / "token"

    @property
    def history(self) -> Path:
        return self.directory / "history.jsonl"

    @property
    def faults_file(self) -> Path:
        return self.directory / "faults.json"

    @property
    def run(self) -> Path:
        """Of the lab's own processes: the recorder and timers."""
        return self.directory / "run"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @cached_property
    def fast(self) -> Path:
        """In memory where the machine has such a folder. ``down`` removes it."""
        if _MEMORY.is_dir():
            return _MEMORY / f"ucloud-lab-{_digest(self.directory)}"
        return self.directory / "fast"

    def etcd_data(self, name: str) -> Path:
        return self.fast / name

    @property
    def history_socket(self) -> Path:
        return self.fast / "history.sock"

    def read_shape(self) -> Shape:
        """Raises InvalidInput if there is no lab here."""
        plain = files.read_json(self.shape_file)
        if plain is None:
            raise InvalidInput(
                f"failed to find a lab in {self.directory}: there is none", hint="make one with 'ucloud lab up'"
            )
        return parse_shape(plain)


def default_name(directory: Path) -> str:
    """Labs in two directories have different names."""
    return "lab" if directory == DEFAULT_DIRECTORY else f"lab{_digest(directory)[:5]}"


def _digest(directory: Path) -> str:
    return hashlib.sha256(str(directory).encode()).hexdigest()[:8]
