"""Whether two hosts ever wrote one volume at a time, and whether a write that the API answered was lost. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from ucloud.lab.violations import Event, Violation, ViolationKind


def check_writes(history: Sequence[Event]) -> Iterator[Violation]:
    yield from _storage(history)
    yield from _lost(history)


def _storage(history: Sequence[Event]) -> Iterator[Violation]:
    """``storage_write`` is what one (host, incarnation) wrote without a pause, as the storage saw it."""
    writes = sorted(
        (event for event in history if event["kind"] == "storage_write"),
        key=lambda event: (event["volume"], float(event["first_s"])),
    )
    fenced_s = {_writer(event): float(event["at_s"]) for event in history if event["kind"] == "pool_fenced"}
    for volume, spans in groupby(writes, key=lambda event: event["volume"]):
        last: Event | None = None
        for span in spans:
            first_s = float(span["first_s"])
            if last is not None and _writer(last) != _writer(span) and first_s < float(last["last_s"]):
                text = f"volume {volume} was written by {_name(last)} and {_name(span)} at a time"
                yield Violation(ViolationKind.WRITE_OVERLAP, text, first_s, (last, span))
            if float(span["last_s"]) > fenced_s.get(_writer(span), float("inf")):
                text = f"volume {volume} was written by {_name(span)} after its access had ended"
                yield Violation(ViolationKind.WRITE_AFTER_FENCE, text, float(span["last_s"]), (span,))
            if last is None or float(span["last_s"]) > float(last["last_s"]):
                last = span


def _writer(event: Event) -> tuple[str, str]:
    return str(event["host"]), str(event["incarnation"])


def _name(event: Event) -> str:
    return f"{event['host']}/{event['incarnation']}"


def _lost(history: Sequence[Event]) -> Iterator[Violation]:
    """Every write that the API answered must be found when all is over."""
    found = {event["id"] for event in history if event["kind"] == "write_found"}
    for event in history:
        if event["kind"] == "write_acked" and event["id"] not in found:
            text = f"the answered write {event['id']} of {event.get('key', 'an object')} is not there"
            yield Violation(ViolationKind.LOST_WRITE, text, float(event["at_s"]), (event,))
