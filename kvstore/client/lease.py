"""The Lease service."""

from __future__ import annotations

from kvstore.client import json_codec
from kvstore.client.calls import Calls, stream_line
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.types import (
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)


class LeaseCalls(Calls):
    """Keys that vanish when nobody keeps them alive."""

    __slots__ = ()

    def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        """Grant a lease of ``ttl`` seconds; ``lease_id`` 0 lets the server choose."""
        request = LeaseGrantRequest(TTL=ttl, ID=lease_id)
        return self._write("/v3/lease/grant", request, LeaseGrantResponse)

    def lease_revoke(self, lease_id: int) -> LeaseRevokeResponse:
        """End a lease and delete its keys."""
        return self._write("/v3/lease/revoke", LeaseRevokeRequest(ID=lease_id), LeaseRevokeResponse)

    def lease_keep_alive(self, lease_id: int) -> LeaseKeepAliveResponse:
        """Start a lease's time anew, once.

        Raises:
            KvError: LEASE_NOT_FOUND; it has run out, or never was.
        """
        body = json_codec.encode(LeaseKeepAliveRequest(ID=lease_id))
        answer = self.transport.call("/v3/lease/keepalive", body, safe=True)
        content = stream_line(answer.split(b"\n", 1)[0])
        try:
            response = json_codec.from_object(LeaseKeepAliveResponse, content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KvError(Code.INTERNAL, f"the answer is no keep-alive: {error}") from error
        if response.TTL <= 0:
            raise ErrorKind.LEASE_NOT_FOUND.error()
        return response

    def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        """Ask after a lease; ``TTL`` -1: there is none."""
        request = LeaseTimeToLiveRequest(ID=lease_id, keys=keys)
        return self._read("/v3/lease/timetolive", request, LeaseTimeToLiveResponse)

    def lease_list(self) -> LeaseLeasesResponse:
        """All leases, the soonest to run out first."""
        return self._read("/v3/lease/leases", LeaseLeasesRequest(), LeaseLeasesResponse)
