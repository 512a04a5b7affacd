"""What a leader does: takes proposals, commits, confirms reads, beats, hands over."""

from typing import Final

from raft.codec import encode_configuration, encode_entry
from raft.core import Core
from raft.effects import Accepted, Rejected
from raft.errors import RejectReason
from raft.events import ProposeMembership
from raft.follower import become_follower
from raft.leadership import Leadership
from raft.membership import check_target, leave_joint, next_step
from raft.messages import (
    ForwardProposals,
    ForwardRejected,
    Heartbeat,
    ReadIndexReply,
    ReadIndexRequest,
    TimeoutNow,
)
from raft.types import (
    ENTRY_HEADER_BYTES,
    NO_NODE,
    Configuration,
    Entry,
    EntryKind,
    Index,
    NodeId,
    Proposal,
    Role,
)

_NOOPS_MAX: Final = 100
"""What an idle log grows by at a time for a follower that waits for a higher index."""


def become_leader(core: Core) -> None:
    """Lead this term. It begins with a no-op: only an entry of its own term tells a leader what is
    committed (Raft §5.4.2, §8), and so when it may answer reads.
    """
    assert core.durability.vote_is_durable(core.term, core.node_id), "I11: the own vote is durable"
    core.role = Role.LEADER
    core.leader = core.node_id
    core.votes.clear()
    core.election_elapsed = 0
    first = Index(core.log.last_index + 1)
    core.leadership = Leadership(core.node_id, first, core.membership.peers)
    _append_own(core, EntryKind.NOOP, b"")


def _append_own(core: Core, kind: EntryKind, data: bytes) -> Entry:
    entry = encode_entry(Index(core.log.last_index + 1), core.term, kind, data)
    _append(core, [entry])
    return entry


def _append(core: Core, entries: list[Entry]) -> None:
    leadership = core.leadership
    assert leadership is not None, "only a leader appends its own entries"
    first = Index(core.log.last_index + 1)
    if core.append(entries):
        leadership.follow(core.membership.peers, first)
    leadership.unsent = True


def propose(core: Core, proposals: list[Proposal]) -> None:
    """Append our clients' proposals, as far as the limits allow."""
    taken, refused = _take(core, proposals)
    term = core.term
    index = core.log.last_index - taken
    core.accepted.extend(
        [
            Accepted(proposal.token, Index(index + offset), term)
            for offset, proposal in enumerate(proposals[:taken], 1)
        ]
    )
    core.rejected.extend([Rejected(token, reason, core.node_id) for token, reason in refused])


def on_forward_proposals(core: Core, message: ForwardProposals) -> None:
    """Append a follower's clients' proposals, or send back those that cannot be taken.

    A node that does not lead sends all of them back: a second hop could go round in circles.
    """
    leadership = core.leadership
    if leadership is not None:
        taken, refused = _take(core, message.proposals)
        follower = leadership.progress.get(message.sender)
        if taken and follower is not None:
            follower.awaited = core.log.last_index
    else:
        refused = [(each.token, RejectReason.NO_LEADER) for each in message.proposals]
    by_reason: dict[RejectReason, list[int]] = {}
    for token, reason in refused:
        by_reason.setdefault(reason, []).append(token)
    for reason, tokens in by_reason.items():
        core.messages_after_sync.append(
            ForwardRejected(core.node_id, message.sender, core.term, tuple(tokens), reason)
        )


