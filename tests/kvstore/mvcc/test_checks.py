"""What is refused before anything is looked up, row by row."""

from typing import Any

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.mvcc.checks import (
    TXN_DEPTH_MAX,
    check_delete_range,
    check_put,
    check_range,
    check_txn,
)
from kvstore.types import (
    Compare,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)


def put(key: bytes) -> RequestOp:
    return RequestOp(request_put=PutRequest(key))


def delete(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key, range_end))


def nest(then: list[RequestOp], otherwise: list[RequestOp] | None = None) -> RequestOp:
    return RequestOp(request_txn=TxnRequest([], then, otherwise or []))


def refusal(call, *arguments) -> ErrorKind | None:
    try:
        call(*arguments)
    except KvError as error:
        return next(kind for kind in ErrorKind if kind.error() == error)
    return None


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (PutRequest(), ErrorKind.EMPTY_KEY),
        (PutRequest(b"a", b"v", ignore_value=True), ErrorKind.VALUE_PROVIDED),
        (PutRequest(b"a", lease=1, ignore_lease=True), ErrorKind.LEASE_PROVIDED),
        (PutRequest(b"a", ignore_value=True, ignore_lease=True), None),
        (RangeRequest(range_end=b"\0"), ErrorKind.EMPTY_KEY),
        (RangeRequest(b"a", sort_order=3), ErrorKind.INVALID_SORT_OPTION),
        (RangeRequest(b"a", sort_target=9, sort_order=1), ErrorKind.INVALID_SORT_OPTION),
        (RangeRequest(b"a", sort_target=-1), ErrorKind.INVALID_SORT_OPTION),
        (RangeRequest(b"a", revision=-5), None),
        (DeleteRangeRequest(range_end=b"\0"), ErrorKind.EMPTY_KEY),
        (DeleteRangeRequest(b"b", b"a"), None),
    ],
)
def test_a_request_is_refused_for_what_it_says(request_: Any, kind: ErrorKind | None):
    asks: dict[Any, tuple[Any, str]] = {
        PutRequest: (check_put, "request_put"),
        RangeRequest: (check_range, "request_range"),
        DeleteRangeRequest: (check_delete_range, "request_delete_range"),
    }
    check, field = asks[type(request_)]
    assert refusal(check, request_) == kind
    fields: dict[str, Any] = {field: request_}
    op = RequestOp(**fields)
    # The same in a transaction: in either branch, and in a nested one.
    for txn in (
        TxnRequest([], [op], []),
        TxnRequest([], [], [op]),
        TxnRequest([], [nest([], [op])], []),
    ):
        assert refusal(check_txn, txn, 128) == kind


@pytest.mark.parametrize(
    ("branch", "duplicate"),
    [
        ([put(b"a"), put(b"a")], True),
        ([put(b"a"), put(b"b")], False),
        ([put(b"a"), delete(b"a")], True),
        ([delete(b"a"), put(b"a")], True),
        ([delete(b"a", b"c"), put(b"b")], True),
        ([delete(b"a", b"c"), put(b"c")], False),
        ([delete(b"a"), put(b"a\0")], False),
        ([delete(b"a", b"c"), delete(b"b", b"d")], False),
        # The gap: an unbounded delete is not looked at.
        ([delete(b"a", b"\0"), put(b"b")], False),
        ([put(b"b"), delete(b"a", b"\0")], False),
        # An empty range deletes nothing.
        ([delete(b"c", b"a"), put(b"b")], False),
        ([put(b"a"), nest([put(b"a")])], True),
        ([nest([put(b"a")]), nest([put(b"a")])], True),
        ([nest([put(b"a")], [put(b"a")])], False),
        ([delete(b"a", b"c"), nest([], [put(b"b")])], True),
        ([nest([delete(b"a", b"c")]), put(b"b")], True),
        ([nest([delete(b"a", b"c")]), nest([put(b"b")])], True),
        # The other gap: it is only held against the puts after it.
        ([nest([put(b"b")]), nest([delete(b"a", b"c")])], False),
        ([nest([nest([put(b"a")])]), put(b"a")], True),
    ],
)
def test_no_key_is_put_twice_or_put_and_deleted_in_one_branch(branch, duplicate):
    kind = ErrorKind.DUPLICATE_KEY if duplicate else None
    assert refusal(check_txn, TxnRequest([], branch, []), 128) == kind
    assert refusal(check_txn, TxnRequest([], [], branch), 128) == kind


def test_the_same_key_may_be_put_in_both_branches():
    assert refusal(check_txn, TxnRequest([], [put(b"a")], [put(b"a")]), 128) is None


def test_the_longest_list_counts_and_a_nested_transaction_has_the_rest():
    compares = [Compare(key=b"a")] * 3
    assert refusal(check_txn, TxnRequest(compares, [put(b"a")]), 3) is None
    assert refusal(check_txn, TxnRequest(compares, [put(b"a")]), 2) == ErrorKind.TOO_MANY_OPS
    inside = nest([put(b"a"), put(b"b")])
    assert refusal(check_txn, TxnRequest(compares, [inside]), 5) is None
    assert refusal(check_txn, TxnRequest(compares, [inside]), 4) == ErrorKind.TOO_MANY_OPS


def test_compares_need_a_key_and_operations_must_ask_for_something():
    assert refusal(check_txn, TxnRequest([Compare()]), 128) == ErrorKind.EMPTY_KEY
    assert refusal(check_txn, TxnRequest([], [RequestOp()]), 128) == ErrorKind.KEY_NOT_FOUND


def test_nesting_has_a_bottom():
    txn = TxnRequest()
    for _ in range(TXN_DEPTH_MAX - 1):
        txn = TxnRequest([], [RequestOp(request_txn=txn)])
    assert refusal(check_txn, txn, 1 << 30) is None
    deeper = TxnRequest([], [RequestOp(request_txn=txn)])
    assert refusal(check_txn, deeper, 1 << 30) == ErrorKind.TOO_MANY_OPS
