"""Ranges: revisions, limits, sorts and sizes, as etcd answers them."""

from typing import Any

import pytest

from kvstore.budget import CountedBudget, finish
from kvstore.errors import ErrorKind, KvError
from kvstore.mvcc.ranges import AT_ONCE_KEYS_MAX
from kvstore.mvcc.store import Store
from kvstore.types import KeyValue, RangeRequest, SortOrder, SortTarget

BIG = 1 << 40


def ask(store: Store, *, bytes_max: int = BIG, **fields: Any):
    request = RangeRequest(**fields)
    return finish(store.range(request, CountedBudget(1), bytes_max), CountedBudget(1))


def filled(count: int) -> Store:
    """Keys 000, 001, … put in reverse order, each at its own revision, values in no order."""
    store = Store()
    for n in reversed(range(count)):
        store.put(b"%03d" % n, b"%d" % (n * 7 % 10), 5)
        store.publish()
    return store


def test_an_empty_store_is_at_revision_1():
    store = Store()
    assert store.revision == 1
    assert ask(store, key=b"a", range_end=b"\0").count == 0


def test_a_read_above_the_current_revision_is_a_future_one():
    store = filled(2)
    for read in (lambda: ask(store, key=b"a", revision=4), lambda: store.get(b"a", 4)):
        with pytest.raises(KvError) as raised:
            read()
        assert raised.value == ErrorKind.FUTURE_REVISION.error()


def test_a_read_at_the_compacted_revision_works_and_below_it_fails():
    store = filled(3)
    store.compact(3)
    assert ask(store, key=b"000", range_end=b"\0", revision=3).count == 2
    assert store.get(b"002", 3) is not None
    for read in (
        lambda: ask(store, key=b"a", revision=2),
        lambda: store.range_now(RangeRequest(b"a", revision=2)),
        lambda: store.get(b"a", 2),
    ):
        with pytest.raises(KvError) as raised:
            read()
        assert raised.value == ErrorKind.COMPACTED.error()
    # A negative revision reads now, whatever was compacted.
    assert ask(store, key=b"000", range_end=b"\0", revision=-5).count == 3


def test_compaction_of_a_fresh_store_at_0_succeeds_once():
    store = Store()
    store.compact(0)
    with pytest.raises(KvError) as raised:
        store.compact(0)
    assert raised.value == ErrorKind.COMPACTED.error()


@pytest.mark.parametrize("limit", [-1, 0, 400, 300])
def test_a_limit_that_cuts_nothing_is_not_more(limit):
    answer = ask(filled(300), key=b"0", range_end=b"\0", limit=limit)
    assert (len(answer.kvs), answer.more, answer.count) == (300, False, 300)


def test_a_limit_cuts_but_does_not_change_the_count():
    answer = ask(filled(700), key=b"0", range_end=b"\0", limit=299)
    assert [record.key for record in answer.kvs] == [b"%03d" % n for n in range(299)]
    assert answer.more
    assert answer.count == 700


def test_a_target_without_an_order_sorts_only_what_the_limit_let_through():
    store = filled(300)
    answer = ask(store, key=b"0", range_end=b"\0", limit=2, sort_target=SortTarget.MOD)
    # The first limit + 1 keys by key are 000, 001, 002; by mod revision the oldest of them is 002.
    assert [record.key for record in answer.kvs] == [b"002", b"001"]
    assert answer.more


def test_an_order_sorts_the_whole_range_before_the_limit():
    store = filled(1000)
    fields: dict[str, Any] = {
        "key": b"0",
        "range_end": b"\0",
        "limit": 3,
        "sort_target": SortTarget.MOD,
    }
    oldest = ask(store, **fields, sort_order=SortOrder.ASCEND)
    assert [record.mod_revision for record in oldest.kvs] == [2, 3, 4]
    newest = ask(store, **fields, sort_order=SortOrder.DESCEND)
    assert [record.key for record in newest.kvs] == [b"000", b"001", b"002"]
    by_key = ask(store, key=b"0", range_end=b"\0", limit=2, sort_order=SortOrder.DESCEND)
    assert [record.key for record in by_key.kvs] == [b"999", b"998"]


def test_filters_come_before_the_limit_and_not_before_the_count():
    store = filled(300)
    answer = ask(store, key=b"0", range_end=b"\0", min_mod_revision=200, limit=5)
    assert [record.mod_revision for record in answer.kvs] == [301, 300, 299, 298, 297]
    assert answer.more
    assert answer.count == 300


