"""What nodes say to each other (Raft figure 2 and §7; PreVote: thesis §9.6; ReadIndex: thesis
§6.4).

Every message names its sender, its receiver and the sender's term. The bytes on the wire are
``raft/codec.py``'s matter.
"""

from typing import TypeAlias

import msgspec

from raft.types import Entry, Index, NodeId, Proposal, SnapshotMeta, Term


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """What all messages share. ``sender`` and ``receiver`` are node ids, ``term`` is the sender's
    current term.
    """

    sender: NodeId
    receiver: NodeId
    term: Term


class RequestVote(Envelope, frozen=True, array_like=True, tag=1):
    """Asks for a vote (Raft §5.2, §5.4.1). With ``pre_vote`` it only asks whether one would be
    given: ``term`` is then the term the sender would campaign in. ``transfer`` says that the leader
    itself asked for it: stickiness does not apply.
    """

    last_index: Index
    last_term: Term
    pre_vote: bool = False
    transfer: bool = False


class RequestVoteReply(Envelope, frozen=True, array_like=True, tag=2):
    """Answers a ``RequestVote``. A granted pre-vote repeats the term asked for; every other answer
    carries the voter's own.
    """

    granted: bool
    pre_vote: bool = False


class AppendEntries(Envelope, frozen=True, array_like=True, tag=3):
    """Replicates entries that follow ``prev_index`` (Raft §5.3). Heartbeats are messages of their
    own.
    """

    prev_index: Index
    prev_term: Term
    commit_index: Index
    entries: tuple[Entry, ...]


class AppendEntriesReply(Envelope, frozen=True, array_like=True, tag=4):
    """Answers ``AppendEntries``, or a snapshot once it is installed.

    Accepted: the follower's log matches the leader's up to ``match_index``, durably. Rejected:
    ``prev_index`` is the one refused, and ``conflict_index``, ``conflict_term`` say where to try
    next: the follower's last index at or below it whose term could match (conflict back-off by
    term, Raft §5.3). Rejected with a ``required_index``: the follower is mute (``raft/mute.py``),
    and takes nothing but a snapshot that covers this index.
    """

    accepted: bool
    match_index: Index
    prev_index: Index = Index(0)
    conflict_index: Index = Index(0)
    conflict_term: Term = Term(0)
    required_index: Index = Index(0)


class Heartbeat(Envelope, frozen=True, array_like=True, tag=5):
    """The leader lives. ``commit_index`` never exceeds what this follower is known to match.

    ``read_round`` numbers the broadcasts; with 0 it only brings the commit index, and asks for no
    answer.
    """

    commit_index: Index
    read_round: int


class HeartbeatReply(Envelope, frozen=True, array_like=True, tag=6):
    """Answers a ``Heartbeat``, repeating its ``read_round``."""

    read_round: int


class InstallSnapshot(Envelope, frozen=True, array_like=True, tag=7):
    """As an effect of a leader: send this follower a fresh snapshot (``meta`` is None; the driver
    chooses which). As an event of a follower: the snapshot ``meta`` is durable and ready to be
    swapped in.
    """

    meta: SnapshotMeta | None = None


class TimeoutNow(Envelope, frozen=True, array_like=True, tag=8):
    """Campaign at once (leadership transfer, thesis §3.10)."""


class ForwardProposals(Envelope, frozen=True, array_like=True, tag=9):
    """A follower's clients' proposals. ``token`` of each is the sender's."""

    proposals: tuple[Proposal, ...]


class ForwardRejected(Envelope, frozen=True, array_like=True, tag=10):
    """These forwarded proposals, by token, did not enter the log, for ``reason`` (a
    ``raft.errors.RejectReason`` value).
    """

    tokens: tuple[int, ...]
    reason: int


class ReadIndexRequest(Envelope, frozen=True, array_like=True, tag=11):
    """A follower asks its leader at which index its waiting reads are current; ``round`` is the
    follower's own number.
    """

    round: int


class ReadIndexReply(Envelope, frozen=True, array_like=True, tag=12):
    """The index at which the follower's round is linearizable; ``ok`` is false if the leader cannot
    say.
    """

    round: int
    index: Index
    ok: bool = True


Message: TypeAlias = (
    RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | Heartbeat
    | HeartbeatReply
    | InstallSnapshot
    | TimeoutNow
    | ForwardProposals
    | ForwardRejected
    | ReadIndexRequest
    | ReadIndexReply
)
