"""Histories that can be explained are accepted, and those that cannot are not."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    LeaderRequest,
    LeaderResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)
from tests.checking.history import History, Operation, Outcome
from tests.checking.judge import judge
from tests.checking.violation import ViolationError


def header(revision: int) -> ResponseHeader:
    return ResponseHeader(1, 1, revision, 1)


def put(start: float, end: float, value: bytes, revision: int, key: bytes = b"k") -> Operation:
    return answered(start, end, "put", PutRequest(key, value), PutResponse(header(revision)))


def read(
    start: float, end: float, revision: int, *kvs: KeyValue, serializable: bool = False
) -> Operation:
    request = RangeRequest(b"k", serializable=serializable)
    response = RangeResponse(header(revision), list(kvs), count=len(kvs))
    return answered(start, end, "range", request, response)


def answered(start: float, end: float, method: str, request: Any, response: Any) -> Operation:
    return Operation(1, method, request, 0, start, end, Outcome.OK, response)


def unknown(start: float, value: bytes) -> Operation:
    return Operation(2, "put", PutRequest(b"k", value), 0, start, inf, Outcome.UNKNOWN)


def swap(start: float, end: float, revision: int, mod: int, *, succeeded: bool) -> Operation:
    compare = Compare(CompareResult.EQUAL, CompareTarget.MOD, b"k", mod_revision=mod)
    request = TxnRequest([compare], [RequestOp(request_put=PutRequest(b"k", b"new"))])
    done = [ResponseOp(response_put=PutResponse(header(revision)))] if succeeded else []
    return answered(start, end, "txn", request, TxnResponse(header(revision), succeeded, done))


ONE = KeyValue(b"k", 2, 2, 1, b"one")
TWO = KeyValue(b"k", 2, 3, 2, b"two")
TWO_OF_UNKNOWN = KeyValue(b"k", 2, 3, 2, b"maybe")

GOOD = {
    "nothing happened": [],
    "a write and a read": [put(0, 1, b"one", 2), read(2, 3, 2, ONE)],
    "a read beside a write sees it": [put(0, 5, b"one", 2), read(1, 2, 2, ONE)],
    "a read beside a write does not see it": [put(0, 5, b"one", 2), read(1, 2, 1)],
    "an unknown write happened late": [
        put(0, 1, b"one", 2),
        unknown(1, b"maybe"),
        read(2, 3, 2, ONE),
        read(4, 5, 3, TWO_OF_UNKNOWN),
    ],
    "an unknown write never happened": [put(0, 1, b"one", 2), unknown(1, b"x"), read(2, 3, 2, ONE)],
    "a serializable read of the past": [
        put(0, 1, b"one", 2),
        put(2, 3, b"two", 3),
        read(4, 5, 2, ONE, serializable=True),
    ],
    "of two swaps one succeeds": [
        put(0, 1, b"one", 2),
        swap(2, 4, 3, 2, succeeded=True),
        swap(2, 4, 3, 2, succeeded=False),
    ],
}

BAD = {
    "a stale read": [put(0, 1, b"one", 2), read(2, 3, 1)],
    "a read of what nobody wrote": [put(0, 1, b"one", 2), read(2, 3, 2, TWO)],
    "a lost update": [put(0, 1, b"one", 2), put(2, 3, b"two", 3), read(4, 5, 3, ONE)],
    "two writes at one revision": [put(0, 1, b"one", 2), put(0, 1, b"two", 2)],
    "a revision that goes back": [put(0, 1, b"one", 3), put(2, 3, b"two", 2)],
    "seen, and then not": [
        put(0, 1, b"one", 2),
        unknown(1, b"maybe"),
        read(2, 3, 3, TWO_OF_UNKNOWN),
        read(4, 5, 2, ONE),
    ],
    "an unknown write before it was called": [
        put(0, 1, b"one", 2),
        read(2, 3, 3, TWO_OF_UNKNOWN),
        unknown(4, b"maybe"),
    ],
    "both swaps succeed": [
        put(0, 1, b"one", 2),
        swap(2, 4, 3, 2, succeeded=True),
        swap(2, 4, 4, 2, succeeded=True),
    ],
    "a swap fails without a reason": [
        put(0, 1, b"one", 2),
        swap(2, 4, 2, 2, succeeded=False),
    ],
    "a version that skips": [
        put(0, 1, b"one", 2),
        put(2, 3, b"two", 3),
        read(4, 5, 3, KeyValue(b"k", 2, 3, 5, b"two")),
    ],
    "a serializable read of what never was": [
        put(0, 1, b"one", 2),
        read(2, 3, 2, TWO, serializable=True),
    ],
    "a deletion that finds nothing": [
        put(0, 1, b"one", 2),
        answered(2, 3, "delete_range", DeleteRangeRequest(b"k"), DeleteRangeResponse(header(2), 0)),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_what_can_be_explained_is_accepted(name: str) -> None:
    assert judge(History(list(GOOD[name])))


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_explained_is_refused(name: str) -> None:
    with pytest.raises(ViolationError) as caught:
        judge(History(list(BAD[name])))
    assert caught.value.checker == "linearizability"


# --- histories of a correct store -----------------------------------------------------------------


def correct(seed: int, length: int) -> History:
    """Calls that overlap, on a store that takes each at one moment of its own; some outcomes are
    not known, and of those some happened.
    """
    rng = random.Random(seed)
    moments = sorted(rng.uniform(0, length) for _ in range(length))
    state: dict[bytes, KeyValue] = {}
    revision = 1
    operations = []
    for number, at in enumerate(moments):
        start, end = at - rng.uniform(0, 3), at + rng.uniform(0, 3)
        key = rng.choice([b"k", b"l"])
        lost = rng.random() < 0.1
        if rng.random() < 0.5:
            value = b"%d" % number
            operation = Operation(number, "put", PutRequest(key, value), 0, start)
            if not lost or rng.random() < 0.5:
                revision += 1
                old = state.get(key)
                created = old.create_revision if old else revision
                version = old.version + 1 if old else 1
                state[key] = KeyValue(key, created, revision, version, value)
            response: Any = PutResponse(header(revision))
        else:
            kvs = [state[key]] if key in state else []
            operation = Operation(number, "range", RangeRequest(key), 0, start)
            response = RangeResponse(header(revision), kvs, count=len(kvs))
        if not lost:
            operation.outcome, operation.returned_at = Outcome.OK, end
            operation.response = response
        operations.append(operation)
    return History(sorted(operations, key=lambda operation: operation.called_at))


@given(st.integers(0, 1 << 32), st.integers(1, 60))
def test_a_correct_store_is_never_accused(seed: int, length: int) -> None:
    assert judge(correct(seed, length))


@given(st.integers(0, 1 << 32), st.data())
def test_a_value_that_was_never_written_is_always_seen(seed: int, data: st.DataObject) -> None:
    history = correct(seed, 40)
    reads = [
        operation
        for operation in history.operations
        if operation.method == "range" and operation.response and operation.response.kvs
    ]
    if not reads:
        return
    falsified = data.draw(st.sampled_from(reads))
    kv = msgspec.structs.replace(falsified.response.kvs[0], value=b"never")
    falsified.response = RangeResponse(falsified.response.header, [kv], count=1)
    with pytest.raises(ViolationError):
        judge(history)


def test_a_first_write_of_unknown_outcome_to_another_key_explains_its_revision() -> None:
    first = KeyValue(b"k", 2, 2, 1, b"maybe")
    second = KeyValue(b"other", 3, 3, 1, b"two")
    truth = {2: [Event(EventType.PUT, first)], 3: [Event(EventType.PUT, second)]}
    operations = [unknown(0, b"maybe"), put(2, 3, b"two", 3, key=b"other")]
    assert judge(History(operations, truth=truth))
    truth[2] = [Event(EventType.PUT, msgspec.structs.replace(first, value=b"nobody's"))]
    with pytest.raises(ViolationError, match="revision 2"):
        judge(History(operations, truth=truth))


def _beside_others(*operations: Operation) -> bool:
    """Judge calls on a store that had revision 10 before, and that others write as well."""
    return judge(History(list(operations)), alone=False, since=10)


def test_a_member_that_has_just_joined_may_show_what_was_before_the_first_call() -> None:
    first = put(0, 1, b"one", 11)
    assert _beside_others(first, read(2, 3, 1, serializable=True))
    with pytest.raises(ViolationError, match="revision 10 before"):
        _beside_others(first, read(2, 3, 1))
    # It shows nothing of what came later, in none of its answers.
    with pytest.raises(ViolationError, match="none of the keys was there"):
        _beside_others(first, read(2, 3, 1, ONE, serializable=True))


def test_a_call_of_unknown_outcome_happened_in_no_revision_before_the_first_call() -> None:
    maybe = KeyValue(b"k", 5, 5, 1, b"maybe")
    early = read(2, 3, 1, serializable=True)
    with pytest.raises(ViolationError):
        _beside_others(unknown(0, b"maybe"), early, read(4, 5, 12, maybe))


def test_who_leads_an_election_was_not_there_before_the_first_call() -> None:
    def leader(revision: int) -> Operation:
        candidate = KeyValue(b"e/1", revision, revision, 1, b"me")
        response = LeaderResponse(header(12), candidate)
        return answered(4, 5, "leader", LeaderRequest(b"e"), response)

    assert _beside_others(put(0, 1, b"me", 11, b"e/1"), leader(11))
    with pytest.raises(ViolationError, match="none of the keys was there"):
        _beside_others(put(0, 1, b"me", 11, b"e/1"), leader(10))
