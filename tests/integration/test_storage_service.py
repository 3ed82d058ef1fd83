"""The storage service of a fenced pool: one writer, faults on purpose, and a fence that nothing passes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import require
from ucloud.config import Config, HostSection, LogSection
from ucloud.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from ucloud.model.image import ImageFormat
from ucloud.model.seen import Fence
from ucloud.storage.directory_pool import DirectoryPool
from ucloud.storage.fence_client import open_fence
from ucloud.storage.images import import_stream
from ucloud.storage.open import open_pool, open_proof
from ucloud.storage.pool import LayerSource
from ucloud.storage.service.client import ServiceClient, parse_address
from ucloud.storage.service.nbd import GREETING, Errno
from ucloud.storage.service.nbd_client import NbdClient
from ucloud.storage.service.process import CONTROL_SOCKET, main
from ucloud.system.clock import SystemClock

MIB = 2**20
EPERM = int(Errno.EPERM)
BLOCK = b"x" * 4096


@dataclass(slots=True)
class Service:
    """The real process's main, in a thread."""

    directory: Path
    address: str
    config: Config
    ear: socket.socket
    told: list[dict[str, object]] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._stopping.clear()
        self._thread = threading.Thread(target=main, args=(self.config, self._stopping))
        self._thread.start()
        wait_for(lambda: not _fails(self.client.status))

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def client(self) -> ServiceClient:
        return ServiceClient(self.address)

    def open(self, host: str, *, volume: str = "vm-1", acquire: bool = True) -> NbdClient:
        incarnation = f"guard-{host}"
        if acquire:
            self.client.acquire(volume, host, incarnation)
        return NbdClient(*parse_address(self.address), f"{volume}@{host}.{incarnation}")

    def history(self, kind: str) -> list[dict[str, object]]:
        while True:
            try:
                self.told.append(json.loads(self.ear.recv(4096)))
            except BlockingIOError:
                return [one for one in self.told if one["kind"] == kind]

    def content(self, volume: str = "vm-1") -> bytes:
        return (self.directory / "volumes" / volume / "root.raw").read_bytes()


def wait_for(condition: Callable[[], object], *, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _fails(work: Callable[[], object]) -> bool:
    try:
        work()
    except Unavailable:
        return True
    return False


def free_pair() -> int:
    """A port with a free one behind it."""
    while True:
        with socket.socket(socket.AF_INET6) as one, socket.socket(socket.AF_INET6) as two:
            one.bind(("::1", 0))
            port: int = one.getsockname()[1]
            try:
                two.bind(("::1", port + 1))
            except OSError:
                continue
            return port


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    directory, address = tmp_path / "pool", f"[::1]:{free_pair()}"
    volume = directory / "volumes/vm-1"
    volume.mkdir(parents=True)
    (volume / "root.raw").write_bytes(bytes(MIB))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "history.sock"))
        ear.setblocking(False)
        config = Config(
            host=HostSection(
                id="h1",
                pool_directory=directory,
                pool_kind="fenced",
                pool_id="p1",
                pool_service=address,
                run_directory=tmp_path / "run",
                pool_reserve_percent=0,
            ),
            log=LogSection(history_socket=str(tmp_path / "history.sock")),
        )
        one = Service(directory, address, config, ear)
        one.start()
        try:
            yield one
        finally:
            one.stop()


def test_the_holder_reads_and_writes(service: Service) -> None:
    with service.open("h1") as disk:
        assert disk.size_bytes == MIB
        assert disk.write(4096, BLOCK) == 0
        assert disk.read(0, 3 * 4096) == (0, bytes(4096) + BLOCK + bytes(4096))
        assert disk.flush() == 0
        assert disk.trim(4096, 4096) == 0
        assert disk.read(4096, 4096) == (0, bytes(4096))
        assert disk.write(MIB - 1, b"ab") == int(Errno.ENOSPC)
        assert disk.read(MIB, 1)[0] == int(Errno.EINVAL)


