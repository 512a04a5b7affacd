"""The Election service: Campaign, Proclaim, Leader, Observe, Resign."""

from collections.abc import AsyncGenerator, Callable

from kvstore.errors import ErrorKind, KvError
from kvstore.service.base import Calls
from kvstore.service.caller import Caller
from kvstore.service.observing import observe
from kvstore.service.waiting import (
    LEASE_SECONDS,
    Candidate,
    Turn,
    Waiting,
    created_at,
    first_of,
    nothing,
    told,
)
from kvstore.types import (
    CampaignRequest,
    CampaignResponse,
    DeleteRangeRequest,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    ProclaimRequest,
    ProclaimResponse,
    PutRequest,
    RangeResponse,
    RequestOp,
    ResignRequest,
    ResignResponse,
    TxnRequest,
    TxnResponse,
)


class ElectionCalls(Calls):
    """The leader of an election is whoever has the oldest key under its name."""

    waiting: Waiting

    def campaign(
        self,
        request: CampaignRequest,
        caller: Caller,
        reply: Callable[[CampaignResponse | KvError], None],
    ) -> Callable[[], None]:
        """Wait to be elected. Once more with the same lease, it proclaims the value.

        Returns:
            To be called if the caller goes away before the answer: the key is deleted then.
        """

        def done(result: Turn | KvError) -> None:
            if isinstance(result, KvError):
                reply(result)
                return
            leader = LeaderKey(request.name, result.key, result.revision, result.lease)
            reply(CampaignResponse(result.entered, leader))

        if self._refused(caller, reply):
            return nothing
        candidate = Candidate(
            self.waiting,
            request.name,
            request.lease,
            request.value,
            ErrorKind.ELECTION_NOT_LEADER,
            caller,
            done,
        )
        return self.waiting.begin(candidate, caller.timeout_seconds)

    def proclaim(
        self,
        request: ProclaimRequest,
        caller: Caller,
        reply: Callable[[ProclaimResponse | KvError], None],
    ) -> None:
        """Say something else, if the leadership is still the one that ``leader`` names."""
        leader = request.leader
        service = self.waiting.service
        if self._refused(caller, reply):
            return
        if leader is None:
            reply(ErrorKind.ELECTION_LEADER_MISSING.error())
            return

        def done(result: TxnResponse | KvError) -> None:
            if isinstance(result, KvError):
                reply(told(result))
            elif result.succeeded:
                reply(ProclaimResponse(result.header))
            else:
                reply(ErrorKind.ELECTION_NOT_LEADER.error())

        def put(lease: int) -> None:
            operation = RequestOp(request_put=PutRequest(leader.key, request.value, lease))
            compare = created_at(leader.key, leader.rev)
            service.txn(TxnRequest(compare=[compare], success=[operation]), caller, done)

        def granted(result: LeaseGrantResponse | KvError) -> None:
            if isinstance(result, KvError):
                reply(told(result))
            else:
                put(result.ID)

        if leader.lease:
            put(leader.lease)
        else:
            service.lease_grant(LeaseGrantRequest(LEASE_SECONDS), caller, granted)

    def leader(
        self,
        request: LeaderRequest,
        caller: Caller,
        reply: Callable[[LeaderResponse | KvError], None],
    ) -> None:
        """Who leads, and what they proclaim."""

        def done(result: RangeResponse | KvError) -> None:
            if isinstance(result, KvError):
                reply(told(result))
            elif result.kvs:
                reply(LeaderResponse(result.header, result.kvs[0]))
            else:
                reply(ErrorKind.ELECTION_NO_LEADER.error())

        if not self._refused(caller, reply):
            self.waiting.service.range(first_of(request.name), caller, done)

    def resign(
        self,
        request: ResignRequest,
        caller: Caller,
        reply: Callable[[ResignResponse | KvError], None],
    ) -> None:
        """Step down; without effect if the leadership is not the one that ``leader`` names."""
        leader = request.leader
        if self._refused(caller, reply):
            return
        if leader is None:
            reply(ErrorKind.ELECTION_LEADER_MISSING.error())
            return

        def done(result: TxnResponse | KvError) -> None:
            reply(told(result) if isinstance(result, KvError) else ResignResponse(result.header))

        operation = RequestOp(request_delete_range=DeleteRangeRequest(leader.key))
        compare = created_at(leader.key, leader.rev)
        step_down = TxnRequest(compare=[compare], success=[operation])
        self.waiting.service.txn(step_down, caller, done)

    def observe(
        self, request: LeaderRequest, caller: Caller
    ) -> AsyncGenerator[LeaderResponse, None]:
        """The present leader, then each change, in order.

        Raises:
            KvError: Instead of a next one: too many watch streams, no permission, a lost quorum, or
                this member stops.
        """
        return observe(self.waiting, request.name, caller)
