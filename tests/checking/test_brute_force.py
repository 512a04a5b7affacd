"""The search says of small histories, right and wrong ones, what trying every order says."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    ResponseHeader,
    TxnRequest,
)
from tests.checking import linearizability
from tests.checking.brute_force import CALLS_MAX, has_order
from tests.checking.history import History, Operation, Outcome
from tests.checking.model import State
from tests.checking.violation import ViolationError

KEYS = (b"a", b"b")
METHODS: dict[Any, str] = {
    PutRequest: "put",
    RangeRequest: "range",
    DeleteRangeRequest: "delete_range",
}


def _request(rng: random.Random) -> Any:
    key = rng.choice(KEYS)
    value = b"%d" % rng.randrange(3)
    choice = rng.random()
    if choice < 0.35:
        return PutRequest(key, value, prev_kv=rng.random() < 0.3)
    if choice < 0.6:
        revision = rng.choice((0, 0, 0, 1, 2, 3))
        whole = rng.random() < 0.3
        return RangeRequest(
            b"a" if whole else key,
            b"c" if whole else b"",
            revision=revision,
            serializable=not revision and rng.random() < 0.2,
        )
    if choice < 0.75:
        return DeleteRangeRequest(b"a", rng.choice((b"", b"c")), prev_kv=rng.random() < 0.3)
    compare = rng.choice(
        (
            Compare(CompareResult.EQUAL, CompareTarget.VALUE, key, value=value),
            Compare(CompareResult.GREATER, CompareTarget.VERSION, key, version=rng.randrange(2)),
            Compare(CompareResult.EQUAL, CompareTarget.MOD, key, mod_revision=rng.randrange(4)),
        )
    )
    put = RequestOp(request_put=PutRequest(rng.choice(KEYS), value))
    read = RequestOp(request_range=RangeRequest(key))
    delete = RequestOp(request_delete_range=DeleteRangeRequest(rng.choice(KEYS)))
    return TxnRequest([compare], [rng.choice((put, delete)), read], [rng.choice((read, put))])


def history_of(seed: int, length: int) -> History:
    """What a correct store answers to calls that overlap; some answers are lost."""
    rng = random.Random(seed)
    state = State()
    past = [State()]
    operations: list[Operation] = []
    for number in range(length):
        at = float(number)
        request = _request(rng)
        if isinstance(request, RangeRequest) and request.revision > state.revision:
            request.revision = 0
        called_at = at - rng.choice((0.0, 0.4, 1.5, 3.5))
        returned_at = at + rng.choice((0.1, 0.4, 1.5, 3.5))
        method = METHODS.get(type(request), "txn")
        operation = Operation(number, method, request, 0, called_at, returned_at)
        lost = rng.random() < 0.2
        if not lost or rng.random() < 0.5:
            read = past[request.revision - 1] if getattr(request, "revision", 0) else state
            effect = read.execute(request)
            if effect.changes:
                state.apply(effect.changes, state.revision + 1)
                past.append(State(state.revision))
                past[-1].apply(list(state.keys.values()), state.revision)
            operation.response = effect.response
            operation.response.header = ResponseHeader(revision=state.revision)
            operation.outcome = Outcome.OK
        if lost:
            operation.outcome, operation.response = Outcome.UNKNOWN, None
            operation.returned_at = inf
        operations.append(operation)
    return History(sorted(operations, key=lambda operation: operation.called_at))


def _shift_revision(rng: random.Random, history: History, one: Operation) -> None:
    one.response.header.revision += rng.choice((-1, 1))


def _shift_time(rng: random.Random, history: History, one: Operation) -> None:
    seconds = rng.uniform(-4.0, 4.0)
    one.called_at += seconds
    one.returned_at += seconds


def _swap_answers(rng: random.Random, history: History, one: Operation) -> None:
    others = [
        other
        for other in history.operations
        if other.outcome is Outcome.OK and other.method == one.method
    ]
    other = rng.choice(others)
    one.response, other.response = other.response, one.response


def _forget(rng: random.Random, history: History, one: Operation) -> None:
    history.operations.remove(one)


def _refuse(rng: random.Random, history: History, one: Operation) -> None:
    one.outcome, one.response = Outcome.REFUSED, None


def _lose_answer(rng: random.Random, history: History, one: Operation) -> None:
    one.outcome, one.response, one.returned_at = Outcome.UNKNOWN, None, inf


def _write_another(rng: random.Random, history: History, one: Operation) -> None:
    if isinstance(one.request, PutRequest):
        one.request = msgspec.structs.replace(one.request, value=b"%d" % rng.randrange(3))


def _lead_to_another_key(rng: random.Random, history: History, one: Operation) -> None:
    if not isinstance(one.request, TxnRequest):
        one.request = msgspec.structs.replace(one.request, key=rng.choice(KEYS))


FALSIFICATIONS: tuple[Callable[[random.Random, History, Operation], None], ...] = (
    _shift_revision,
    _shift_time,
    _swap_answers,
    _forget,
    _refuse,
    _lose_answer,
    _write_another,
    _lead_to_another_key,
)


def falsified(seed: int, length: int, times: int) -> History:
    """A history that somebody has meddled with; often it can be explained all the same."""
    history = history_of(seed, length)
    rng = random.Random(seed + 1)
    for _ in range(times):
        answered = [one for one in history.operations if one.outcome is Outcome.OK]
        if answered:
            rng.choice(FALSIFICATIONS)(rng, history, rng.choice(answered))
    history.operations.sort(key=lambda operation: operation.called_at)
    return history


def is_accepted(history: History) -> bool:
    try:
        linearizability.check(history)
    except ViolationError:
        return False
    return True


@given(st.integers(0, 1 << 32), st.integers(1, CALLS_MAX))
def test_what_a_correct_store_answered_has_an_order(seed: int, length: int) -> None:
    history = history_of(seed, length)
    assert has_order(history)
    assert is_accepted(history)


@settings(max_examples=400)
@given(st.integers(0, 1 << 32), st.integers(1, CALLS_MAX), st.integers(1, 3))
def test_the_search_agrees_with_trying_every_order(seed: int, length: int, times: int) -> None:
    history = falsified(seed, length, times)
    assert is_accepted(history) == has_order(history)


def test_both_right_and_wrong_histories_are_tried() -> None:
    verdicts = Counter(has_order(falsified(seed, 6, 2)) for seed in range(60))
    assert verdicts[True] > 10
    assert verdicts[False] > 10


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_that_nobody_could_give_has_no_order(seed: int) -> None:
    history = history_of(seed, 5)
    for one in history.operations:
        if one.outcome is Outcome.OK:
            one.response.header.revision += 50
            assert not has_order(history)
            return