def test_only_the_holder_writes(service: Service) -> None:
    with service.open("h1") as one, service.open("h2", acquire=False) as two:
        assert one.write(0, BLOCK) == 0
        assert two.read(0, 4096) == (0, BLOCK)
        assert two.write(0, b"y" * 4096) == EPERM
        assert two.trim(0, 4096) == EPERM
        with pytest.raises(Conflict) as caught:
            service.client.acquire("vm-1", "h2", "guard-h2")
        assert caught.value.code == "volume_locked"
    assert service.content()[:4096] == BLOCK
    assert [one["host"] for one in service.history("pool_refused")] == ["h2", "h2"]


def test_nobody_writes_without_asking(service: Service) -> None:
    with service.open("h1", acquire=False) as disk:
        assert disk.write(0, BLOCK) == EPERM


def test_the_end_of_a_connection_frees_the_volume(service: Service) -> None:
    with service.open("h1") as disk:
        disk.write(0, BLOCK)
    wait_for(lambda: not _locked(service, "h2"))


def _locked(service: Service, host: str) -> bool:
    try:
        service.client.acquire("vm-1", host, f"guard-{host}")
    except Conflict:
        return True
    return False


def test_a_migration_moves_the_volume_at_once(service: Service) -> None:
    with service.open("h1") as source, service.open("h2", acquire=False) as target:
        source.write(0, BLOCK)
        started = time.monotonic()
        service.client.acquire("vm-1", "h2", "guard-h2", moved_from="h1")
        took_s = time.monotonic() - started
        assert source.write(0, b"y" * 4096) == EPERM
        assert target.write(4096, BLOCK) == 0
        with pytest.raises(Conflict):
            service.client.acquire("vm-1", "h1", "guard-h1")
    assert service.content()[: 2 * 4096] == BLOCK * 2
    print(f"hand-over {took_s * 1000:.1f} ms")
    wait_for(lambda: len(service.history("storage_write")) == 2)
    spans = service.history("storage_write")
    assert [span["host"] for span in spans] == ["h1", "h2"]
    assert float(str(spans[0]["last_s"])) <= float(str(spans[1]["first_s"]))


def test_a_fenced_host_is_out(service: Service) -> None:
    with service.open("h1") as disk:
        disk.write(0, BLOCK)
        open_fence(service.config.host).fence("p1", "h1", "guard-h1")
        with pytest.raises(Unavailable):
            disk.write(0, b"y" * 4096)
    with pytest.raises(Forbidden):
        service.client.acquire("vm-1", "h1", "guard-h1")
    with pytest.raises(Forbidden):
        service.open("h1", acquire=False)
    service.client.acquire("vm-1", "h1", "guard-later")
    service.client.fence("h1", "guard-h1")
    assert service.client.status()["holders"]["vm-1"]["incarnation"] == "guard-later"
    assert len(service.history("pool_fenced")) == 1


def test_a_fence_outlives_the_service(service: Service) -> None:
    service.client.acquire("vm-1", "h2", "guard-h2")
    service.client.fence("h1", "guard-h1")
    service.stop()
    with pytest.raises(Unavailable):
        open_fence(service.config.host).fence("p1", "h3", "guard-h3")
    service.start()
    with pytest.raises(Forbidden):
        service.client.acquire("vm-1", "h1", "guard-h1")
    with service.open("h2", acquire=False) as disk:
        assert disk.write(0, BLOCK) == 0


def test_the_locks_of_the_dead_linger(service: Service) -> None:
    service.client.set_faults(linger_s=0.5)
    service.open("h1").close()
    wait_for(lambda: service.client.status()["holders"]["vm-1"]["connections"] == 0)
    started = time.monotonic()
    assert _locked(service, "h2")
    wait_for(lambda: not _locked(service, "h2"))
    assert 0.3 < time.monotonic() - started < 2