def _take(
    core: Core, proposals: list[Proposal] | tuple[Proposal, ...]
) -> tuple[int, list[tuple[int, RejectReason]]]:
    """Append the proposals up to the first that a limit refuses.

    Returns:
        How many were taken, from the first on, and the others' tokens with their reasons: once one
        is refused, so are those behind it, since they may depend on it.
    """
    leadership = core.leadership
    assert leadership is not None, "only a leader takes proposals"
    if leadership.transfer_target != NO_NODE:
        return 0, [(each.token, RejectReason.TRANSFERRING) for each in proposals]
    limit = core.config.uncommitted_bytes_max
    room = limit - core.log.bytes_between(core.commit_index, core.log.last_index)
    index, term = core.log.last_index, core.term
    entries: list[Entry] = []
    add = entries.append
    for proposal in proposals:
        assert proposal.kind is not EntryKind.CONFIGURATION, "configurations pass their own checks"
        index += 1  # type: ignore[assignment]  # a NewType's sum is a plain int
        entry = encode_entry(index, term, proposal.kind, proposal.data)
        room -= len(entry.encoded)
        if room < 0:
            break
        add(entry)
    if entries:
        _append(core, entries)
    taken = len(entries)
    refused = []
    for proposal in proposals[taken:]:
        alone = len(proposal.data) + ENTRY_HEADER_BYTES > limit
        reason = RejectReason.TOO_LARGE if alone else RejectReason.UNCOMMITTED_LIMIT
        refused.append((proposal.token, reason))
    return taken, refused


def refusal_of_membership(core: Core) -> RejectReason | None:
    """Why no change of the configuration can begin here now; None if one can."""
    leadership = core.leadership
    if leadership is None:
        return RejectReason.NO_LEADER
    if leadership.transfer_target != NO_NODE:
        return RejectReason.TRANSFERRING
    if core.commit_index < leadership.first_index:
        return RejectReason.NOT_READY
    if core.membership.current.voters_outgoing or not core.configuration_in_force_is_committed():
        return RejectReason.MEMBERSHIP_PENDING
    return None


def propose_membership(core: Core, event: ProposeMembership) -> None:
    """Begin a change of the configuration; one at a time (thesis §4.1).

    Refused until this leader committed an entry of its own term: otherwise two leaders could each
    commit a change that the other does not know, with majorities that do not overlap.

    Raises:
        ConfigError: The configuration asked for cannot be.
    """
    check_target(event.configuration)
    reason = refusal_of_membership(core)
    if reason is not None:
        core.rejected.append(Rejected(event.token, reason, core.leader))
        return
    configuration = next_step(core.membership.current, event.configuration)
    entry = _append_configuration(core, configuration)
    core.accepted.append(Accepted(event.token, entry.index, entry.term))


def _append_configuration(core: Core, configuration: Configuration) -> Entry:
    return _append_own(core, EntryKind.CONFIGURATION, encode_configuration(configuration))


def append_up_to(core: Core, index: Index) -> None:
    """Let an idle log grow towards ``index``, which no client's write may ever reach.

    A portion a call: the call comes again as long as it is needed.
    """
    leadership = core.leadership
    assert leadership is not None, "only a leader appends its own entries"
    last = core.log.last_index
    if leadership.transfer_target == NO_NODE and core.commit_index == last:
        for _ in range(min(_NOOPS_MAX, index - last)):
            _append_own(core, EntryKind.NOOP, b"")


def advance_commit(core: Core) -> None:
    """Commit what a majority holds durably, if it is of this term (Raft §5.4.2, figure 8).

    An entry of an earlier term on a majority can still be overwritten; it is committed along with
    the first of this term. This node counts for what its own disk holds (thesis §10.2.1).
    """
    leadership = core.leadership
    assert leadership is not None, "only a leader counts"
    own = core.durability.stable_index
    index = leadership.match_quorum(core.membership.current, own)
    if index <= core.commit_index or core.log.term_at(index) != core.term:
        return
    core.commit_index = index
    leadership.unsent = True
    if not core.configuration_in_force_is_committed():
        return
    current = core.membership.current
    if current.voters_outgoing:
        _append_configuration(core, leave_joint(current))
    elif not core.membership.is_voter(core.node_id):
        # The change that removed this node is committed: its duty ends here (thesis §4.2.2).
        become_follower(core, core.term, NO_NODE)


