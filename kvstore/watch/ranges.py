"""Who watches this key? Four ways to say which keys, each with its own structure.

=============  ==========================================  =========================================
exact key      a dict                                      one look-up
prefix         a dict, and the lengths that occur          one look-up a length
open end       the starts in order                         one bisection, then only matches
any range      an interval tree                            a search of depth log n
=============  ==========================================  =========================================

Watchers of the same keys share a group, so that ten thousand of them are one entry.
"""

from bisect import bisect_right, insort
from typing import Final, TypeAlias, TypeVar

from kvstore.types import OPEN_END
from kvstore.watch.interval_tree import IntervalTree
from kvstore.watch.watcher import Watcher

Group: TypeAlias = dict[Watcher, None]
"""An ordered set: leaving it takes no search, and its order comes from no hash."""

_K = TypeVar("_K", bytes, tuple[bytes, bytes])

PREFIX_LENGTHS_MAX: Final = 32
"""Each length costs every write a look-up. Prefixes of yet another length go to the tree, or a
client could slow all writes down with a prefix of each length."""


def prefix_end(prefix: bytes) -> bytes:
    """The ``range_end`` that makes a prefix: its last byte plus one, final 0xff bytes dropped."""
    stem = prefix.rstrip(b"\xff")
    return stem[:-1] + bytes((stem[-1] + 1,)) if stem else OPEN_END


class RangeIndex:
    """Watchers by the keys they watch."""

    __slots__ = (
        "_exact",
        "_length_counts",
        "_lengths",
        "_open",
        "_open_starts",
        "_others",
        "_prefixes",
        "_tree",
    )

    def __init__(self) -> None:
        self._exact: dict[bytes, Group] = {}
        self._prefixes: dict[bytes, Group] = {}
        self._lengths: list[int] = []
        self._length_counts: dict[int, int] = {}
        self._open: dict[bytes, Group] = {}
        self._open_starts: list[bytes] = []
        self._others: dict[tuple[bytes, bytes], Group] = {}
        self._tree: IntervalTree[Group] = IntervalTree()

    def add(self, watcher: Watcher) -> None:
        """Begin to match a watcher's keys."""
        key, end = watcher.key, watcher.range_end
        if not end:
            self._exact.setdefault(key, {})[watcher] = None
        elif end == OPEN_END:
            if key not in self._open:
                insort(self._open_starts, key)
            self._open.setdefault(key, {})[watcher] = None
        elif end == prefix_end(key) and self._count_length(key):
            self._prefixes.setdefault(key, {})[watcher] = None
        else:
            group = self._others.get((key, end))
            if group is None:
                group = self._others[key, end] = {}
                self._tree.add(key, end, group)
            group[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Match a watcher that was added no more."""
        key, end = watcher.key, watcher.range_end
        if not end:
            _leave(self._exact, key, watcher)
        elif end == OPEN_END:
            if _leave(self._open, key, watcher):
                del self._open_starts[bisect_right(self._open_starts, key) - 1]
        elif watcher in self._prefixes.get(key, ()) and end == prefix_end(key):
            if _leave(self._prefixes, key, watcher):
                self._uncount_length(len(key))
        elif _leave(self._others, (key, end), watcher):
            self._tree.remove(key, end)

    def matching(self, key: bytes) -> list[Group]:
        """The groups of all watchers of a key; each watcher is in one."""
        found: list[Group] = []
        group = self._exact.get(key)
        if group is not None:
            found.append(group)
        for length in self._lengths:
            # A longer slice would be the key itself, and find it again.
            if length > len(key):
                break
            group = self._prefixes.get(key[:length])
            if group is not None:
                found.append(group)
        if self._open_starts:
            starts = self._open_starts
            found += [self._open[start] for start in starts[: bisect_right(starts, key)]]
        if self._tree:
            self._tree.holding(key, found)
        return found

    def _count_length(self, prefix: bytes) -> bool:
        """Whether a prefix has its place among the prefixes."""
        if prefix in self._prefixes:
            return True
        length = len(prefix)
        count = self._length_counts.get(length, 0)
        if not count:
            if len(self._lengths) >= PREFIX_LENGTHS_MAX:
                return False
            insort(self._lengths, length)
        self._length_counts[length] = count + 1
        return True

    def _uncount_length(self, length: int) -> None:
        self._length_counts[length] -= 1
        if not self._length_counts[length]:
            del self._length_counts[length]
            self._lengths.remove(length)


def _leave(groups: dict[_K, Group], name: _K, watcher: Watcher) -> bool:
    """Take a watcher out of its group; whether the group is gone."""
    group = groups[name]
    del group[watcher]
    if group:
        return False
    del groups[name]
    return True
