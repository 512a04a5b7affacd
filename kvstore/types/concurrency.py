"""The Lock and Election services: v3lockpb and v3electionpb."""

from kvstore.types.base import Int64, KeyValue, Record, ResponseHeader


class LockRequest(Record):
    """Wait for a lock. ``lease`` owns it; 0: a new one of 60 s."""

    name: bytes = b""
    lease: Int64 = 0


class LockResponse(Record):
    """The key that stands for holding the lock. ``header.revision`` is at least its creation."""

    header: ResponseHeader | None = None
    key: bytes = b""


class UnlockRequest(Record):
    """Let go of a lock: deletes its key."""

    key: bytes = b""


class UnlockResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class LeaderKey(Record):
    """Leadership of an election: its key, and the key's create revision as fencing token."""

    name: bytes = b""
    key: bytes = b""
    rev: Int64 = 0
    lease: Int64 = 0


class CampaignRequest(Record):
    """Wait to be elected. ``lease`` holds the candidacy; 0: a new one of 60 s."""

    name: bytes = b""
    lease: Int64 = 0
    value: bytes = b""


class CampaignResponse(Record):
    """Elected."""

    header: ResponseHeader | None = None
    leader: LeaderKey | None = None


class ProclaimRequest(Record):
    """Say something else as leader."""

    leader: LeaderKey | None = None
    value: bytes = b""


class ProclaimResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class LeaderRequest(Record):
    """Ask who leads an election, once or (Observe) from now on."""

    name: bytes = b""


class LeaderResponse(Record):
    """The leader's key and what it proclaims."""

    header: ResponseHeader | None = None
    kv: KeyValue | None = None


class ResignRequest(Record):
    """Step down, so that the next candidate leads."""

    leader: LeaderKey | None = None


class ResignResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None
