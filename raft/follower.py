"""What a node does that follows, and what every role answers to requests for its vote."""

from raft.core import Core
from raft.effects import Rejected
from raft.errors import PeerError, RejectReason, StorageError
from raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    ForwardProposals,
    ForwardRejected,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    RequestVoteReply,
)
from raft.mute import NOT_MUTE, ask_for_snapshot
from raft.types import ENTRY_HEADER_BYTES, NO_NODE, Index, NodeId, Proposal, Role, Term

# A question about reads that was not answered for so many ticks is asked again.
_ASK_AGAIN_TICKS = 2


def become_follower(core: Core, term: Term, leader: NodeId) -> None:
    """Follow, in this term (Raft §5.1). A newer term means that no vote was given in it yet."""
    if term > core.term:
        core.term = term
        core.voted_for = NO_NODE
    if core.leadership is not None:
        contexts, peers = core.leadership.reads.drain()
        core.reject_reads(contexts, RejectReason.LEADERSHIP_LOST)
        for peer, number in peers:
            core.messages_after_sync.append(
                ReadIndexReply(core.node_id, peer, core.term, number, Index(0), ok=False)
            )
        core.leadership = None
    core.role = Role.FOLLOWER
    core.votes.clear()
    core.reset_election_timer()
    set_leader(core, leader)


def set_leader(core: Core, leader: NodeId) -> None:
    """Somebody else leads now, or nobody known: what was asked of the former one is void."""
    if leader != core.leader:
        core.reject_reads(core.follower_reads.drain(), RejectReason.LEADERSHIP_LOST)
        core.leader = leader


def heard_from_leader(core: Core, leader: NodeId) -> None:
    """A message of this term's leader arrived.

    Raises:
        PeerError: This node leads this term itself, or follows somebody else in it.
    """
    if core.role is Role.LEADER or core.leader not in (NO_NODE, leader):
        raise PeerError(f"node {leader} claims to lead term {core.term}, as does another")
    if core.role is not Role.FOLLOWER:
        become_follower(core, core.term, leader)
    core.election_elapsed = 0
    set_leader(core, leader)


def is_sticky(core: Core, message: RequestVote) -> bool:
    """Whether to disregard a campaign, since this node hears from a leader (thesis §4.2.3).

    Without this, a member that was removed, or cut off from the leader alone, would depose it.
    """
    return (
        not message.transfer
        and core.leader != NO_NODE
        and core.election_elapsed < core.config.election_ticks
    )


def on_request_vote(core: Core, message: RequestVote) -> None:
    """Give or refuse a vote (Raft §5.2, §5.4.1), or say whether one would be given (thesis §9.6).

    The term of a real request is this node's by now; a pre-vote's lies ahead of it.
    """
    log = core.log
    free = core.voted_for == message.sender or (
        core.voted_for == NO_NODE and core.leader == NO_NODE
    )
    if message.pre_vote:
        free = free or message.term > core.term
    last_term = log.last_term
    current = message.last_term > last_term or (
        message.last_term == last_term and message.last_index >= log.last_index
    )
    granted = free and current and message.term >= core.term and not core.required_index
    if granted and not message.pre_vote:
        core.voted_for = message.sender
        core.election_elapsed = 0
    term = message.term if granted else core.term
    core.messages_after_sync.append(
        RequestVoteReply(core.node_id, message.sender, term, granted, message.pre_vote)
    )


def on_append_entries(core: Core, message: AppendEntries) -> None:
    """Take in the leader's entries, if they follow what is here (Raft §5.3)."""
    heard_from_leader(core, message.sender)
    if core.required_index:
        ask_for_snapshot(core, message.sender)
        return
    log = core.log
    prev, entries = message.prev_index, message.entries
    if prev < core.commit_index:
        # Overtaken by a newer append or a snapshot. All that is committed matches the leader's log
        # (Leader Completeness, Raft §5.4), and some of it may no longer be held here.
        _accept(core, message.sender, core.commit_index)
        return
    if log.term_at(prev) != message.prev_term:
        _refuse(core, message)
        return
    match = Index(prev + len(entries))
    if entries:
        if prev == log.last_index:
            core.append(entries)
        else:
            _merge(core, message)
    _commit_to(core, min(message.commit_index, match))
    _accept(core, message.sender, match)


def _merge(core: Core, message: AppendEntries) -> None:
    """Append what is new; cut the log only where it conflicts (Raft figure 2, AppendEntries 3, 4).

    Cutting what does not conflict would lose acknowledged entries to an old, overtaken message.
    """
    log, entries = core.log, message.entries
    known = min(len(entries), log.last_index - message.prev_index)
    fresh = 0
    while fresh < known and log.term_at(entries[fresh].index) == entries[fresh].term:
        fresh += 1
    if fresh == len(entries):
        return
    if fresh < known:
        core.truncate_from(entries[fresh].index)
    core.append(entries[fresh:])


def _accept(core: Core, leader: NodeId, match: Index) -> None:
    core.messages_after_sync.append(
        AppendEntriesReply(core.node_id, leader, core.term, True, match)
    )


