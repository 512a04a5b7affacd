"""Key ranges: what a range end means, and unions of ranges."""

from hypothesis import given
from hypothesis import strategies as st

from kvstore.mvcc.keyrange import KeyRanges, upper_bound

keys = st.binary(min_size=1, max_size=2).map(lambda b: bytes(x % 4 for x in b))


def test_a_range_end_means_one_key_all_above_or_a_bound():
    assert upper_bound(b"a", b"") == b"a\0"
    assert upper_bound(b"a", b"\0") is None
    assert upper_bound(b"a", b"c") == b"c"


@given(st.lists(st.tuples(keys, keys)), st.lists(st.tuples(keys, keys)), keys)
def test_a_union_holds_what_one_of_its_ranges_holds(first, second, key):
    union = KeyRanges()
    other = KeyRanges()
    for low, high in first:
        union.add(low, high)
    for low, high in second:
        other.add(low, high)
    union.update(other)
    assert (key in union) == any(low <= key < high for low, high in first + second)
    bounds = [bound for pair in union.ranges() for bound in pair]
    assert bounds == sorted(bounds)
