"""What a node wants done, gathered at a take: a turn's events share their messages."""

from raft import follower, leader, replication
from raft.core import Core
from raft.effects import Effects, RoleChange
from raft.types import Entry, HardState, Index, Seq


class Outbox:
    """Numbers the takes, and remembers what the last ones said."""

    __slots__ = ("_commit", "_role", "_term", "_vote", "seq")

    def __init__(self, core: Core) -> None:
        self.seq = Seq(0)
        self._term = core.term
        self._vote = core.voted_for
        self._commit = core.commit_index
        self._role = RoleChange(core.role, core.term, core.leader)

    def take(self, core: Core) -> Effects | None:
        """Build what is due, and hand out everything; None if there is nothing."""
        leadership = core.leadership
        if leadership is not None:
            if leadership.reads.wants_round:
                leader.begin_read_round(core)
            if leadership.unsent:
                replication.fill(core, leadership)
        elif core.follower_reads.waiting:
            follower.ask_for_reads(core)
        durability = core.durability
        entries = durability.hand_out(core.log)
        snapshot, durability.snapshot = durability.snapshot, None
        hard_state = self._hard_state(core, writes=bool(entries) or snapshot is not None)
        committed = _committed(core)
        role_change = self._role_change(core)
        persist = hard_state is not None or snapshot is not None or bool(entries)
        if not (persist or committed or role_change is not None or _has_news(core)):
            return None
        self.seq = Seq(self.seq + 1)
        if persist:
            durability.begin(self.seq, hard_state, entries, snapshot)
        effects = Effects(
            self.seq,
            hard_state,
            entries,
            snapshot,
            core.messages,
            core.messages_after_sync,
            committed,
            core.accepted,
            core.rejected,
            core.reads,
            core.reads_rejected,
            role_change,
        )
        _empty(core)
        return effects

    def _hard_state(self, core: Core, *, writes: bool) -> HardState | None:
        """The hard state, if it must be written: the commit index alone only travels along."""
        news = writes and core.commit_index != self._commit
        if not news and core.term == self._term and core.voted_for == self._vote:
            return None
        self._term, self._vote, self._commit = core.term, core.voted_for, core.commit_index
        return HardState(core.term, core.voted_for, core.commit_index)

    def _role_change(self, core: Core) -> RoleChange | None:
        before = self._role
        if core.role is before.role and core.term == before.term and core.leader == before.leader:
            return None
        self._role = RoleChange(core.role, core.term, core.leader)
        return self._role


def _committed(core: Core) -> list[Entry]:
    """The next committed entries to apply, as many as may be in the state machine's hands."""
    first = Index(core.applying_index + 1)
    if first > core.commit_index or core.pending_snapshot is not None:
        return []
    log = core.log
    room = core.config.committed_bytes_max
    if core.applying_index > core.applied_index:
        room -= log.bytes_between(core.applied_index, core.applying_index)
        if log.bytes_between(core.applying_index, first) > room:
            return []
    entries = log.slice_bytes(first, core.commit_index, room)
    core.applying_index = entries[-1].index
    return entries


def _has_news(core: Core) -> bool:
    return bool(
        core.messages
        or core.messages_after_sync
        or core.accepted
        or core.reads
        or core.rejected
        or core.reads_rejected
    )


def _empty(core: Core) -> None:
    core.messages = []
    core.messages_after_sync = []
    core.accepted = []
    core.rejected = []
    core.reads = []
    core.reads_rejected = []
