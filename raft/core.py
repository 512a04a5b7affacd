"""The state of one node, shared by its roles, and the few operations that all of them need.

``follower.py``, ``candidate.py`` and ``leader.py`` are functions over a ``Core``; ``node.py`` calls
them and hands out what they leave in the outbox.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.durability import Durability
from raft.effects import Accepted, Read, ReadRejected, Rejected
from raft.errors import RejectReason, StorageError
from raft.log import Log
from raft.membership import Membership
from raft.read_index import ConfirmedReads, FollowerReads
from raft.types import NO_NODE, Entry, HardState, Index, NodeId, Role, SnapshotMeta, Term

if TYPE_CHECKING:
    from random import Random

    from raft.config import RaftConfig
    from raft.leadership import Leadership
    from raft.messages import Message

# The rounds of a follower's questions start at a random number this wide; see FollowerReads.
_ROUND_BITS = 62


class Core:
    """Everything a node knows. Terms, votes and log: Raft figure 2.

    Attributes:
        messages: May leave before the disk: appends, heartbeats and snapshots of a leader.
        messages_after_sync: May leave once everything handed out so far is durable.
        applying_index: The newest entry handed out to apply; ``applied_index`` has been applied.
        pending_snapshot: Handed out to be swapped in, and not reported as installed yet.
        required_index: Not 0 while this node is mute: what a snapshot must cover to end that.
        votes: What is known of this node's own election.
        leadership: What only a leader knows; None on all others.
    """

    __slots__ = (
        "accepted",
        "applied_index",
        "applying_index",
        "commit_index",
        "config",
        "confirmed_reads",
        "durability",
        "election_elapsed",
        "election_timeout",
        "follower_reads",
        "leader",
        "leadership",
        "log",
        "membership",
        "messages",
        "messages_after_sync",
        "node_id",
        "pending_snapshot",
        "reads",
        "reads_rejected",
        "rejected",
        "required_index",
        "rng",
        "role",
        "term",
        "voted_for",
        "votes",
    )

    def __init__(
        self,
        config: RaftConfig,
        rng: Random,
        hard_state: HardState,
        snapshot: SnapshotMeta,
        entries: list[Entry],
        applied: Index,
        required_index: Index,
    ) -> None:
        if required_index:
            # What was committed beyond the snapshot is not here any more.
            hard_state = HardState(hard_state.term, hard_state.voted_for, snapshot.index)
            _check_mute(snapshot, entries, required_index)
        _check_storage(hard_state, snapshot, entries, applied)
        self.config = config
        self.rng = rng
        self.node_id = config.node_id
        self.term: Term = hard_state.term
        self.voted_for: NodeId = hard_state.voted_for
        self.role = Role.FOLLOWER
        self.leader: NodeId = NO_NODE
        self.log = Log(snapshot.index, snapshot.term, entries)
        self.commit_index: Index = max(hard_state.commit_index, applied)
        self.applied_index: Index = applied
        self.applying_index: Index = applied
        self.pending_snapshot: SnapshotMeta | None = None
        self.required_index: Index = required_index
        self.durability = Durability(hard_state, self.log.last_index)
        self.membership = Membership(config.node_id, snapshot.index, snapshot.configuration)
        self.membership.take_in(entries)
        self.votes: dict[NodeId, bool] = {}
        self.leadership: Leadership | None = None
        self.follower_reads = FollowerReads(rng.getrandbits(_ROUND_BITS))
        self.confirmed_reads = ConfirmedReads()
        self.messages: list[Message] = []
        self.messages_after_sync: list[Message] = []
        self.accepted: list[Accepted] = []
        self.rejected: list[Rejected] = []
        self.reads: list[Read] = []
        self.reads_rejected: list[ReadRejected] = []
        self.election_elapsed = 0
        self.election_timeout = 0
        self.reset_election_timer()

    def reset_election_timer(self) -> None:
        """Wait a fresh random time, so that split votes do not repeat (Raft §5.2)."""
        ticks = self.config.election_ticks
        self.election_elapsed = 0
        self.election_timeout = ticks + self.rng.randrange(ticks)

    def append(self, entries: list[Entry] | tuple[Entry, ...]) -> bool:
        """Add entries to the log; a configuration among them is in force at once (thesis §4.1).

        Returns:
            Whether the configuration changed.
        """
        self.log.append(entries)
        return self.membership.take_in(entries)

    def truncate_from(self, index: Index) -> None:
        """Cut the log before ``index``, since it conflicts with the leader's (Raft §5.3)."""
        assert index > self.commit_index, "I08: committed entries are never cut"
        self.log.truncate_from(index)
        self.durability.cut(self.log.last_index, self.log.last_term)
        self.membership.cut(self.log.last_index)

    def configuration_in_force_is_committed(self) -> bool:
        """Whether no change of membership is under way."""
        return self.membership.current_index <= self.commit_index

    def reject_reads(self, contexts: list[int], reason: RejectReason) -> None:
        """Tell these readers that they got no index."""
        self.reads_rejected.extend([ReadRejected(context, reason) for context in contexts])

    def reads_waiting(self) -> int:
        """All reads of this node that have no answer yet."""
        count = self.follower_reads.count + self.confirmed_reads.count
        if self.leadership is not None:
            count += self.leadership.reads.count
        return count

    def release_reads(self) -> None:
        """Answer the reads whose index is applied (thesis §6.4, step 4)."""
        for index, contexts in self.confirmed_reads.release(self.applied_index):
            self.reads.extend([Read(context, index) for context in contexts])

    def trim_log(self, *, exactly: bool) -> None:
        """Forget applied entries beyond the tail (``RaftConfig.tail_*``).

        Unless ``exactly``, small remainders wait: cutting the front of a list moves all the rest.
        """
        config, log = self.config, self.log
        keep = min(self.applied_index, self.durability.stable_index)
        if keep <= log.base_index:
            return
        target = keep - config.tail_entries_max
        if self.leadership is not None:
            target = min(target, self.leadership.hold_index())
        target = max(target, log.oldest_within(keep, config.tail_bytes_max))
        step = 1 if exactly else max(1, config.tail_entries_max // 8)
        if target - log.base_index >= step:
            log.trim_to(Index(target))
            self.membership.fold(Index(target))


def _check_mute(snapshot: SnapshotMeta, entries: list[Entry], required_index: Index) -> None:
    if entries or snapshot.index >= required_index:
        raise StorageError(
            f"a node that needs a snapshot at {required_index} begins below that, without entries, "
            f"not at {snapshot.index} with {len(entries)} entries"
        )


def _check_storage(
    hard_state: HardState, snapshot: SnapshotMeta, entries: list[Entry], applied: Index
) -> None:
    index, term = snapshot.index, snapshot.term
    for entry in entries:
        if entry.index != index + 1 or entry.term < term:
            raise StorageError(
                f"entry ({entry.index}, term {entry.term}) cannot follow ({index}, term {term})"
            )
        index, term = entry.index, entry.term
    if hard_state.term < term:
        raise StorageError(f"the log reaches term {term}, the hard state only {hard_state.term}")
    if hard_state.commit_index > index:
        raise StorageError(
            f"entries up to {hard_state.commit_index} were committed, the log ends at {index}"
        )
    if not snapshot.index <= applied <= index:
        raise StorageError(f"applied {applied} is not within {snapshot.index} and {index}")
