"""A directory that several hosts share: locks that are proved, and files that nobody pulls away from another."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import require
from tests.integration.lab_host import wait_for
from tests.unit.clock import ManualClock
from ucloud.config import HostSection
from ucloud.errors import CommandFailed
from ucloud.model.image import ImageFormat
from ucloud.model.seen import Fence
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.images import import_stream
from ucloud.storage.open import is_shared, open_pool, open_proof, pool_id_of
from ucloud.storage.pool import BlobInfo
from ucloud.storage.proof import AGES_OUT_S, BEAT_EVERY_S, LOOK_SOON_S, LockProof, NoProof

MIB = 2**20


def test_two_hosts_prove_their_locks_to_each_other(tmp_path: Path) -> None:
    clock = ManualClock()
    one, two = LockProof(tmp_path, "h1", clock), LockProof(tmp_path, "h2", clock)

    assert one.look().proved_with == ()
    seen = two.look()
    assert (seen.fence, seen.look_again_s) == (Fence.NONE, LOOK_SOON_S), "there is somebody: look again soon"
    assert one.look().proved_with == (), "one beat may be an old one"
    assert two.look().proved_with == ("h1",)
    assert one.look().proved_with == ("h2",)
    assert one.look().fence is Fence.LOCK
    one.close()
    two.close()


def test_a_proof_ages_out(tmp_path: Path) -> None:
    clock = ManualClock()
    one, two = LockProof(tmp_path, "h1", clock), LockProof(tmp_path, "h2", clock)
    for _ in range(2):
        two.look()
        one.look()
    assert one.look().proved_with == ("h2",)
    two.close()
    clock.sleep(AGES_OUT_S - 1)
    assert one.look().proved_with == ("h2",)
    clock.sleep(2)
    assert one.look().proved_with == ()
    one.close()


def read_beat(pool: Path, host: str) -> bytes:
    return (pool / "proof" / host).read_bytes()


def turn_all(clock: ManualClock, hosts: list[LockProof], seconds: int) -> None:
    for _ in range(seconds):
        clock.sleep(1)
        for host in hosts:
            host.look()


def test_hosts_that_know_each_other_rarely_beat_and_stay_proved(tmp_path: Path) -> None:
    clock = ManualClock()
    hosts = [LockProof(tmp_path, f"h{number}", clock) for number in range(4)]
    turn_all(clock, hosts, 4)
    beats = set()
    for _ in range(120):
        turn_all(clock, hosts, 1)
        beats.add(read_beat(tmp_path, "h0"))
        assert all(len(host.look().proved_with) == 3 for host in hosts)
    assert len(beats) <= 120 / BEAT_EVERY_S + 2
    assert sorted(path.name for path in (tmp_path / "proof").iterdir()) == ["h0", "h1", "h2", "h3"]
    for host in hosts:
        host.close()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("again", [False, True])
def test_a_host_that_comes_anew_and_those_there_prove_each_other_soon(tmp_path: Path, first: bool, again: bool) -> None:
    """Also one whose agent starts again, so that it knows nothing and the others have no reason to look."""
    clock = ManualClock()
    old = [LockProof(tmp_path, f"h{number}", clock) for number in range(3)]
    if again:
        before = LockProof(tmp_path, "new", clock)
        turn_all(clock, [*old, before], 30)
        before.close()
    turn_all(clock, old, 3)
    new = LockProof(tmp_path, "new", clock)
    turn_all(clock, [new, *old] if first else [*old, new], 3)
    assert new.look().proved_with == ("h0", "h1", "h2")
    assert all("new" in host.look().proved_with for host in old)
    assert not (tmp_path / "proof/new.call").exists()
    for host in (*old, new):
        host.close()


def test_a_call_that_was_left_over_costs_nothing_for_long(tmp_path: Path) -> None:
    clock = ManualClock()
    one, two = LockProof(tmp_path, "h1", clock), LockProof(tmp_path, "h2", clock)
    turn_all(clock, [one, two], 4)
    two.close()
    (tmp_path / "proof/h2.call").touch()
    turn_all(clock, [one], int(AGES_OUT_S) + 2)
    beats = set()
    for _ in range(int(BEAT_EVERY_S)):
        turn_all(clock, [one], 1)
        beats.add(read_beat(tmp_path, "h1"))
    assert len(beats) <= 2
    turn_all(clock, [one, two], 4)
    assert one.look().proved_with == ("h2",)
    assert not (tmp_path / "proof/h2.call").exists()
    one.close()
    two.close()


def test_a_file_without_a_lock_proves_nothing(tmp_path: Path) -> None:
    """As on a file system whose locks stay on each host: the other's beats are seen, its locks are not."""
    clock = ManualClock()
    one = LockProof(tmp_path, "h1", clock)
    one.look()
    for beat in range(3):
        (tmp_path / "proof/h2").write_bytes(bytes([beat]) * 16)
        assert one.look().proved_with == ()
    one.close()


def test_a_lock_without_a_beat_proves_nothing(tmp_path: Path) -> None:
    """As that of a dead host, which a file server keeps."""
    clock = ManualClock()
    one, two = LockProof(tmp_path, "h1", clock), LockProof(tmp_path, "h2", clock)
    two.look()
    for _ in range(3):
        assert one.look().proved_with == ()
    one.close()
    two.close()


