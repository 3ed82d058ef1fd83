"""Waiting until an object is as wanted: asks again and again, tells of every change, ends with a deadline.

Words that usually are an end (``failed``, ``unschedulable``) may still be mended by the cloud's next pass, so they
end the wait only when they have stayed for some seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from ucloud.client.transport import Object
from ucloud.errors import Conflict, DeadlineExceeded, NotFound
from ucloud.system.clock import Clock, SystemClock

GONE = "gone"
BLOCKED = "blocked"
_UNHEARD: Object = {"phase": "waiting", "reason": "waits for the scheduler", "percent": 0}
MIGRATION_ENDS = ("done", "failed", "cancelled")
PATIENCE_S: Mapping[str, float] = {"failed": 15.0, "crashed": 10.0, "unschedulable": 20.0}
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 0.5

OnChange = Callable[[str, str], None]
"""Called with the word and its reason whenever one of them changes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to wait for: any of ``words`` (``gone`` for a deleted object), of an object called ``title``."""

    title: str
    words: Collection[str]
    deadline_s: float
    patience_s: Mapping[str, float]


def word_and_reason(found: Object) -> tuple[str, str]:
    """As the API says; but a VM that runs while its next boot is wanted (a reboot, say) is not there yet."""
    status, spec = found.get("status") or {}, found.get("spec") or {}
    word, reason = str(status.get("word", "unknown")), str(status.get("reason", ""))
    if word == "running" and status.get("boots", 0) < spec.get("boots", 0):
        return "starting", f"waits for its boot {spec['boots']}"
    return word, reason


def wait_until(
    read: Callable[[], Object], wish: Wish, on_change: OnChange | None = None, *, clock: Clock | None = None
) -> Object | None:
    """The object when it has one of the words; None if it is gone and that was wished.

    Raises DeadlineExceeded, Conflict (it came to rest at another word) or NotFound (it is gone).
    """
    clock = clock or SystemClock()
    started_s = since_s = clock.monotonic_s()
    last = ("", "")
    pause_s = _FIRST_PAUSE_S
    while True:
        found = _read_or_gone(read, wish)
        now = word_and_reason(found) if found is not None else (GONE, "")
        now_s = clock.monotonic_s()
        if now != last:
            since_s, pause_s = (now_s if now[0] != last[0] else since_s), _FIRST_PAUSE_S
            last = now
            if on_change:
                on_change(*now)
        if now[0] in wish.words:
            return found
        _refuse_hopeless(wish, now, now_s - since_s)
        if now_s - started_s >= wish.deadline_s:
            raise _too_late(wish, now)
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)


def _read_or_gone(read: Callable[[], Object], wish: Wish) -> Object | None:
    try:
        return read()
    except NotFound:
        if GONE in wish.words:
            return None
        raise


def _refuse_hopeless(wish: Wish, now: tuple[str, str], for_s: float) -> None:
    word, reason = now
    if word in wish.patience_s and for_s >= wish.patience_s[word]:
        raise Conflict(
            f"failed to wait for {wish.title}: it is {word}" + (f": {reason}" if reason else ""),
            hint=_hint(word),
            code=f"wait_{word}",
        )


def _hint(word: str) -> str:
    if word == BLOCKED:
        return "'ucloud host show' names what cannot move, and why; 'ucloud host drain --stop' stops it meanwhile"
    if word == "unschedulable":
        return "it starts when a host can take it; 'ucloud vm explain' shows why none can now"
    return "'ucloud vm log' and 'ucloud event list' may tell more"


def _too_late(wish: Wish, now: tuple[str, str]) -> DeadlineExceeded:
    word, reason = now
    wanted = " or ".join(sorted(wish.words))
    return DeadlineExceeded(
        f"failed to wait for {wish.title} to be {wanted}: still {word} after {wish.deadline_s:g} s"
        + (f": {reason}" if reason else ""),
        hint="the cloud keeps working on it; look again with 'show', or wait longer with --timeout",
    )


def wait_migrated(
    read: Callable[[], Object],
    title: str,
    deadline_s: float,
    on_change: Callable[[Object], None] | None = None,
    *,
    after: str = "",
    clock: Clock | None = None,
) -> Object:
    """The migration once it is done. Raises Conflict if it ended otherwise, DeadlineExceeded if it has not ended.

    ``on_change`` is called with it whenever it has become another. ``after`` is the request before the one that is
    waited for: an API that still tells of that has not heard the news.
    """
    clock = clock or SystemClock()
    until_s = clock.monotonic_s() + deadline_s
    last: Object = {}
    while True:
        found = _newer(read, after)
        if found != last and on_change:
            on_change(found)
        last = found
        if found["phase"] in MIGRATION_ENDS:
            break
        if clock.monotonic_s() >= until_s:
            raise DeadlineExceeded(
                f"failed to wait for the migration of {title}: still {found['phase']} after {deadline_s:g} s: "
                f"{found['reason']}",
                hint="it goes on; look again with 'ucloud vm migration'",
            )
        time.sleep(_LONGEST_PAUSE_S / 2)
    if last["phase"] != "done":
        raise Conflict(
            f"failed to migrate {title}: {last['phase']}: {last['reason']}",
            hint="it stays where it is; 'ucloud vm show' tells how it does",
            code=f"migration_{last['phase']}",
        )
    return last


def _newer(read: Callable[[], Object], after: str) -> Object:
    try:
        found = read()
    except NotFound:
        return _UNHEARD
    return _UNHEARD if after and (found.get("request") or {}).get("id") == after else found


def with_drain_word(host: Object) -> Object:
    """The host; with the word ``blocked`` while it drains and nothing of what is left can move."""
    status = host.get("status") or {}
    drain = status.get("drain") or {}
    stuck = bool(drain.get("blocked")) and not drain.get("moving")
    return {**host, "status": {**status, "word": BLOCKED}} if status.get("word") == "draining" and stuck else host
