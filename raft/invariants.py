"""Every invariant of the core that costs more than a comparison, checked on one node and on many.

Tests and the simulator run these after every step; production behind
``RaftConfig.check_invariants``. The numbers are those of ``docs/invariants.md``. A check that fails
is our own mistake, hence an assertion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from raft.codec import decode_configuration
from raft.messages import AppendEntriesReply, HeartbeatReply, RequestVote, RequestVoteReply
from raft.progress import ProgressState
from raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    EntryKind,
    Index,
    NodeId,
    Role,
    SnapshotMeta,
    Term,
)

if TYPE_CHECKING:
    from raft.core import Core
    from raft.log import Log
    from raft.messages import Message


class InvariantChecker:
    """Checks one node's state, and each change against the state before."""

    __slots__ = (
        "_applied",
        "_commit",
        "_last",
        "_log",
        "_required",
        "_term",
        "_vote",
        "_was_leader",
    )

    def __init__(self, core: Core) -> None:
        self._log = _KnownLog()
        self._remember(core)
        self.check(core)

    def check(self, core: Core) -> None:
        """Check everything about one node.

        Raises:
            AssertionError: An invariant does not hold; the message begins with its number.
        """
        self._log.check(core)
        _check_marks(core)
        _check_role(core)
        _check_progress(core)
        self._check_mute(core)
        self._check_change(core)
        self._remember(core)

    def _remember(self, core: Core) -> None:
        self._term = core.term
        self._vote = core.voted_for
        self._commit = core.commit_index
        self._applied = core.applied_index
        self._last = (core.log.last_index, core.log.last_term)
        self._was_leader = core.role is Role.LEADER
        self._required = core.required_index

    def _check_mute(self, core: Core) -> None:
        if not self._required:
            assert not core.required_index, "I17: mute is how a node begins, or not at all"
            return
        if not core.required_index:
            covered = core.log.base_index
            assert covered >= self._required, "I18: what it may have acknowledged is not covered"
            return
        assert core.required_index == self._required, "I18: what is required never changes"
        assert core.role is Role.FOLLOWER, "I17: a mute node only follows"
        assert core.log.last_index == core.log.base_index, "I17: a mute node has no entries"
        promised = [each for each in core.messages_after_sync if _counts(each)]
        assert not promised, "I17: a mute node says nothing that counts"
        if core.term == self._term:
            assert core.voted_for == self._vote, "I17: a mute node votes for nobody"
        else:
            assert core.voted_for == NO_NODE, "I17: a mute node votes for nobody"

    def _check_change(self, core: Core) -> None:
        assert core.term >= self._term, "I05: the term never decreases"
        if core.term == self._term and self._vote != NO_NODE:
            assert core.voted_for == self._vote, "I06: one vote a term"
        assert core.commit_index >= self._commit, "I08: the commit index never decreases"
        assert core.applied_index >= self._applied, "I08: the applied index never decreases"
        if self._was_leader and core.role is Role.LEADER and core.term == self._term:
            index, term = self._last
            if index >= core.log.base_index:
                assert core.log.term_at(index) == term, "I09: a leader only appends to its log"


def _counts(message: Message) -> bool:
    """Whether somebody may count this towards a majority."""
    if isinstance(message, AppendEntriesReply):
        return message.accepted
    if isinstance(message, RequestVoteReply):
        return message.granted
    return isinstance(message, HeartbeatReply | RequestVote)


class _KnownLog:
    """Checks what is new in a log; all of it where what was known is not there any more.

    Entries never change, so that to find the same ones in their places is enough.
    """

    __slots__ = ("_base_index", "_configuration", "_entries", "_size")

    def __init__(self) -> None:
        self._base_index = Index(-1)
        self._entries: list[Entry] = []
        self._size = 0
        self._configuration: tuple[Index, Configuration] | None = None

    def check(self, core: Core) -> None:
        log = core.log
        entries = log.slice(Index(log.base_index + 1), log.last_index)
        known = self._forget_trimmed(log)
        if entries[: len(known)] != known:
            known = self._forget_all()
        index = Index(log.base_index + len(known))
        term = known[-1].term if known else log.base_term
        for entry in entries[len(known) :]:
            assert entry.index == index + 1, "I01: a gap in the log"
            assert entry.term >= term, "I02: terms in a log never decrease"
            index, term = entry.index, entry.term
            self._size += len(entry.encoded)
            if entry.kind is EntryKind.CONFIGURATION:
                self._configuration = index, decode_configuration(entry.data)
        self._base_index, self._entries = log.base_index, entries
        assert index == log.last_index, "I01: the log ends where it says"
        assert term == log.last_term <= core.term, "I02: no entry is of a term yet to come"
        assert self._size == log.size_bytes, "I01: bytes are counted exactly"
        self._check_configuration(core)

    def _forget_trimmed(self, log: Log) -> list[Entry]:
        """What should still be there."""
        count = log.base_index - self._base_index
        entries = self._entries
        if not count:
            return entries
        if not 0 < count <= len(entries) or entries[count - 1].term != log.base_term:
            return self._forget_all()
        self._size -= sum([len(entry.encoded) for entry in entries[:count]])
        if self._configuration is not None and self._configuration[0] <= log.base_index:
            self._configuration = None
        return entries[count:]

    def _forget_all(self) -> list[Entry]:
        self._size = 0
        self._configuration = None
        return []

    def _check_configuration(self, core: Core) -> None:
        if self._configuration is not None:
            newest = self._configuration[1]
        else:
            base = core.log.base_index
            assert core.membership.current_index <= base, "I15: from a cut entry"
            newest = core.membership.at(base)
        assert core.membership.current == newest, "I15: the newest configuration is in force"


