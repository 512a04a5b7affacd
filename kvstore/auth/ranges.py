"""Unions of key ranges that answer whether they cover a key, a range, or all keys of a list.

As disjoint half-open intervals in order; what overlaps or touches is one interval, so that two
permissions side by side cover a range across both.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence

from kvstore.mvcc.keyrange import upper_bound


class Coverage:
    """The keys of some ranges.

    Args:
        ranges: Pairs of a key and a range end, as the API writes them.
    """

    __slots__ = ("_highs", "_lows")

    def __init__(self, ranges: Iterable[tuple[bytes, bytes]]) -> None:
        self._lows: list[bytes] = []
        # None: no end. Nothing can lie behind such an interval, so only the last has it.
        self._highs: list[bytes | None] = []
        for low, high in sorted(
            ((key, upper_bound(key, range_end)) for key, range_end in ranges),
            key=lambda interval: interval[0],
        ):
            self._add(low, high)

    def _add(self, low: bytes, high: bytes | None) -> None:
        """Add an interval that begins at or behind the last one's beginning."""
        if high is not None and high <= low:
            return
        if self._lows:
            last = self._highs[-1]
            if last is None:
                return
            if low <= last:
                self._highs[-1] = None if high is None else max(last, high)
                return
        self._lows.append(low)
        self._highs.append(high)

    def covers(self, key: bytes, range_end: bytes = b"") -> bool:
        """Whether every key of the range is in here. A range that ends before it begins holds no
        key; it counts as covered where the key is that it begins with. So it is in etcd if there is
        one permission; with more it depends on the shape of a tree.
        """
        place = bisect_right(self._lows, key) - 1
        if place < 0:
            return False
        top = self._highs[place]
        high = upper_bound(key, range_end)
        if high is None:
            return top is None
        return top is None or (key < top and high <= top)

    def covers_all(self, keys: Sequence[bytes]) -> bool:
        """Whether all these keys, sorted, are in here.

        Takes a few bisections an interval, not one a key: 100,000 keys below one prefix cost as
        much as two.
        """
        place = 0
        while place < len(keys):
            interval = bisect_right(self._lows, keys[place]) - 1
            if interval < 0:
                return False
            high = self._highs[interval]
            if high is None:
                return True
            if keys[place] >= high:
                return False
            place = len(keys) if keys[-1] < high else bisect_left(keys, high, place)
        return True
