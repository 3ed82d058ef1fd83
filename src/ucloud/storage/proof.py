"""Whether a pool's second line (docs/failover.md, C) holds between its hosts: tried again and again, never assumed.

LockProof: each host keeps locks on ``proof/<host>`` as QEMU does on its images, for the life of its agent, and writes a
new beat into the file. Another host that sees the beat change and finds the locks taken has a proof that locks of one
host are seen by the other. Between hosts that know each other that is rare; one that is new calls for the beats of all
by ``proof/<host>.call``, which the others see by listing the directory. VerbProof: each host has itself fenced, in a
client made for that, and tries to write. Results age out. Looking takes no lock (F_OFD_GETLK), so that two that look
do not see each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ucloud.errors import Error, Unavailable
from ucloud.model.seen import Fence
from ucloud.storage.service.access import PROBE, Client, export_name
from ucloud.storage.service.client import ServiceClient, parse_address
from ucloud.storage.service.nbd_client import NbdClient
from ucloud.storage.service.volumes import RAW_DISK
from ucloud.system.clock import Clock
from ucloud.system.files import ensure_directory

_log = logging.getLogger(__name__)

AGES_OUT_S: Final = 60.0
LOOK_SOON_S: Final = 1.0
BEAT_EVERY_S: Final = 10.0
PROVE_AGAIN_S: Final = AGES_OUT_S / 3
_CALL = ".call"
_HOST_ID = re.compile("[A-Za-z0-9][A-Za-z0-9-]{0,62}")
_BEAT_BYTES = 16
_FLOCK = struct.Struct("hhqqi4x")  # struct flock on Linux, 64 bits
_OWN_BYTE, _SHARED_BYTE = 100, 101  # behind the beat; as QEMU's, they need not exist
_WHOLE_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Proof:
    """``proved_with`` are hosts; ``look_again_s`` is when to look next. ``problem`` is for people."""

    fence: Fence = Fence.NONE
    proved_with: tuple[str, ...] = ()
    problem: str = ""
    look_again_s: float = AGES_OUT_S


class PoolProof(Protocol):
    def look(self) -> Proof:
        """Try once more. Never raises for a pool that does not answer: then the proof says so."""
        ...

    def close(self) -> None: ...


class NoProof:
    """A pool that no other host has."""

    def look(self) -> Proof:
        return Proof()

    def close(self) -> None:
        pass


class LockProof:
    """Not thread-safe. A turn looks at those only with whom nothing is proved, or not lately."""

    def __init__(self, pool: Path, host_id: str, clock: Clock) -> None:
        self._directory = pool / "proof"
        self._host_id = host_id
        self._clock = clock
        self._own: int | None = None
        self._beats: dict[str, bytes] = {}
        self._proved_s: dict[str, float] = {}
        self._beat_at_s = 0.0
        self._calls: bool | None = None  # not known: an earlier agent may have left one

    def look(self) -> Proof:
        try:
            held = (self._own is not None or self._beat()) and self._turn()
        except OSError as error:
            self.close()
            _log.warning("the pool's locks cannot be tried: %s", error)
            return Proof(problem=f"the pool's locks cannot be tried: {error.strerror}")
        if not held:
            text = f"another agent holds the lock of {self._host_id} in the pool"
            return Proof(problem=text, look_again_s=LOOK_SOON_S)
        now_s = self._clock.monotonic_s()
        proved = tuple(sorted(host for host, at_s in self._proved_s.items() if now_s - at_s <= AGES_OUT_S))
        return Proof(
            fence=Fence.LOCK if proved else Fence.NONE,
            proved_with=proved,
            look_again_s=LOOK_SOON_S,  # a host that comes anew waits for our beat
        )

    def close(self) -> None:
        if self._calls:
            with contextlib.suppress(OSError):  # one that is left over is answered only as long as its host is proved
                self._call(False)
        self._calls = None
        if self._own is not None:
            os.close(self._own)
            self._own = None

    def _turn(self) -> bool:
        """Returns whether the own locks are held.

        Beats in the very turn, too, that first proves another host: that one saw our beat before, and needs a new one.
        """
        now_s = self._clock.monotonic_s()
        names = os.listdir(self._directory)  # noqa: PTH208 - one question, whatever is in it
        hosts = sorted(name for name in names if name != self._host_id and _HOST_ID.fullmatch(name))
        self._forget(hosts, now_s)
        due = [host for host in hosts if host not in self._proved_s or self._is_stale(host, now_s)]
        new = {host for host in due if host not in self._proved_s}
        locked = [host for host in due if self._look_at(host, now_s)]
        awaited = [host for host in locked if host in new or self._is_stale(host, now_s)]
        callers = {name.removesuffix(_CALL) for name in names if name.endswith(_CALL)}
        self._call(any(host not in self._proved_s for host in locked))
        if awaited or callers & self._proved_s.keys() or now_s - self._beat_at_s >= BEAT_EVERY_S:
            return self._beat()
        return True

    def _call(self, wished: bool) -> None:
        """Ask all for a beat, or no longer."""
        if wished != self._calls:
            path = self._directory / (self._host_id + _CALL)
            path.touch(mode=0o600) if wished else path.unlink(missing_ok=True)
            self._calls = wished

    def _is_stale(self, host_id: str, now_s: float) -> bool:
        return now_s - self._proved_s[host_id] >= PROVE_AGAIN_S

    def _forget(self, hosts: list[str], now_s: float) -> None:
        """Those that are gone, and what was proved too long ago."""
        there = frozenset(hosts)
        self._beats = {host: beat for host, beat in self._beats.items() if host in there}
        self._proved_s = {host: at_s for host, at_s in self._proved_s.items() if now_s - at_s <= AGES_OUT_S}

    def _beat(self) -> bool:
        """Hold the own locks and say that we live. Returns whether they are held."""
        if self._own is None:
            ensure_directory(self._directory, mode=0o700)
            self._own = os.open(self._directory / self._host_id, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Each time: where a lost lease took them away, this takes them again, or fails.
            _set_lock(self._own, fcntl.F_WRLCK, _OWN_BYTE)
            _set_lock(self._own, fcntl.F_RDLCK, _SHARED_BYTE)
        except BlockingIOError:
            self.close()
            return False
        os.pwrite(self._own, secrets.token_bytes(_BEAT_BYTES), 0)
        os.fsync(self._own)
        self._beat_at_s = self._clock.monotonic_s()
        return True

    def _look_at(self, host_id: str, now_s: float) -> bool:
        """Whether somebody is there."""
        beat, locked = _look_at(self._directory / host_id)
        if locked and self._beats.get(host_id, beat) != beat:
            self._proved_s[host_id] = now_s
        self._beats[host_id] = beat
        return locked


def _look_at(path: Path) -> tuple[bytes, bool]:
    """The beat of another host, and whether both its locks are seen from here. Opened anew: NFS looks then."""
    with contextlib.suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            locked = all(_is_locked(descriptor, byte) for byte in (_OWN_BYTE, _SHARED_BYTE))
            return os.pread(descriptor, _BEAT_BYTES, 0), locked
        finally:
            os.close(descriptor)
    return b"", False


def _set_lock(descriptor: int, kind: int, byte: int) -> None:
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))


def _is_locked(descriptor: int, byte: int) -> bool:
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


class VerbProof:
    """Not thread-safe."""

    def __init__(self, pool: Path, service: str, host_id: str, clock: Clock) -> None:
        self._volume = f"proof-{host_id}"
        self._path = pool / "volumes" / self._volume / RAW_DISK
        self._address = parse_address(service)
        self._client = ServiceClient(service)
        self._host_id = host_id
        self._clock = clock
        self._proved_s: float | None = None

    def look(self) -> Proof:
        try:
            if self._proved_s is None or self._clock.monotonic_s() - self._proved_s > AGES_OUT_S * 10:
                self._prove()
                self._proved_s = self._clock.monotonic_s()
            ages = self._client.hello(self._host_id, proved=True)
        except (Error, OSError) as error:
            text = error.message if isinstance(error, Error) else str(error)
            _log.warning("the pool's fence verb cannot be tried: %s", text)
            return Proof(problem=f"the pool's fence verb cannot be tried: {text}")
        others = tuple(sorted(host for host, age_s in ages.items() if host != self._host_id and age_s <= AGES_OUT_S))
        return Proof(fence=Fence.VERB, proved_with=others, look_again_s=AGES_OUT_S if others else LOOK_SOON_S)

    def close(self) -> None:
        pass

    def _prove(self) -> None:
        """A client of ours writes, is fenced, and can write no more: neither on its connection nor on a new one."""
        self._ensure_volume()
        probe = Client(self._host_id, f"{PROBE}{secrets.token_hex(6)}")
        self._client.acquire(self._volume, probe.host, probe.incarnation)
        with NbdClient(*self._address, export_name(self._volume, probe)) as writer:
            if writer.write(0, bytes(_WHOLE_BLOCK)):
                raise Unavailable("failed to try the fence verb: the holder of a volume cannot write it")
            self._client.fence(probe.host, probe.incarnation)
            if _can_write(writer) or self._can_come_back(probe):
                raise Unavailable("failed to fence ourselves: what was fenced still writes")

    def _can_come_back(self, probe: Client) -> bool:
        try:
            with NbdClient(*self._address, export_name(self._volume, probe)) as again:
                return _can_write(again)
        except Error:
            return False

    def _ensure_volume(self) -> None:
        ensure_directory(self._path.parent, mode=0o711)
        with self._path.open("a+b") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(_WHOLE_BLOCK)


def _can_write(writer: NbdClient) -> bool:
    try:
        return writer.write(0, bytes(_WHOLE_BLOCK)) == 0
    except Unavailable:
        return False
