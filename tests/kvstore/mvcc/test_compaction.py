"""Compaction where it is long, wide or interrupted; what it keeps is tested against the model."""

from kvstore.budget import CountedBudget, finish
from kvstore.mvcc.key_index import History
from kvstore.mvcc.store import Store
from kvstore.types import KeyValue


def sweep(store: Store) -> None:
    finish(store.sweep(CountedBudget(1)), CountedBudget(1))
    assert not store.sweep_due


def test_a_hot_key_keeps_its_history_through_many_compactions():
    store = Store()
    for n in range(300):
        store.put(b"hot", b"%d" % n, 0)
        store.publish()
    versions = store.history(b"hot", 0)
    assert [record.version for record in versions] == list(range(1, 301))
    for revision in range(2, 302, 7):
        store.compact(revision)
        sweep(store)
        assert store.history(b"hot", 0) == versions[revision - 2 :]
        assert store.get(b"hot", revision) is versions[revision - 2]
    store.put(b"hot", b"on", 0)
    store.publish()
    assert store.history(b"hot", 0)[-1].version == 301


def test_sweeping_a_hot_key_moves_its_ordinals_only_now_and_then():
    store = Store()
    for n in range(5000):
        store.put(b"hot", b"%d" % n, 0)
        store.publish()
    history = store._index.versions(b"hot")
    assert isinstance(history, History)
    moved = 0
    for _ in range(4999):
        before = len(history.ordinals)
        history.drop_oldest()
        if len(history.ordinals) < before:
            moved += len(history.ordinals)
    # Each move halves what is left to move: a linear cost in all.
    assert moved <= 5000


def test_keys_of_one_large_revision_are_found_again_after_a_sweep():
    store = Store()
    keys = [b"k%03d" % n for n in range(200)]
    for key in keys:
        store.put(key, b"1", 0)
    store.publish()
    store.compact(2)
    sweep(store)
    for key in keys:
        store.put(key, b"2", 0)
    store.publish()
    assert [len(store.history(key, 0)) for key in keys] == [2] * 200
    store.compact(3)
    sweep(store)
    assert store.log_slice(0, 1000)[0] == [KeyValue(k, 2, 3, 2, b"2", 0) for k in keys]


def test_a_delete_at_the_compacted_revision_stays_for_watchers_until_the_next():
    store = Store()
    for key in (b"a", b"b"):
        store.put(key, b"", 0)
    store.publish()
    store.delete(b"a")
    store.publish()
    store.compact(3)
    sweep(store)
    assert store.history(b"a", 0) == [KeyValue(b"a", 0, 3)]
    assert store.log_slice(store.log_position(3), 9)[0] == [KeyValue(b"a", 0, 3)]
    store.put(b"b", b"", 0)
    store.publish()
    store.compact(4)
    sweep(store)
    assert store.history(b"a", 0) == []
    assert store.known_keys(b"", True, None, 9) == [b"b"]


def test_a_pin_holds_back_the_compactions_after_it():
    store = Store()
    for n in range(300):
        store.put(b"%d" % (n % 3), b"%d" % n, 0)
        store.publish()
    store.compact(100)
    work = store.sweep(CountedBudget(1))
    next(work)
    store.pin()
    store.compact(200)
    finish(work, CountedBudget(1))
    assert store.swept_revision == 100
    assert not store.sweep_due
    kept = list(store.survivors(store.log_slice(0, 1000)[0], 100))
    assert kept == store.log_slice(0, 1000)[0]
    store.unpin()
    sweep(store)
    assert store.swept_revision == 200
