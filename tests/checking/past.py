"""What there was at each revision, from what each revision changed."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

from kvstore.mvcc.keyrange import upper_bound
from kvstore.types import EventType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvstore.types import Event, KeyValue


class Past:
    """Every key at every revision; before the first event of a key it was not there.

    Args:
        truth: Revision to its events, in their order.
    """

    def __init__(self, truth: dict[int, list[Event]]) -> None:
        self._truth = truth
        self._revisions: dict[bytes, list[int]] = defaultdict(list)
        self._records: dict[bytes, list[KeyValue | None]] = defaultdict(list)
        for revision in sorted(truth):
            for event in truth[revision]:
                assert event.kv is not None, "an event has a key"
                there = event.type == EventType.PUT
                self._revisions[event.kv.key].append(revision)
                self._records[event.kv.key].append(event.kv if there else None)
        self.keys = sorted(self._revisions)

    def events(self, revision: int) -> list[Event]:
        """What a revision changed."""
        return self._truth.get(revision, [])

    def get(self, key: bytes, revision: int) -> KeyValue | None:
        """The record of a key as of a revision."""
        place = bisect_right(self._revisions.get(key, []), revision)
        return self._records[key][place - 1] if place else None

    def at(self, revision: int, key: bytes, range_end: bytes) -> list[KeyValue]:
        """The records of a range as of a revision."""
        found = [self.get(name, revision) for name in self._range(key, range_end)]
        return [record for record in found if record is not None]

    def gone_at(self, key: bytes, after: int) -> int | None:
        """The first revision after this one that deleted the key; None if there is none."""
        place = bisect_right(self._revisions.get(key, []), after)
        for revision, record in zip(
            self._revisions[key][place:], self._records[key][place:], strict=True
        ):
            if record is None:
                return revision
        return None

    def creations(self, key: bytes) -> list[int]:
        """The revisions that created the key."""
        records = self._records.get(key, [])
        return [record.mod_revision for record in records if record and record.version == 1]

    def created_at(self, key: bytes, until: int) -> int | None:
        """The last revision up to this one that created the key; None if there is none."""
        return max((each for each in self.creations(key) if each <= until), default=None)

    def _range(self, key: bytes, range_end: bytes) -> Sequence[bytes]:
        if not range_end:
            return [key]
        high = upper_bound(key, range_end)
        last = len(self.keys) if high is None else bisect_left(self.keys, high)
        return self.keys[bisect_left(self.keys, key) : last]