@pytest.mark.parametrize("fenced", [False, True])
def test_late_writes_come_after_their_clients_death_unless_fenced(service: Service, fenced: bool) -> None:
    service.client.set_faults(late_write_s=0.5)
    disk = service.open("h1")
    disk.send_write(0, BLOCK)
    assert disk.size_bytes == MIB
    wait_for(lambda: service.client.status()["holders"]["vm-1"]["connections"] == 1)
    disk.close()
    time.sleep(0.1)  # the write is on its way: sent, and its client dead
    assert service.content()[:4096] == bytes(4096)
    if fenced:
        service.client.fence("h1", "guard-h1")
        assert not _locked(service, "h2")
        time.sleep(0.6)  # when it would have come
        assert service.content()[:4096] == bytes(4096)
        return
    assert _locked(service, "h2"), "not before the last byte of the other has come"
    wait_for(lambda: not _locked(service, "h2"))
    assert service.content()[:4096] == BLOCK


def test_storage_that_hangs(service: Service) -> None:
    with service.open("h1") as disk:
        service.client.set_faults(hang_s=0.4)
        started = time.monotonic()
        assert disk.write(0, BLOCK) == 0
        assert 0.3 < time.monotonic() - started < 2


def test_a_fence_does_not_wait_for_storage_that_hangs(service: Service) -> None:
    with service.open("h1") as disk:
        service.client.set_faults(hang_s=60)
        disk.send_write(0, BLOCK)
        started = time.monotonic()
        service.client.fence("h1", "guard-h1")
        assert time.monotonic() - started < 1
        service.client.set_faults()
    assert service.content()[:4096] == bytes(4096)


def test_nothing_is_written_once_a_fence_was_answered(service: Service) -> None:
    """A writer at full speed, fenced in the middle; many times."""
    for number in range(10):
        host = f"w{number}"
        disk = service.open(host)
        ended = threading.Event()

        def write(disk: NbdClient = disk, ended: threading.Event = ended) -> None:
            count = 0
            try:
                while disk.write(0, count.to_bytes(4096, "big")) == 0:
                    count += 1
            except Unavailable:
                pass
            ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        time.sleep(0.01 * (number % 3))
        service.client.fence(host, f"guard-{host}")
        before = service.content()
        writer.join()
        disk.close()
        assert ended.is_set()
        assert service.content() == before
        assert not _locked(service, f"n{number}")
        service.client.release("vm-1", f"n{number}", f"guard-n{number}")
    fenced = {str(one["host"]): float(str(one["at_s"])) for one in service.history("pool_fenced")}
    spans = service.history("storage_write")
    assert all(float(str(span["last_s"])) <= fenced[str(span["host"])] for span in spans)


def test_what_is_not_there_or_makes_no_sense(service: Service) -> None:
    address = parse_address(service.address)
    for export in ("vm-2@h1.g", "../service.json@h1.g", "vm-1", ""):
        with pytest.raises(NotFound):
            NbdClient(*address, export)
    with pytest.raises(InvalidInput):
        service.client.acquire("../x", "h1", "g")
    with pytest.raises(InvalidInput):
        service.client.set_faults(hang_s=-1)
    with pytest.raises(NotFound):
        open_fence(service.config.host).fence("p2", "h1", "g")


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\3" + bytes(16), os.urandom(4096)])
def test_noise_harms_nobody(service: Service, noise: bytes) -> None:
    with socket.create_connection(parse_address(service.address), 5) as sock:
        assert sock.recv(len(GREETING), socket.MSG_WAITALL) == GREETING
        sock.settimeout(5)
        try:
            sock.sendall(noise)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
        except OSError as error:
            assert not isinstance(error, TimeoutError)
    with service.open("h1") as disk:
        assert disk.write(0, BLOCK) == 0


def test_the_faults_have_a_door_on_the_machine(service: Service) -> None:
    client = ServiceClient.at_socket(service.config.host.run_directory / CONTROL_SOCKET)
    client.set_faults(linger_s=7)
    assert service.client.status()["linger_s"] == 7


