"""The Lease service."""

from kvstore.types.base import Int64, Record, ResponseHeader


class LeaseGrantRequest(Record):
    """Grant a lease of ``TTL`` seconds; ``ID`` 0 lets the server choose."""

    TTL: Int64 = 0
    ID: Int64 = 0


class LeaseGrantResponse(Record):
    """What was granted."""

    header: ResponseHeader | None = None
    ID: Int64 = 0
    TTL: Int64 = 0
    error: str = ""


class LeaseRevokeRequest(Record):
    """End a lease and delete its keys."""

    ID: Int64 = 0


class LeaseRevokeResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class LeaseKeepAliveRequest(Record):
    """Start a lease's time anew."""

    ID: Int64 = 0


class LeaseKeepAliveResponse(Record):
    """``TTL`` 0: no such lease."""

    header: ResponseHeader | None = None
    ID: Int64 = 0
    TTL: Int64 = 0


class LeaseTimeToLiveRequest(Record):
    """Ask after a lease."""

    ID: Int64 = 0
    keys: bool = False


class LeaseTimeToLiveResponse(Record):
    """``TTL`` is what remains, in whole seconds; -1: no such lease."""

    header: ResponseHeader | None = None
    ID: Int64 = 0
    TTL: Int64 = 0
    grantedTTL: Int64 = 0
    keys: list[bytes] = []


class LeaseLeasesRequest(Record):
    """List all leases."""


class LeaseStatus(Record):
    """One lease in a list."""

    ID: Int64 = 0


class LeaseLeasesResponse(Record):
    """Soonest expiry first."""

    header: ResponseHeader | None = None
    leases: list[LeaseStatus] = []
