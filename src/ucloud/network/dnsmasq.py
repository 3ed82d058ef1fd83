"""The dnsmasq process of one network: is it running, start it, end it, make it read again.

It runs as its own unprivileged user, inside the gateway's namespace, and outlives whoever started it. A process is ours
only if its command line names our configuration file and it lives in the namespace of that name as it is now.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

from ucloud.errors import DeadlineExceeded, MissingPrerequisite
from ucloud.network.services import ServiceFiles
from ucloud.system.files import ensure_directory, write_atomic
from ucloud.system.namespace import in_namespace, namespace_inode
from ucloud.system.run import run

_USERS = ("dnsmasq", "nobody")
_STOP_TIMEOUT_S = 5.0
_OTHERS_MAY_PASS = 0o001


def observe_services(files: ServiceFiles, namespace: str) -> str:
    """The digest of the configuration that runs, "" if nothing does."""
    pid = _read_pid(files)
    if pid == 0 or _namespace_of(pid) != namespace_inode(namespace):
        return ""
    return _configuration_of(pid, files)


def start_services(files: ServiceFiles, namespace: str, *, text: str, digest: str) -> None:
    """Start dnsmasq with ``text``, ending one that runs with another; it answers when this returns."""
    stop_services(files)
    _prepare(files)
    configuration = files.configuration(digest)
    for old in files.directory.glob("dnsmasq-*.conf"):
        if old != configuration:
            old.unlink(missing_ok=True)
    write_atomic(configuration, text, mode=0o644)
    argv = [
        "dnsmasq",
        f"--conf-file={configuration}",
        f"--user={_user().pw_name}",
        f"--pid-file={files.pid}",
        f"--dhcp-leasefile={files.leases}",
        f"--dhcp-hostsdir={files.nics}",
        f"--hostsdir={files.names.parent}",
    ]
    in_namespace(namespace, lambda: run(argv))


def stop_services(files: ServiceFiles) -> None:
    for pid in _running(files):
        with _process(pid, files) as descriptor:
            if descriptor is not None:
                _end(descriptor, files)
    files.pid.unlink(missing_ok=True)


def reload_services(files: ServiceFiles) -> None:
    """Make a running dnsmasq forget files that were removed (new ones it notices by itself)."""
    with _process(_read_pid(files), files) as descriptor:
        if descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGHUP)


def remove_files(files: ServiceFiles) -> None:
    shutil.rmtree(files.directory, ignore_errors=True)


def _running(files: ServiceFiles) -> list[int]:
    """The process of the pid file; without a good one, all that were ever started with our files and still run."""
    pid = _read_pid(files)
    if pid and _configuration_of(pid, files):
        return [pid]
    if next(files.directory.glob("dnsmasq-*.conf"), None) is None:
        return []
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal())
    return [pid for pid in pids if _configuration_of(pid, files)]


@contextlib.contextmanager
def _process(pid: int, files: ServiceFiles) -> Iterator[int | None]:
    """A descriptor of the process (which another one that takes its pid cannot replace), or None if it is not ours."""
    try:
        descriptor = os.pidfd_open(pid) if pid else None
    except ProcessLookupError:
        descriptor = None
    try:
        yield descriptor if descriptor is not None and _configuration_of(pid, files) else None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _end(descriptor: int, files: ServiceFiles) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)
        if _ended(descriptor, _STOP_TIMEOUT_S):
            return
    raise DeadlineExceeded(f"failed to end dnsmasq of {files.directory.name}: it does not die")


def _ended(descriptor: int, timeout_s: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def _read_pid(files: ServiceFiles) -> int:
    try:
        return int(files.pid.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _configuration_of(pid: int, files: ServiceFiles) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    before = f"--conf-file={files.directory}/dnsmasq-"
    for word in words:
        text = os.fsdecode(word)
        if text.startswith(before):
            return text.removeprefix(before).removesuffix(".conf")
    return ""


def _namespace_of(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except (FileNotFoundError, ProcessLookupError):
        return -1


def _user() -> pwd.struct_passwd:
    for name in _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise MissingPrerequisite(
        f"failed to start dnsmasq: no user {' or '.join(_USERS)}", hint="install the package dnsmasq-base"
    )


def _prepare(files: ServiceFiles) -> None:
    """Directories that dnsmasq may read, and one that it may write."""
    for directory in (files.directory, files.nics, files.names.parent, files.run):
        ensure_directory(directory, mode=0o755)
    user = _user()
    os.chown(files.run, user.pw_uid, user.pw_gid)
    blocked = next((one for one in files.directory.parents if not one.stat().st_mode & _OTHERS_MAY_PASS), None)
    if blocked is not None:
        raise MissingPrerequisite(
            f"failed to start dnsmasq: its user {user.pw_name} cannot pass {blocked}", hint=f"chmod o+x {blocked}"
        )
