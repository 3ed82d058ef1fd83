"""A whole cloud of this machine in a directory of its own, driven as a user would: by the command line and ssh."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

UCLOUD = (sys.executable, "-m", "ucloud")


class CommandFailed(AssertionError):
    def __init__(self, code: int, out: str, err: str) -> None:
        super().__init__(f"exit {code}: {err or out}")
        self.code, self.out, self.err = code, out, err


class Cloud:
    """``directory`` is the cloud's; its path must be short, for unix sockets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.profile = directory / "client.toml"
        self.key = directory / "test_key"

    def up(self) -> None:
        self.run("up", "--directory", self.directory, "--timeout", "60")

    def down(self, *, timeout_s: float = 20) -> None:
        self.run("down", "--directory", self.directory, "--timeout", str(timeout_s), timeout_s=timeout_s + 60)

    def run(self, *words: object, timeout_s: float = 120.0, stdin: str = "") -> str:
        """One ``ucloud`` command; its standard output."""
        done = subprocess.run(
            [*UCLOUD, *map(str, words)], input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False
        )
        if done.returncode:
            raise CommandFailed(done.returncode, done.stdout, done.stderr)
        return done.stdout

    def api(self, *words: object, timeout_s: float = 120.0) -> Any:
        """One client command; its answer as JSON."""
        out = self.run("--profile", self.profile, "--output", "json", *words, timeout_s=timeout_s)
        return json.loads(out) if out.strip() else None

    def make_key(self) -> str:
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        return self.key.with_suffix(".pub").read_text().strip()

    def ssh(self, vm: dict[str, Any], command: str, *, within_s: float = 90.0) -> str:
        """What ``command`` prints in the guest, tried until ssh answers."""
        address = vm["spec"]["nics"][0]["ipv6"]
        options = ("BatchMode=yes", "ConnectTimeout=5", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null")
        words = [word for option in options for word in ("-o", option)]
        argv = ["ssh", "-q", *words, "-i", str(self.key), f"root@{address}", command]
        deadline = time.monotonic() + within_s
        while True:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
            if done.returncode != 255:
                return done.stdout
            assert time.monotonic() < deadline, f"no login at {address}: {done.stderr}"
            time.sleep(0.5)

    def pid(self, name: str) -> int:
        return int((self.directory / "run" / f"{name}.process").read_text().split()[0])

    def kill(self, name: str) -> None:
        """kill -9 of one process; the supervisor starts it again."""
        os.kill(self.pid(name), signal.SIGKILL)

    def wait(self, condition: Callable[[], Any], *, within_s: float, what: str) -> Any:
        deadline = time.monotonic() + within_s
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
            time.sleep(0.1)
        return found

    def wait_word(self, vm_id: str, word: str, *, within_s: float = 60.0) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            vm: dict[str, Any] = self.api("vm", "show", vm_id)
            return vm if vm["status"]["word"] == word else None

        found: dict[str, Any] = self.wait(look, within_s=within_s, what=f"vm {vm_id} is {word}")
        return found

    def qemu_pids(self) -> list[int]:
        """The QEMU processes of this cloud."""
        return self.pids_with(f"{self.directory}/", program="qemu-system")

    def pids_with(self, text: str, *, program: str = "") -> list[int]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            line = b" ".join(words).decode(errors="replace")
            if text in line and program in words[0].decode(errors="replace"):
                found.append(int(path.parent.name))
        return found

    @property
    def tag(self) -> str:
        line = next(
            line for line in (self.directory / "ucloud.toml").read_text().splitlines() if line.startswith("tag")
        )
        return line.split('"')[1]

    def devices(self) -> list[str]:
        """The links of this cloud on the machine."""
        listed = json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, text=True, check=True).stdout)
        names = (link["ifname"] for link in listed)
        return sorted(name for name in names if (name[:1] == "u" and name[2:5] == self.tag) or name[3:6] == self.tag)

    def namespaces(self) -> list[str]:
        out = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
        return [line.split()[0] for line in out.splitlines() if line.startswith(f"ucloud-{self.tag}-")]

    def tables(self) -> list[str]:
        out = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        return [line for line in out.splitlines() if self.tag in line]

    def vm_leftovers(self) -> dict[str, list[str]]:
        """Everything on the host that belongs to some VM."""
        globs = {
            "files": "vms/*",
            "sockets": "run/vms/*",
            "volumes": "pool/volumes/*",
            "metadata": "metadata/vms/*",
            "leases": "networks/*/nics.d/*",
        }
        left = {name: sorted(str(path) for path in self.directory.glob(glob)) for name, glob in globs.items()}
        left["taps"] = [name for name in self.devices() if name.startswith("ut")]
        left["processes"] = [str(pid) for pid in self.qemu_pids()]
        return {name: found for name, found in left.items() if found}
