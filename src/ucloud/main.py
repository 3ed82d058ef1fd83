"""``ucloud <command>``: the only composition root.

Three kinds of commands: those that speak to the API (cli), those that work on this machine (local), and the
processes of the cloud, which are started by ``ucloud up`` or by a service manager as ``ucloud NAME --config FILE``.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ucloud import __version__
from ucloud.config import Config, load_config
from ucloud.errors import Error
from ucloud.local.processes import OTHER_PROGRAMS, PROGRAMS, SUPERVISOR, only_one, parse_programs
from ucloud.system.clock import SystemClock
from ucloud.system.logs import setup_logs

logger = logging.getLogger(__name__)

_INTERRUPTED = 130  # as shells say it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in (SUPERVISOR, *_PROCESSES):
        return _run_process(words)
    try:
        from ucloud.lab.commands import add_lab  # processes must not pay for what only people's commands need
        from ucloud.local.commands import run_command

        return run_command(words, more=(add_lab,))
    except KeyboardInterrupt:  # before the command itself could take notice
        return _INTERRUPTED


def _run_process(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog=f"ucloud {words[0]}", description=_about(words[0]))
    parser.add_argument("--config", type=Path, required=True, help="the settings file that 'ucloud up' wrote")
    if words[0] == SUPERVISOR:
        parser.add_argument("--programs", default="", help="those that this machine has, with commas (default: all)")
        parser.add_argument("--under", action="append", default=[], help="a word of a command to run each one under")
    name, options = words[0], parser.parse_args(words[1:])
    try:
        config = load_config(options.config)
        setup_logs(name, directory=config.log.directory, level=config.log.level, limit_kib=config.log.limit_kib)
        with only_one(config.host.run_directory, name, SystemClock()):
            logger.info("ucloud %s %s starts", name, __version__)
            if name == SUPERVISOR:
                return _supervise(config, options)
            return _PROCESSES[name](config)
    except Error as error:
        logger.error("%s: %s", error.code, error.message)
        print(f"ucloud: {error.message}", file=sys.stderr)
        return 1
    except Exception:
        logger.exception("%s died of a mistake", name)
        raise


def _about(name: str) -> str:
    return next(
        (program.about for program in (*PROGRAMS, *OTHER_PROGRAMS) if program.name == name),
        "keeps the other processes running",
    )


def _until_signal(run: Callable[[Config, threading.Event], int], config: Config) -> int:
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    return run(config, stopping)


def _supervise(config: Config, options: argparse.Namespace) -> int:
    from ucloud.local.supervisor import main as run

    programs = parse_programs(options.programs)
    return _until_signal(
        lambda _, stopping: run(config, options.config, stopping, programs=programs, under=options.under), config
    )


def _etcd(config: Config) -> int:
    from ucloud.local.keeper import main as run

    return _until_signal(run, config)


def _guard(config: Config) -> int:
    from ucloud.guard.process import main as run

    return run(config)


def _metadata(config: Config) -> int:
    from ucloud.metadata.process import main as run

    return run(config)


def _agent(config: Config) -> int:
    from ucloud.agent.process import main as run

    return _until_signal(run, config)


def _scheduler(config: Config) -> int:
    from ucloud.control.process import main as run

    return _until_signal(run, config)


def _api(config: Config) -> int:
    from ucloud.api.process import main as run

    return run(config)


def _stream(config: Config) -> int:
    from ucloud.stream.process import main as run

    return run(config)


def _storage_service(config: Config) -> int:
    from ucloud.storage.service.process import main as run

    return _until_signal(run, config)


_PROCESSES: dict[str, Callable[[Config], int]] = {
    "etcd": _etcd,
    "guard": _guard,
    "metadata": _metadata,
    "agent": _agent,
    "scheduler": _scheduler,
    "api": _api,
    "stream": _stream,
    "storage-service": _storage_service,
}
