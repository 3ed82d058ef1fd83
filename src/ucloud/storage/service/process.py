"""``ucloud storage-service``: volumes of ``host.pool_directory`` at ``host.pool_service``, until it is told to stop."""

from __future__ import annotations

import logging
import threading

from ucloud.config import Config
from ucloud.storage.service.client import parse_address
from ucloud.storage.service.control import Control, ControlServer
from ucloud.storage.service.server import NbdServer, listen
from ucloud.storage.service.volumes import Volumes
from ucloud.system.clock import SystemClock
from ucloud.system.files import ensure_directory
from ucloud.system.history import open_history

logger = logging.getLogger(__name__)

CONTROL_SOCKET = "storage.sock"


def main(config: Config, stopping: threading.Event) -> int:
    host, port = parse_address(config.host.pool_service)
    directory = ensure_directory(config.host.pool_directory, mode=0o711)
    run_directory = ensure_directory(config.host.run_directory)
    history = open_history(config.log.history_socket, source="storage")
    volumes = Volumes(directory / "volumes", directory / "service.json", history=history, clock=SystemClock())
    server = NbdServer(volumes, listen(host, port))
    control = ControlServer(Control(volumes), host, port + 1, run_directory / CONTROL_SOCKET)
    server.start()
    control.start()
    logger.info("storage service: NBD at %s, control at port %d", config.host.pool_service, control.port)
    stopping.wait()
    control.stop()
    server.stop()
    history.close()
    return 0
