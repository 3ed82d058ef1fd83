"""What only real etcd shows: dying, freezing and silent members, TLS, users, and a check of the memory store."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import require
from tests.contract.etcd_server import Cluster, etcd_cluster, make_certificates
from tests.contract.test_store import put, take_events
from ucloud.errors import OutcomeUnknown, StoreError, StoreUnavailable
from ucloud.store.api import Compare, Delete, Put, Store, Txn, absent, created_at, unchanged
from ucloud.store.cache import Cache
from ucloud.store.election import Election
from ucloud.store.etcd import Credentials, EtcdStore
from ucloud.store.memory import MemoryStore


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    require("etcd")
    with etcd_cluster(3) as cluster:
        yield cluster


@pytest.fixture
def whole(three: Cluster) -> Iterator[Cluster]:
    """The three members, all well again after the test."""
    yield three
    for member in three.members:
        if member.process is None:
            three.start(member)
        member.signal(signal.SIGCONT)
    three.wait_ready()


class Listener:
    """A TCP port that does with each connection what ``serve`` says, and counts them."""

    def __init__(self, serve: str) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.requests = 0
        self._serve = serve
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _address = self._server.accept()
                self._open.append(connection)
                if self._serve == "close after the request":
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    self.requests += 1
                    connection.close()
                elif self._serve == "answer once":
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    self.requests += 1
                    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"succeeded":true}')
                    connection.close()

    def close(self) -> None:
        socket.socket.shutdown(self._server, socket.SHUT_RDWR)
        self._server.close()
        for connection in self._open:
            connection.close()
        self._thread.join()


class Proxy:
    """Passes bytes on to a port; ``cut`` ends what is open, ``hold`` lets nothing through any more."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self) -> None:
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def hold(self) -> None:
        self._flowing.clear()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._flowing.set()
        self.cut()
        for thread in self._threads:
            thread.join()
        for connection in self._open:
            connection.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _address = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    thread = threading.Thread(target=self._pass, args=(source, sink))
                    self._threads.append(thread)
                    thread.start()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def listener(serve: str) -> Iterator[Listener]:
    opened = Listener(serve)
    try:
        yield opened
    finally:
        opened.close()


