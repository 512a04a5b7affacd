"""The outline of the log that is being written: where it starts and ends, and which term its
entries have.

The log itself is the core's; this is what is needed to tell, when a snapshot is marked, whether the
entries after it stay. Terms rise along a log, so that a few runs describe all of it (Raft §5.4.1).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from raft.types import Entry, SnapshotMeta


class LogShape:
    """Follows what is written. ``last_index`` is the log's newest entry, ``mark_index`` the newest
    marked snapshot's.
    """

    __slots__ = ("_starts", "_terms", "last_index", "mark_index")

    def __init__(self, mark: SnapshotMeta | None, entries: Sequence[Entry]) -> None:
        self.mark_index: int = 0 if mark is None else mark.index
        self.last_index = self.mark_index
        self._starts: list[int] = []
        self._terms: list[int] = []
        if entries:
            self.append(entries)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add consecutive entries, which replace whatever is at or above the first of them."""
        first = entries[0]
        index: int = first.index
        assert self.mark_index < index <= self.last_index + 1, (
            "entries continue the log or replace its end"
        )
        starts, terms = self._starts, self._terms
        if index <= self.last_index:
            kept = bisect_right(starts, index - 1)
            del starts[kept:], terms[kept:]
        if not terms or terms[-1] != first.term:
            starts.append(index)
            terms.append(first.term)
        if entries[-1].term != first.term:
            for before, after in pairwise(entries):
                if before.term != after.term:
                    starts.append(after.index)
                    terms.append(after.term)
        self.last_index = entries[-1].index

    def mark(self, meta: SnapshotMeta) -> bool:
        """Note a snapshot newer than the last; return whether the entries after it stay (Raft
        §7).
        """
        index = meta.index
        assert index > self.mark_index, "a mark moves forward"
        kept = index <= self.last_index and self._term_at(index) == meta.term
        self.mark_index = index
        if not kept:
            self.last_index = index
            self._starts.clear()
            self._terms.clear()
            return False
        covered = bisect_right(self._starts, index) - 1
        del self._starts[:covered], self._terms[:covered]
        self._starts[0] = index
        return True

    def _term_at(self, index: int) -> int:
        return self._terms[bisect_right(self._starts, index) - 1]
