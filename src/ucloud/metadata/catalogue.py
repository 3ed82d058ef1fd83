"""What the metadata process knows: the networks to listen in, and each caller's documents, as last read from the files.

A file that cannot be understood is passed over and named in the log; the others are served.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ucloud.metadata.documents import Document, decode_documents
from ucloud.metadata.room import MetadataFiles

log = logging.getLogger(__name__)

Caller = tuple[str, str]  # network id, address
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class VmFile:
    vm_id: str
    callers: tuple[Caller, ...]
    documents: dict[str, Document]


@dataclass(slots=True)
class Catalogue:
    """``networks`` are namespaces by network id. Only files that changed are read again."""

    files: MetadataFiles
    networks: dict[str, str] = field(default_factory=dict)
    _vms: dict[Path, tuple[_Stamp, VmFile | None]] = field(default_factory=dict)
    _callers: dict[Caller, list[VmFile]] = field(default_factory=dict)

    def rescan(self) -> None:
        self.networks = dict(_read_networks(self.files.networks))
        seen = dict(_list(self.files.vms))
        changed = {path for path, stamp in seen.items() if path not in self._vms or self._vms[path][0] != stamp}
        if not changed and len(seen) == len(self._vms):
            return
        kept = {path: self._vms[path] for path in seen if path not in changed}
        self._vms = kept | {path: (seen[path], _read_vm(path)) for path in changed}
        self._callers = {}
        for vm in (vm for _, vm in self._vms.values() if vm is not None):
            for caller in vm.callers:
                self._callers.setdefault(caller, []).append(vm)

    def find(self, network_id: str, address: str) -> list[VmFile]:
        """The VMs that may ask from there: none or one, more only while files disagree."""
        return self._callers.get((network_id, address), [])


def _list(directory: Path) -> Iterator[tuple[Path, _Stamp]]:
    try:
        entries = list(os.scandir(directory))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.name.endswith(".json") and not entry.name.startswith("."):
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue
            yield Path(entry.path), (found.st_mtime_ns, found.st_ino, found.st_size)


def _read_networks(directory: Path) -> Iterator[tuple[str, str]]:
    for path, _ in _list(directory):
        try:
            value = json.loads(path.read_bytes())
            yield value["network_id"], value["namespace"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("failed to read %s: %s", path, error)


def _read_vm(path: Path) -> VmFile | None:
    try:
        value = json.loads(path.read_bytes())
        callers = tuple((network_id, address) for network_id, address in value["callers"])
        return VmFile(value["vm_id"], callers, decode_documents(value["documents"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("failed to read %s: %s", path, error)
        return None
