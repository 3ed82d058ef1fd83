"""A throw-away etcd of one or more members with TLS and client certificates, on free ports of this machine."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ucloud.errors import Error
from ucloud.store.etcd import Credentials, EtcdStore, Tls
from ucloud.store.etcd_calls import Calls, question
from ucloud.store.etcd_wire import STATUS
from ucloud.system.clock import SystemClock

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """Below the range that the kernel gives outgoing connections: nobody takes it before the server is there."""
    while True:
        port = random.randint(20_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def make_certificates(directory: Path) -> Tls:
    """An authority, ``server.{crt,key}`` for loopback, and a client certificate without a common name."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "test authority")])
    authority = (
        _builder(authority_name, authority_name, authority_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    (directory / "ca.crt").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    for name in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"test {name}")])
        names: list[x509.GeneralName] = [x509.DNSName("localhost")]
        names += [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
        certificate = (
            _builder(subject, authority_name, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
            .sign(authority_key, hashes.SHA256())
        )
        (directory / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return Tls(directory / "ca.crt", directory / "client.crt", directory / "client.key")


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


class Member:
    """One etcd process; it can be frozen, killed and started again with its data."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.client_port = free_port()
        self.peer_port = free_port()
        self.directory = directory
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.client_port}"

    @property
    def peer_url(self) -> str:
        return f"http://127.0.0.1:{self.peer_port}"

    def start(self, initial_cluster: str) -> None:
        etcd = shutil.which("etcd")
        assert etcd
        listen = f"{self.endpoint},https://[::1]:{self.client_port}"
        argv = [etcd, "--name", self.name, "--data-dir", str(self.directory / self.name)]
        argv += ["--listen-client-urls", listen, "--advertise-client-urls", self.endpoint]
        argv += ["--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url]
        argv += ["--initial-cluster", initial_cluster, "--client-cert-auth"]
        argv += ["--trusted-ca-file", str(self.directory / "ca.crt")]
        argv += ["--cert-file", str(self.directory / "server.crt")]
        argv += ["--key-file", str(self.directory / "server.key")]
        argv += ["--heartbeat-interval", "50", "--election-timeout", "500", "--pre-vote"]
        argv += ["--max-txn-ops", "1024"]
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        assert self.process
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Cluster:
    """Members that were started together."""

    def __init__(self, directory: Path, size: int) -> None:
        self.tls = make_certificates(directory)
        self.members = [Member(f"m{index}", directory) for index in range(size)]
        self.initial = ",".join(f"{member.name}={member.peer_url}" for member in self.members)

    @property
    def endpoints(self) -> list[str]:
        return [member.endpoint for member in self.members]

    def start(self, member: Member) -> None:
        member.start(self.initial)

    def wait_ready(self, members: list[Member] | None = None, credentials: Credentials | None = None) -> None:
        """Wait until each of the members answers a linearizable read."""
        for member in members or self.members:
            deadline = time.monotonic() + START_TIMEOUT_S
            with contextlib.closing(self.store([member.endpoint], credentials=credentials)) as store:
                while True:
                    try:
                        store.get("/ready")
                        break
                    except Error:
                        assert time.monotonic() < deadline, f"{member.name} did not start"

    def store(
        self,
        endpoints: list[str] | None = None,
        *,
        timeout_s: float = 5.0,
        credentials: Credentials | None = None,
    ) -> EtcdStore:
        return EtcdStore(endpoints or self.endpoints, tls=self.tls, credentials=credentials, timeout_s=timeout_s)

    def leader(self) -> Member:
        """The member that leads, as the running ones say."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            for member in self.members:
                status = self._status(member) if member.process else {}
                if status and status["header"]["member_id"] == status.get("leader"):
                    return member
            time.sleep(0.05)
        raise AssertionError("no leader")

    def _status(self, member: Member) -> dict[str, Any]:
        calls = Calls([member.endpoint], self.tls, None, timeout_s=1, clock=SystemClock())
        try:
            return calls.call(question(STATUS, {}))
        except Error:
            return {}
        finally:
            calls.close()

    def rpc(self, path: str, body: dict[str, Any], credentials: Credentials | None = None) -> None:
        """A call that the store has no word for, such as those that manage users."""
        calls = Calls(self.endpoints, self.tls, credentials, timeout_s=5, clock=SystemClock())
        calls.call(question(path, body))
        calls.close()

    def close(self) -> None:
        for member in self.members:
            member.kill()


@contextlib.contextmanager
def etcd_cluster(size: int = 1) -> Iterator[Cluster]:
    """A running cluster; its data lies in memory where the machine has such a folder."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="ucloud-etcd-", dir=memory if memory.is_dir() else None) as directory:
        cluster = Cluster(Path(directory), size)
        try:
            for member in cluster.members:
                cluster.start(member)
            cluster.wait_ready()
            yield cluster
        finally:
            cluster.close()
