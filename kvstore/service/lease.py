"""The Lease service: Grant, Revoke, KeepAlive, TimeToLive, Leases."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvstore.apply import request_cost
from kvstore.auth.check import NOBODY, Identity
from kvstore.commands import Kind
from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import STALE, Calls
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
    Record,
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
        self._admit(request, caller, reply, lambda who: self._grant(request, caller, reply, who))

    def _grant(
        self,
        request: LeaseGrantRequest,
        caller: Caller,
        reply: Callable[[LeaseGrantResponse | KvError], None],
        identity: Identity,
    ) -> None:
        if self.machine.would_exceed(request_cost(request)):
            self.node.upkeep.raise_alarm(AlarmType.NOSPACE)
            reply(ErrorKind.NO_SPACE.error())
            return
        lease = request.ID
        while lease == 0 or (request.ID == 0 and self.machine.lessor.exists(LeaseId(lease))):
            lease = self.node.rng.getrandbits(63)
        seconds = max(request.TTL, self.node.lease_seconds_min)
        body = LeaseGrantRequest(seconds, lease)
        self._propose(Kind.LEASE_GRANT, body, caller, reply, identity=identity)

    def lease_revoke(
        self,
        request: LeaseRevokeRequest,
        caller: Caller,
        reply: Callable[[LeaseRevokeResponse | KvError], None],
    ) -> None:
        """End a lease and delete its keys."""
        self._admit(
            request,
            caller,
            reply,
            lambda who: self._propose(Kind.LEASE_REVOKE, request, caller, reply, identity=who),
        )

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

        patience = caller.timeout_seconds
        leases = self.node.leases
        self._ask_keeper(
            request,
            caller,
            done,
            lambda who, then: leases.keep_alive(request.ID, then, patience, who),
        )

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

        patience = caller.timeout_seconds
        leases = self.node.leases
        self._ask_keeper(
            request,
            caller,
            done,
            lambda who, then: leases.time_to_live(
                request.ID,
                keys=request.keys,
                reply=then,
                patience_seconds=patience,
                identity=who,
            ),
        )

    def lease_leases(
        self,
        request: LeaseLeasesRequest,
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

        patience = caller.timeout_seconds
        leases = self.node.leases
        self._ask_keeper(
            request, caller, done, lambda who, then: leases.leases(then, patience, who)
        )

    def _ask_keeper(
        self,
        request: Record,
        caller: Caller,
        reply: Callable[[Any], None],
        ask: Callable[[Identity, Callable[[Any], None]], None],
    ) -> None:
        """Put a question to the leader, as whoever the caller is.

        If the leader knows of a change of users that has not come here yet, who asks is judged
        again here once it has.
        """

        def answered(result: Any) -> None:
            if isinstance(result, KvError) and result in STALE:
                self._doubt(result, request, caller, reply, lambda who: ask(who, reply))
            else:
                reply(result)

        if self.machine.auth.enabled:
            self._admit(request, caller, reply, lambda identity: ask(identity, answered))
        else:
            ask(NOBODY, answered)
