"""The agent's knock at the metadata process: answered, also where paths are longer than a socket's address."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from ucloud.config.sections import HostSection, NetworkSection
from ucloud.errors import Unavailable
from ucloud.metadata.catalogue import Catalogue
from ucloud.metadata.room import MetadataRoom, metadata_files
from ucloud.metadata.server import MetadataServer, open_control
from ucloud.system.clock import SystemClock


@pytest.mark.parametrize("length", [1, 150])
def test_notify_is_answered(tmp_path: Path, length: int) -> None:
    directory = tmp_path / ("x" * length)
    directory.mkdir()
    section = HostSection(state_directory=directory, run_directory=directory)
    files, room = metadata_files(section), MetadataRoom(section, NetworkSection())
    with pytest.raises(Unavailable):
        room.notify()
    stop, stopper = socket.socketpair()
    with open_control(files.control) as control, stop, stopper:
        assert files.control.stat().st_mode & 0o077 == 0
        server = MetadataServer(Catalogue(files), control=control, stop=stop, clock=SystemClock())
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            room.notify()
        finally:
            stopper.send(b"x")
            thread.join()
