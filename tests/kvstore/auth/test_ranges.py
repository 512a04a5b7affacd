"""Permissions as intervals, against every piece between two bounds."""

from hypothesis import example, given
from hypothesis import strategies as st
from sortedcontainers import SortedSet

from kvstore.auth.ranges import Coverage
from kvstore.mvcc.keyrange import upper_bound

keys = st.binary(min_size=1, max_size=2).map(lambda key: bytes(b % 4 for b in key))
range_ends = st.one_of(st.sampled_from([b"", b"\0"]), keys)
ranges = st.tuples(keys, range_ends)


def holds(low, high, point):
    return low <= point and (high is None or point < high)


def naive_covers(union, key, range_end):
    """Whether all pieces of the range lie in some member of the union."""
    intervals = [(low, upper_bound(low, end)) for low, end in union]
    high = upper_bound(key, range_end)
    bounds = {key} | {bound for interval in intervals for bound in interval if bound is not None}
    pieces = [bound for bound in bounds if holds(key, high, bound)]
    return all(any(holds(*interval, piece) for interval in intervals) for piece in pieces)


@given(st.lists(ranges, max_size=6), ranges)
@example([(b"\1", b"\2"), (b"\2", b"\3")], (b"\1", b"\3"))
@example([(b"\1", b"\2"), (b"\2", b"\0")], (b"\1", b"\0"))
@example([(b"\1", b""), (b"\1\0", b"\3")], (b"\1", b"\3"))
def test_a_range_is_covered_if_each_of_its_keys_is(union, wanted):
    key, range_end = wanted
    high = upper_bound(key, range_end)
    covered = Coverage(union).covers(key, range_end)
    if high is None or high > key:
        assert covered == naive_covers(union, key, range_end)
    else:
        # It holds no key, so it shows nothing: but only to those who may see where it begins.
        assert covered == naive_covers(union, key, b"")


@given(st.lists(ranges, max_size=5), st.sets(keys, max_size=12))
def test_all_keys_are_covered_if_each_one_is(union, wanted):
    coverage = Coverage(union)
    each = all(coverage.covers(key) for key in wanted)
    assert coverage.covers_all(sorted(wanted)) == each
    assert coverage.covers_all(SortedSet(wanted)) == each


class CountingKeys(list[bytes]):
    """Counts how many keys are looked at."""

    looks = 0

    def __getitem__(self, place):
        self.looks += 1
        return super().__getitem__(place)


def test_very_many_keys_below_one_prefix_cost_no_more_than_a_few():
    many = CountingKeys(b"a%06d" % n for n in range(100_000))
    assert Coverage([(b"a", b"b")]).covers_all(many)
    assert many.looks < 10
    many.append(b"b")
    assert not Coverage([(b"a", b"b")]).covers_all(many)
    assert Coverage([(b"a", b"b"), (b"b", b"")]).covers_all(many)
    assert many.looks < 100


def test_what_touches_is_one_and_what_does_not_is_two():
    coverage = Coverage([(b"a", b"c"), (b"c", b"e"), (b"f", b"g")])
    assert coverage.covers(b"a", b"e")
    assert not coverage.covers(b"a", b"g")
    assert not coverage.covers(b"a", b"\0")
    assert not coverage.covers(b"e")
    assert Coverage([(b"\0", b"\0")]).covers(b"\0", b"\0")
    assert not Coverage([]).covers(b"a")
    assert not Coverage([(b"\0", b"\0")]).covers(b"", b"\0")
