"""A network namespace that looks like a ucloud network to one guest, and that guest under QEMU.

dnsmasq gives addresses and names, Python's file server plays the metadata service. Everything is gone after
``close``.
"""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

MAC = "02:00:00:00:00:07"
SLAAC_ADDRESS = "fd75::ff:fe00:7"
_DEADLINE_S = 90.0


def wait_until(condition: Callable[[], bool], what: Callable[[], str], deadline_s: float = _DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, what()
        time.sleep(0.05)


class TinyGuest:
    def __init__(self, directory: Path, *, ipv4: bool) -> None:
        self.directory = directory
        self.ipv4 = ipv4
        self.namespace = f"ucl-test-{secrets.token_hex(3)}"
        self.serial = directory / "serial.log"
        self.qemu: subprocess.Popen[bytes] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = (directory / "processes.log").open("ab")

    def start_network(self) -> None:
        self._ip("netns", "add", self.namespace)
        addresses = ["fd75::1/64", "fe80::a9fe:a9fe/64"]
        if self.ipv4:
            addresses += ["10.75.0.1/24", "169.254.169.254/32"]
        commands = [
            ["link", "set", "lo", "up"],
            ["tuntap", "add", "tap0", "mode", "tap"],
            ["link", "set", "tap0", "up"],
        ]
        commands += [["addr", "add", address, "dev", "tap0", *_no_dad(address)] for address in addresses]
        for command in commands:
            self._ip("-n", self.namespace, *command)
        self._start_metadata()
        self._start_dnsmasq()

    def _start_metadata(self) -> None:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / "key"], check=True)
        site = self.directory / "metadata"
        latest = site / "openstack" / "latest"
        latest.mkdir(parents=True)
        (site / "ssh-keys").write_text((self.directory / "key.pub").read_text())
        (latest / "meta_data.json").write_text(json.dumps({"uuid": "x", "hostname": "web1.example.org", "name": "n"}))
        (latest / "user_data").write_text("#!/bin/sh\necho user-data ran; echo x >> /root/runs\n")
        self._spawn(sys.executable, "-m", "http.server", "--bind", "::", "-d", str(site), "80")

    def _start_dnsmasq(self) -> None:
        argv = [
            "dnsmasq",
            "-k",
            "--conf-file=/dev/null",
            "-i",
            "tap0",
            "--bind-interfaces",
            "--no-resolv",
            "--no-hosts",
        ]
        argv += [f"--dhcp-leasefile={self.directory / 'leases'}", "--pid-file=", "--user=root", "--no-ping"]
        argv += ["--enable-ra", "--dhcp-range=fd75::10,fd75::99,slaac,64,1h", "--address=/metadata/fd75::1"]
        argv += ["--dhcp-option=option6:dns-server,[fd75::1]", f"--log-facility={self.directory / 'dnsmasq.log'}"]
        if self.ipv4:
            argv += ["--dhcp-range=10.75.0.10,10.75.0.99,255.255.255.0,1h", "--dhcp-option=26,1430"]
        self._spawn(*argv)

    def start_qemu(self, disk: Path) -> None:
        """Boot ``disk`` under TCG with 128 MiB."""
        self.serial.unlink(missing_ok=True)
        argv = ["qemu-system-x86_64", "-machine", "q35,accel=tcg", "-cpu", "qemu64", "-m", "128", "-nodefaults"]
        argv += ["-no-user-config", "-display", "none"]
        argv += ["-drive", f"if=none,id=disk,file={disk},format=qcow2", "-device", "virtio-blk-pci,drive=disk"]
        argv += ["-netdev", "tap,id=net,ifname=tap0,script=no,downscript=no"]
        argv += ["-device", f"virtio-net-pci,netdev=net,mac={MAC},romfile="]
        argv += ["-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng"]
        argv += ["-serial", f"file:{self.serial}", "-qmp", f"unix:{self.directory / 'qmp'},server=on,wait=off"]
        self.qemu = self._spawn(*argv)

    def wait_for(self, text: str, *, times: int = 1) -> None:
        wait_until(lambda: self.console().count(text) >= times, lambda: f"no {text!r} in: {self.console()[-2000:]}")

    def console(self) -> str:
        return self.serial.read_text(errors="replace") if self.serial.exists() else ""

    def ssh(self, command: str, *, host: str = SLAAC_ADDRESS) -> subprocess.CompletedProcess[str]:
        options = {
            "BatchMode": "yes",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": str(self.directory / "known_hosts"),
            "LogLevel": "ERROR",
            "ConnectTimeout": "10",
            "ServerAliveInterval": "5",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        argv = ["ssh", "-F", "none", "-i", str(self.directory / "key"), *words, f"root@{host}", command]
        return subprocess.run(self._inside(*argv), capture_output=True, text=True, check=False)

    def run(self, command: str) -> str:
        done = self.ssh(command)
        assert done.returncode == 0, done
        return done.stdout

    def power_down(self) -> float:
        """Press the power button. Returns the seconds until QEMU has ended."""
        assert self.qemu is not None
        started = time.monotonic()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.directory / "qmp"))
            with connection.makefile("rw") as stream:
                stream.readline()
                for name in ("qmp_capabilities", "system_powerdown"):
                    stream.write(json.dumps({"execute": name}) + "\n")
                    stream.flush()
                    stream.readline()
        self.qemu.wait(30)
        return time.monotonic() - started

    def close(self) -> None:
        for process in reversed(self._processes):
            if process.poll() is None:
                process.kill()
            process.wait()
        self._log.close()
        self._ip("netns", "del", self.namespace)

    def _inside(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *argv]

    def _spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._inside(*argv), stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def _ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)


def _no_dad(address: str) -> list[str]:
    return ["nodad"] if ":" in address else []
