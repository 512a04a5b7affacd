"""A store that was replaced is let go of in small pieces."""

from collections.abc import Sized

import pytest

from kvstore.budget import CountedBudget, finish
from kvstore.mvcc.dismantling import FREE_STEP, empty_dicts
from kvstore.mvcc.store import Store
from kvstore.types import RangeRequest

KEYS = 6000


def filled() -> Store:
    """Keys with one and with several versions, tombstones, and blocks that compaction thinned."""
    store = Store()
    for n in range(KEYS):
        store.put(b"k%05d" % n, b"v", 0)
        store.publish()
    for n in range(0, KEYS, 3):
        store.put(b"k%05d" % n, b"w", 0)
        store.delete(b"k%05d" % (n + 1))
        store.publish()
    store.compact(KEYS)
    finish(store.sweep(CountedBudget(1)), CountedBudget(1))
    return store


def test_each_slice_lets_go_of_few_objects_and_the_last_of_all():
    assert FREE_STEP <= 1000
    store = filled()
    containers: list[Sized] = [
        *store._index.shards,
        *store._index.keys._lists,  # type: ignore[attr-defined]  # the stubs leave it out
        *[block.records for block in store._log._blocks if block is not None],
    ]

    def held() -> int:
        return sum([len(container) for container in containers])

    before = held()
    assert before > 3 * KEYS
    for _ in store.dismantle(CountedBudget(1)):
        assert before - held() <= FREE_STEP
        before = held()
    assert held() == 0
    assert store.last is None


def test_a_dismantled_store_answers_nothing_rather_than_that_nothing_is_there():
    store = filled()
    later = store.range(RangeRequest(key=b"k", range_end=b"l"), CountedBudget(1), 1 << 20)
    next(store.dismantle(CountedBudget(1)))
    for ask in (
        lambda: store.get(b"k00000"),
        lambda: store.put(b"k", b"v", 0),
        lambda: next(later),
    ):
        with pytest.raises(AttributeError):
            ask()


def test_reads_under_way_are_waited_for():
    store = filled()
    request = RangeRequest(key=b"k", range_end=b"l")
    expected = finish(store.range(request, CountedBudget(1), 1 << 20), CountedBudget(1))
    reading = store.range(request, CountedBudget(1), 1 << 20)
    next(reading)
    dismantling = store.dismantle(CountedBudget(1))
    for _ in range(3):
        next(dismantling)
    assert finish(reading, CountedBudget(1)) == expected
    finish(dismantling, CountedBudget(1))
    with pytest.raises(AttributeError):
        store.get(b"k00000")


@pytest.mark.parametrize("sizes", [(5 * FREE_STEP + 7, 0), (3, 2 * FREE_STEP, 3 * FREE_STEP + 4)])
def test_how_often_the_budget_is_asked_does_not_depend_on_which_shard_has_what(
    sizes: tuple[int, ...],
):
    """Hashes decide that, and differ from process to process; a look at the clock takes time."""
    dicts = [dict.fromkeys(range(size)) for size in sizes]
    slices = sum(1 for _ in empty_dicts(dicts, CountedBudget(1)))
    assert not any(dicts)
    assert slices == 6
