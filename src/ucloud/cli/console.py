"""The serial console of a VM on this terminal: raw keys one way, the guest's bytes the other, over a WebSocket.

On a terminal all keys but the escape (``Ctrl-]``) go to the guest, and its settings are restored however this ends.
Without a terminal the input is sent, and after its end and some silence the console is left.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from types import FrameType

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import ClientConnection, connect

from ucloud.client.problems import parse_problem
from ucloud.errors import Conflict, Error, NotFound, Unavailable

ESCAPE = b"\x1d"
_OPEN_S = 15.0
_CLOSE_S = 2.0
_READ_BYTES = 65536
_HINT = "see 'ucloud vm show', and 'ucloud status'"
_CLOSES: dict[int, type[Error]] = {4404: NotFound, 4409: Conflict}


@contextlib.contextmanager
def open_console(url: str, token: str) -> Iterator[ClientConnection]:
    """Raises the error of the refusal, or Unavailable if nobody answered."""
    headers = {"Authorization": f"Bearer {token}"}
    with contextlib.ExitStack() as stack:
        try:
            connecting = connect(
                url,
                additional_headers=headers,
                open_timeout=_OPEN_S,
                close_timeout=_CLOSE_S,
                proxy=None,
                compression=None,
            )
            connection = stack.enter_context(connecting)
        except InvalidStatus as error:
            raise parse_problem(error.response.status_code, bytes(error.response.body or b"")) from error
        except (OSError, InvalidURI, InvalidHandshake) as error:
            raise Unavailable(f"failed to open the console at {url}: {error}", hint=_HINT) from error
        yield connection


def run_console(connection: ClientConnection, *, linger_s: float) -> None:
    """Until the escape, the end of the input, or the other side's end. Raises if that was for a bad reason."""
    keys, screen = sys.stdin.fileno(), sys.stdout.fileno()
    ended_read, ended_write = os.pipe()
    output = _Output(connection, screen, ended_write)
    output.start()
    try:
        if os.isatty(keys):
            with raw_terminal(keys):
                _send_keys(connection, keys, ended_read)
        else:
            _send_input(connection, keys, ended_read, output, linger_s)
    except ConnectionClosed:
        pass
    finally:
        connection.close()
        output.join()
        os.close(ended_read)
        os.close(ended_write)
    _raise_for_close(connection)


class _Output(threading.Thread):
    """Writes what comes from the guest to ``screen``; writes a byte to ``ended`` when nothing more will come.

    ``fresh`` is set at each of both.
    """

    def __init__(self, connection: ClientConnection, screen: int, ended: int) -> None:
        super().__init__(name="console output", daemon=True)
        self._connection = connection
        self._screen = screen
        self._ended = ended
        self.fresh = threading.Event()

    def run(self) -> None:
        try:
            for message in self._connection:
                data = message.encode() if isinstance(message, str) else message
                self.fresh.set()
                write_all(self._screen, data)
        except (ConnectionClosed, OSError):
            # A closed connection is judged by its code later; a closed screen ends the console as well.
            pass
        finally:
            os.write(self._ended, b"x")
            self.fresh.set()


def split_escape(data: bytes) -> tuple[bytes, bool]:
    """What is for the guest, and whether the escape came after it. Pure."""
    before, escape, _ = data.partition(ESCAPE)
    return before, bool(escape)


def _send_keys(connection: ClientConnection, keys: int, ended: int) -> None:
    while True:
        ready, _, _ = select.select([keys, ended], [], [])
        if ended in ready:
            return
        data = os.read(keys, _READ_BYTES)
        for_guest, leave = split_escape(data)
        if for_guest:
            connection.send(for_guest)
        if leave or not data:
            return


def _send_input(connection: ClientConnection, source: int, ended: int, output: _Output, linger_s: float) -> None:
    while True:
        ready, _, _ = select.select([source, ended], [], [])
        if ended in ready:
            return
        data = os.read(source, _READ_BYTES)
        if not data:
            break
        connection.send(data)
    while output.fresh.wait(timeout=linger_s):
        output.fresh.clear()
        if select.select([ended], [], [], 0)[0]:
            return


@contextlib.contextmanager
def raw_terminal(descriptor: int) -> Iterator[None]:
    """All keys as bytes, no echo; restored at the end, also at one by SIGTERM or SIGHUP."""
    saved = termios.tcgetattr(descriptor)
    handlers = {number: signal.signal(number, _exit_by_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        tty.setraw(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, saved)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _exit_by_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _raise_for_close(connection: ClientConnection) -> None:
    code, reason = connection.close_code, connection.close_reason
    if code in (None, 1000, 1005):
        return
    cls = _CLOSES.get(code, Unavailable) if code else Unavailable
    raise cls(f"failed to keep the console: {reason or f'closed with code {code}'}", hint=_HINT)
