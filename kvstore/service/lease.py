"""The Lease service: Grant, Revoke, KeepAlive, TimeToLive, Leases."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from kvstore.apply import request_cost
from kvstore.commands import Kind
from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmType,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseId,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
)

if TYPE_CHECKING:
    from kvstore.server.leases import TimeLeft


class LeaseCalls(Calls):
    """Leases are granted and ended through the log; their time is kept by the leader."""

    def lease_grant(
        self,
        request: LeaseGrantRequest,
        caller: Caller,
        reply: Callable[[LeaseGrantResponse | KvError], None],
    ) -> None:
        """Grant a lease.

        An id of 0 and too short a time are replaced before it is proposed, so that all members
        grant the same.
        """
        if self.machine.would_exceed(request_cost(request)):
            self.node.upkeep.raise_alarm(AlarmType.NOSPACE)
            reply(ErrorKind.NO_SPACE.error())
            return
        lease = request.ID
        while lease == 0 or (request.ID == 0 and self.machine.lessor.exists(LeaseId(lease))):
            lease = self.node.rng.getrandbits(63)
        seconds = max(request.TTL, self.node.lease_seconds_min)
        self._propose(Kind.LEASE_GRANT, LeaseGrantRequest(seconds, lease), caller, reply)

    def lease_revoke(
        self,
        request: LeaseRevokeRequest,
        caller: Caller,
        reply: Callable[[LeaseRevokeResponse | KvError], None],
    ) -> None:
        """End a lease and delete its keys."""
        self._propose(Kind.LEASE_REVOKE, request, caller, reply)

    def lease_keep_alive(
        self,
        request: LeaseKeepAliveRequest,
        caller: Caller,
        reply: Callable[[LeaseKeepAliveResponse | KvError], None],
    ) -> None:
        """Start a lease's time anew. A lease that is not (any more) answers TTL 0."""
        if self._refused(caller, reply):
            return
        header = self.header()

        def done(granted: int | KvError) -> None:
            if isinstance(granted, KvError):
                reply(granted)
            else:
                reply(LeaseKeepAliveResponse(header, request.ID, granted))

        self.node.leases.keep_alive(request.ID, done, caller.timeout_seconds)

    def lease_time_to_live(
        self,
        request: LeaseTimeToLiveRequest,
        caller: Caller,
        reply: Callable[[LeaseTimeToLiveResponse | KvError], None],
    ) -> None:
        """What remains of a lease; -1 if there is none."""
        if self._refused(caller, reply):
            return

        def done(left: "TimeLeft | KvError") -> None:
            if isinstance(left, KvError):
                reply(left)
                return
            response = LeaseTimeToLiveResponse(
                self.header(), request.ID, left.remaining_seconds, left.granted_seconds, left.keys
            )
            reply(response)

        self.node.leases.time_to_live(
            request.ID, keys=request.keys, reply=done, patience_seconds=caller.timeout_seconds
        )

    def lease_leases(
        self,
        _: LeaseLeasesRequest,
        caller: Caller,
        reply: Callable[[LeaseLeasesResponse | KvError], None],
    ) -> None:
        """All leases, soonest expiry first."""
        if self._refused(caller, reply):
            return

        def done(ids: list[int] | KvError) -> None:
            if isinstance(ids, KvError):
                reply(ids)
            else:
                reply(LeaseLeasesResponse(self.header(), [LeaseStatus(lease) for lease in ids]))

        self.node.leases.leases(done, caller.timeout_seconds)
