"""Whether a history was told to its end, and whether guards fenced only when their time was up. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ucloud.lab.violations import Event, Violation, ViolationKind

_CLOCK_SLACK_S = 0.01  # who tells and who counts are different threads


def check_telling(history: Sequence[Event]) -> Iterator[Violation]:
    yield from _dropped(history)
    yield from _end(history)
    yield from _false_fences(history)


def _dropped(history: Sequence[Event]) -> Iterator[Violation]:
    """Each source counts the datagrams that it could not send."""
    told: dict[str, Event] = {}
    for event in history:
        if event.get("dropped"):
            told[str(event.get("source", ""))] = event
    for source, event in told.items():
        text = f"{source} could not tell {event['dropped']} facts"
        yield Violation(ViolationKind.INCOMPLETE, text, float(event["at_s"]), (event,))


def _end(history: Sequence[Event]) -> Iterator[Violation]:
    if not history or history[-1]["kind"] != "history_end":
        at_s = float(history[-1]["at_s"]) if history else 0.0
        yield Violation(ViolationKind.INCOMPLETE, "the history has no end: its recorder was ended early", at_s)


def _false_fences(history: Sequence[Event]) -> Iterator[Violation]:
    """A fence for want of evidence, although the newest evidence was younger than F."""
    sent_s: dict[str, float] = {}
    for event in history:
        host = str(event.get("host", ""))
        if event["kind"] == "evidence":
            sent_s[host] = max(sent_s.get(host, 0.0), float(event["sent_s"]))
        elif event["kind"] == "fence" and event.get("fence_s"):
            known = host in sent_s or "evidence_age_s" in event
            age_s = float(event.get("evidence_age_s", float(event["at_s"]) - sent_s.get(host, 0.0)))
            if known and age_s < float(event["fence_s"]) - _CLOCK_SLACK_S:
                text = f"{host} fenced {age_s:.2f} s after its last evidence, F is {event['fence_s']:g} s"
                yield Violation(ViolationKind.FALSE_FENCE, text, float(event["at_s"]), (event,))
