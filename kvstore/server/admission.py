"""Which changes of membership are safe now? etcd's checks, made by the leader.

They protect the quorum from an operator in a hurry: raft itself would carry out any change.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from kvstore.commands import MembershipAction, MembershipChange
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.server.identity import added_member_id
from kvstore.types import Member, MemberId, Uint64
from raft.types import NodeId

if TYPE_CHECKING:
    from kvstore.server.node import Node

HEALTH_SECONDS = 5.0
"""How long a link must have lasted to count, as in etcd."""
REPLACING_VOTERS_MIN = 3
"""Of fewer voters none can be lost and the rest still decide."""
IN_SYNC_TENTHS = 9
"""A learner is in sync once it has so many tenths of the leader's log."""


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """What somebody wants to change; ``member_id`` is 0 where a member is to be added."""

    action: MembershipAction
    member_id: Uint64
    peer_urls: list[str]
    is_learner: bool = False


def _quorum(count: int) -> int:
    return count // 2 + 1


def _not_replaced(why: str) -> KvError:
    return KvError(Code.FAILED_PRECONDITION, f"kvstore: {why}")


class Admission:
    """The checks.

    Args:
        node: Whose; it leads whenever it is asked, and the configuration is the roster's.
        unix_seconds: The time of day.
    """

    def __init__(self, node: "Node", unix_seconds: Callable[[], float]) -> None:
        self._node = node
        self._unix_seconds = unix_seconds
        self._linked_since: dict[int, float] = {}

    def on_link(self, member: int, *, up: bool) -> None:
        """A link came up or broke."""
        if up:
            self._linked_since[member] = self._node.loop.time()
        else:
            self._linked_since.pop(member, None)

    def admit(self, ask: Ask) -> MembershipChange | None:
        """The change to propose; None if the links have to last a little longer first.

        Raises:
            KvError: It must not be, as things are.
        """
        ready = True
        member_id = ask.member_id
        match ask.action:
            case MembershipAction.ADD:
                ready = self._admit_addition(ask)
                member_id = added_member_id(ask.peer_urls, int(self._unix_seconds()))
            case MembershipAction.REMOVE:
                ready = self._admit_removal(self._known(ask))
            case MembershipAction.PROMOTE:
                self._admit_promotion(self._known(ask))
            case MembershipAction.REPLACE:
                lost = self._known(ask)
                ready = self._admit_replacement(lost)
                return self._replacement(lost) if ready else None
            case MembershipAction.UPDATE:
                self._refuse_taken_urls(ask, besides=self._known(ask).ID)
        if not ready:
            return None
        version = self._node.applier.machine.roster.version
        return MembershipChange(version, ask.action, member_id, ask.peer_urls, ask.is_learner)

    def _replacement(self, lost: Member) -> MembershipChange:
        version = self._node.applier.machine.roster.version
        urls = list(lost.peerURLs)
        successor = added_member_id(urls, int(self._unix_seconds()))
        return MembershipChange(
            version,
            MembershipAction.REPLACE,
            successor,
            urls,
            is_learner=True,
            replaces=lost.ID,
        )

    # --- the members ------------------------------------------------------------------------------

    def _members(self) -> list[Member]:
        return self._node.applier.machine.roster.listed()

    def _voters(self) -> list[Member]:
        return [member for member in self._members() if not member.isLearner]

    def _known(self, ask: Ask) -> Member:
        member = self._node.applier.machine.members.get(MemberId(ask.member_id))
        if member is None:
            raise ErrorKind.MEMBER_NOT_FOUND.error()
        return member

    def _linked(self, voters: list[Member], seconds: float) -> int:
        """How many have been linked with this member for so long, itself among them."""
        own, now = self._node.member_id, self._node.loop.time()
        since = self._linked_since
        return sum(
            own == voter.ID or (voter.ID in since and now - since[voter.ID] >= seconds)
            for voter in voters
        )

    def _is_healthy(self, voters: list[Member], needed: int) -> bool:
        """Whether so many have been linked for long enough; False if they soon may have been.

        Raises:
            KvError: UNHEALTHY: too few are linked at all.
        """
        if self._linked(voters, HEALTH_SECONDS) >= needed:
            return True
        if self._linked(voters, 0.0) < needed:
            raise ErrorKind.UNHEALTHY.error()
        return False

    # --- the checks -------------------------------------------------------------------------------

    def _admit_addition(self, ask: Ask) -> bool:
        strict = self._node.config.strict_reconfig_check
        ready = True
        if strict and not ask.is_learner:
            voters = self._voters()
            started = sum(bool(voter.name) for voter in voters)
            # The second member of a cluster counts as nothing until it is started, and must be
            # let in all the same.
            if (started, len(voters)) != (1, 1) and started < _quorum(len(voters) + 1):
                raise ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
            ready = self._is_healthy(voters, len(voters))
        self._refuse_taken_urls(ask, besides=0)
        learners = sum(member.isLearner for member in self._members())
        if ask.is_learner and learners >= self._node.config.max_learners:
            raise ErrorKind.TOO_MANY_LEARNERS.error()
        return ready

    def _refuse_taken_urls(self, ask: Ask, besides: int) -> None:
        taken = {url for each in self._members() if besides != each.ID for url in each.peerURLs}
        if not taken.isdisjoint(ask.peer_urls):
            raise ErrorKind.PEER_URL_EXIST.error()

    def _admit_removal(self, member: Member) -> bool:
        if member.isLearner:
            return True
        voters = self._voters()
        rest = [voter for voter in voters if member.ID != voter.ID]
        if not rest:
            # Whatever the flags say: nobody would be left.
            raise ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
        if not self._node.config.strict_reconfig_check:
            return True
        if sum(bool(voter.name) for voter in rest) < _quorum(len(rest)):
            raise ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
        if self._node.member_id != member.ID and member.ID not in self._linked_since:
            # It is down: nothing is lost with it.
            return True
        return self._is_healthy(rest, _quorum(len(rest)))

    def _admit_replacement(self, lost: Member) -> bool:
        """Nobody asked an operator: so this is strict, whatever the flags say."""
        node = self._node
        who = f"member {lost.ID:x} ({lost.name})"
        if node.member_id == lost.ID or lost.ID in self._linked_since:
            raise _not_replaced(f"{who} is not replaced: it is alive")
        if not node.replacements.asks(lost.ID):
            raise _not_replaced(f"{who} is not replaced: it has not asked for it")
        roster = node.applier.machine.roster
        under_way = [learner for learner in roster.successors if learner != lost.ID]
        if under_way:
            raise _not_replaced(
                f"{who} is not replaced yet: first member {under_way[0]:x} must get its vote"
            )
        if lost.isLearner:
            return True
        voters = self._voters()
        if len(voters) < REPLACING_VOTERS_MIN:
            raise _not_replaced(
                f"{who} is not replaced: a cluster of {len(voters)} voters has no majority "
                "without it"
            )
        if sum(member.isLearner for member in self._members()) >= node.config.max_learners:
            raise ErrorKind.TOO_MANY_LEARNERS.error()
        rest = [voter for voter in voters if lost.ID != voter.ID]
        if sum(bool(voter.name) for voter in rest) < _quorum(len(voters)):
            raise ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
        return self._is_healthy(rest, _quorum(len(voters)))

    def _admit_promotion(self, member: Member) -> None:
        if not member.isLearner:
            raise ErrorKind.MEMBER_NOT_LEARNER.error()
        raft = self._node.driver.raft
        progress = raft.progress().get(NodeId(member.ID))
        match = int(progress["match"]) if progress is not None else 0
        if 10 * match < IN_SYNC_TENTHS * raft.last_index:
            raise ErrorKind.LEARNER_NOT_READY.error()
        if self._node.config.strict_reconfig_check:
            voters = self._voters()
            started = 1 + sum(bool(voter.name) for voter in voters)
            if started < _quorum(len(voters) + 1):
                raise ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