def _check_marks(core: Core) -> None:
    log, durability = core.log, core.durability
    assert core.applied_index <= core.applying_index, "I03: applied before it was handed out"
    assert core.applying_index <= core.commit_index, "I03: handed out before it was committed"
    assert core.commit_index <= log.last_index, "I03: committed beyond the log's end"
    assert log.base_index <= core.applying_index, "I03: forgotten before it was applied"
    assert durability.handed_index <= log.last_index, "I04: written beyond the log's end"
    assert durability.stable_index <= log.last_index, "I04: durable beyond the log's end"
    assert durability.term <= core.term, "I04: the disk is ahead of the node"
    for write in durability.writes:
        held = log.term_at(write.index)
        claim_holds = write.index <= log.base_index or held == write.term
        assert claim_holds, "I13: a write claims what was cut"


def _check_role(core: Core) -> None:
    assert (core.leadership is not None) == (core.role is Role.LEADER), "I11: leaders lead"
    if core.role is Role.LEADER:
        own = core.durability.vote_is_durable(core.term, core.node_id)
        assert own, "I11: a leader's own vote is durable"
        assert core.leader == core.node_id, "I11: a leader knows that it leads"
        leadership = core.leadership
        assert leadership is not None, "I11: leaders lead"
        first_term = core.log.term_at(leadership.first_index)
        assert first_term in (None, core.term), "I10: a term begins with its leader's no-op"
    else:
        assert core.leader != core.node_id, "I11: only a leader believes that it leads"
    if core.role is Role.CANDIDATE:
        assert core.voted_for == core.node_id, "I06: a candidate votes for itself"


def _check_progress(core: Core) -> None:
    if core.leadership is None:
        return
    last = core.log.last_index
    assert tuple(core.leadership.progress) == core.membership.peers, "I16: one progress a peer"
    for follower in core.leadership.progress.values():
        assert follower.match < follower.next, "I16: what matches is not sent again"
        assert follower.match <= last, "I16: nobody holds more than the leader"
        size = sum([each[1] for each in follower.inflight])
        assert follower.inflight_bytes == size, "I16: bytes in flight are counted exactly"
        appends_max = core.config.inflight_appends_max
        assert len(follower.inflight) <= appends_max, "I16: the window bounds what is in flight"
        if follower.state is ProgressState.REPLICATE:
            assert follower.next <= last + 1, "I16: nothing is sent that is not there"
        else:
            assert not follower.inflight, "I16: only replication has a window"


class ClusterChecker:
    """Raft's safety properties (Raft figure 3) over all nodes of a cluster, in one process.

    Feed it what nodes do; it remembers across crashes what must never be unsaid.
    """

    def __init__(self) -> None:
        self._leaders: dict[Term, NodeId] = {}
        self._committed: dict[Index, tuple[Term, bytes]] = {}
        self._applied: dict[NodeId, Index] = {}
        self._votes: dict[tuple[NodeId, Term], NodeId] = {}
        self.committed_index = Index(0)

    def saw_leader(self, node: NodeId, term: Term) -> None:
        """A node leads."""
        before = self._leaders.setdefault(term, node)
        assert before == node, f"I20: nodes {before} and {node} both lead term {term}"

    def saw_vote(self, node: NodeId, term: Term, candidate: NodeId) -> None:
        """A vote left a node, or was counted by the candidate itself."""
        before = self._votes.setdefault((node, term), candidate)
        assert before == candidate, f"I07: node {node} voted twice in term {term}"

    def saw_applied(self, node: NodeId, entries: Iterable[Entry]) -> None:
        """A node applies these, next."""
        for entry in entries:
            expected = self._applied.get(node, 0) + 1
            assert entry.index == expected, f"I23: node {node} skips to {entry.index}"
            self._applied[node] = entry.index
            content = (entry.term, entry.encoded)
            before = self._committed.setdefault(entry.index, content)
            assert before == content, f"I23: node {node} applies another entry {entry.index}"
            self.committed_index = max(self.committed_index, entry.index)

    def saw_restart(self, node: NodeId, applied: Index) -> None:
        """A node came back, or swapped in a snapshot: its state is that after ``applied``."""
        self._applied[node] = applied

    def saw_snapshot(self, meta: SnapshotMeta) -> None:
        """A snapshot is taken or installed."""
        if meta.index in self._committed:
            assert self._committed[meta.index][0] == meta.term, "I23: a snapshot of another history"

    def check_logs(self, logs: Mapping[NodeId, list[Entry]]) -> None:
        """Log Matching (Raft §5.3): equal index and term means equal up to there."""
        by_position: dict[tuple[Index, Term], tuple[bytes, Term | None]] = {}
        for node, entries in logs.items():
            before: Term | None = None
            for entry in entries:
                key = (entry.index, entry.term)
                known = by_position.get(key)
                if known is None:
                    by_position[key] = (entry.encoded, before)
                else:
                    assert known[0] == entry.encoded, f"I21: node {node} differs at {key}"
                    if before is not None and known[1] is not None:
                        assert known[1] == before, f"I21: node {node} differs before {key}"
                    elif before is not None:
                        by_position[key] = (entry.encoded, before)
                before = entry.term

    def check_leader(self, core: Core) -> None:
        """Leader Completeness (Raft §5.4): whoever leads the newest term has all that is committed.

        Entries that were trimmed were applied, and compared then.
        """
        if core.role is not Role.LEADER or core.term < max(self._leaders, default=0):
            return
        log = core.log
        assert log.last_index >= self.committed_index, "I22: the leader lacks committed entries"
        for entry in log.slice(Index(log.base_index + 1), log.last_index):
            known = self._committed.get(entry.index)
            if known is not None:
                assert known == (entry.term, entry.encoded), "I22: the leader has another entry"
