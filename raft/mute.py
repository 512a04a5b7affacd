"""A node that kept its term and vote, but lost entries below the end of its log.

Its disk has the newest hard state and the log's end, so it knows whom it voted for and up to which
index it may ever have acknowledged: the *required index*. What lies between is damaged. Until it
has installed a snapshot that covers the required index it is **mute**: it grants no vote and no
pre-vote, does not campaign, acknowledges no append and no round of heartbeats, and answers its
leader only with the wish for that snapshot (I17). It follows terms, forwards proposals and asks for
reads as any follower does: nothing of that counts towards a majority.

**Why that is safe (I18).** Say that entry e, at index i, is committed by a majority M to which this
node belongs by an acknowledgement from before the damage; so i is at most the required index. Every
later leader was elected by a majority V without this node, because it votes for nobody, or with a
vote that it gave before, when it had e. M and V have another node in common, or this one as it
was; hence Leader Completeness (Raft §5.4.3) holds as if nothing had been lost: what it acknowledged
stays counted where it was. A snapshot of a leader's committed log at or beyond the required index
contains e. With that installed the node holds all that it ever acknowledged and that is committed,
and its log is a prefix of its leader's; from there on it is like any other.

What it acknowledged and nobody has committed may be missing from that snapshot. A majority for it
would have to be counted by a leader of the term in which it was acknowledged. The snapshot is of
that same leader, and contains it; or of a later one, whose voters listen to the former no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from raft.messages import AppendEntriesReply
from raft.types import Index, NodeId

if TYPE_CHECKING:
    from raft.core import Core

NOT_MUTE: Final = Index(0)


def ask_for_snapshot(core: Core, leader: NodeId) -> None:
    """Answer a leader with what this node needs."""
    core.messages_after_sync.append(
        AppendEntriesReply(
            core.node_id,
            leader,
            core.term,
            accepted=False,
            match_index=Index(0),
            required_index=core.required_index,
        )
    )
