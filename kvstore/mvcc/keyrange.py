"""Key ranges as the API writes them: a key and a range end.

==================  ==========================================
range end           means
==================  ==========================================
empty               the single key
one zero byte       every key from ``key`` on
anything else       ``key`` up to, not including, the range end
==================  ==========================================
"""

from bisect import bisect_left, bisect_right

from kvstore.types import OPEN_END


def upper_bound(key: bytes, range_end: bytes) -> bytes | None:
    """The first key above the range; None if there is no end."""
    if not range_end:
        return key + b"\0"
    return None if range_end == OPEN_END else range_end


class KeyRanges:
    """A union of ranges of keys that answers whether a key lies in it. Kept as disjoint half-open
    ranges in order.
    """

    __slots__ = ("_highs", "_lows")

    def __init__(self) -> None:
        self._lows: list[bytes] = []
        self._highs: list[bytes] = []

    def add(self, low: bytes, high: bytes) -> None:
        """Add the keys from ``low`` to below ``high``; nothing if that is empty."""
        if low >= high:
            return
        first = bisect_left(self._highs, low)
        last = bisect_right(self._lows, high)
        if first < last:
            low = min(low, self._lows[first])
            high = max(high, self._highs[last - 1])
        self._lows[first:last] = [low]
        self._highs[first:last] = [high]

    def update(self, other: "KeyRanges") -> None:
        """Add everything that lies in another union."""
        for low, high in other.ranges():
            self.add(low, high)

    def ranges(self) -> list[tuple[bytes, bytes]]:
        """The disjoint ranges, in order."""
        return list(zip(self._lows, self._highs, strict=True))

    def __contains__(self, key: bytes) -> bool:
        place = bisect_right(self._lows, key) - 1
        return place >= 0 and key < self._highs[place]
