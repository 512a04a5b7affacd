"""What of the log, the term and the vote is on this node's own disk, and what is on its way there.

Writes are numbered (``seq``) and end in order. A write that is still under way when the log is cut
must not count for what was cut: its claim shrinks at once. Checking (index, term) when it ends is
not enough, since the same entry may have come back meanwhile, from a later leader, in a later
write that has not ended; between the two stands a write that removes it (the A-B-A race).
"""

from collections import deque

from raft.log import Log
from raft.types import NO_NODE, Entry, HardState, Index, NodeId, Seq, SnapshotMeta, Term


class Write:
    """One write under way: ``index`` and ``term`` are the newest entry that it makes durable."""

    __slots__ = ("hard_state", "index", "seq", "term")

    def __init__(self, seq: Seq, hard_state: HardState | None, index: Index, term: Term) -> None:
        self.seq = seq
        self.hard_state = hard_state
        self.index = index
        self.term = term


class Durability:
    """Tracks writes from the take that hands them out to the ``Persisted`` that ends them."""

    __slots__ = ("handed_index", "snapshot", "stable_index", "term", "voted_for", "writes")

    def __init__(self, hard_state: HardState, stable_index: Index) -> None:
        self.term: Term = hard_state.term
        self.voted_for: NodeId = hard_state.voted_for
        self.stable_index = stable_index
        self.handed_index = stable_index
        self.snapshot: SnapshotMeta | None = None
        self.writes: deque[Write] = deque()

    def hand_out(self, log: Log) -> list[Entry]:
        """The entries that no write carries yet; from now on the caller's next write does."""
        if self.handed_index == log.last_index:
            return []
        entries = log.slice(Index(self.handed_index + 1), log.last_index)
        self.handed_index = log.last_index
        return entries

    def begin(
        self,
        seq: Seq,
        hard_state: HardState | None,
        entries: list[Entry],
        snapshot: SnapshotMeta | None,
    ) -> None:
        """Write ``seq`` is on its way with all of this."""
        if entries:
            newest = entries[-1]
            self.writes.append(Write(seq, hard_state, newest.index, newest.term))
        elif snapshot is not None:
            self.writes.append(Write(seq, hard_state, snapshot.index, snapshot.term))
        else:
            self.writes.append(Write(seq, hard_state, Index(0), Term(0)))

    def end(self, seq: Seq, log: Log) -> None:
        """Everything up to and with write ``seq`` is durable (invariant I04)."""
        writes = self.writes
        while writes and writes[0].seq <= seq:
            write = writes.popleft()
            if write.hard_state is not None:
                self.term = write.hard_state.term
                self.voted_for = write.hard_state.voted_for
            if write.index > self.stable_index:
                held = log.term_at(write.index)
                assert held is None or held == write.term, "I13: a write claims what was cut"
                self.stable_index = write.index

    def cut(self, index: Index, term: Term) -> None:
        """The log now ends at (``index``, ``term``): no write claims more (invariant I13)."""
        self.handed_index = min(self.handed_index, index)
        self.stable_index = min(self.stable_index, index)
        for write in self.writes:
            if write.index > index:
                write.index = index
                write.term = term

    def replace(self, meta: SnapshotMeta, suffix_end: Index) -> None:
        """A snapshot takes the place of the log up to ``meta.index``; a suffix may be kept.

        The kept suffix is written once more, after the snapshot's mark, so that whoever reads the
        disk back finds it there whether the mark cuts off what came before it or not.
        """
        if suffix_end == meta.index:
            self.cut(Index(0), Term(0))
        self.handed_index = meta.index
        self.snapshot = meta

    def vote_is_durable(self, term: Term, node_id: NodeId) -> bool:
        """Whether the vote for ``node_id`` in ``term`` would survive a crash."""
        return self.term == term and self.voted_for == node_id != NO_NODE