def test_count_only_ignores_limit_filters_and_keys_only():
    fields: dict[str, Any] = {"limit": 1, "min_mod_revision": 99, "keys_only": True}
    answer = ask(filled(300), key=b"0", range_end=b"\0", count_only=True, **fields)
    assert (answer.kvs, answer.more, answer.count) == ([], False, 300)


def test_keys_only_drops_the_value_and_the_lease_unless_sorted_by_value():
    store = filled(1)
    assert ask(store, key=b"000", keys_only=True).kvs == [KeyValue(b"000", 2, 2, 1)]
    sorted_by_value = ask(store, key=b"000", keys_only=True, sort_target=SortTarget.VALUE)
    assert sorted_by_value.kvs == [KeyValue(b"000", 2, 2, 1, b"", 5)]
    many = ask(filled(300), key=b"0", range_end=b"\0", keys_only=True)
    assert not any(record.value or record.lease for record in many.kvs)


def test_an_inverted_range_is_empty():
    assert ask(filled(3), key=b"002", range_end=b"000").count == 0


def test_an_answer_above_the_memory_limit_is_refused():
    store = filled(300)
    size = sum(len(r.key) + len(r.value) + 64 for r in ask(store, key=b"0", range_end=b"\0").kvs)
    assert ask(store, key=b"0", range_end=b"\0", bytes_max=size).count == 300
    with pytest.raises(KvError) as raised:
        ask(store, key=b"0", range_end=b"\0", bytes_max=size - 1)
    assert raised.value == ErrorKind.RESPONSE_TOO_LARGE.error()
    # What the limit lets through is what counts.
    assert ask(store, key=b"0", range_end=b"\0", bytes_max=size // 2, limit=100).more


def test_few_keys_are_answered_at_once_and_many_in_slices():
    store = filled(AT_ONCE_KEYS_MAX + 1)
    few = RangeRequest(b"000", b"%03d" % AT_ONCE_KEYS_MAX)
    answer = store.range_now(few)
    assert answer is not None
    assert answer.count == AT_ONCE_KEYS_MAX
    assert store.range_now(RangeRequest(b"0", b"\0")) is None
    work = store.range(few, CountedBudget(1), BIG)
    with pytest.raises(StopIteration):
        next(work)


def test_a_range_in_slices_reads_one_revision_while_others_write_and_compact():
    store = filled(1000)
    work = store.range(RangeRequest(b"0", b"\0"), CountedBudget(1), BIG)
    next(work)
    store.put(b"999", b"new", 0)
    store.put(b"9990", b"new", 0)
    store.delete(b"998")
    store.publish()
    store.compact(store.revision)
    # Pinned: what is being read stays.
    assert not store.sweep_due
    finish(store.sweep(CountedBudget(1)), CountedBudget(1))
    answer = finish(work, CountedBudget(1))
    assert answer.count == 1000
    assert answer.kvs[-1].value == b"3"
    assert answer.kvs[-2].key == b"998"
    finish(store.sweep(CountedBudget(1)), CountedBudget(1))
    assert store.swept_revision == store.revision
    assert store.get(b"999") == KeyValue(b"999", 2, 1002, 2, b"new", 0)


def piece(store: Store, records_max: int = 1000, bytes_max: int = BIG, **fields: Any):
    work = store.piece(RangeRequest(**fields), CountedBudget(1), records_max, bytes_max)
    return finish(work, CountedBudget(1))


def test_a_piece_ends_at_its_records_its_bytes_or_the_end_of_the_range():
    store = filled(600)
    for n in range(500, 510):
        store.delete(b"%d" % n)
    store.publish()
    found, behind = piece(store, key=b"\0", range_end=b"\0")
    assert ([record.key for record in found][-1], len(found), behind) == (b"599", 590, None)
    found, behind = piece(store, 10, key=b"100", range_end=b"\0")
    assert (len(found), behind) == (10, b"109")
    found, behind = piece(store, key=b"100", range_end=b"\0", bytes_max=1)
    assert (len(found), behind) == (1, b"100")
    found, behind = piece(store, key=b"499", range_end=b"511", keys_only=True)
    assert [(record.key, record.value) for record in found] == [(b"499", b""), (b"510", b"")]
    assert piece(store, key=b"5", range_end=b"5") == ([], None)
    found, _ = piece(store, key=b"500", range_end=b"501", revision=store.revision - 1)
    assert [record.key for record in found] == [b"500"]
    assert not store.is_pinned


def test_a_piece_is_read_at_a_revision_that_can_be_read():
    store = filled(3)
    store.compact(3)
    with pytest.raises(KvError) as raised:
        piece(store, key=b"a", revision=2)
    assert raised.value == ErrorKind.COMPACTED.error()
