"""The node: ``step`` an event, ``take_effects``, do what they say, and step what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from raft import candidate, follower, leader, replication
from raft.core import Core
from raft.effects import Effects
from raft.errors import PeerError, RejectReason
from raft.events import (
    Applied,
    Event,
    LogCompacted,
    PeerUnreachable,
    Persisted,
    Propose,
    ProposeMembership,
    ReadIndex,
    Receive,
    SnapshotInstalled,
    SnapshotSent,
    TellCommit,
    Tick,
    TransferLeader,
)
from raft.invariants import InvariantChecker
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ForwardProposals,
    ForwardRejected,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Message,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raft.mute import NOT_MUTE
from raft.outbox import Outbox
from raft.types import (
    NO_NODE,
    Configuration,
    Entry,
    HardState,
    Index,
    NodeId,
    Role,
    SnapshotMeta,
    Term,
)

if TYPE_CHECKING:
    from random import Random

    from raft.config import RaftConfig

_HANDLERS: dict[type[Any], Callable[[Core, Any], None]] = {
    RequestVote: follower.on_request_vote,
    RequestVoteReply: candidate.on_vote_reply,
    AppendEntries: follower.on_append_entries,
    AppendEntriesReply: replication.on_append_reply,
    Heartbeat: follower.on_heartbeat,
    HeartbeatReply: replication.on_heartbeat_reply,
    InstallSnapshot: follower.on_install_snapshot,
    TimeoutNow: candidate.on_timeout_now,
    ForwardProposals: leader.on_forward_proposals,
    ForwardRejected: follower.on_forward_rejected,
    ReadIndexRequest: leader.on_read_index_request,
    ReadIndexReply: follower.on_read_index_reply,
}

# Sent by the leader of the message's term only: whoever receives one knows who leads.
_FROM_LEADER = frozenset({AppendEntries, Heartbeat, InstallSnapshot, TimeoutNow})

# What a sender of an older term may still say. A request that waits for an answer gets one; the
# others would only tell what was true in a term that is over.
_HEARD_IN_OLD_TERMS = frozenset({RequestVote, ForwardProposals, ForwardRejected, ReadIndexRequest})


class RaftNode:
    """One member's consensus core.

    Args:
        config: Limits and rhythm.
        rng: Randomises election timeouts; seeded by whoever wants to replay.
        hard_state: As recovered; term 0 and no vote on a fresh start.
        snapshot: What the log follows. A fresh cluster starts from index 0, term 0 and the initial
            configuration.
        entries: All that is durable after the snapshot.
        applied: What the state machine holds already, at least ``snapshot.index``.
        required_index: Not 0 if the log is damaged below an intact tail: the end of that tail. The
            node is mute then (``raft/mute.py``), and begins with no entries.

    Raises:
        StorageError: These do not hold together: the disk lost something.
    """

    __slots__ = ("_checker", "_core", "_outbox", "_steps")

    def __init__(
        self,
        config: RaftConfig,
        rng: Random,
        *,
        hard_state: HardState,
        snapshot: SnapshotMeta,
        entries: list[Entry],
        applied: Index,
        required_index: Index = NOT_MUTE,
    ) -> None:
        core = Core(config, rng, hard_state, snapshot, entries, applied, required_index)
        self._core = core
        self._outbox = Outbox(core)
        self._checker = InvariantChecker(core) if config.check_invariants else None
        self._steps: dict[type[Any], Callable[[Any], None]] = {
            Tick: self._on_tick,
            Receive: self._on_receive,
            Propose: self._on_propose,
            ReadIndex: self._on_read_index,
            Persisted: self._on_persisted,
            TellCommit: self._on_tell_commit,
            Applied: self._on_applied,
            LogCompacted: self._on_log_compacted,
            PeerUnreachable: self._on_peer_unreachable,
            SnapshotSent: self._on_snapshot_sent,
            SnapshotInstalled: self._on_snapshot_installed,
            TransferLeader: self._on_transfer_leader,
            ProposeMembership: self._on_propose_membership,
        }
        current = core.membership.current
        alone = current.voters == (core.node_id,) and not current.voters_outgoing
        if alone and candidate.may_campaign(core):
            # Nobody else could lead: waiting for a timeout would only delay the start.
            candidate.campaign(core, pre_vote=True)

    # ------------------------------------------------------------------------------- what it is

    @property
    def term(self) -> Term:
        """The newest term it knows of."""
        return self._core.term

    @property
    def voted_for(self) -> NodeId:
        """Whom it voted for in this term."""
        return self._core.voted_for

    @property
    def role(self) -> Role:
        """The role it plays in this term."""
        return self._core.role

    @property
    def leader(self) -> NodeId:
        """Who leads this term, as far as it knows; ``NO_NODE`` if it does not."""
        return self._core.leader

    @property
    def commit_index(self) -> Index:
        """The newest entry it knows to be committed."""
        return self._core.commit_index

    @property
    def applied_index(self) -> Index:
        """The newest entry reported as applied."""
        return self._core.applied_index

    @property
    def first_index(self) -> Index:
        """The oldest entry held in memory, or the one after the last if none is."""
        return Index(self._core.log.base_index + 1)

    @property
    def last_index(self) -> Index:
        """The newest entry in the log."""
        return self._core.log.last_index

    @property
    def stable_index(self) -> Index:
        """The newest entry that is on this node's own disk."""
        return self._core.durability.stable_index

    @property
    def configuration(self) -> Configuration:
        """The configuration in force."""
        return self._core.membership.current

    @property
    def involved(self) -> tuple[NodeId, ...]:
        """Everybody, sorted, whom the configuration in force has, or one before it that is in
        force again if what followed is cut: nobody else is needed any more.
        """
        core = self._core
        possible = core.membership.undecided(core.commit_index)
        return tuple(sorted({node for each in possible for node in each.members()}))

    @property
    def configuration_is_committed(self) -> bool:
        """Whether the configuration in force is known to be committed, and is not a joint one."""
        core = self._core
        joint = bool(core.membership.current.voters_outgoing)
        return not joint and core.configuration_in_force_is_committed()

    @property
    def may_change_membership(self) -> bool:
        """Whether ``ProposeMembership`` would be accepted now."""
        return leader.refusal_of_membership(self._core) is None

    @property
    def transfer_target(self) -> NodeId:
        """Whom this leader is handing over to; ``NO_NODE`` if to nobody."""
        leadership = self._core.leadership
        return NO_NODE if leadership is None else leadership.transfer_target

    @property
    def is_commit_untold(self) -> bool:
        """Whether a follower is still to learn of a commit, and nothing is due that tells it.

        The next append does. Step ``TellCommit`` if none leaves soon.
        """
        leadership = self._core.leadership
        return leadership is not None and leadership.untold

    @property
    def uncommitted_bytes(self) -> int:
        """What the log holds beyond the commit index."""
        core = self._core
        return core.log.bytes_between(core.commit_index, core.log.last_index)

    @property
    def log_size_bytes(self) -> int:
        """What the log's entries take in memory, encoded."""
        return self._core.log.size_bytes

    @property
    def required_index(self) -> Index:
        """What a snapshot must cover before this node takes part again; 0 unless it is mute."""
        return self._core.required_index

    def written_after(self, index: Index) -> list[Entry] | None:
        """The entries after ``index`` that were handed out to be written; None if some of them are
        held no more.
        """
        core = self._core
        if index < core.log.base_index:
            return None
        return core.log.slice(Index(index + 1), core.durability.handed_index)

    def snapshot_floor(self, node_id: NodeId) -> Index:
        """What a snapshot must cover, at least, to be of use to this follower."""
        core = self._core
        follower = None if core.leadership is None else core.leadership.progress.get(node_id)
        required = Index(0) if follower is None else follower.required_index
        return max(core.log.base_index, required)

    def snapshot_meta(self, index: Index) -> SnapshotMeta:
        """What a snapshot of the state after ``index`` has to say about itself.

        ``index`` is the applied index, or a newer one than the oldest entry held.
        """
        term = self._core.log.term_at(index)
        assert term is not None, "a snapshot is taken of what the log still knows"
        return SnapshotMeta(index, term, self._core.membership.at(index))

    def progress(self) -> dict[NodeId, dict[str, int | str | bool]]:
        """What this leader knows of each follower; empty on others."""
        leadership = self._core.leadership
        if leadership is None:
            return {}
        return {
            peer: {
                "match": each.match,
                "next": each.next,
                "state": each.state.name.lower(),
                "recently_active": each.active or each.was_active,
                "inflight": len(each.inflight),
            }
            for peer, each in leadership.progress.items()
        }

    # ------------------------------------------------------------------------------ what happens

    def step(self, event: Event) -> None:
        """Take in one event.

        Raises:
            PeerError: A peer broke the protocol; the node is sound and goes on.
            ConfigError: ``ProposeMembership`` asked for what cannot be.
            StorageError: This node's own log lost what it acknowledged: stop.
        """
        self._steps[type(event)](event)
        if self._checker is not None:
            self._checker.check(self._core)

    def _on_tick(self, _event: Tick) -> None:
        if self._core.role is Role.LEADER:
            leader.tick(self._core)
        else:
            candidate.tick(self._core)

    def _on_receive(self, event: Receive) -> None:
        core, message = self._core, event.message
        if message.receiver != core.node_id:
            raise PeerError(f"a message for node {message.receiver} came to node {core.node_id}")
        kind = type(message)
        if message.term > core.term:
            if not self._enter_term(message):
                return
        elif message.term < core.term and kind not in _HEARD_IN_OLD_TERMS:
            if kind in _FROM_LEADER:
                self._answer_old_leader(message)
            return
        _HANDLERS[kind](core, message)

    def _enter_term(self, message: Message) -> bool:
        """Follow a newer term (Raft §5.1), unless the message does not claim that it has begun.

        Returns:
            Whether to go on with the message.
        """
        core, kind = self._core, type(message)
        if isinstance(message, RequestVote):
            if follower.is_sticky(core, message):
                return False
            if message.pre_vote:
                return True
        elif isinstance(message, RequestVoteReply) and message.pre_vote and message.granted:
            return True
        follower.become_follower(
            core, message.term, message.sender if kind in _FROM_LEADER else NO_NODE
        )
        return True

    def _answer_old_leader(self, message: Message) -> None:
        """Let a leader of an older term know that its term is over.

        Without an answer, a node whose term ran ahead while it was cut off could neither follow
        that leader nor, against everybody's stickiness, get elected.
        """
        core = self._core
        core.messages_after_sync.append(
            AppendEntriesReply(core.node_id, message.sender, core.term, False, Index(0))
        )

    def _on_propose(self, event: Propose) -> None:
        if self._core.role is Role.LEADER:
            leader.propose(self._core, event.proposals)
        else:
            follower.forward_proposals(self._core, event.proposals)

    def _on_propose_membership(self, event: ProposeMembership) -> None:
        leader.propose_membership(self._core, event)

    def _on_read_index(self, event: ReadIndex) -> None:
        core = self._core
        if core.reads_waiting() >= core.config.pending_reads_max:
            core.reject_reads([event.context], RejectReason.NOT_READY)
        elif core.role is Role.LEADER:
            leader.read_index(core, event.context)
        else:
            follower.read_index(core, event.context)

    def _on_persisted(self, event: Persisted) -> None:
        core = self._core
        assert event.seq <= self._outbox.seq, "nothing is durable that was never handed out"
        core.durability.end(event.seq, core.log)
        if core.role is Role.LEADER:
            leader.advance_commit(core)
        else:
            candidate.on_vote_durable(core)
        core.trim_log(exactly=False)

    def _on_tell_commit(self, _event: TellCommit) -> None:
        replication.on_tell_commit(self._core)

    def _on_applied(self, event: Applied) -> None:
        core = self._core
        assert event.index <= core.applying_index, "nothing is applied that was never handed out"
        if event.index > core.applied_index:
            core.applied_index = event.index
            core.release_reads()
            core.trim_log(exactly=False)

    def _on_log_compacted(self, _event: LogCompacted) -> None:
        self._core.trim_log(exactly=True)

    def _on_peer_unreachable(self, event: PeerUnreachable) -> None:
        replication.on_peer_unreachable(self._core, event)

    def _on_snapshot_sent(self, event: SnapshotSent) -> None:
        replication.on_snapshot_sent(self._core, event)

    def _on_snapshot_installed(self, event: SnapshotInstalled) -> None:
        core, index = self._core, event.meta.index
        assert index <= core.applying_index, "nothing is installed that was never handed out"
        if core.pending_snapshot is not None and index >= core.pending_snapshot.index:
            core.pending_snapshot = None
        if index > core.applied_index:
            core.applied_index = index
            core.release_reads()

    def _on_transfer_leader(self, event: TransferLeader) -> None:
        leader.transfer(self._core, event.node_id)

    # --------------------------------------------------------------------------- what is to do

    def take_effects(self) -> Effects | None:
        """Everything to do since the last take, or None if there is nothing.

        Take until None comes: appends and committed entries are handed out in portions.
        """
        effects = self._outbox.take(self._core)
        if self._checker is not None:
            self._checker.check(self._core)
        return effects
