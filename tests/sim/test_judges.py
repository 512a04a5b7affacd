"""A run's history is judged by every judge: falsified, it is found by the one that is meant.

Each judge has small histories of its own in ``tests/checking``; these are of whole runs.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any

import pytest

from kvstore.types import EventType, PutRequest, WatchResponse
from tests.checking.history import History, Operation, Outcome
from tests.checking.judge import judge
from tests.checking.violation import ViolationError
from tests.sim.profile import Profile
from tests.sim.run import run

CROWD = ("leases", "locks", "candidate", "observer", "watches", "register")
GUARDED = ("administrator", "visitor")
SEEDS_MAX = 32


class _NothingToFalsifyError(Exception):
    """In this run nobody did what could be told otherwise."""


@cache
def run_of(seed: int, *names: str) -> History:
    profile = Profile(name="calm", seconds=15.0, faults={}, workloads=dict.fromkeys(names, 2))
    report = run(seed, profile)
    assert report.violation is None, report.violation
    return report.history


def answered(history: History, method: str) -> Iterator[Operation]:
    return (
        operation
        for operation in history.operations
        if operation.method == method and operation.outcome is Outcome.OK
    )


def heard(history: History) -> Iterator[WatchResponse]:
    return (
        response for watch in history.watches for _, response in watch.responses if response.events
    )


def _lose_an_event(history: History) -> None:
    next(heard(history)).events.pop()


def _tell_an_event_twice(history: History) -> None:
    response = next(heard(history))
    response.events.append(response.events[-1])


def _end_a_lease_at_once(history: History) -> None:
    """A lease that ran out has been renewed just before."""
    revoked = {operation.request.ID for operation in history.operations if _may_revoke(operation)}
    leased: dict[bytes, int] = {}
    for revision, events in history.truth.items():
        for event in events:
            assert event.kv is not None
            lease = leased.pop(event.kv.key, 0)
            if event.type == EventType.PUT:
                leased[event.kv.key] = event.kv.lease
            elif lease and lease not in revoked and event.kv.key.startswith(b"leases/"):
                at = history.truth_at[revision]
                renewed = [
                    operation
                    for operation in answered(history, "lease_keep_alive")
                    if lease == operation.request.ID and operation.returned_at < at
                ]
                if renewed:
                    renewed[-1].response.TTL += 60
                    return
    raise _NothingToFalsifyError


def _may_revoke(operation: Operation) -> bool:
    return operation.method == "lease_revoke" and operation.outcome is not Outcome.REFUSED


def _revive_a_lease(history: History) -> None:
    """One that was held, is gone, and whose id nobody else has had."""
    granted = Counter(operation.response.ID for operation in answered(history, "lease_grant"))
    held = {
        event.kv.lease
        for events in history.truth.values()
        for event in events
        if event.kv is not None and event.type == EventType.PUT
    }
    for operation in answered(history, "lease_time_to_live"):
        lease = operation.request.ID
        if operation.response.TTL < 0 and granted[lease] == 1 and lease in held:
            operation.response.TTL = 1
            return
    raise _NothingToFalsifyError


def _give_a_lock_to_two(history: History) -> None:
    """Somebody was told of a turn before it was theirs."""
    held: dict[bytes, Operation] = {}
    for operation in answered(history, "lock"):
        name = operation.request.name
        before = held.get(name)
        if before is not None and before.response.key != operation.response.key:
            operation.response.header.revision = before.response.header.revision
            return
        held[name] = operation
    raise _NothingToFalsifyError


def _show_an_old_leader(history: History) -> None:
    observation = max(history.observations, key=lambda each: len(each.responses))
    observation.responses.append(observation.responses[0])


def _write_without_a_right(history: History) -> None:
    """Somebody who was refused is told that it was done."""
    refused = next(
        operation
        for operation in history.operations
        if operation.method == "put" and "permission denied" in operation.error
    )
    before = next(
        operation
        for operation in answered(history, "put")
        if isinstance(operation.request, PutRequest) and operation.called_at > refused.called_at
    )
    refused.outcome, refused.response = Outcome.OK, before.response


@pytest.mark.parametrize(
    ("falsify", "checker"),
    [
        (_lose_an_event, "watch"),
        (_tell_an_event_twice, "watch"),
        (_end_a_lease_at_once, "lease"),
        (_revive_a_lease, "lease"),
        (_give_a_lock_to_two, "mutual exclusion"),
        (_show_an_old_leader, "mutual exclusion"),
    ],
)
def test_what_was_falsified_is_found(falsify: Callable[[History], None], checker: str) -> None:
    _finds(CROWD, falsify, checker)


def test_who_was_let_pass_without_a_right_is_found() -> None:
    _finds(GUARDED, _write_without_a_right, "auth")


def _finds(names: tuple[str, ...], falsify: Callable[[History], Any], checker: str) -> None:
    for seed in range(1, SEEDS_MAX + 1):
        falsified = copy.deepcopy(run_of(seed, *names))
        with suppress(_NothingToFalsifyError):
            falsify(falsified)
            break
    else:
        pytest.fail("in none of the runs anybody did what could be told otherwise")
    with pytest.raises(ViolationError) as caught:
        judge(falsified)
    assert caught.value.checker == checker
