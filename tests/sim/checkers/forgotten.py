"""A member that lost its disk has forgotten what it promised: it takes part in nothing any more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import AppendEntriesReply, HeartbeatReply, RequestVote, RequestVoteReply
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from raft.messages import Message
    from tests.support.host import Host


class Forgotten(NodeChecker):
    """Looks at what is said under the id of a member whose disk is lost."""

    def on_send(self, host: Host, message: Message) -> None:
        """No vote, no candidacy, and no acknowledgement."""
        if host.member_id not in self.world.machines.forgotten:
            return
        match message:
            case RequestVote(pre_vote=False) | RequestVoteReply(granted=True, pre_vote=False):
                said = "votes"
            case AppendEntriesReply(accepted=True) | HeartbeatReply():
                said = "acknowledges"
            case _:
                return
        raise ViolationError(
            "durability",
            f"member {host.number} lost its disk, and {said} under its old id: {message}",
        )
