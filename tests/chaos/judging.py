"""The judgement of a round whose truth is known: which revision changed what.

With the truth at hand no order has to be searched for: every answer names its revision, and with it
its place. What is left to see is that each answer is the one of its place, and that the places
agree with time: a call that began after another one had ended comes behind it. That is
linearizability (Herlihy and Wing, 1990), and of writes that nothing acknowledged is lost.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from kvstore.client import prefix_end
from kvstore.types import (
    DeleteRangeRequest,
    Event,
    EventType,
    KeyValue,
    PutRequest,
    RangeRequest,
    RangeResponse,
    TxnRequest,
    TxnResponse,
)
from tests.checking.calls import has_written, puts_of
from tests.checking.history import History, Operation, Outcome
from tests.checking.past import Past
from tests.checking.violation import ViolationError

Change = tuple[EventType, bytes, bytes]


def judge_round(history: History) -> int:
    """See that every answer agrees with the truth, and with time.

    Returns:
        How many histories could not be judged: 1 if the truth is not known.

    Raises:
        ViolationError: Something does not agree.
    """
    if not history.truth:
        return 1
    past = Past(history.truth)
    for operation in history.operations:
        if operation.outcome is Outcome.OK:
            check_answer(operation, past)
    check_time(history.operations)
    check_origins(history)
    return 0


def _change(event: Event) -> Change:
    assert event.kv is not None, "an event without a key"
    return event.type, event.kv.key, event.kv.value


def check_answer(operation: Operation, past: Past) -> None:
    """See that an answer is the one of its revision.

    Raises:
        ViolationError: It is not.
    """
    request, response = operation.request, operation.response
    if isinstance(request, RangeRequest):
        _check_range(operation, request, response, response.header.revision, past)
    elif isinstance(request, PutRequest):
        _check_changes(operation, [(EventType.PUT, request.key, request.value)], past)
        if request.prev_kv:
            before = past.at(response.header.revision - 1, request.key, b"")
            _agree(operation, response.prev_kv, before[0] if before else None)
    elif isinstance(request, DeleteRangeRequest):
        revision = response.header.revision
        before = past.at(revision - bool(response.deleted), request.key, request.range_end)
        _agree(operation, response.deleted, len(before))
        if response.deleted:
            _check_changes(operation, [(EventType.DELETE, one.key, b"") for one in before], past)
        if request.prev_kv:
            _agree(operation, response.prev_kvs, before)
    elif isinstance(request, TxnRequest):
        _check_txn(operation, request, response, past)


def _check_range(
    operation: Operation, request: RangeRequest, response: RangeResponse, now: int, past: Past
) -> None:
    found = past.at(request.revision or now, request.key, request.range_end)
    _agree(operation, response.count, len(found))
    if not request.count_only:
        _agree(operation, response.kvs, found)


def _check_txn(
    operation: Operation, request: TxnRequest, response: TxnResponse, past: Past
) -> None:
    assert response.header is not None, "an answer without a header"
    now = response.header.revision
    changes: list[Change] = []
    branch = request.success if response.succeeded else request.failure
    _agree(operation, len(response.responses), len(branch))
    for op, answer in zip(branch, response.responses, strict=True):
        if op.request_put is not None:
            changes.append((EventType.PUT, op.request_put.key, op.request_put.value))
        elif op.request_delete_range is not None and answer.response_delete_range is not None:
            if answer.response_delete_range.deleted:
                changes.append((EventType.DELETE, op.request_delete_range.key, b""))
        elif op.request_range is not None and answer.response_range is not None:
            # The clients of a round read last in a transaction: what it came to.
            _check_range(operation, op.request_range, answer.response_range, now, past)
    before = now - bool(changes)
    holds = all(_holds(compare, past.at(before, compare.key, b"")) for compare in request.compare)
    _agree(operation, response.succeeded, holds)
    if changes:
        _check_changes(operation, changes, past)


def _holds(compare: Any, found: Sequence[KeyValue]) -> bool:
    if not found and compare.value is not None:
        return False  # A value that is not there compares with nothing.
    record = found[0] if found else KeyValue(compare.key)
    pairs = (
        (compare.version, record.version),
        (compare.create_revision, record.create_revision),
        (compare.mod_revision, record.mod_revision),
        (compare.value, record.value),
    )
    ((wanted, held),) = [pair for pair in pairs if pair[0] is not None]
    return bool((held == wanted, held > wanted, held < wanted, held != wanted)[compare.result])


def _check_changes(operation: Operation, changes: list[Change], past: Past) -> None:
    revision = operation.response.header.revision
    happened = [_change(event) for event in past.events(revision)]
    if happened != changes:
        raise ViolationError(
            "durability",
            f"acknowledged at revision {revision}:\n  {operation}\n"
            f"but that revision was {happened}",
        )


def _agree(operation: Operation, told: object, true: object) -> None:
    if told != true:
        raise ViolationError(
            "linearizability", f"{operation}\nwas told {told}\n     but it is {true}"
        )


def check_time(operations: Sequence[Operation]) -> None:
    """See that no answer is older than one that was there before it was asked for.

    Raises:
        ViolationError: One is.
    """
    told = [
        one
        for one in operations
        if one.outcome is Outcome.OK and one.method in ("put", "range", "txn", "delete_range")
    ]
    ended = sorted(told, key=lambda one: one.returned_at)
    newest: list[Operation] = []
    for one in ended:
        last = newest[-1] if newest else one
        newer = one.response.header.revision > last.response.header.revision
        newest.append(one if newer else last)
    times = [one.returned_at for one in ended]
    for one in told:
        if one.method == "range" and one.request.serializable:
            continue  # It asks for what the member has, however old.
        place = bisect_left(times, one.called_at)
        if not place:
            continue
        before = newest[place - 1]
        if one.response.header.revision < before.response.header.revision + has_written(one):
            raise ViolationError(
                "linearizability", f"{one}\nis older than what ended before it began:\n{before}"
            )


def check_origins(history: History) -> None:
    """See that whatever happened, somebody asked for, and was not told that it did not happen.

    Raises:
        ViolationError: Something happened of itself, or though it was refused.
    """
    asked: dict[tuple[bytes, bytes], Operation] = {}
    for operation in history.operations:
        asked.update(((put.key, put.value), operation) for put in puts_of(operation.request))
    for revision, events in history.truth.items():
        for event in events:
            kind, key, value = _change(event)
            # A lock's key is written by the server, and holds nothing.
            if kind is EventType.DELETE or not value:
                continue
            asker = asked.get((key, value))
            if asker is None or asker.outcome is Outcome.REFUSED:
                raise ViolationError(
                    "durability", f"revision {revision} is {event}; asked for by {asker}"
                )


def only(prefix: bytes, truth: dict[int, list[Event]]) -> dict[int, list[Event]]:
    """What happened to the keys of a round."""
    end = prefix_end(prefix)
    found = {
        revision: [event for event in events if event.kv and prefix <= event.kv.key < end]
        for revision, events in sorted(truth.items())
    }
    return {revision: events for revision, events in found.items() if events}