def test_an_agent_that_starts_again_takes_its_lock_again(tmp_path: Path) -> None:
    clock = ManualClock()
    before, after = LockProof(tmp_path, "h1", clock), LockProof(tmp_path, "h1", clock)
    before.look()
    assert "another agent" in after.look().problem
    before.close()
    assert after.look().problem == ""
    after.close()


_OTHER_HOST = """
import sys
from pathlib import Path
from ucloud.storage.proof import LockProof
from ucloud.system.clock import SystemClock
proof = LockProof(Path(sys.argv[1]), "h2", SystemClock())
for line in sys.stdin:
    print(",".join(proof.look().proved_with), flush=True)
"""


def test_between_processes(tmp_path: Path) -> None:
    one = LockProof(tmp_path, "h1", ManualClock())
    argv = [sys.executable, "-c", _OTHER_HOST, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None and other.stdout is not None
        answers = []
        for _ in range(3):
            other.stdin.write("look\n")
            other.stdin.flush()
            answers.append(other.stdout.readline().strip())
            mine = one.look().proved_with
        other.stdin.close()
        assert other.wait(10) == 0
    assert mine == ("h2",)
    assert answers[-1] == "h1"
    one.close()


def test_what_the_settings_say(tmp_path: Path) -> None:
    alone = HostSection(id="h1", pool_directory=tmp_path / "a")
    shared = HostSection(id="h1", pool_directory=tmp_path / "b", pool_id="nfs")
    assert (pool_id_of(alone), is_shared(alone)) == ("h1", False)
    assert (pool_id_of(shared), is_shared(shared)) == ("nfs", True)
    assert isinstance(open_proof(alone, ManualClock()), NoProof)
    assert open_proof(alone, ManualClock()).look().fence is Fence.NONE
    assert not open_pool(alone).disk("v", "0" * 64, ImageFormat.RAW).direct
    pool = open_pool(shared)
    assert isinstance(pool, DirectoryPool)
    assert pool.disk("v", "0" * 64, ImageFormat.RAW).direct == pool.takes_direct_io()
    assert list((tmp_path / "b/parts").iterdir()) == []


@dataclass(frozen=True, slots=True)
class Shared:
    one: DirectoryPool
    two: DirectoryPool
    blob: BlobInfo


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    require("qemu")
    one, two = (DirectoryPool(tmp_path / "pool", shared=True, reserve_percent=0, min_reserve_bytes=0) for _ in range(2))
    return Shared(one, two, bring(one, tmp_path))


def bring(pool: DirectoryPool, tmp_path: Path) -> BlobInfo:
    source = tmp_path / "source.qcow2"
    if not source.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", source, "8M"], check=True)
    with source.open("rb") as file:
        return import_stream(pool, file, expected_sha256=None, max_bytes=2**30, progress=lambda _: None)


def make(pool: DirectoryPool, blob: BlobInfo) -> Path:
    return Path(
        pool.ensure_volume(
            "vm-1", image_digest=blob.digest, image_format=blob.format, size_bytes=16 * MIB, uid=os.getuid()
        )
    )


def test_a_blob_that_comes_twice_stays_the_same_file(shared: Shared, tmp_path: Path) -> None:
    path = shared.one.blob_path(shared.blob.digest, shared.blob.format)
    before = path.stat().st_ino
    assert bring(shared.two, tmp_path) == shared.blob
    assert path.stat().st_ino == before
    assert list((tmp_path / "pool/parts").iterdir()) == []
    assert shared.two.list_blobs()[0].digest == shared.blob.digest


def test_a_host_that_comes_late_replaces_no_volume(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked before the other made it, and makes its own after that."""
    path = shared.one.volume_path("vm-1")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda self: False)
        first = make(shared.one, shared.blob)
        subprocess.run(["qemu-io", "-c", "write -P 0x61 0 4k", first], check=True, capture_output=True)
        before = path.stat().st_ino
        assert make(shared.two, shared.blob) == first
    assert path.stat().st_ino == before
    subprocess.run(["qemu-io", "-c", "read -P 0x61 0 4k", first], check=True, capture_output=True)
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_parts_of_a_living_importer_stay_for_all_hosts(shared: Shared) -> None:
    with shared.one.new_part() as part:
        assert shared.two.clean_parts(0) == ()
        assert part.path.exists()
    part.path.write_bytes(b"left")
    assert shared.two.clean_parts(0) == (part.path.name,)


def test_every_host_sees_what_is_in_use(shared: Shared) -> None:
    make(shared.one, shared.blob)
    assert shared.two.blobs_in_use() == frozenset((shared.blob.digest,))
    assert shared.two.list_volumes() == ("vm-1",)


def writer_locks(path: Path) -> bool:
    """Whether QEMU's byte for "others must not write" is locked; looking takes no lock."""
    with path.open("r+b") as file:
        question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 201, 1, 0)
        answer = fcntl.fcntl(file.fileno(), fcntl.F_OFD_GETLK, question)
    return bool(struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK)


def test_a_volume_that_runs_elsewhere_is_not_grown(shared: Shared) -> None:
    path = make(shared.one, shared.blob)
    for parent in path.parents:
        if parent != Path("/") and parent.stat().st_uid == os.getuid():
            parent.chmod(parent.stat().st_mode | 0o011)
    argv = ["qemu-io", "-c", "write 0 4k", "-c", "sleep 20000", str(path)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as writer:
        try:
            wait_for(lambda: writer_locks(path))
            with pytest.raises(CommandFailed, match="another process"):
                shared.two.grow_volume("vm-1", 32 * MIB)
        finally:
            writer.kill()