def test_qemu_uses_it(service: Service) -> None:
    require("qemu")
    service.client.acquire("vm-1", "h1", "guard-h1")
    host, port = parse_address(service.address)
    node = {
        "driver": "raw",
        "file": {
            "driver": "nbd",
            "server": {"type": "inet", "host": host, "port": str(port)},
            "export": "vm-1@h1.guard-h1",
        },
        "discard": "unmap",
    }
    work = ["write -P 0x61 0 64k", "flush", "read -P 0x61 0 64k", "discard 0 4k", "read -P 0 0 4k", "write -z 4k 8k"]
    commands = [word for one in work for word in ("-c", one)]
    done = subprocess.run(
        ["qemu-io", *commands, "json:" + json.dumps(node)], capture_output=True, text=True, check=True
    )
    assert "failed" not in done.stdout + done.stderr
    assert service.content()[4096:12288] == bytes(8192)
    assert service.content()[12288:65536] == b"a" * (65536 - 12288)


class Qemu:
    """A paused or incoming QEMU without a guest on the service's volume; the monitor writes for it."""

    def __init__(self, service: Service, host: str, *more: str) -> None:
        address, port = parse_address(service.address)
        server = {"type": "inet", "host": address, "port": str(port)}
        file = {"driver": "nbd", "server": server, "export": f"vm-1@{host}.guard-{host}", "reconnect-delay": 60}
        node = {"driver": "raw", "node-name": "root-0", "read-only": False, "discard": "unmap", "file": file}
        ours, theirs = socket.socketpair()
        argv = [
            *("qemu-system-x86_64", "-nodefaults", "-display", "none", "-machine", "q35", "-m", "16", "-accel", "tcg"),
            *("-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"),
            *("-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=root-0,id=disk,write-cache=on"),
            *more,
        ]
        self._process = subprocess.Popen(argv, pass_fds=(theirs.fileno(),), stdout=subprocess.DEVNULL)
        theirs.close()
        self._stream = ours.makefile("rw")
        ours.close()
        self._stream.readline()
        self.do("qmp_capabilities")

    def do(self, command: str, **arguments: object) -> object:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "event" not in answer:
                assert "return" in answer, answer
                return answer["return"]

    def write(self, letter: str) -> None:
        disk = "/machine/peripheral/disk/virtio-backend"
        line = f'qemu-io -d {disk} "write -P {ord(letter)} 0 4k"'
        said = self.do("human-monitor-command", **{"command-line": line})
        assert "rror" not in str(said), said

    def status(self) -> str:
        answer = self.do("query-status")
        assert isinstance(answer, dict)
        return str(answer["status"])

    def migrated(self) -> bool:
        answer = self.do("query-migrate")
        assert isinstance(answer, dict)
        assert answer.get("status") != "failed", answer
        return answer.get("status") == "completed"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._stream.close()


@pytest.mark.parametrize("aborted", [False, True])
def test_a_live_migration_of_qemu(service: Service, tmp_path: Path, aborted: bool) -> None:
    """Source and target are two clients of one volume all the time, and one of them writes at any moment."""
    require("qemu")
    service.client.acquire("vm-1", "h1", "guard-h1")
    capabilities = [{"capability": name, "state": True} for name in ("late-block-activate", "return-path")]
    source, target = Qemu(service, "h1"), Qemu(service, "h2", "-S", "-incoming", "defer")
    try:
        for one in (source, target):
            one.do("migrate-set-capabilities", capabilities=capabilities)
        source.write("a")
        assert service.content()[:4096] == b"a" * 4096
        target.do("migrate-incoming", uri=f"unix:{tmp_path}/m.sock")
        source.do("migrate", uri=f"unix:{tmp_path}/m.sock")
        wait_for(source.migrated)
        wait_for(target.migrated)
        assert (source.status(), target.status()) == ("postmigrate", "paused")
        if aborted:
            target.close()
            service.client.acquire("vm-1", "h1", "guard-h1")
            source.do("cont")
            source.write("b")
        else:
            service.client.acquire("vm-1", "h2", "guard-h2", moved_from="h1")
            assert service.content()[:4096] == b"a" * 4096
            target.do("cont")
            assert target.status() == "running"
            target.write("b")
        assert service.content()[:4096] == b"b" * 4096
        assert service.history("pool_refused") == []
    finally:
        source.close()
        target.close()


