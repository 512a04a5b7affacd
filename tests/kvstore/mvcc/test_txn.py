"""Transactions, rule by rule, and the answers that etcd was seen to give."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.budget import CountedBudget, finish
from kvstore.errors import ErrorKind, KvError
from kvstore.mvcc.store import Store
from kvstore.mvcc.txn import execute_txn, has_puts, has_writes, is_read_only, read_txn
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    KeyValue,
    PutRequest,
    RangeRequest,
    RequestOp,
    ResponseHeader,
    TxnRequest,
    TxnResponse,
)


class FakeLeases:
    def __init__(self, *ids: int) -> None:
        self.held: dict[int, set[bytes]] = {lease: set() for lease in ids}

    def exists(self, lease_id: int) -> bool:
        return lease_id in self.held

    def attach(self, lease_id: int, key: bytes) -> None:
        self.held[lease_id].add(key)

    def detach(self, lease_id: int, key: bytes) -> None:
        self.held[lease_id].discard(key)


def put(key: bytes, value: bytes = b"", **fields) -> RequestOp:
    return RequestOp(request_put=PutRequest(key, value, **fields))


def get(key: bytes, range_end: bytes = b"", **fields) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key, range_end, **fields))


def delete(key: bytes, range_end: bytes = b"") -> RequestOp:
    return RequestOp(request_delete_range=DeleteRangeRequest(key, range_end))


def run(store: Store, request: TxnRequest, leases: FakeLeases | None = None) -> Any:
    work = execute_txn(store, leases or FakeLeases(), request, CountedBudget(1))
    response = finish(work, CountedBudget(1))
    if store.dirty:
        store.publish()
    return response


def do(store: Store, *operations: RequestOp, leases: FakeLeases | None = None) -> Any:
    return run(store, TxnRequest([], list(operations)), leases)


def refusal(store: Store, *operations: RequestOp, leases: FakeLeases | None = None) -> KvError:
    before = (store.revision, store.log_slice(0, 1000))
    with pytest.raises(KvError) as raised:
        do(store, *operations, leases=leases)
    assert not store.dirty, "an error changes nothing"
    assert (store.revision, store.log_slice(0, 1000)) == before
    return raised.value


def test_a_compare_of_values_of_a_missing_key_is_false_for_every_operator():
    for result in CompareResult:
        compare = Compare(result, CompareTarget.VALUE, b"a", value=b"x")
        assert run(Store(), TxnRequest([compare])) == TxnResponse()


@pytest.mark.parametrize(
    "target", [t for t in CompareTarget if t != CompareTarget.VALUE], ids=lambda t: t.name
)
def test_a_missing_key_counts_as_zero(target):
    operand: str = {
        CompareTarget.VERSION: "version",
        CompareTarget.CREATE: "create_revision",
        CompareTarget.MOD: "mod_revision",
        CompareTarget.LEASE: "lease",
    }[target]

    def compare(result: CompareResult, number: int) -> Compare:
        fields: dict[str, Any] = {operand: number}
        return Compare(result, target, b"a", **fields)

    equal = compare(CompareResult.EQUAL, 0)
    assert run(Store(), TxnRequest([equal, compare(CompareResult.GREATER, -1)])).succeeded
    assert not run(Store(), TxnRequest([equal, compare(CompareResult.EQUAL, 1)])).succeeded


def test_an_operand_of_another_kind_counts_as_zero_or_empty():
    store = Store()
    do(store, put(b"a", b""))
    assert run(store, TxnRequest([Compare(0, CompareTarget.VALUE, b"a", version=9)])).succeeded
    compare = Compare(CompareResult.GREATER, CompareTarget.VERSION, b"a", value=b"zzz")
    assert run(store, TxnRequest([compare])).succeeded


def test_an_unknown_operator_is_true_and_an_unknown_target_equal():
    store = Store()
    assert run(store, TxnRequest([Compare(9, CompareTarget.VERSION, b"a", version=5)])).succeeded
    assert run(store, TxnRequest([Compare(CompareResult.EQUAL, 9, b"a")])).succeeded
    assert not run(store, TxnRequest([Compare(CompareResult.LESS, 9, b"a")])).succeeded


def test_a_compare_of_a_range_holds_for_every_key_of_it():
    store = Store()
    do(store, *[put(b"k%03d" % n, b"v") for n in range(200)])
    every = Compare(CompareResult.EQUAL, CompareTarget.VALUE, b"k", value=b"v", range_end=b"l")
    assert run(store, TxnRequest([every])).succeeded
    do(store, put(b"k199", b"w"))
    assert not run(store, TxnRequest([every])).succeeded
    empty = Compare(0, CompareTarget.VERSION, b"x", version=0, range_end=b"y")
    assert run(store, TxnRequest([empty])).succeeded


def test_compares_are_anded_and_none_is_true():
    yes = Compare(0, CompareTarget.VERSION, b"a", version=0)
    no = Compare(0, CompareTarget.VERSION, b"a", version=1)
    assert run(Store(), TxnRequest([])).succeeded
    assert not run(Store(), TxnRequest([yes, no])).succeeded


def test_delete_all_then_put_makes_the_key_anew_at_the_same_revision():
    store = Store()
    do(store, put(b"a", b"1"))
    do(store, put(b"b"), put(b"c"))
    response = do(store, delete(b"a", b"\0"), put(b"a", b"2"))
    deleted, written = response.responses
    assert deleted.response_delete_range.deleted == 3
    assert deleted.response_delete_range.header == ResponseHeader(revision=4)
    assert written.response_put.header == ResponseHeader(revision=4)
    assert store.get(b"a") == KeyValue(b"a", 4, 4, 1, b"2", 0)
    assert store.history(b"a", 4) == [KeyValue(b"a", 0, 4), KeyValue(b"a", 4, 4, 1, b"2", 0)]


def test_nested_compares_see_the_state_before():
    store = Store()
    inner = TxnRequest(
        [Compare(0, CompareTarget.VALUE, b"n1", value=b"1")], [put(b"y")], [put(b"n")]
    )
    response = do(store, put(b"n1", b"1"), RequestOp(request_txn=inner))
    nested = response.responses[1].response_txn
    assert not nested.succeeded
    assert nested.header == ResponseHeader()
    assert nested.responses[0].response_put is not None
    assert nested.responses[0].response_put.header == ResponseHeader(revision=2)
    assert store.get(b"n") is not None
    assert store.get(b"y") is None


def test_ranges_see_earlier_operations_and_headers_tell_of_the_first_change():
    store = Store()
    do(store, put(b"a", b"old"))
    response = do(store, get(b"a"), delete(b"zz"), put(b"a", b"new"), get(b"a"))
    first, nothing, _, last = response.responses
    assert first.response_range.header == ResponseHeader(revision=2)
    assert first.response_range.kvs[0].value == b"old"
    assert nothing.response_delete_range.header == ResponseHeader(revision=2)
    assert last.response_range.header == ResponseHeader(revision=3)
    assert last.response_range.kvs == [KeyValue(b"a", 2, 3, 2, b"new", 0)]


def test_a_transaction_without_a_change_makes_no_revision():
    store = Store()
    do(store, get(b"a"), delete(b"a"))
    assert store.revision == 1


@pytest.mark.parametrize("revision", [-2, -5])
def test_a_negative_revision_counts_as_compacted(revision):
    assert refusal(Store(), get(b"a", revision=revision)) == ErrorKind.COMPACTED.error()


def test_revision_minus_one_works_until_the_first_compaction():
    store = Store()
    do(store, put(b"a"))
    assert do(store, get(b"a", revision=-1)).responses[0].response_range.count == 1
    store.compact(2)
    assert refusal(store, get(b"a", revision=-1)) == ErrorKind.COMPACTED.error()
    assert do(store, get(b"a")).responses[0].response_range.count == 1


def test_the_revision_being_written_is_a_future_one():
    store = Store()
    do(store, put(b"a", b"1"))
    error = refusal(store, put(b"a", b"2"), get(b"a", revision=3))
    assert error == ErrorKind.FUTURE_REVISION.error()
    response = do(store, put(b"a", b"2"), get(b"a", revision=2))
    assert response.responses[1].response_range.kvs[0].value == b"1"


def test_the_chosen_branch_is_checked_before_it_runs_and_the_other_is_not():
    store = Store()
    keep = put(b"b", ignore_value=True)
    assert refusal(store, put(b"a"), keep) == ErrorKind.KEY_NOT_FOUND.error()
    # A key made by an earlier operation did not exist before.
    nested = RequestOp(request_txn=TxnRequest([], [keep]))
    assert refusal(store, put(b"a"), nested) == ErrorKind.KEY_NOT_FOUND.error()
    leased = put(b"c", lease=4)
    assert refusal(store, put(b"a"), leased) == ErrorKind.LEASE_NOT_FOUND.error()
    assert run(store, TxnRequest([], [put(b"a")], [keep, leased])).succeeded


def test_a_put_that_keeps_what_an_unbounded_delete_took_is_refused():
    store = Store()
    do(store, put(b"a"), put(b"b"))
    keep = put(b"b", b"", ignore_value=True)
    assert refusal(store, delete(b"a", b"\0"), keep) == ErrorKind.KEY_NOT_FOUND.error()
    do(store, keep, delete(b"a", b"\0"))
    assert store.key_count == 0


def test_leases_follow_their_keys():
    store = Store()
    leases = FakeLeases(1, 2)
    do(store, put(b"a", b"v", lease=1), leases=leases)
    do(store, put(b"a", ignore_value=True, lease=2), leases=leases)
    assert leases.held == {1: set(), 2: {b"a"}}
    assert store.get(b"a") == KeyValue(b"a", 2, 3, 2, b"v", 2)
    do(store, put(b"a", b"w", ignore_lease=True), leases=leases)
    assert leases.held == {1: set(), 2: {b"a"}}
    do(store, put(b"a", b"x"), leases=leases)
    assert leases.held == {1: set(), 2: set()}
    do(store, put(b"a", lease=1), leases=leases)
    do(store, delete(b"a"), leases=leases)
    assert leases.held == {1: set(), 2: set()}


def test_previous_values_are_those_before_the_operation():
    store = Store()
    do(store, put(b"a", b"1"))
    first = do(store, put(b"a", b"2", prev_kv=True), put(b"b", prev_kv=True))
    assert first.responses[0].response_put.prev_kv == KeyValue(b"a", 2, 2, 1, b"1", 0)
    assert first.responses[1].response_put.prev_kv is None


def test_an_operation_that_asks_for_nothing_is_refused_at_execution_too():
    assert refusal(Store(), put(b"a"), RequestOp()) == ErrorKind.KEY_NOT_FOUND.error()


def test_what_a_transaction_may_do_is_told_by_both_branches_and_the_nested():
    def kinds(request: TxnRequest) -> tuple[bool, bool, bool]:
        return is_read_only(request), has_writes(request), has_puts(request)

    assert kinds(TxnRequest([], [get(b"a")], [get(b"b")])) == (True, False, False)
    assert kinds(TxnRequest([], [], [put(b"a")])) == (False, True, True)
    assert kinds(TxnRequest([], [delete(b"a")])) == (False, True, False)
    inner = TxnRequest([], [], [RequestOp(request_txn=TxnRequest([], [put(b"a")]))])
    assert kinds(TxnRequest([], [RequestOp(request_txn=inner)])) == (False, True, True)
    only_gets = RequestOp(request_txn=TxnRequest([], [get(b"a")]))
    assert kinds(TxnRequest([], [only_gets])) == (False, False, False)


def test_a_reading_transaction_reads_one_revision_while_others_write():
    store = Store()
    for n in range(300):
        store.put(b"%03d" % n, b"v", 0)
    store.publish()
    request = TxnRequest([], [get(b"0", b"\0"), get(b"299")])
    work: Any = read_txn(store, request, CountedBudget(1), 1 << 30)
    next(work)
    store.put(b"299", b"w", 0)
    store.publish()
    store.put(b"299", b"not published", 0)
    response: Any = finish(work, CountedBudget(1))
    assert response.responses[0].response_range.count == 300
    last = response.responses[1].response_range
    assert last.header == ResponseHeader(revision=2)
    assert last.kvs[0].value == b"v"


def test_a_reading_transaction_is_bounded_in_memory():
    store = Store()
    for n in range(300):
        store.put(b"%03d" % n, b"v" * 100, 0)
    store.publish()
    work = read_txn(store, TxnRequest([], [get(b"0", b"\0")]), CountedBudget(1), 20_000)
    with pytest.raises(KvError) as raised:
        finish(work, CountedBudget(1))
    assert raised.value == ErrorKind.RESPONSE_TOO_LARGE.error()
