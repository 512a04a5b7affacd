"""What the records of a log come to, put together in the order in which they were written."""

from __future__ import annotations

import msgspec

from raft.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term
from wal.record import Mark, Metadata, Record, RecordError


class Fallback(msgspec.Struct, frozen=True):
    """What to start from if the newest marked snapshot is damaged: the marked one before it (None:
    nothing, the log reaches back to its beginning) and the entries between the two.
    """

    snapshot_mark: SnapshotMeta | None
    entries: list[Entry]


class Replay:
    """Puts records together, in the order in which they were written.

    Args:
        metadata: What is known from batches before the first that it is fed.
        mark: The same.

    ``state_known`` and ``end_known`` say whether the records that were fed tell, by themselves, the
    newest hard state and where the log ends. A run of entries reaches to the log's end as of its
    writing, and a mark that keeps no log is the end, unless it only repeats at a segment's start
    what was marked before.
    """

    __slots__ = (
        "_opening",
        "end_known",
        "entries",
        "fallback",
        "hard_state",
        "mark",
        "metadata",
        "state_known",
    )

    def __init__(self, metadata: Metadata | None = None, mark: SnapshotMeta | None = None) -> None:
        self.metadata = metadata
        self.hard_state = HardState(Term(0), NodeId(0), Index(0))
        self.mark = mark
        self.state_known = False
        self.end_known = False
        self._opening = False
        self.entries: list[Entry] = []
        self.fallback: Fallback | None = None

    def feed(self, record: Record) -> None:
        """Take the next record."""
        if isinstance(record, list):
            self._append(record)
        elif isinstance(record, HardState):
            self.hard_state = record
            self.state_known = True
        elif isinstance(record, Mark):
            self._mark(record)
        else:
            self.metadata = record
            self._opening = True

    def behind(self, lost_batches: int) -> Replay:
        """What is known of records that follow a gap of so many batches.

        Each may have been written by one more opening of the log; what that one called itself must
        not be taken up again.
        """
        metadata = self.metadata
        if metadata is not None:
            incarnation = metadata.incarnation + lost_batches
            metadata = msgspec.structs.replace(metadata, incarnation=incarnation)
        return Replay(metadata, self.mark)

    def last_index(self) -> int:
        """The index of the newest entry, in the log or covered by the snapshot."""
        if self.entries:
            return self.entries[-1].index
        return self.mark.index if self.mark is not None else 0

    @property
    def gapless(self) -> bool:
        """Whether the entries follow the snapshot."""
        after = self.mark.index if self.mark is not None else 0
        return not self.entries or self.entries[0].index == after + 1

    def _append(self, run: list[Entry]) -> None:
        if not run:
            return
        self.end_known = True
        first = run[0].index
        if self.mark is not None and first <= self.mark.index:
            raise RecordError(
                f"entry {first} was written after a snapshot that covers {self.mark.index}"
            )
        entries = self.entries
        if entries:
            if first > entries[-1].index + 1:
                raise RecordError(f"entry {first} follows entry {entries[-1].index}")
            _merge(entries, run)
        else:
            # The very first may begin anywhere: entries before it may lie in a segment that is
            # gone, if a later mark covers them.
            entries.extend(run)

    def _mark(self, mark: Mark) -> None:
        index = mark.meta.index
        ends, self._opening = not mark.log_kept and not self._opening, False
        if self.mark is not None and index <= self.mark.index:
            if mark.meta != self.mark:
                raise RecordError(
                    f"a snapshot at {index} was marked after one at {self.mark.index}"
                )
            if ends:
                self._end()
            return
        before, self.mark = self.mark, mark.meta
        entries = self.entries
        self.fallback = None
        if ends:
            self._end()
        elif not mark.log_kept:
            entries.clear()
        elif entries:
            covered = entries[: max(0, index - entries[0].index + 1)]
            del entries[: len(covered)]
            base = before.index if before is not None else 0
            if covered and covered[0].index == base + 1 and covered[-1].index == index:
                self.fallback = Fallback(before, covered)

    def _end(self) -> None:
        """The log ends with the snapshot."""
        self.entries.clear()
        self.fallback = None
        self.end_known = True


def _merge(entries: list[Entry], run: list[Entry]) -> None:
    """Put a run that starts at or below the end of ``entries``, or right behind it, in its place.

    Index and term tell an entry (Log Matching, Raft §5.3): where they are the same, nothing is
    replaced and nothing cut. Without this, of entries that were written twice, of which the second
    writing did not get to its end, those that it did not reach would be lost, although they were
    acknowledged when they were written first. The first entry of another term cuts what is there
    from its index on.
    """
    first = run[0].index
    start = entries[0].index
    low = max(first, start)
    upto = min(run[-1].index, entries[-1].index) + 1
    same: int = low
    while same < upto and entries[same - start].term == run[same - first].term:
        if entries[same - start] != run[same - first]:
            raise RecordError(f"entry {same} was written twice in one term, and differs")
        same += 1
    if same < upto or run[-1].index < start:
        del entries[same - start :]
    # Entries before the first one held lay in a segment that is gone: here they are again.
    if first < start:
        entries[:0] = run[: start - first]
    entries.extend(run[max(same, low) - first :])
