"""Who is in the cluster? The one replicated truth of membership.

Raft's configuration follows it: the leader sees to it that whoever is here votes or learns as it is
written here, and that nobody else does. So a change is safe as soon as its command is committed;
whichever leader comes next carries it out.
"""

from kvstore.commands import MembershipAction, MembershipChange, PublishMember
from kvstore.errors import ErrorKind
from kvstore.types import Member, MemberId


class Roster:
    """The members, those that were, and which log each keeps.

    Attributes:
        members: By id.
        removed: Peer URLs by id of all that were removed: their ids never come back.
        log_ids: By id, of the members that said theirs; also of those that were removed, which may
            be needed for a while yet, but only with what they have promised.
        successors: Who took the place of a voter that was lost, and has no vote yet: its id to that
            voter's. One at most: with every other in its place, the cluster has all its votes.
        version: The index of the entry that last added, removed, moved or promoted a member; 0
            while the founders are all there is.
    """

    __slots__ = ("log_ids", "members", "removed", "successors", "version")

    def __init__(self, founders: list[Member]) -> None:
        self.members = {MemberId(member.ID): member for member in founders}
        self.removed: dict[MemberId, tuple[str, ...]] = {}
        self.log_ids: dict[MemberId, int] = {}
        self.successors: dict[MemberId, MemberId] = {}
        self.version = 0

    def listed(self) -> list[Member]:
        """All members, sorted by id."""
        return [self.members[key] for key in sorted(self.members)]

    def urls_of(self, member_id: MemberId) -> tuple[str, ...]:
        """Where a member listens to its peers, or did until it was removed."""
        member = self.members.get(member_id)
        return self.removed.get(member_id, ()) if member is None else member.peerURLs

    def change(self, change: MembershipChange, index: int) -> None:
        """Add, remove, move, promote or replace a member by the entry at ``index``.

        Raises:
            KvError: UNHEALTHY: the roster has changed since this was checked (nothing was done,
                check again); MEMBER_EXIST, MEMBER_NOT_FOUND, PEER_URL_EXIST, MEMBER_NOT_LEARNER,
                MEMBER_BAD_URLS; TOO_MANY_LEARNERS: another one is being replaced.
        """
        if change.based_on != self.version:
            raise ErrorKind.UNHEALTHY.error()
        member_id = MemberId(change.member_id)
        match change.action:
            case MembershipAction.ADD:
                self._add(member_id, change)
            case MembershipAction.REMOVE:
                self._remove(self._known(member_id))
            case MembershipAction.UPDATE:
                member = self._known(member_id)
                urls = self._free_urls(change.peer_urls, besides=member_id)
                self._put(member, peer_urls=urls)
            case MembershipAction.PROMOTE:
                member = self._known(member_id)
                if not member.isLearner:
                    raise ErrorKind.MEMBER_NOT_LEARNER.error()
                self._put(member, is_learner=False)
                self.successors.pop(member_id, None)
            case MembershipAction.REPLACE:
                self._replace(self._known(MemberId(change.replaces)), change)
        self.version = index

    def publish(self, published: PublishMember) -> None:
        """A member says its name, its client URLs and its log.

        Raises:
            KvError: MEMBER_NOT_FOUND: it is no member, or no more.
        """
        member = self._known(MemberId(published.member_id))
        self.members[MemberId(member.ID)] = Member(
            member.ID,
            published.name,
            member.peerURLs,
            tuple(published.client_urls),
            member.isLearner,
        )
        if published.log_id:
            self.log_ids[MemberId(member.ID)] = published.log_id

    def _add(self, member_id: MemberId, change: MembershipChange) -> None:
        self._check_new(member_id)
        urls = self._free_urls(change.peer_urls)
        self.members[member_id] = Member(member_id, "", urls, (), change.is_learner)

    def _check_new(self, member_id: MemberId) -> None:
        if member_id in self.members:
            raise ErrorKind.MEMBER_EXIST.error()
        if member_id in self.removed or member_id <= 0:
            raise ErrorKind.MEMBER_NOT_FOUND.error()

    def _remove(self, member: Member) -> None:
        member_id = MemberId(member.ID)
        del self.members[member_id]
        self.successors.pop(member_id, None)
        self.removed[member_id] = member.peerURLs

    def _replace(self, lost: Member, change: MembershipChange) -> None:
        """One step, so that whoever fails in its middle leaves nobody removed and not replaced."""
        lost_id, member_id = MemberId(lost.ID), MemberId(change.member_id)
        voter = self.successors.get(lost_id, 0 if lost.isLearner else lost_id)
        if voter and any(other != lost_id for other in self.successors):
            raise ErrorKind.TOO_MANY_LEARNERS.error()
        self._check_new(member_id)
        self._remove(lost)
        self.members[member_id] = Member(member_id, "", lost.peerURLs, (), isLearner=True)
        if voter:
            self.successors[member_id] = MemberId(voter)

    def _put(
        self,
        member: Member,
        *,
        peer_urls: tuple[str, ...] | None = None,
        is_learner: bool | None = None,
    ) -> None:
        self.members[MemberId(member.ID)] = Member(
            member.ID,
            member.name,
            member.peerURLs if peer_urls is None else peer_urls,
            member.clientURLs,
            member.isLearner if is_learner is None else is_learner,
        )

    def _known(self, member_id: MemberId) -> Member:
        member = self.members.get(member_id)
        if member is None:
            raise ErrorKind.MEMBER_NOT_FOUND.error()
        return member

    def _free_urls(self, urls: list[str], besides: MemberId | None = None) -> tuple[str, ...]:
        """The URLs, if nobody else has one of them."""
        if not urls:
            raise ErrorKind.MEMBER_BAD_URLS.error()
        for key, member in self.members.items():
            if key != besides and not set(urls).isdisjoint(member.peerURLs):
                raise ErrorKind.PEER_URL_EXIST.error()
        return tuple(sorted(urls))
