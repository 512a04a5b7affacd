"""The log in memory: the entries that are not applied yet, and a tail of those that are.

The disk keeps more. What stands before the first entry held is the *base*: its index and term are
remembered, since an append that follows it must still be checked against them (Raft §5.3)::

      base        base + 1                              last
    (index, term) [entry] [entry] ............... [entry]
                   ^                                ^
                   oldest held                      newest
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from raft.types import Entry, Index, Term


class Log:
    """Contiguous entries after a base, with running byte counts (invariants I01, I02)."""

    __slots__ = ("_base_end", "_ends", "_entries", "base_index", "base_term", "last_index")

    def __init__(self, base_index: Index, base_term: Term, entries: Sequence[Entry]) -> None:
        self.base_index = base_index
        self.base_term = base_term
        self.last_index = base_index
        self._entries: list[Entry] = []
        # _ends[i] counts the bytes of everything up to and with _entries[i] since the node began,
        # so that the size of any run is one subtraction and a byte limit is one bisection.
        self._ends: list[int] = []
        self._base_end = 0
        self.append(entries)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last_term(self) -> Term:
        """The term of the newest entry, or of the base."""
        return self._entries[-1].term if self._entries else self.base_term

    @property
    def size_bytes(self) -> int:
        """What the entries held take, encoded."""
        return self._ends[-1] - self._base_end if self._ends else 0

    def term_at(self, index: Index) -> Term | None:
        """The term of the entry at ``index``; None before the base and after the end."""
        offset = index - self.base_index
        if 0 < offset <= len(self._entries):
            return self._entries[offset - 1].term
        return self.base_term if offset == 0 else None

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries that follow the last one."""
        if not entries:
            return
        assert entries[0].index == self.last_index + 1, "I01: a gap in the log"
        assert entries[0].term >= self.last_term, "I02: terms in a log never decrease"
        ends = self._ends
        end = ends[-1] if ends else self._base_end
        for entry in entries:
            end += len(entry.encoded)
            ends.append(end)
        self._entries.extend(entries)
        self.last_index = entries[-1].index

    def truncate_from(self, index: Index) -> None:
        """Forget the entry at ``index`` and all that follow: they conflict with the leader's."""
        assert index > self.base_index, "I08: what is below the base is committed"
        keep = index - self.base_index - 1
        del self._entries[keep:]
        del self._ends[keep:]
        self.last_index = Index(self.base_index + len(self._entries))

    def trim_to(self, index: Index) -> None:
        """Make the entry at ``index`` the base, forgetting it and all before it."""
        count = index - self.base_index
        assert 0 <= count <= len(self._entries), "the new base must be held"
        if count == 0:
            return
        self.base_term = self._entries[count - 1].term
        self._base_end = self._ends[count - 1]
        self.base_index = index
        del self._entries[:count]
        del self._ends[:count]

    def reset(self, index: Index, term: Term) -> None:
        """Forget everything; the log now follows ``index``."""
        self.base_index = index
        self.base_term = term
        self.last_index = index
        self._base_end = 0
        self._entries.clear()
        self._ends.clear()

    def slice(self, first: Index, last: Index) -> list[Entry]:
        """The entries from ``first`` to ``last``, both with."""
        base = self.base_index
        return self._entries[first - base - 1 : last - base]

    def slice_bytes(self, first: Index, last: Index, bytes_max: int) -> list[Entry]:
        """As ``slice``, but at most ``bytes_max``; the first entry comes in any case."""
        start = first - self.base_index - 1
        stop = last - self.base_index
        before = self._ends[start - 1] if start else self._base_end
        if self._ends[stop - 1] - before > bytes_max:
            stop = max(start + 1, bisect_right(self._ends, before + bytes_max, start, stop))
        return self._entries[start:stop]

    def bytes_between(self, after: Index, upto: Index) -> int:
        """The bytes of the entries after ``after``, up to and with ``upto``."""
        return self._end(upto) - self._end(after)

    def oldest_within(self, upto: Index, bytes_max: int) -> Index:
        """The lowest index after which no more than ``bytes_max`` follow up to ``upto``."""
        floor = self._end(upto) - bytes_max
        if floor <= self._base_end:
            return self.base_index
        return Index(self.base_index + 1 + bisect_left(self._ends, floor))

    def _end(self, index: Index) -> int:
        offset = index - self.base_index
        return self._ends[offset - 1] if offset else self._base_end
