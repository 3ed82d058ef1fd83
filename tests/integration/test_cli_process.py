"""The command as a process: interrupts, closed pipes, what replaces it, and completion in a real shell."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_api import FakeApi, running

_MAIN = "from ucloud.main import main; raise SystemExit(main())"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    with running(tmp_path) as (api, _):
        nics = [{"ipv6": "fd00::5", "ipv4": "10.0.0.5"}]
        api.add("vm", "vm-aaaaaaaaaaaa", "web1", {"image_id": "image-1", "nics": nics})
        api.add("image", "image-1", "tiny", {"user": "debian"})
        yield api


@pytest.fixture
def env(api: FakeApi, tmp_path: Path) -> dict[str, str]:
    """With programs of the test in front: ``ucloud`` itself, and an ``ssh`` that prints its arguments."""
    programs = tmp_path / "bin"
    programs.mkdir()
    _write_program(programs / "ssh", 'printf "%s\\n" "$@"; exit 7')
    _write_program(programs / "ucloud", f"exec {sys.executable} -c '{_MAIN}' \"$@\"")
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "UCLOUD_PROFILE": str(tmp_path / "client.toml"),
        "PATH": f"{programs}:{os.environ['PATH']}",
    }


def _write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def _run(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ucloud", *words], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_an_interrupt_is_quiet(env: dict[str, str]) -> None:
    words = ["ucloud", "vm", "log", "web1", "--follow"]
    process = subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, b"booting\nlogin: ", b"")


def test_a_closed_pipe_is_quiet(env: dict[str, str], api: FakeApi) -> None:
    for number in range(3000):
        api.add("vm", f"vm-{number}", f"web-{number}")
    reader, writer = os.pipe()
    process = subprocess.Popen(["ucloud", "vm", "list"], env=env, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert os.read(reader, 4) == b"NAME"
    os.close(reader)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")


def test_ssh_takes_over(env: dict[str, str], tmp_path: Path) -> None:
    done = _run(env, "vm", "ssh", "web1", "--identity", "/keys/work", "--", "uname", "-a")
    assert done.returncode == 7
    words = done.stdout.splitlines()
    assert words[-6:] == ["-l", "debian", "fd00::5", "--", "uname", "-a"]
    assert "HostKeyAlias=vm-aaaaaaaaaaaa" in words
    assert (tmp_path / ".ucloud").is_dir()
    assert "10.0.0.5" in _run(env, "vm", "ssh", "web1", "-4", "--user", "root").stdout.splitlines()


def test_no_ssh_installed(env: dict[str, str]) -> None:
    program = shutil.which("ucloud", path=env["PATH"])
    assert program is not None
    done = subprocess.run(
        [program, "vm", "ssh", "web1"],
        env={**env, "PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == "ucloud: failed to run ssh: the program is not installed (install ssh)\n"


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("ucloud v", {"vm"}),
        ("ucloud vm cr", {"create"}),
        ("ucloud vm show w", {"web1"}),
        ("ucloud vm create x --image t", {"tiny"}),
        ("ucloud vm create x --restart on", {"on_failure"}),
        ("ucloud vm create x --image tiny --dry", {"--dry-run"}),
        ("ucloud --output json vm li", {"list"}),
        ("ucloud vm create x --cpu ", set()),
        ("ucloud vm migrate w", {"web1"}),
        ("ucloud failover con", {"confirm"}),
    ],
)
def test_completion_in_bash(env: dict[str, str], line: str, wanted: set[str]) -> None:
    words = line.split(" ")
    array = " ".join(f"'{word}'" for word in words)
    script = (
        f'eval "$(ucloud completion bash)"\nCOMP_WORDS=({array})\nCOMP_CWORD={len(words) - 1}\n'
        '_ucloud\nprintf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) == wanted


@pytest.mark.parametrize(("answer", "deleted"), [(b"y\n", True), (b"\n", False)])
def test_a_delete_asks_on_a_terminal(env: dict[str, str], api: FakeApi, answer: bytes, deleted: bool) -> None:
    code, shown = _run_on_terminal(env, ["vm", "delete", "web1"], answer, b"[y/N] ")
    assert b"delete vm web1 (vm-aaaaaaaaaaaa)? [y/N] " in shown
    assert (code == 0) == deleted
    assert ("vm-aaaaaaaaaaaa" not in api.objects["vm"]) == deleted


def test_colours_are_for_terminals_that_want_them(env: dict[str, str]) -> None:
    plain = {name: value for name, value in env.items() if name != "NO_COLOR"}
    assert b"\x1b[33mready" not in _run_on_terminal({**plain, "NO_COLOR": "1"}, ["vm", "list"])[1]
    assert b"\x1b[32mready" in _run_on_terminal({**plain, "TERM": "xterm"}, ["vm", "list"])[1]


def _run_on_terminal(
    env: dict[str, str], words: list[str], answer: bytes = b"", after: bytes = b"\n"
) -> tuple[int, bytes]:
    """The exit code, and what was shown on a pty; ``answer`` is typed once ``after`` was shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(["ucloud", *words], env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    shown = b""
    try:
        while select.select([master], [], [], 30)[0]:
            try:
                shown += os.read(master, 65536)
            except OSError:  # EIO: the program has ended
                break
            if answer and after in shown:
                os.write(master, answer)
                answer = b""
        return process.wait(30), shown
    finally:
        process.kill()
        process.wait()
        os.close(master)