def tick(core: Core) -> None:
    """A tick went by on the leader."""
    leadership = core.leadership
    assert leadership is not None, "only a leader ticks so"
    config = core.config
    leadership.ticks += 1
    leadership.quorum_elapsed += 1
    if leadership.quorum_elapsed >= config.election_ticks:
        leadership.quorum_elapsed = 0
        if not leadership.active_quorum(core.membership.current):
            # Cut off from the majority, which may have elected somebody else (thesis §6.2): clients
            # must not wait for what can no longer be committed here.
            become_follower(core, core.term, NO_NODE)
            return
    started = leadership.transfer_started
    if leadership.transfer_target and leadership.ticks - started >= config.election_ticks:
        # The target did not take over in time: go on leading (thesis §3.10).
        leadership.transfer_target = NO_NODE
    leadership.heartbeat_elapsed += 1
    if leadership.heartbeat_elapsed >= config.heartbeat_ticks:
        broadcast_heartbeat(core)


def broadcast_heartbeat(core: Core) -> None:
    """Beat to everybody. Flow control does not apply: a heartbeat must arrive in time."""
    leadership = core.leadership
    assert leadership is not None, "only a leader beats"
    leadership.heartbeat_elapsed = 0
    leadership.heartbeat_round += 1
    number, commit = leadership.heartbeat_round, core.commit_index
    for follower in leadership.progress.values():
        told = follower.committed(commit)
        follower.sent_commit = max(follower.sent_commit, told)
        core.messages.append(Heartbeat(core.node_id, follower.node_id, core.term, told, number))


def read_index(core: Core, context: int) -> None:
    """Let a read of ours join the next round."""
    leadership = core.leadership
    assert leadership is not None, "only a leader confirms reads"
    leadership.reads.waiting.append(context)


def on_read_index_request(core: Core, message: ReadIndexRequest) -> None:
    """Let a follower's reads join the next round."""
    if core.leadership is None:
        core.messages_after_sync.append(
            ReadIndexReply(
                core.node_id, message.sender, core.term, message.round, Index(0), ok=False
            )
        )
        return
    core.leadership.reads.waiting_peers[message.sender] = message.round


def begin_read_round(core: Core) -> None:
    """Begin the next round of reads at the take, so that all that came in meanwhile join it.

    Not before an entry of this term is committed: until then this leader does not know what its
    predecessors committed (thesis §6.4, step 1).
    """
    leadership = core.leadership
    assert leadership is not None, "only a leader confirms reads"
    if not leadership.reads.wants_round or core.commit_index < leadership.first_index:
        return
    broadcast_heartbeat(core)
    leadership.reads.begin(leadership.heartbeat_round, core.commit_index)
    confirm_reads(core)


def confirm_reads(core: Core) -> None:
    """End the round that is out, if a majority answered its heartbeats, or later ones."""
    leadership = core.leadership
    assert leadership is not None, "only a leader confirms reads"
    reads = leadership.reads
    if not reads.round or leadership.answered_quorum(core.membership.current) < reads.round:
        return
    index = reads.index
    contexts, peers = reads.finish()
    for peer, number in peers.items():
        follower = leadership.progress.get(peer)
        if follower is not None:
            follower.awaited = max(follower.awaited, index)
            leadership.unsent = True
        core.messages_after_sync.append(
            ReadIndexReply(core.node_id, peer, core.term, number, index)
        )
    core.confirmed_reads.add(index, contexts)
    core.release_reads()


def transfer(core: Core, target: NodeId) -> None:
    """Begin to hand over: bring the target up to date, then let it campaign (thesis §3.10)."""
    leadership = core.leadership
    if leadership is None or target not in leadership.progress:
        return
    if not core.membership.is_voter(target) or leadership.transfer_target == target:
        return
    leadership.transfer_target = target
    leadership.transfer_started = leadership.ticks
    leadership.transfer_sent = False
    leadership.unsent = True
    continue_transfer(core)


def continue_transfer(core: Core) -> None:
    """Once the target holds everything, tell it to campaign; once is enough."""
    leadership = core.leadership
    if leadership is None or leadership.transfer_target == NO_NODE or leadership.transfer_sent:
        return
    target = leadership.progress[leadership.transfer_target]
    # What a mute one acknowledged once is not what it holds now.
    if target.match == core.log.last_index and not target.required_index:
        leadership.transfer_sent = True
        # Not after the disk: it says no more than a heartbeat does, and a leader hands over just
        # when its disk hangs.
        core.messages.append(TimeoutNow(core.node_id, target.node_id, core.term))