@pytest.fixture
def blob(service: Service) -> str:
    require("qemu")
    source = service.directory.parent / "source.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", source, "8M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 0x62 0 1M", source], check=True, capture_output=True)
    pool = DirectoryPool(service.directory, reserve_percent=0, min_reserve_bytes=0)
    with source.open("rb") as file:
        info = import_stream(pool, file, expected_sha256=None, max_bytes=2**30, progress=lambda _: None)
    return info.digest


def test_a_pool_of_the_service(service: Service, blob: str) -> None:
    pool = open_pool(service.config.host)
    assert pool.has_blob(blob, ImageFormat.QCOW2)
    for _ in range(2):
        pool.acquire("vm-9", incarnation="guard-h1")
        pool.ensure_volume("vm-9", image_digest=blob, image_format=ImageFormat.QCOW2, size_bytes=16 * MIB, uid=1000)
    pool.grow_volume("vm-9", 32 * MIB)
    pool.grow_volume("vm-9", 32 * MIB)
    disk = pool.disk("vm-9", blob, ImageFormat.QCOW2, incarnation="guard-h1")
    assert disk.top == LayerSource("nbd", f"{service.address}/vm-9@h1.guard-h1", ImageFormat.RAW)
    assert disk.backing == ()
    with service.open("h1", volume="vm-9", acquire=False) as opened:
        assert opened.size_bytes == 32 * MIB
        assert opened.read(MIB - 4096, 8192) == (0, b"b" * 4096 + bytes(4096))
        assert opened.write(0, BLOCK) == 0
    pool.release("vm-9", incarnation="guard-h1")
    for size_bytes in (16 * MIB, 32 * MIB + 1):
        with pytest.raises(InvalidInput):
            pool.grow_volume("vm-9", size_bytes)
    assert "vm-9" in pool.list_volumes()
    pool.delete_volume("vm-9")
    pool.delete_volume("vm-9")
    assert "vm-9" not in pool.list_volumes()


def test_the_fence_verb_is_proved_by_each_host(service: Service) -> None:
    clock = SystemClock()
    hosts = [
        HostSection(id=name, pool_directory=service.directory, pool_kind="fenced", pool_id="p1", pool_service=at)
        for name, at in (("h1", service.address), ("h2", service.address))
    ]
    one, two = (open_proof(host, clock) for host in hosts)

    assert (one.look().fence, one.look().proved_with) == (Fence.VERB, ())
    assert two.look().proved_with == ("h1",)
    assert one.look().proved_with == ("h2",)
    service.stop()
    gone = one.look()
    assert gone.fence is Fence.NONE
    assert gone.proved_with == ()
    assert "cannot be tried" in gone.problem
    service.start()


def test_trying_the_fence_verb_leaves_nothing_in_the_files(service: Service) -> None:
    host = HostSection(
        id="h1", pool_directory=service.directory, pool_kind="fenced", pool_id="p1", pool_service=service.address
    )
    service.client.fence("h9", "guard-h9")
    for _ in range(5):
        assert open_proof(host, SystemClock()).look().fence is Fence.VERB
    assert json.loads((service.directory / "fenced.json").read_text()) == [["h9", "guard-h9"]]
    before = (service.directory / "fenced.json").stat().st_ino
    service.client.acquire("vm-1", "h1", "guard-h1")
    assert (service.directory / "fenced.json").stat().st_ino == before
    assert json.loads((service.directory / "service.json").read_text()) == {"holders": {"vm-1": ["h1", "guard-h1"]}}


def test_what_an_earlier_version_wrote_is_known(service: Service) -> None:
    service.stop()
    (service.directory / "fenced.json").unlink(missing_ok=True)
    old = {"fenced": [["h9", "guard-h9"], ["h1", "probe-1"]], "holders": {"vm-1": ["h2", "guard-h2"]}}
    (service.directory / "service.json").write_text(json.dumps(old))
    service.start()
    assert json.loads((service.directory / "fenced.json").read_text()) == [["h9", "guard-h9"]]
    assert service.client.status()["holders"]["vm-1"]["host"] == "h2"
