"""Fence verbs are said in threads: a service that hangs stops nobody, and only its own yes counts."""

from __future__ import annotations

import threading

from ucloud.control.pool_fencing import PoolFencing
from ucloud.errors import Unavailable


class Service:
    """Answers when it is let; ``failures`` are how often it refuses first."""

    def __init__(self, failures: int = 0) -> None:
        self.may_answer = threading.Event()
        self.failures = failures
        self.asked = 0

    def fence(self, pool_id: str, host_id: str, incarnation: str) -> None:
        self.asked += 1
        assert self.may_answer.wait(10)
        if self.asked <= self.failures:
            raise Unavailable("failed to fence: no answer")


def test_a_service_that_hangs_is_waited_for_and_asked_once() -> None:
    service, woken = Service(), threading.Event()
    pools = PoolFencing(service, wake=woken.set)
    assert pools.ensure(["p"], "h", "i") == "pool p is asked to refuse it"
    assert pools.ensure(["p"], "h", "i") == "pool p is asked to refuse it"
    service.may_answer.set()
    assert woken.wait(10)
    assert pools.ensure(["p"], "h", "i") == ""
    assert service.asked == 1


def test_each_incarnation_is_fenced_for_itself() -> None:
    service = Service()
    service.may_answer.set()
    pools = PoolFencing(service, start=lambda work: work())
    assert pools.ensure(["p", "q"], "h", "i") == ""
    assert pools.ensure(["p"], "h", "i2") == ""
    assert service.asked == 3


def test_a_failure_is_told_and_tried_again() -> None:
    service, woken = Service(failures=1), []
    service.may_answer.set()
    pools = PoolFencing(service, wake=lambda: woken.append(1), start=lambda work: work())
    assert "again: failed to fence: no answer" in pools.ensure(["p"], "h", "i")
    assert woken == [], "the pass comes back by itself"
    assert pools.ensure(["p"], "h", "i") == ""


def test_no_pool_needs_no_service() -> None:
    assert PoolFencing().ensure([], "h", "i") == ""
    assert "no storage service is set up" in PoolFencing().ensure(["p"], "h", "i")
