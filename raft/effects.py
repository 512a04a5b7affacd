"""What a node wants done. One ``Effects`` a take, in rising ``seq`` order.

The driver's duties, in this order:

1. send ``messages`` now;
2. make ``hard_state``, ``snapshot`` and ``entries`` durable together, in ``seq`` order, then step
   ``Persisted(seq)``;
   an ``Effects`` that has none of the three (``must_persist`` is false) needs no ``Persisted``;
3. send ``messages_after_sync`` once everything up to ``seq`` is durable (at once if it already is);
4. apply ``snapshot`` (swap the state), then ``committed``, in order, then step
   ``Applied``/``SnapshotInstalled``.
   Applying may run ahead of the disk; a snapshot may not be taken of what is not durable.
"""

import msgspec

from raft.errors import RejectReason
from raft.messages import Message
from raft.types import Entry, HardState, Index, NodeId, Role, Seq, SnapshotMeta, Term


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """A proposal made here entered this leader's log at (``index``, ``term``); it is not committed
    yet.
    """

    token: int
    index: Index
    term: Term


class Rejected(msgspec.Struct, frozen=True, gc=False):
    """A proposal made here entered no log by this attempt. ``leader`` is whom to try, if known
    (else 0).
    """

    token: int
    reason: RejectReason
    leader: NodeId


class Read(msgspec.Struct, frozen=True, gc=False):
    """The read with this context is linearizable now: everything up to ``index`` is applied."""

    context: int
    index: Index


class ReadRejected(msgspec.Struct, frozen=True, gc=False):
    """The read with this context got no index: leadership was lost or is unknown. It may be tried
    again.
    """

    context: int
    reason: RejectReason


class RoleChange(msgspec.Struct, frozen=True):
    """The node's role, term or known leader changed."""

    role: Role
    term: Term
    leader: NodeId


class Effects(msgspec.Struct, frozen=True):
    """Everything one take yields; see the module for the order of duties."""

    seq: Seq
    hard_state: HardState | None
    entries: list[Entry]
    snapshot: SnapshotMeta | None
    messages: list[Message]
    messages_after_sync: list[Message]
    committed: list[Entry]
    accepted: list[Accepted]
    rejected: list[Rejected]
    reads: list[Read]
    reads_rejected: list[ReadRejected]
    role_change: RoleChange | None

    @property
    def must_persist(self) -> bool:
        """Whether there is anything to make durable."""
        return self.hard_state is not None or self.snapshot is not None or bool(self.entries)