def _refuse(core: Core, message: AppendEntries) -> None:
    """Say where the logs could part at the latest: one refusal a term, not one an entry (§5.3)."""
    log = core.log
    index = min(message.prev_index, log.last_index)
    while index > core.commit_index:
        term = log.term_at(index)
        assert term is not None, "uncommitted entries are held"
        if term <= message.prev_term:
            break
        index = Index(index - 1)
    core.messages_after_sync.append(
        AppendEntriesReply(
            core.node_id,
            message.sender,
            core.term,
            accepted=False,
            match_index=Index(0),
            prev_index=message.prev_index,
            conflict_index=index,
            conflict_term=log.term_at(index) or Term(0),
        )
    )


def on_heartbeat(core: Core, message: Heartbeat) -> None:
    """The leader lives; it may know of a newer commit index."""
    heard_from_leader(core, message.sender)
    if core.required_index:
        # No answer to the round, which would count for reads: it asks instead, round by round.
        if message.read_round:
            ask_for_snapshot(core, message.sender)
        return
    if message.commit_index > core.log.last_index:
        raise StorageError(
            f"this node acknowledged entries up to {message.commit_index}, but its log ends at"
            f" {core.log.last_index}"
        )
    _commit_to(core, message.commit_index)
    if message.read_round:
        core.messages_after_sync.append(
            HeartbeatReply(core.node_id, message.sender, core.term, message.read_round)
        )


def _commit_to(core: Core, index: Index) -> None:
    if index > core.commit_index:
        core.commit_index = index


def on_install_snapshot(core: Core, message: InstallSnapshot) -> None:
    """A snapshot is durable and loaded beside the state: take it, if it is news (Raft §7)."""
    heard_from_leader(core, message.sender)
    meta = message.meta
    if meta is None:
        raise PeerError(f"node {message.sender} offers a snapshot of nothing")
    if meta.index < core.required_index:
        ask_for_snapshot(core, message.sender)
        return
    # It covers all that this node may ever have acknowledged (I18). Whatever this node says from
    # here on leaves after the snapshot's mark is on the disk.
    core.required_index = NOT_MUTE
    if meta.index <= core.commit_index:
        _accept(core, message.sender, core.commit_index)
        return
    log = core.log
    if log.term_at(meta.index) == meta.term:
        # The snapshot is a prefix of this log: what follows it stays (Raft §7).
        suffix = log.slice(Index(meta.index + 1), log.last_index)
    else:
        suffix = []
    log.reset(meta.index, meta.term)
    core.membership.reset(meta.index, meta.configuration)
    core.append(suffix)
    core.durability.replace(meta, log.last_index)
    core.commit_index = meta.index
    core.applying_index = meta.index
    core.pending_snapshot = meta
    _accept(core, message.sender, meta.index)


def forward_proposals(core: Core, proposals: list[Proposal]) -> None:
    """Send our clients' proposals to the leader, or refuse them if none is known.

    No message carries more than an append may, or always one proposal: what comes in at once is
    bounded by nothing but what clients may have in flight, and a link refuses huge frames.
    """
    if core.leader == NO_NODE:
        core.rejected.extend(
            [Rejected(proposal.token, RejectReason.NO_LEADER, NO_NODE) for proposal in proposals]
        )
        return
    bytes_max = core.config.append_bytes_max
    first = size_bytes = 0
    for place, proposal in enumerate(proposals):
        entry_bytes = len(proposal.data) + ENTRY_HEADER_BYTES
        if place > first and size_bytes + entry_bytes > bytes_max:
            _forward(core, proposals[first:place])
            first, size_bytes = place, 0
        size_bytes += entry_bytes
    _forward(core, proposals[first:])


def _forward(core: Core, proposals: list[Proposal]) -> None:
    core.messages_after_sync.append(
        ForwardProposals(core.node_id, core.leader, core.term, tuple(proposals))
    )


def on_forward_rejected(core: Core, message: ForwardRejected) -> None:
    """The leader did not take these: tell whoever proposed them here."""
    try:
        reason = RejectReason(message.reason)
    except ValueError as error:
        raise PeerError(f"node {message.sender} rejects for reason {message.reason}") from error
    core.rejected.extend([Rejected(token, reason, core.leader) for token in message.tokens])


def read_index(core: Core, context: int) -> None:
    """Ask the leader, along with whoever else waits, at the next take."""
    if core.leader == NO_NODE:
        core.reject_reads([context], RejectReason.NO_LEADER)
    else:
        core.follower_reads.waiting.append(context)


def ask_for_reads(core: Core) -> None:
    """Send the next question about reads, if none is out and somebody waits."""
    reads = core.follower_reads
    if reads.waiting and not reads.asked and core.leader not in (NO_NODE, core.node_id):
        _ask(core, reads.begin())


def ask_again(core: Core) -> None:
    """A tick went by: a question, or its answer, may have been lost."""
    reads = core.follower_reads
    if not reads.asked:
        return
    reads.ticks += 1
    if reads.ticks >= _ASK_AGAIN_TICKS:
        reads.ticks = 0
        _ask(core, reads.round)


def _ask(core: Core, number: int) -> None:
    core.messages_after_sync.append(ReadIndexRequest(core.node_id, core.leader, core.term, number))


def on_read_index_reply(core: Core, message: ReadIndexReply) -> None:
    """The leader answered the question that is out; older answers mean nothing."""
    reads = core.follower_reads
    if message.round != reads.round or not reads.asked:
        return
    contexts = reads.finish()
    if message.ok:
        core.confirmed_reads.add(message.index, contexts)
        core.release_reads()
    else:
        core.reject_reads(contexts, RejectReason.NOT_READY)