def put_until_known(store: Store, key: str, value: bytes) -> None:
    """As a loop does it: an unknown outcome is read again, an unreachable store is asked again."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            put(store, key, value)
            return
        except OutcomeUnknown:
            item = store.get(key)
            if item is not None and item.value == value:
                return
        except StoreUnavailable:
            continue
    raise AssertionError("the write never succeeded")


@pytest.mark.parametrize(("victim", "fault"), [("leader", "kill"), ("in use", "kill"), ("leader", "freeze")])
def test_a_lost_member_is_left_for_another(whole: Cluster, root: str, victim: str, fault: str) -> None:
    lost = whole.leader() if victim == "leader" else whole.members[0]
    order = [lost.endpoint, *(point for point in whole.endpoints if point != lost.endpoint)]
    with contextlib.closing(whole.store(order)) as store:
        start = put(store, root + "a", b"before")
        watch = store.watch(root, from_revision=start)
        batches = iter(watch)
        take_events(batches, 1)  # the stream is open, at the member that will be lost
        if fault == "kill":
            lost.kill()
        else:
            lost.signal(signal.SIGSTOP)
        started_s = time.monotonic()
        item = store.get(root + "a")
        assert time.monotonic() - started_s < 5
        assert item is not None
        assert item.value == b"before"
        put_until_known(store, root + "a", b"after")
        events = take_events(batches, 1)
        assert time.monotonic() - started_s < 12
        assert events[-1].item.value == b"after"
        watch.close()
        started_s = time.monotonic()
        for _ in range(5):
            store.get(root + "a")
        assert time.monotonic() - started_s < 1.5, "the lost member is not left alone"


def test_nothing_is_lost_or_done_twice(whole: Cluster, root: str) -> None:
    key = root + "counter"
    sure, unknown = [0, 0, 0], [0, 0, 0]
    stop = threading.Event()

    def count(store: Store, index: int) -> None:
        while not stop.is_set():
            try:
                item = store.get(key)
                before, revision = (int(item.value), item.mod_revision) if item else (0, 0)
                sure[index] += store.commit(Txn((unchanged(key, revision),), (Put(key, b"%d" % (before + 1)),))).ok
            except OutcomeUnknown:
                unknown[index] += 1
            except StoreUnavailable:
                continue

    with contextlib.ExitStack() as stack:
        stores = [stack.enter_context(contextlib.closing(whole.store(timeout_s=3))) for _ in range(4)]
        start = stores[3].list(root).revision
        threads = [threading.Thread(target=count, args=(stores[index], index)) for index in range(3)]
        for thread in threads:
            thread.start()
        watch = stores[3].watch(root, from_revision=start + 1)
        batches = iter(watch)
        seen = [int(event.item.value) for event in take_events(batches, 20)]
        whole.members[0].kill()
        seen += [int(event.item.value) for event in take_events(batches, 100)]
        whole.start(whole.members[0])
        whole.wait_ready([whole.members[0]])
        whole.leader().signal(signal.SIGSTOP)
        seen += [int(event.item.value) for event in take_events(batches, 100)]
        for member in whole.members:
            member.signal(signal.SIGCONT)
        stop.set()
        for thread in threads:
            thread.join()
        item = stores[3].get(key)
        assert item is not None
        final = int(item.value)
        seen += [int(event.item.value) for event in take_events(batches, final - len(seen))]
        watch.close()
    assert seen == list(range(1, final + 1))
    assert sum(sure) <= final <= sum(sure) + sum(unknown)


def test_a_leader_that_dies_is_followed_when_its_lease_ends(etcd: Cluster, root: str) -> None:
    with contextlib.closing(etcd.store()) as mine, contextlib.closing(etcd.store()) as other:
        first = Election(mine, root, "first", ttl_s=1)
        assert first.campaign(threading.Event())
        guard = first.guard()
        mine.close()  # as if its process had died: nobody keeps the lease
        started_s = time.monotonic()
        second = Election(other, root, "second", ttl_s=1)
        assert second.campaign(threading.Event())
        assert time.monotonic() - started_s < 5
        assert not other.commit(Txn((guard,), (Put(root + "plan", b"late"),))).ok
        assert other.commit(Txn((second.guard(),), (Put(root + "plan", b"new"),))).ok
        first.resign()
        second.resign()


def test_without_a_majority_nothing_is_promised(whole: Cluster, root: str) -> None:
    with contextlib.closing(whole.store(timeout_s=1)) as store:
        start = put(store, root + "a", b"before")
        watch = store.watch(root, from_revision=start + 1)
        for member in whole.members[1:]:
            member.kill()
        started_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.get(root + "a")
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            put(store, root + "a", b"after")
        with pytest.raises(StoreUnavailable):
            # The stream would stay open for ever on the lone member; it must say that it is blind.
            for _batch in watch:
                pass
        assert time.monotonic() - started_s < 20
        for member in whole.members[1:]:
            whole.start(member)
        put_until_known(store, root + "b", b"again")


def test_a_cache_outlives_members_that_die_in_turn(whole: Cluster, root: str) -> None:
    with contextlib.closing(whole.store()) as store:
        cache = Cache[object](store, [root])
        cache.start()
        try:
            for member in whole.members[:2]:
                member.kill()
                put_until_known(store, root + member.name, b"written")
                item = store.get(root + member.name)
                assert item is not None
                assert root + member.name in cache.wait_for(item.mod_revision, 10).items
                whole.start(member)
                whole.wait_ready([member])
        finally:
            cache.stop()


def test_a_member_that_accepts_and_never_answers(etcd: Cluster, root: str) -> None:
    with listener("nothing") as silent:
        endpoints = [f"https://127.0.0.1:{silent.port}", *etcd.endpoints]
        with contextlib.closing(etcd.store(endpoints, timeout_s=2)) as store:
            started_s = time.monotonic()
            revision = put(store, root + "a", b"1")  # nothing was sent before the TLS handshake
            assert time.monotonic() - started_s < 5
        with contextlib.closing(etcd.store(endpoints, timeout_s=2)) as store:
            watch = store.watch(root, from_revision=revision)
            assert take_events(iter(watch), 1)[0].item.value == b"1"
            watch.close()


def test_a_silent_member_costs_a_read_a_second_and_no_share_of_its_time(etcd: Cluster, root: str) -> None:
    with listener("nothing") as silent:
        endpoints = [
            f"https://127.0.0.1:{silent.port}",
            *etcd.endpoints,
            etcd.endpoints[0].replace("127.0.0.1", "[::1]"),
        ]
        with contextlib.closing(etcd.store(endpoints, timeout_s=15)) as store:
            started_s = time.monotonic()
            assert store.get(root + "none") is None
            assert 0.9 < time.monotonic() - started_s < 2


@pytest.mark.parametrize("fault", ["cut", "hold"])
def test_a_dead_stream_is_resumed(etcd: Cluster, root: str, fault: str) -> None:
    proxy = Proxy(etcd.members[0].client_port)
    try:
        endpoints = [f"https://127.0.0.1:{proxy.port}", *etcd.endpoints]
        with contextlib.closing(etcd.store()) as writer, contextlib.closing(etcd.store(endpoints)) as store:
            watch = store.watch(root, from_revision=put(writer, root + "a", b"1"))
            batches = iter(watch)
            assert take_events(batches, 1)[0].item.value == b"1"
            getattr(proxy, fault)()
            put(writer, root + "a", b"2")
            put(writer, root + "a", b"3")
            assert [event.item.value for event in take_events(batches, 2)] == [b"2", b"3"]
            watch.close()
    finally:
        proxy.close()


def test_a_write_whose_answer_is_lost_is_sent_once() -> None:
    with listener("close after the request") as lossy, listener("close after the request") as other:
        urls = [f"http://127.0.0.1:{lossy.port}", f"http://127.0.0.1:{other.port}"]
        with contextlib.closing(EtcdStore(urls)) as store:
            with pytest.raises(OutcomeUnknown):
                put(store, "/a")
            assert lossy.requests + other.requests == 1


def test_a_connection_closed_while_idle_is_not_used_for_a_write() -> None:
    with listener("answer once") as server:
        with contextlib.closing(EtcdStore([f"http://127.0.0.1:{server.port}"])) as store:
            for _ in range(5):
                put(store, "/a")
                wait_until_closed(store)
        assert server.requests == 5


def wait_until_closed(store: EtcdStore) -> None:
    """The server closes after its answer, and the kernel tells us a moment later."""
    (idle,) = store._calls.members._idle.values()
    deadline_s = time.monotonic() + 5.0
    while any(connection.is_idle() for connection in idle):
        assert time.monotonic() < deadline_s
        time.sleep(0.001)


def test_nobody_listens() -> None:
    store = EtcdStore(["http://127.0.0.1:1", "http://[::1]:1"], timeout_s=0.5)
    started_s = time.monotonic()
    with pytest.raises(StoreUnavailable) as refused:
        put(store, "/a")
    assert time.monotonic() - started_s < 1.5
    assert "refused" in str(refused.value)
    with pytest.raises(StoreUnavailable):
        next(iter(store.watch("/", from_revision=1)))
    store.close()


@pytest.mark.parametrize("host", ["[::1]", "localhost", "127.0.0.1"])
def test_endpoints_of_all_kinds(etcd: Cluster, root: str, host: str) -> None:
    with contextlib.closing(etcd.store([f"https://{host}:{etcd.members[0].client_port}"])) as store:
        revision = put(store, root + "a")
        watch = store.watch(root, from_revision=revision)
        assert len(take_events(iter(watch), 1)) == 1
        watch.close()


def test_a_server_of_another_authority_is_refused(etcd: Cluster, tmp_path: Path) -> None:
    store = EtcdStore(etcd.endpoints, tls=make_certificates(tmp_path), timeout_s=0.5)
    with pytest.raises(StoreUnavailable, match="certificate was refused"):
        store.get("/a")
    store.close()


def test_without_a_client_certificate_there_is_no_answer(etcd: Cluster, root: str, tmp_path: Path) -> None:
    foreign = make_certificates(tmp_path)
    tls = type(etcd.tls)(etcd.tls.ca_file, foreign.cert_file, foreign.key_file)
    with contextlib.closing(EtcdStore(etcd.endpoints, tls=tls, timeout_s=0.5)) as store:
        with pytest.raises((StoreUnavailable, OutcomeUnknown)):
            put(store, root + "a")
        with pytest.raises(StoreUnavailable):
            store.get(root + "a")


def test_users_and_tokens(root: str) -> None:
    require("etcd")
    with etcd_cluster() as cluster:
        everything = {"key": "AA==", "range_end": "AA==", "permType": "READWRITE"}
        prefix = {"key": "L29rLw==", "range_end": "L29rMA==", "permType": "READWRITE"}  # /ok/ to /ok0
        for role, permission in (("root", everything), ("limited", prefix)):
            cluster.rpc("/v3/auth/role/add", {"name": role})
            cluster.rpc("/v3/auth/role/grant", {"name": role, "perm": permission})
        for user, password in (("root", "root-pass"), ("limited", "limited-pass")):
            cluster.rpc("/v3/auth/user/add", {"name": user, "password": password})
            cluster.rpc("/v3/auth/user/grant", {"user": user, "role": user})
        limited = Credentials("limited", "limited-pass")
        assert "limited-pass" not in repr(limited)
        with contextlib.closing(cluster.store(credentials=limited)) as store:
            put(store, "/elsewhere", b"auth is off")  # a user may be configured before etcd wants one
            cluster.rpc("/v3/auth/enable", {})
            revision = put(store, "/ok/a", b"1")
            with pytest.raises(StoreError) as denied:
                put(store, "/elsewhere")
            assert denied.value.code == "store_denied"
            with pytest.raises(StoreError) as denied:
                next(iter(store.watch("/elsewhere", from_revision=revision)))
            assert denied.value.code == "store_denied"
            watch = store.watch("/ok/", from_revision=revision)
            batches = iter(watch)
            assert take_events(batches, 1)[0].item.value == b"1"
            cluster.members[0].kill()
            cluster.start(cluster.members[0])
            cluster.wait_ready(credentials=Credentials("root", "root-pass"))
            put(store, "/ok/a", b"2")  # with a new token: the old one died with the process
            assert take_events(batches, 1)[0].item.value == b"2"
            watch.close()
        with contextlib.closing(cluster.store(credentials=Credentials("limited", "wrong-pass"))) as store:
            with pytest.raises(StoreError) as refused:
                store.get("/ok/a")
            assert refused.value.code == "store_login_refused"
            assert "pass" not in str(refused.value).replace("password", "")
        with contextlib.closing(cluster.store()) as store, pytest.raises(StoreError) as refused:
            store.get("/ok/a")
        assert refused.value.code == "store_denied"


_NAMES = st.sampled_from(["a", "b", "c/1", "c/2"])
_VALUES = st.sampled_from([b"", b"1", b"2"])


@st.composite
def _compares(draw: st.DrawFn) -> tuple[str, str, int]:
    kind = draw(st.sampled_from(["absent", "unchanged", "created"]))
    return kind, draw(_NAMES), draw(st.integers(0, 12))


_STEPS = st.tuples(
    st.lists(_compares(), max_size=1),
    st.dictionaries(_NAMES, st.none() | _VALUES, max_size=3),
)


def _compare(drawn: tuple[str, str, int], root: str, base: int) -> Compare:
    """Revisions are drawn small; ``base`` is where this run of the store began."""
    kind, name, number = drawn
    revision = number + base if number else 0
    match kind:
        case "absent":
            return absent(root + name)
        case "unchanged":
            return unchanged(root + name, revision)
        case _:
            return created_at(root + name, revision)


def _replay(
    store: Store, steps: list[tuple[list[tuple[str, str, int]], dict[str, bytes | None]]], root: str
) -> list[object]:
    """Everything one can see of the store, with revisions counted from where this run began."""
    base = put(store, root + "start")
    seen: list[object] = []
    revision = base
    for drawn, changes in steps:
        compares = tuple(_compare(one, root, base) for one in drawn)
        writes = tuple(
            Delete(root + name) if value is None else Put(root + name, value) for name, value in changes.items()
        )
        done = store.commit(Txn(compares, writes))
        revision = done.revision
        seen.append((done.ok, revision - base))
    for at in range(base, revision + 1):
        seen.append(
            [
                (item.key, item.value, item.mod_revision - base, item.create_revision - base, item.version)
                for item in store.list(root, revision=at).items
            ]
        )
    end = put(store, root + "zend")
    watch = store.watch(root, from_revision=base)
    for batch in watch:
        for event in batch.events:
            item = event.item
            created = item.create_revision - base if item.create_revision else 0
            seen.append((event.kind, item.key, item.value, item.mod_revision - base, created, item.version))
        if batch.revision >= end:
            break
    watch.close()
    store.commit(Txn((), tuple(Delete(item.key) for item in store.list(root).items)))
    return seen


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(_STEPS, max_size=10))
def test_the_memory_store_tells_what_etcd_tells(
    etcd: Cluster,
    root: str,
    steps: list[tuple[list[tuple[str, str, int]], dict[str, bytes | None]]],
) -> None:
    with contextlib.closing(etcd.store()) as real:
        assert _replay(MemoryStore(), steps, root) == _replay(real, steps, root)


def test_a_store_that_lost_its_data_is_not_trusted() -> None:
    """The cluster id is made of the members' addresses, so it stays; the revision tells."""
    require("etcd")
    with etcd_cluster(1) as cluster:
        (member,) = cluster.members
        with contextlib.closing(cluster.store()) as store:
            for number in range(5):
                put(store, f"/k/{number}", b"1")
            member.kill()
            shutil.rmtree(member.directory / member.name)
            cluster.start(member)
            cluster.wait_ready()
            with pytest.raises(StoreError) as caught:
                store.get("/k/1")
            assert caught.value.code == "store_went_back"
            with contextlib.closing(cluster.store()) as fresh:
                assert fresh.get("/k/1") is None
