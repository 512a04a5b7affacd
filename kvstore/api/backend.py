"""What the faces need of the service: its calls as they see them, so that both stand alone."""

from collections.abc import Callable
from typing import Protocol

from kvstore.api.answer import Reply
from kvstore.budget import Budget
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    StatusRequest,
    TxnRequest,
    WatchRequest,
    WatchResponse,
)


class WatchFeed(Protocol):
    """One watch stream: requests in, responses pulled out when there is room for them."""

    def request(self, request: WatchRequest) -> None:
        """Create, cancel or ask for progress; answers come out of ``take``."""

    def take(self, budget: Budget, bytes_max: int) -> list[WatchResponse]:
        """The next responses, at most about ``bytes_max`` bytes; empty when there are none now."""

    def close(self) -> None:
        """End all watchers of the stream."""


class Service(Protocol):
    """One method a call; ``reply`` is called exactly once, perhaps before the method returns."""

    cluster_id: int
    member_id: int
    version: str

    @property
    def cluster_version(self) -> str:
        """The version that the cluster has agreed on."""

    def range(self, request: RangeRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a RangeResponse or a KvError."""

    def put(self, request: PutRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a PutResponse or a KvError."""

    def delete_range(self, request: DeleteRangeRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a DeleteRangeResponse or a KvError."""

    def txn(self, request: TxnRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a TxnResponse or a KvError."""

    def compact(self, request: CompactionRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a CompactionResponse or a KvError."""

    def lease_grant(self, request: LeaseGrantRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a LeaseGrantResponse or a KvError."""

    def lease_revoke(self, request: LeaseRevokeRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a LeaseRevokeResponse or a KvError."""

    def lease_keep_alive(
        self, request: LeaseKeepAliveRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with a LeaseKeepAliveResponse or a KvError."""

    def lease_time_to_live(
        self, request: LeaseTimeToLiveRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with a LeaseTimeToLiveResponse or a KvError."""

    def lease_leases(self, request: LeaseLeasesRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a LeaseLeasesResponse or a KvError."""

    def member_list(self, request: MemberListRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MemberListResponse or a KvError."""

    def status(self, request: StatusRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a StatusResponse or a KvError."""

    def alarm(self, request: AlarmRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AlarmResponse or a KvError."""

    def open_watch(self, caller: Caller, on_ready: Callable[[], None]) -> WatchFeed:
        """A new stream; ``on_ready`` is called when ``take``, having run dry, has something again.

        Raises:
            KvError: there are too many streams.
        """

    def health(
        self, serializable: bool, exclude: frozenset[AlarmType], reply: Callable[[str], None]
    ) -> None:
        """Reply with "" if the member is healthy, else with the reason."""
