"""The judges of a round find what is wrong, and nothing where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Record,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from tests.chaos.judging import judge_round
from tests.checking.history import History, Operation, Outcome
from tests.checking.violation import ViolationError

ONE = KeyValue(b"r1/k", 11, 11, 1, b"one")
TWO = KeyValue(b"r1/k", 11, 12, 2, b"two")
LEASED = KeyValue(b"r1/s", 14, 14, 1, b"s", 7)


def _head(revision: int) -> ResponseHeader:
    return ResponseHeader(revision=revision)


def _ok(method: str, request: Record, response: Any, began: float) -> Operation:
    return Operation(1, method, request, 0, began, began + 0.5, Outcome.OK, response)


def _put_op(key: bytes, value: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key, value))


def _guarded(revision: int, value: bytes, fence: int, began: float) -> Operation:
    """A write under a lock."""
    mine = Compare(CompareResult.EQUAL, CompareTarget.CREATE, b"r1/lock", create_revision=fence)
    request = TxnRequest([mine], [_put_op(b"r1/g/0", value)], [])
    answer = TxnResponse(_head(revision), True, [ResponseOp(response_put=PutResponse())])
    return _ok("txn", request, answer, began)


def _history() -> History:
    """A small round in which all is right: two puts, a delete, and a lease that runs out."""
    gone = KeyValue(b"r1/k", mod_revision=13)
    over = KeyValue(b"r1/s", mod_revision=15)
    key = RangeRequest(b"r1/k")
    truth = {
        11: [Event(EventType.PUT, ONE)],
        12: [Event(EventType.PUT, TWO)],
        13: [Event(EventType.DELETE, gone)],
        14: [Event(EventType.PUT, LEASED)],
        15: [Event(EventType.DELETE, over)],
    }
    operations = [
        _ok("put", PutRequest(b"r1/k", b"one"), PutResponse(_head(11)), 0.0),
        _ok("range", key, RangeResponse(_head(11), [ONE], count=1), 1.0),
        _ok("put", PutRequest(b"r1/k", b"two", prev_kv=True), PutResponse(_head(12), ONE), 2.0),
        _ok("delete_range", DeleteRangeRequest(b"r1/k"), DeleteRangeResponse(_head(13), 1), 3.0),
        _ok("range", key, RangeResponse(_head(13)), 4.0),
        _ok("lease_grant", LeaseGrantRequest(4, 7), LeaseGrantResponse(_head(13), 7, 4), 4.0),
        _ok("put", PutRequest(b"r1/s", b"s", 7), PutResponse(_head(14)), 4.6),
        Operation(2, "put", PutRequest(b"r1/k", b"three"), 0, 5.0),
        # It is told that there is no such lease any more: no promise.
        _ok(
            "lease_keep_alive", LeaseKeepAliveRequest(7), LeaseKeepAliveResponse(_head(15), 7), 9.5
        ),
    ]
    return History(operations, truth=truth)


def _read_too_old(history: History) -> None:
    history.operations[4].response = RangeResponse(_head(12), [TWO], count=1)


def _read_something_else(history: History) -> None:
    history.operations[1].response = RangeResponse(_head(11), [TWO], count=1)


def _lose_a_write(history: History) -> None:
    history.truth[12] = [Event(EventType.PUT, KeyValue(b"r1/x", 12, 12, 1, b"x"))]


def _do_what_was_refused(history: History) -> None:
    history.operations[7].outcome = Outcome.REFUSED
    history.truth[16] = [Event(EventType.PUT, KeyValue(b"r1/k", 16, 16, 1, b"three"))]


def _do_what_nobody_asked_for(history: History) -> None:
    history.truth[16] = [Event(EventType.PUT, KeyValue(b"r1/k", 16, 16, 1, b"whose?"))]


def _delete_more_than_there_was(history: History) -> None:
    history.operations[3].response = DeleteRangeResponse(_head(13), 2)


def _show_another_past(history: History) -> None:
    history.operations[2].response.prev_kv = TWO


def _succeed_against_the_comparison(history: History) -> None:
    history.operations.append(_guarded(16, b"g", 5, 10.0))
    history.truth[16] = [Event(EventType.PUT, KeyValue(b"r1/g/0", 16, 16, 1, b"g"))]


def test_a_round_in_which_all_is_right_is_accepted() -> None:
    assert judge_round(_history()) == 0


def test_a_round_whose_truth_is_not_known_is_counted() -> None:
    history = _history()
    history.truth = {}
    assert judge_round(history) == 1


@pytest.mark.parametrize(
    ("falsify", "checker"),
    [
        (_read_too_old, "linearizability"),
        (_read_something_else, "linearizability"),
        (_lose_a_write, "durability|linearizability"),
        (_do_what_was_refused, "durability"),
        (_do_what_nobody_asked_for, "durability"),
        (_delete_more_than_there_was, "linearizability"),
        (_show_another_past, "linearizability"),
        (_succeed_against_the_comparison, "linearizability"),
    ],
)
def test_what_is_wrong_is_found(falsify: Callable[[History], None], checker: str) -> None:
    history = _history()
    falsify(history)
    with pytest.raises(ViolationError, match=checker):
        judge_round(history)
