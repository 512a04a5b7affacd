"""Terms, votes and leaders (Raft §5.2), across crashes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raft.messages import AppendEntries, Heartbeat, RequestVoteReply
from raft.quorum import VoteResult, vote_result
from raft.types import NO_NODE, NodeId, Role
from tests.checking.violation import ViolationError
from tests.sim.checkers import NodeChecker

if TYPE_CHECKING:
    from raft.effects import RoleChange
    from raft.messages import Message
    from tests.sim.checkers.disk_truth import DiskTruth
    from tests.sim.world import World
    from tests.support.host import Host


class Elections(NodeChecker):
    """One leader a term; one vote a term and member, and durable before it counts; terms that a
    member has spoken in are not forgotten.
    """

    def __init__(self, world: World, disks: DiskTruth) -> None:
        super().__init__(world)
        self._disks = disks
        self._leaders: dict[int, int] = {}
        self._votes: dict[tuple[int, int], int] = {}
        self._spoken: dict[int, int] = {}
        """Member to the newest term that it has told others as durable."""

    def on_start(self, host: Host) -> None:
        """What was said is remembered."""
        raft = host.node.driver.raft
        member = host.member_id
        if member in self.world.machines.forgotten:
            # It is judged by whether it takes part.
            return
        spoken = self._spoken.get(member, 0)
        if raft.term < spoken:
            raise ViolationError(
                "monotonic state",
                f"member {host.number} came back in term {raft.term}, and has spoken in {spoken}",
            )
        voted = self._votes.get((member, raft.term))
        if voted is not None and raft._core.voted_for != voted:
            raise ViolationError(
                "one vote a term",
                f"member {host.number} voted for {voted:x} in term {raft.term}, came back, and "
                f"knows of {raft._core.voted_for:x}",
            )

    def on_role(self, host: Host, change: RoleChange) -> None:
        """At most one leader a term, elected with its own vote on its own disk."""
        if change.role is not Role.LEADER:
            return
        member = host.member_id
        before = self._leaders.setdefault(change.term, member)
        if before != member:
            raise ViolationError(
                "election safety", f"{before:x} and {member:x} both lead term {change.term}"
            )
        self._vote(host, change.term, member)
        self._check_durable(host, change.term, member, "leads")
        self._check_elected(host, change.term)

    def _check_elected(self, host: Host, term: int) -> None:
        """A majority of the configuration in force, of both in a joint one, has voted for it."""
        votes = {
            NodeId(voter): candidate == host.member_id
            for (voter, voted_in), candidate in self._votes.items()
            if voted_in == term
        }
        configuration = host.node.driver.raft._core.membership.current
        if vote_result(configuration, votes) is not VoteResult.WON:
            raise ViolationError(
                "election safety",
                f"member {host.number} leads term {term} by the votes of "
                f"{[f'{voter:x}' for voter, given in votes.items() if given]}, which are no "
                f"majority of {configuration}",
            )

    def on_send(self, host: Host, message: Message) -> None:
        """A vote that leaves is on the disk, and is the only one; a term that leaves in an answer
        is on the disk.
        """
        if isinstance(message, RequestVoteReply):
            if message.pre_vote:
                return
            if message.granted:
                self._vote(host, message.term, message.receiver)
                if self._disks.of[host.member_id].hard_state.term <= message.term:
                    # One write may hold this vote and a newer term behind it: no second vote in
                    # this term can follow that either.
                    self._check_durable(host, message.term, message.receiver, "votes")
        elif isinstance(message, AppendEntries | Heartbeat) and (
            self._leaders.get(message.term) != message.sender
        ):
            raise ViolationError(
                "election safety",
                f"member {host.number} speaks as leader of term {message.term}, "
                f"which is led by {self._leaders.get(message.term, NO_NODE):x}",
            )

    def _vote(self, host: Host, term: int, candidate: int) -> None:
        before = self._votes.setdefault((host.member_id, term), candidate)
        if before != candidate:
            raise ViolationError(
                "one vote a term",
                f"member {host.number} votes for {candidate:x} in term {term}, "
                f"and has voted for {before:x}",
            )

    def _check_durable(self, host: Host, term: int, candidate: int, what: str) -> None:
        state = self._disks.of[host.member_id].hard_state
        if state.term != term or state.voted_for != candidate:
            raise ViolationError(
                "durability",
                f"member {host.number} {what} in term {term}, and its disk has only term "
                f"{state.term}, vote {state.voted_for:x}",
            )
        self._spoken[host.member_id] = max(self._spoken.get(host.member_id, 0), term)
