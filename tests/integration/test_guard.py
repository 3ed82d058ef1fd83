"""The guard with real processes: rights, namespaces, adoption, exact names, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import require
from tests.contract.etcd_server import etcd_cluster
from tests.contract.guard_process import GuardProcess, guard_process, is_gone, wait_for
from ucloud.config.sections import StoreSection
from ucloud.errors import Conflict, Error, GuestError, InvalidInput, NotFound
from ucloud.guard.namespace import PidNamespace
from ucloud.hypervisor.guard_client import GuardClient
from ucloud.hypervisor.guard_protocol import FIRST_FD, Named, StartRequest, VmProcess, encode_request
from ucloud.model.guard import LifeSign
from ucloud.model.vm import Failover
from ucloud.store import keys
from ucloud.store.codec import decode_as

UID = 600_123
SLEEP = ("/bin/sleep", "1000")


@pytest.fixture
def directory() -> Iterator[Path]:
    require("root")
    with tempfile.TemporaryDirectory(prefix="ucloud-test-") as name:
        yield Path(name)


@pytest.fixture
def guard(directory: Path) -> Iterator[GuardProcess]:
    with guard_process(directory) as running:
        yield running


def request(
    vm_id: str = "vm-a",
    argv: tuple[str, ...] = SLEEP,
    *,
    generation: int = 1,
    boots: int = 1,
    failover: Failover = Failover.RESTART,
) -> StartRequest:
    return StartRequest(vm_id, generation, boots, failover, UID, UID, argv)


def shell(script: str, *, vm_id: str = "vm-a", failover: Failover = Failover.RESTART) -> StartRequest:
    return request(vm_id, ("/bin/sh", "-c", script), failover=failover)


def named(process: VmProcess) -> Named:
    return Named(process.vm_id, process.generation, process.boots)


def ended(client: GuardClient, vm_id: str = "vm-a") -> VmProcess:
    return wait_for(lambda: next((one for one in client.list(vm_id) if not one.running), None))


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def namespace_of(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115


@pytest.mark.parametrize("failover", list(Failover))
def test_a_process_is_born_without_rights(guard: GuardProcess, failover: Failover) -> None:
    process = guard.client.start(request(failover=failover))
    status = status_of(process.pid)
    assert status["Uid"].split() == status["Gid"].split() == [str(UID)] * 4
    assert status["Groups"] == ""
    assert status["NoNewPrivs"] == "1"
    assert int(status["CapPrm"], 16) == int(status["CapEff"], 16) == int(status["CapAmb"], 16) == 0
    assert status["Umask"] == "0077"
    # Signals 32 and 33 are the C library's own; nobody but it can set them, and they are inherited.
    assert int(status["SigIgn"], 16) & ~(0b11 << 31) == int(status["SigBlk"], 16) == 0
    assert status["PPid"] == str(guard.pid)
    limits = Path(f"/proc/{process.pid}/limits").read_text()
    assert next(line.split() for line in limits.splitlines() if "core file" in line)[4:6] == ["0", "0"]
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == 0
    assert Path(f"/proc/{process.pid}/cwd").readlink() == Path("/")
    assert os.getsid(process.pid) == process.pid
    inside = failover is Failover.RESTART
    assert (namespace_of(process.pid) != namespace_of(guard.pid)) == inside
    assert len(status["NSpid"].split()) == (2 if inside else 1)


def test_a_process_has_the_given_descriptors_and_no_others(guard: GuardProcess) -> None:
    reading, writing = os.pipe()
    process = guard.client.start(request(), [writing, reading])
    folder = Path(f"/proc/{process.pid}/fd")
    wanted = [0, 1, 2, FIRST_FD, FIRST_FD + 1]
    wait_for(lambda: sorted(int(path.name) for path in folder.iterdir()) == wanted)  # the program opens some, shortly
    fds = {number: str((folder / str(number)).readlink()) for number in wanted}
    assert (fds[0], fds[1]) == ("/dev/null", fds[2])
    assert fds[FIRST_FD].startswith("pipe:")
    os.close(reading)
    os.close(writing)


def test_how_it_ended_is_told(guard: GuardProcess) -> None:
    guard.client.start(shell("echo some words >&2; exit 3"))
    guard.client.start(shell("kill -SEGV $$", vm_id="vm-b", failover=Failover.NONE))
    one, other = ended(guard.client), ended(guard.client, "vm-b")
    assert (one.exit_code, one.signal, one.stderr_tail) == (3, 0, "some words\n")
    assert (other.exit_code, other.signal) == (-1, signal.SIGSEGV)
    assert one.ended_at >= one.started_at


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (request(argv=("/nonexistent/qemu",)), "run /nonexistent/qemu: No such file"),
        (request(argv=("/etc/passwd",)), "Permission denied"),
        (request(argv=("/bin/sleep", "x" * 200_000)), "Argument list too long"),
    ],
)
def test_a_program_that_cannot_begin_leaves_nothing(guard: GuardProcess, bad: StartRequest, words: str) -> None:
    with pytest.raises(GuestError, match=words):
        guard.client.start(bad)
    assert guard.client.list() == ()
    assert children_of(guard.pid) == [first_process(guard)]
    assert list((guard.host.run_directory / "guard").iterdir()) == []
    assert guard.client.start(request()).running


@pytest.mark.parametrize(
    "bad",
    [
        request(argv=()),
        request(argv=("sleep", "1")),
        request("../x"),
        request(argv=("/bin/sh", "a\0b")),
        StartRequest("vm-a", 1, 1, Failover.RESTART, 0, UID, SLEEP),
        StartRequest("vm-a", 1, 1, Failover.RESTART, UID, 0, SLEEP),
        StartRequest("vm-a", 1, 1, Failover.RESTART, 2**32 + 5, UID, SLEEP),
        StartRequest("vm-a", 1, 1, Failover.RESTART, UID, UID, SLEEP, groups=(0,)),
    ],
)
def test_nonsense_is_refused(guard: GuardProcess, bad: StartRequest) -> None:
    with pytest.raises(InvalidInput):
        guard.client.start(bad)
    assert guard.client.list() == ()


def test_starting_twice_gives_the_same_process(guard: GuardProcess) -> None:
    first = guard.client.start(request())
    assert guard.client.start(request()) == first
    for other in (request(generation=2), request(boots=2)):
        with pytest.raises(Conflict) as caught:
            guard.client.start(other)
        assert caught.value.code == "runs"


def test_what_ended_must_be_forgotten_before_it_starts_again(guard: GuardProcess) -> None:
    first = guard.client.start(request())
    with pytest.raises(Conflict):
        guard.client.forget(named(first))
    guard.client.kill(named(first))
    with pytest.raises(Conflict) as caught:
        guard.client.start(request())
    assert caught.value.code == "ended"
    guard.client.forget(Named("vm-a", 1, 2))
    guard.client.forget(Named("vm-b", 1, 1))
    assert len(guard.client.list()) == 1
    guard.client.forget(named(first))
    guard.client.forget(named(first))
    assert guard.client.start(request()).pid != first.pid


def test_a_kill_needs_the_exact_name(guard: GuardProcess) -> None:
    process = guard.client.start(request(generation=3, boots=7))
    for wrong in (Named("vm-a", 3, 6), Named("vm-a", 2, 7), Named("vm-a", 4, 7), Named("vm-b", 3, 7)):
        with pytest.raises(NotFound):
            guard.client.kill(wrong)
    assert not is_gone(process.pid)
    killed = guard.client.kill(named(process))
    assert (killed.running, killed.signal) == (False, signal.SIGKILL)
    assert not Path(f"/proc/{process.pid}").exists()  # reaped, no zombie
    assert guard.client.kill(named(process)) == killed


def test_with_the_guard_end_those_that_may_run_elsewhere_and_only_those(guard: GuardProcess) -> None:
    mortal = guard.client.start(request())
    lasting = guard.client.start(request("vm-b", failover=Failover.NONE))
    first = first_process(guard)
    guard.end(signal.SIGKILL)
    wait_for(lambda: is_gone(mortal.pid) and is_gone(first), timeout_s=2)
    assert not is_gone(lasting.pid)

    guard.start()
    seen = {process.vm_id: process for process in guard.client.list()}
    assert (seen["vm-a"].running, seen["vm-a"].lost) == (False, True)
    assert seen["vm-b"] == lasting
    assert guard.client.start(request("vm-b", failover=Failover.NONE)) == lasting
    killed = guard.client.kill(named(lasting))
    assert (killed.running, killed.exit_code, killed.signal, killed.lost) == (False, -1, 0, False)
    assert is_gone(lasting.pid)


def test_one_that_outlived_the_guard_and_then_ended_is_noticed(guard: GuardProcess) -> None:
    lasting = guard.client.start(request(failover=Failover.NONE))
    guard.end(signal.SIGKILL)
    guard.start()
    os.kill(lasting.pid, signal.SIGTERM)
    assert not ended(guard.client).lost
    guard.client.forget(named(lasting))
    guard.end(signal.SIGKILL)
    guard.start()
    assert guard.client.list() == ()


def test_one_that_ended_while_no_guard_looked(guard: GuardProcess) -> None:
    lasting = guard.client.start(request(failover=Failover.NONE))
    guard.end(signal.SIGKILL)
    os.kill(lasting.pid, signal.SIGKILL)
    wait_for(lambda: is_gone(lasting.pid))
    guard.start()
    process = ended(guard.client)
    assert (process.exit_code, process.signal, process.lost) == (-1, 0, False)


def test_a_pid_that_was_used_again_is_not_adopted(guard: GuardProcess) -> None:
    guard.client.start(request(failover=Failover.NONE))
    record = guard.host.run_directory / "guard/vm-a.json"
    text = record.read_text()
    for process in guard.client.list():
        guard.client.kill(named(process))
    guard.end(signal.SIGKILL)
    pid = text.split('"pid": ')[1].split(",")[0]
    record.write_text(text.replace(f'"pid": {pid}', f'"pid": {os.getpid()}'))
    guard.start()
    assert not ended(guard.client).running
    assert not is_gone(os.getpid())


def test_told_to_end_it_ends_its_own_and_gives_up_its_life_sign(guard: GuardProcess) -> None:
    mortal = guard.client.start(request())
    lasting = guard.client.start(request("vm-b", failover=Failover.NONE))
    assert guard.end(signal.SIGTERM) == 0
    assert is_gone(mortal.pid)
    assert not is_gone(lasting.pid)
    guard.start()
    guard.client.kill(named(lasting))


def test_what_ends_with_its_guard_is_lost_and_what_ended_before_is_not(guard: GuardProcess) -> None:
    guard.client.start(request())
    guard.client.start(shell("exit 3", vm_id="vm-b"))
    ended(guard.client, "vm-b")
    guard.client.forget(Named("vm-b", 1, 1))
    guard.client.start(shell("kill -KILL $$", vm_id="vm-c"))
    ended(guard.client, "vm-c")
    guard.end(signal.SIGTERM)
    guard.start()
    seen = {process.vm_id: process for process in guard.client.list()}
    assert (seen["vm-a"].running, seen["vm-a"].lost) == (False, True)
    assert (seen["vm-c"].lost, seen["vm-c"].signal) == (False, signal.SIGKILL)


def test_without_its_namespace_the_guard_ends(guard: GuardProcess) -> None:
    mortal = guard.client.start(request())
    os.kill(first_process(guard), signal.SIGKILL)
    assert guard.wait() == 1
    assert is_gone(mortal.pid)
    guard.start()
    assert ended(guard.client).lost


def test_there_is_one_guard_per_directory(guard: GuardProcess, directory: Path) -> None:
    second = GuardProcess(directory)
    assert second.run_to_end() == 1
    assert guard.client.hello().alive


DAMAGES = ["{", "null", "[]", '{"process": {}}', "\udcff"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_stops_its_vm_alone(guard: GuardProcess, damage: str) -> None:
    """It might describe a process that runs: forgetting it could let a VM run twice, or its files be removed."""
    other = guard.client.start(request("vm-b", failover=Failover.NONE))
    guard.end(signal.SIGTERM)
    damaged = guard.host.run_directory / "guard/vm-a.json"
    damaged.write_bytes(damage.encode(errors="surrogateescape"))
    guard.start()
    assert guard.client.list() == guard.client.list("vm-b") == (other,)
    calls: list[Callable[[], object]] = [
        lambda: guard.client.start(request()),
        lambda: guard.client.list("vm-a"),
        lambda: guard.client.kill(Named("vm-a", 1, 1)),
        lambda: guard.client.forget(Named("vm-a", 1, 1)),
    ]
    for call in calls:
        with pytest.raises(Conflict) as caught:
            call()
        assert caught.value.code == "record_damaged"
        assert str(damaged) in caught.value.hint
    damaged.unlink()  # an operator made sure that nothing runs
    assert guard.client.list("vm-a") == ()
    assert guard.client.start(request()).running


def test_a_file_under_another_name_is_damaged(guard: GuardProcess) -> None:
    guard.client.start(request(failover=Failover.NONE))
    guard.end(signal.SIGTERM)
    folder = guard.host.run_directory / "guard"
    (folder / "vm-b.json").write_text((folder / "vm-a.json").read_text())
    guard.start()
    with pytest.raises(Conflict):
        guard.client.list("vm-b")
    assert guard.client.list("vm-a")[0].running


def test_a_sealed_guard_starts_nothing_and_kills_nothing(guard: GuardProcess) -> None:
    process = guard.client.start(request())
    guard.client._ask(encode_request("seal"))
    assert guard.client.hello().sealed
    with pytest.raises(Conflict) as caught:
        guard.client.start(request("vm-b"))
    assert caught.value.code == "guard_sealed"
    assert guard.client.start(request()) == process
    assert not is_gone(process.pid)


def test_many_requests_at_once(guard: GuardProcess) -> None:
    same = at_once([lambda: guard.client.start(request())] * 25)
    others = at_once([lambda number=number: guard.client.start(request(f"vm-{number}")) for number in range(25)])
    assert len({process.pid for process in same}) == 1
    assert len({process.pid for process in others}) == 25
    assert len(guard.client.list()) == 26
    at_once([lambda process=process: guard.client.kill(named(process)) for process in (same[0], *others)])
    at_once([lambda process=process: guard.client.forget(named(process)) for process in (same[0], *others)])
    assert guard.client.list() == ()
    assert children_of(guard.pid) == [first_process(guard)]


def test_endless_complaints_do_not_fill_the_disk(guard: GuardProcess) -> None:
    guard.client.start(shell("yes | head -c 100000; exec sleep 1000"))
    log = guard.host.run_directory / "guard/vm-a.log"
    wait_for(lambda: log.stat().st_size < 32 * 1024)
    assert (log.stat().st_uid, log.stat().st_mode & 0o777) == (0, 0o600)


def test_a_guard_that_dies_before_it_wrote_leaves_no_process(directory: Path) -> None:
    """``record`` ends the parent at once: the child must not go on to exec."""
    script = f"""
