"""The Cluster service: the members, and how they change."""

from kvstore.types.base import FrozenRecord, Record, ResponseHeader, Uint64


class Member(FrozenRecord, frozen=True):
    """One member of the cluster. Name and client URLs are empty until it has started."""

    ID: Uint64 = 0
    name: str = ""
    peerURLs: tuple[str, ...] = ()
    clientURLs: tuple[str, ...] = ()
    isLearner: bool = False


class MemberListRequest(Record):
    """List the members; linearizable on request."""

    linearizable: bool = False


class MemberListResponse(Record):
    """Sorted by id."""

    header: ResponseHeader | None = None
    members: list[Member] = []


class MemberAddRequest(Record):
    """Let a member in, as voter or as learner; its id is chosen by the cluster."""

    peerURLs: list[str] = []
    isLearner: bool = False


class MemberAddResponse(Record):
    """The new member, and all members by id."""

    header: ResponseHeader | None = None
    member: Member | None = None
    members: list[Member] = []


class MemberRemoveRequest(Record):
    """Take a member out; its id never comes back."""

    ID: Uint64 = 0


class MemberRemoveResponse(Record):
    """Who is left."""

    header: ResponseHeader | None = None
    members: list[Member] = []


class MemberUpdateRequest(Record):
    """Give a member other peer URLs."""

    ID: Uint64 = 0
    peerURLs: list[str] = []


class MemberUpdateResponse(Record):
    """All members by id."""

    header: ResponseHeader | None = None
    members: list[Member] = []


class MemberPromoteRequest(Record):
    """Let a learner vote."""

    ID: Uint64 = 0


class MemberPromoteResponse(Record):
    """All members by id."""

    header: ResponseHeader | None = None
    members: list[Member] = []
