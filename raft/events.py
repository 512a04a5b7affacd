"""Everything that can happen to a node. ``RaftNode.step`` takes one of these at a time."""

from typing import TypeAlias

import msgspec

from raft.messages import Message
from raft.types import Configuration, Index, NodeId, Proposal, Seq, SnapshotMeta


class Tick(msgspec.Struct, frozen=True):
    """One unit of time went by (in production: the heartbeat interval)."""


class Receive(msgspec.Struct, frozen=True):
    """A peer's message arrived and decoded. ``InstallSnapshot`` only once its data is durable and
    loaded beside the state.
    """

    message: Message


class Propose(msgspec.Struct, frozen=True):
    """Put these into the log: appended here on a leader, forwarded by a follower that knows a
    leader, rejected otherwise.
    """

    proposals: list[Proposal]


class ReadIndex(msgspec.Struct, frozen=True):
    """Somebody wants to read what is current. ``context`` (unique while it waits) comes back in
    ``reads``.
    """

    context: int


class Persisted(msgspec.Struct, frozen=True):
    """All effects up to and with this number are durable."""

    seq: Seq


class TellCommit(msgspec.Struct, frozen=True):
    """It is time to tell of a commit that no append carried (``RaftNode.is_commit_untold``)."""


class Applied(msgspec.Struct, frozen=True):
    """The state machine has published the effect of every entry up to ``index``."""

    index: Index


class LogCompacted(msgspec.Struct, frozen=True):
    """A durable snapshot covers every entry up to ``index``: memory may forget what its tail rule
    does not keep.
    """

    index: Index


class PeerUnreachable(msgspec.Struct, frozen=True):
    """The link to a peer broke or refused: what was in flight to it may be lost (replicate falls
    back to probe).
    """

    node_id: NodeId


class SnapshotSent(msgspec.Struct, frozen=True):
    """The transfer asked for by an ``InstallSnapshot`` effect ended. ``index`` is what the sent
    snapshot covers (0 if not ok).
    """

    node_id: NodeId
    ok: bool
    index: Index


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """The state machine now is the snapshot of an earlier ``Effects.snapshot``: applied up to its
    index.
    """

    meta: SnapshotMeta


class TransferLeader(msgspec.Struct, frozen=True):
    """Hand leadership to this voter (thesis §3.10); only a leader heeds it."""

    node_id: NodeId


class ProposeMembership(msgspec.Struct, frozen=True):
    """Change the configuration: appended as an entry; ``token`` comes back in ``accepted`` or
    ``rejected``.
    """

    token: int
    configuration: Configuration


Event: TypeAlias = (
    Tick
    | Receive
    | Propose
    | ReadIndex
    | Persisted
    | TellCommit
    | Applied
    | LogCompacted
    | PeerUnreachable
    | SnapshotSent
    | SnapshotInstalled
    | TransferLeader
    | ProposeMembership
)