import os
from ucloud.guard.birth import bear
from ucloud.hypervisor.guard_protocol import StartRequest
from ucloud.model.vm import Failover
def record(pid):
    print(pid, flush=True)
    os.kill(os.getpid(), 9)
bear(StartRequest("vm-a", 1, 1, Failover.NONE, {UID}, {UID}, ("/bin/sleep", "1000")), [], output=1,
     namespace=None, record=record)
"""
    read, write = os.pipe()
    parent = os.posix_spawn(
        sys.executable, [sys.executable, "-c", script], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, write, 1)]
    )
    os.close(write)
    with os.fdopen(read) as said:
        child = int(said.readline())
    os.waitpid(parent, 0)
    wait_for(lambda: is_gone(child))


def test_it_stays_small_and_in_memory(guard: GuardProcess) -> None:
    for number in range(10):
        guard.client.start(request(f"vm-{number}"))
    status = status_of(guard.pid)
    assert int(status["VmLck"].split()[0]) > 0
    assert int(status["VmRSS"].split()[0]) < 25 * 1024


def test_its_life_sign_is_in_etcd(directory: Path) -> None:
    require("root")
    require("etcd")
    with etcd_cluster() as cluster:
        tls = cluster.tls
        settings = StoreSection(
            endpoints=tuple(cluster.endpoints), ca_file=tls.ca_file, cert_file=tls.cert_file, key_file=tls.key_file
        )
        store = cluster.store()
        with guard_process(directory, store=settings) as guard:
            hello = wait_for(lambda: one if (one := guard.client.hello()).alive else None)
            item = wait_for(lambda: store.get(keys.alive(hello.host_id)))
            assert decode_as(LifeSign, item.value).incarnation == hello.incarnation
            assert item.lease
            assert store.get(keys.registered(hello.host_id)) is not None
            assert 0 <= hello.evidence_age_s < 3

            process = guard.client.start(request())
            store.revoke_lease(item.lease)  # a lost lease kills nothing (rule A4)
            again = wait_for(lambda: one if (one := store.get(keys.alive(hello.host_id))) else None)
            assert again.lease != item.lease
            assert not is_gone(process.pid)

            assert guard.end(signal.SIGTERM) == 0
            assert store.get(keys.alive(hello.host_id)) is None
        store.close()


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def first_process(guard: GuardProcess) -> int:
    """The one that holds the namespace open: it came before all VMs."""
    return children_of(guard.pid)[0]


def at_once(calls: list[Callable[[], VmProcess]] | list[Callable[[], None]]) -> list[VmProcess]:
    """Do all calls in threads of their own; their results, or the first error."""
    results: list[VmProcess] = []
    errors: list[Error] = []

    def do(call: Callable[[], VmProcess | None]) -> None:
        try:
            result = call()
            if result is not None:
                results.append(result)
        except Error as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    return results


def test_a_namespace_that_is_held_open_does_not_hold_up_the_end() -> None:
    """As by a process that hangs in the kernel; here by one that nobody has reaped."""
    require("root")
    namespace = PidNamespace()
    with namespace.entered():
        inside = subprocess.Popen(["/bin/sleep", "1000"])
    namespace.close()
    assert Path(f"/proc/{namespace.first_pid}").exists()
    assert inside.wait(10) == -signal.SIGKILL
    assert os.waitpid(namespace.first_pid, 0)[0] == namespace.first_pid
