"""One request to the API: a kept-alive connection, deadlines, and retries of what may safely be sent twice.

One Transport belongs to one thread. ``Idempotency-Key`` makes a POST safe to repeat: the API answers it with the object
that the first one made, whichever of the cloud's APIs that was.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import secrets
import select
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from ucloud import __version__
from ucloud.client.problems import parse_problem
from ucloud.client.profile import Profile
from ucloud.errors import DeadlineExceeded, Error, Unavailable
from ucloud.system.clock import Clock, SystemClock

Object = dict[str, Any]
Query = Sequence[tuple[str, str]]

_REPEATABLE_METHODS = ("GET", "HEAD", "DELETE")
_RETRIED_STATUSES = (502, 503, 504)
_LONGEST_PAUSE_S = 1.0
_CONNECT_S = 2.0  # where there is another API to try


@dataclass(frozen=True, slots=True)
class Request:
    """``body`` is sent as it is; an iterable needs its Content-Length in ``headers`` and is never sent twice."""

    method: str
    path: str
    query: Query = ()
    body: bytes | Iterable[bytes] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0
    accepted: tuple[int, ...] = ()

    @property
    def repeatable(self) -> bool:
        keyed = "Idempotency-Key" in self.headers and (self.body is None or isinstance(self.body, bytes))
        return self.method in _REPEATABLE_METHODS or keyed


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Object:
        try:
            value = json.loads(self.body)
        except ValueError as error:
            raise Error("failed to read the API's answer: it is not JSON", code="bad_answer") from error
        if not isinstance(value, dict):
            raise Error("failed to read the API's answer: it is not an object", code="bad_answer")
        return value


class Transport:
    """``timeout_s`` is for connecting and for each silence of the API; ``patience_s`` is how long to try again.

    With several APIs the next one is asked when one cannot be reached, and the one that answered is asked from then on.
    """

    def __init__(
        self, profile: Profile, *, timeout_s: float = 30.0, patience_s: float = 5.0, clock: Clock | None = None
    ) -> None:
        self._profile = profile
        self._bases: tuple[SplitResult, ...] = tuple(urlsplit(url) for url in (profile.url, *profile.others))
        self._base = self._bases[0]
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._clock = clock or SystemClock()
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection:
            self._connection.close()
            self._connection = None

    def send(self, request: Request) -> Answer:
        """The whole answer. Raises a ClientError for a refusal, Unavailable if there was none."""
        until_s = self._clock.monotonic_s() + self._patience_s
        pause_s, tried = 0.1, 0
        while True:
            try:
                answer = self._send_once(request)
                if answer.status not in _RETRIED_STATUSES or answer.status in request.accepted:
                    return _accept(request, answer)
                error: Error = _refusal(answer)
                again = request.repeatable
            except _NoAnswer as failure:
                error = failure.error
                again = request.repeatable or not failure.sent
            tried += 1
            if not again:
                raise error
            if tried >= len(self._bases):  # all have been asked
                if self._clock.monotonic_s() + pause_s > until_s:
                    raise error
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            self._next_api()

    @contextlib.contextmanager
    def open(self, request: Request) -> Iterator[http.client.HTTPResponse]:
        """An answer that is read piece by piece, over a connection of its own. Never sent twice."""
        connection = self._connect(request.timeout_s or self._timeout_s)
        try:
            try:
                response = self._exchange(connection, request)
            except _NoAnswer as failure:
                raise failure.error from failure
            if response.status >= 400:
                raise _refusal(Answer(response.status, dict(response.getheaders()), response.read()))
            yield response
        except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
            raise self._failure(error) from error
        finally:
            connection.close()

    def _next_api(self) -> None:
        """The next one is asked first; a kept connection is one to the last."""
        if len(self._bases) == 1:
            return
        self.close()
        place = self._bases.index(self._base)
        self._base = self._bases[(place + 1) % len(self._bases)]

    def _send_once(self, request: Request) -> Answer:
        timeout_s = request.timeout_s or self._timeout_s
        connection = self._reuse(timeout_s)
        try:
            response = self._exchange(connection, request)
            try:
                body = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise _NoAnswer(self._failure(error), sent=True) from error
        except BaseException:
            connection.close()
            raise
        if response.will_close:
            connection.close()
        else:
            self._connection = connection
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)

    def _reuse(self, timeout_s: float) -> http.client.HTTPConnection:
        """The kept connection if the API has not closed it meanwhile, else a new one."""
        connection, self._connection = self._connection, None
        if connection is None or connection.sock is None:
            return self._connect(timeout_s)
        if select.select([connection.sock], [], [], 0)[0]:
            connection.close()
            return self._connect(timeout_s)
        connection.sock.settimeout(timeout_s)
        return connection

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        cls = http.client.HTTPSConnection if self._base.scheme == "https" else http.client.HTTPConnection
        return cls(self._base.hostname or "", self._base.port, timeout=timeout_s)

    def _exchange(self, connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
        if connection.sock is None:
            try:
                self._open(connection)
            except OSError as error:
                raise _NoAnswer(self._failure(error), sent=False) from error
        try:
            connection.request(request.method, self._target(request), body=request.body, headers=self._headers(request))
        except (BrokenPipeError, ConnectionResetError):
            # The API may have answered before it read everything (too large, no room): that answer says more.
            pass
        except OSError as error:
            raise _NoAnswer(self._failure(error), sent=True) from error
        try:
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise _NoAnswer(self._failure(error), sent=True) from error

    def _open(self, connection: http.client.HTTPConnection) -> None:
        timeout_s = connection.timeout
        if len(self._bases) > 1 and timeout_s is not None:
            connection.timeout = min(timeout_s, _CONNECT_S)
        connection.connect()
        connection.sock.settimeout(timeout_s)

    def _target(self, request: Request) -> str:
        query = f"?{urlencode(request.query)}" if request.query else ""
        return f"{self._base.path}{request.path}{query}"

    def _headers(self, request: Request) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._profile.read_token()}",
            "User-Agent": f"ucloud/{__version__}",
            "X-Request-Id": secrets.token_hex(8),
            **request.headers,
        }

    def _failure(self, error: Exception) -> Unavailable:
        where = f"the API at {self._base.geturl()}"
        if isinstance(error, TimeoutError):
            return DeadlineExceeded(f"failed to reach {where}: no answer in time", hint="see 'ucloud status'")
        cause = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unavailable(f"failed to reach {where}: {cause}", hint="is this cloud up? See 'ucloud status'")


class _NoAnswer(Exception):
    """``sent``: the request may have had its effect."""

    def __init__(self, error: Unavailable, *, sent: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.sent = sent


def _refusal(answer: Answer) -> Error:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return parse_problem(answer.status, answer.body, request_id=headers.get("x-request-id", ""))


def _accept(request: Request, answer: Answer) -> Answer:
    if answer.status >= 400 and answer.status not in request.accepted:
        raise _refusal(answer)
    return answer
