"""Who watches this key: held against a comparison with every range."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kvstore.types import OPEN_END, WatchCreateRequest
from kvstore.watch.hub import WatchHub
from kvstore.watch.interval_tree import IntervalTree
from kvstore.watch.ranges import PREFIX_LENGTHS_MAX, RangeIndex, prefix_end
from kvstore.watch.watcher import Watcher
from tests.kvstore.watch.model import holds

keys = st.binary(min_size=1, max_size=3).map(lambda key: bytes(byte % 3 + 253 for byte in key))


@st.composite
def ranges(draw):
    key = draw(keys)
    end = draw(st.sampled_from([b"", OPEN_END, prefix_end(key)]) | keys)
    return key, end if end in (b"", OPEN_END) or key < end else b""


def watcher_of(key: bytes, range_end: bytes) -> Watcher:
    stream = WatchHub().open_stream(lambda: None)
    return Watcher(stream, 0, WatchCreateRequest(key=key, range_end=range_end))


def found(index: RangeIndex, key: bytes) -> list[int]:
    return sorted(id(watcher) for group in index.matching(key) for watcher in group)


@given(st.lists(st.tuples(ranges(), st.booleans()), max_size=40), st.lists(keys, max_size=10))
def test_matching_finds_exactly_the_watchers_whose_range_holds_the_key(changes, probes):
    index = RangeIndex()
    watchers: list[Watcher] = []
    for (key, end), leave in changes:
        if leave and watchers:
            index.remove(watchers.pop(len(key) % len(watchers)))
        watchers.append(watcher_of(key, end))
        index.add(watchers[-1])
    for probe in probes + [w.key for w in watchers]:
        expected = [id(w) for w in watchers if holds(w.key, w.range_end, probe)]
        assert found(index, probe) == sorted(expected)
    for watcher in watchers:
        index.remove(watcher)
    assert all(index.matching(probe) == [] for probe in probes)


def test_prefixes_of_very_many_lengths_do_not_cost_a_look_up_each():
    index = RangeIndex()
    watchers = [watcher_of(b"a" * length, prefix_end(b"a" * length)) for length in range(1, 100)]
    for watcher in watchers:
        index.add(watcher)
    assert len(index._lengths) == PREFIX_LENGTHS_MAX
    assert len(index.matching(b"a" * 60)) == 60
    for watcher in watchers[:50]:
        index.remove(watcher)
    assert index._lengths == []
    # A watcher of a prefix in the tree still leaves the tree when the prefix has room again.
    index.add(watcher_of(b"a" * 70, prefix_end(b"a" * 70)))
    for watcher in watchers[50:]:
        index.remove(watcher)
    assert len(index.matching(b"a" * 99)) == 1
    assert not index._tree


@pytest.mark.parametrize(
    ("prefix", "end"), [(b"a", b"b"), (b"a\xff\xff", b"b"), (b"\xff", OPEN_END), (b"ab", b"ac")]
)
def test_prefix_end(prefix, end):
    assert prefix_end(prefix) == end


@pytest.mark.parametrize("step", [1, -1, 7])
def test_the_tree_stays_shallow_in_any_order_of_insertion(step):
    tree: IntervalTree[int] = IntervalTree()
    starts = [b"%06d" % (number * step % 5003) for number in range(5003)]
    for number, start in enumerate(starts):
        tree.add(start, start + b"\xff", number)
    depths = list(tree.depths())
    assert len(depths) == 5003
    assert max(depths) < 4 * 13
    result: list[int] = []
    tree.holding(starts[17] + b"5", result)
    assert result == [17]
    for start in starts:
        tree.remove(start, start + b"\xff")
    assert not tree


def test_a_search_leaves_out_what_ended_before_the_key():
    tree: IntervalTree[bytes] = IntervalTree()
    compared = 0

    class Counted(bytes):
        def __gt__(self, other: bytes) -> bool:
            nonlocal compared
            compared += 1
            return bytes(self) > other

        __ge__ = __gt__

    for number in range(5000):
        start = b"%06d" % number
        tree.add(start, start + b"\xff", start)
    tree.holding(Counted(b"004999"), [])
    # A search of every range that begins before the key would compare 5,000 times.
    assert 0 < compared < 400
