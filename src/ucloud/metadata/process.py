"""``ucloud metadata``: the process that answers guests. Needs files only: all else may be stopped."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket

from ucloud.config.sections import Config
from ucloud.metadata.catalogue import Catalogue
from ucloud.metadata.room import metadata_files
from ucloud.metadata.server import MetadataServer, open_control
from ucloud.system.clock import SystemClock
from ucloud.system.files import ensure_directory, locked

log = logging.getLogger(__name__)


def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT."""
    files = metadata_files(config.host)
    ensure_directory(files.control.parent)
    with locked(files.control.with_suffix(".lock")), contextlib.ExitStack() as stack:
        stop, stopper = socket.socketpair()
        stack.enter_context(stop)
        stack.enter_context(stopper)
        stopper.setblocking(False)
        signal.set_wakeup_fd(stopper.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            # The byte that wakes the loop is all that is needed.
            signal.signal(number, lambda *_: None)
        control = stack.enter_context(open_control(files.control))
        stack.callback(files.control.unlink, missing_ok=True)
        log.info("metadata is served from %s", files.directory)
        MetadataServer(Catalogue(files), control=control, stop=stop, clock=SystemClock()).serve()
    signal.set_wakeup_fd(-1)
    return 0
