"""What the faces need of the service: its calls as they see them, so that both stand alone."""

from collections.abc import AsyncGenerator, Callable
from typing import Protocol

from kvstore.api.answer import Reply
from kvstore.budget import Budget
from kvstore.errors import KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmRequest,
    AlarmType,
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGetRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleListRequest,
    AuthRoleRevokePermissionRequest,
    AuthStatusRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGetRequest,
    AuthUserGrantRoleRequest,
    AuthUserListRequest,
    AuthUserRevokeRoleRequest,
    CampaignRequest,
    CompactionRequest,
    DefragmentRequest,
    DeleteRangeRequest,
    DowngradeRequest,
    HashKVRequest,
    HashRequest,
    LeaderRequest,
    LeaderResponse,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    LockRequest,
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
    MoveLeaderRequest,
    ProclaimRequest,
    PutRequest,
    RangeRequest,
    RangeStreamResponse,
    ResignRequest,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
    TxnRequest,
    UnlockRequest,
    WatchRequest,
    WatchResponse,
)

# One method a call; ``reply`` is called exactly once, on the loop, perhaps before the method
# returns.


class WatchFeed(Protocol):
    """One watch stream: requests in, responses pulled out when there is room for them."""

    def request(self, request: WatchRequest) -> None:
        """Create, cancel or ask for progress; answers come out of ``take``."""

    def take(self, budget: Budget, bytes_max: int) -> list[WatchResponse]:
        """The next responses, at most about ``bytes_max`` bytes; empty when there are none now.

        Raises:
            KvError: the stream is over.
        """

    def close(self) -> None:
        """End all watchers of the stream."""


class KvCalls(Protocol):
    """The KV service."""

    def range(self, request: RangeRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a RangeResponse or a KvError."""

    def range_stream(
        self, request: RangeRequest, caller: Caller
    ) -> AsyncGenerator[RangeStreamResponse, None]:
        """A range in pieces; closed early if the caller goes away. May raise KvError."""

    def put(self, request: PutRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a PutResponse or a KvError."""

    def delete_range(self, request: DeleteRangeRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a DeleteRangeResponse or a KvError."""

    def txn(self, request: TxnRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a TxnResponse or a KvError."""

    def compact(self, request: CompactionRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a CompactionResponse or a KvError."""


class LeaseCalls(Protocol):
    """The Lease service."""

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


class ClusterCalls(Protocol):
    """The Cluster service."""

    def member_add(self, request: MemberAddRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MemberAddResponse or a KvError."""

    def member_remove(self, request: MemberRemoveRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MemberRemoveResponse or a KvError."""

    def member_update(self, request: MemberUpdateRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MemberUpdateResponse or a KvError."""

    def member_list(self, request: MemberListRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MemberListResponse or a KvError."""

    def member_promote(self, request: MemberPromoteRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MemberPromoteResponse or a KvError."""


class MaintenanceCalls(Protocol):
    """The Maintenance service, and how the member is."""

    def alarm(self, request: AlarmRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AlarmResponse or a KvError."""

    def status(self, request: StatusRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a StatusResponse or a KvError."""

    def defragment(self, request: DefragmentRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a DefragmentResponse or a KvError."""

    def hash(self, request: HashRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a HashResponse or a KvError."""

    def hash_kv(self, request: HashKVRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a HashKVResponse or a KvError."""

    def move_leader(self, request: MoveLeaderRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a MoveLeaderResponse or a KvError."""

    def downgrade(self, request: DowngradeRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a DowngradeResponse or a KvError."""

    def snapshot(
        self, request: SnapshotRequest, caller: Caller
    ) -> AsyncGenerator[SnapshotResponse, None]:
        """The member's state in chunks; closed early if the caller goes away. May raise KvError."""

    def health(
        self, serializable: bool, exclude: frozenset[AlarmType], reply: Callable[[str], None]
    ) -> None:
        """Reply with "" if the member is healthy, else with the reason."""

    def checks(self, names: tuple[str, ...], reply: Callable[[dict[str, str]], None]) -> None:
        """Reply with the reason why each named check fails, "" where it does not."""


class AuthCalls(Protocol):
    """The Auth service."""

    def auth_enable(self, request: AuthEnableRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthEnableResponse or a KvError."""

    def auth_disable(self, request: AuthDisableRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthDisableResponse or a KvError."""

    def auth_status(self, request: AuthStatusRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthStatusResponse or a KvError."""

    def authenticate(self, request: AuthenticateRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthenticateResponse or a KvError."""

    def user_add(self, request: AuthUserAddRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthUserAddResponse or a KvError."""

    def user_get(self, request: AuthUserGetRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthUserGetResponse or a KvError."""

    def user_list(self, request: AuthUserListRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthUserListResponse or a KvError."""

    def user_delete(self, request: AuthUserDeleteRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthUserDeleteResponse or a KvError."""

    def user_change_password(
        self, request: AuthUserChangePasswordRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with an AuthUserChangePasswordResponse or a KvError."""

    def user_grant_role(
        self, request: AuthUserGrantRoleRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with an AuthUserGrantRoleResponse or a KvError."""

    def user_revoke_role(
        self, request: AuthUserRevokeRoleRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with an AuthUserRevokeRoleResponse or a KvError."""

    def role_add(self, request: AuthRoleAddRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthRoleAddResponse or a KvError."""

    def role_get(self, request: AuthRoleGetRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthRoleGetResponse or a KvError."""

    def role_list(self, request: AuthRoleListRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthRoleListResponse or a KvError."""

    def role_delete(self, request: AuthRoleDeleteRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an AuthRoleDeleteResponse or a KvError."""

    def role_grant_permission(
        self, request: AuthRoleGrantPermissionRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with an AuthRoleGrantPermissionResponse or a KvError."""

    def role_revoke_permission(
        self, request: AuthRoleRevokePermissionRequest, caller: Caller, reply: Reply
    ) -> None:
        """Reply with an AuthRoleRevokePermissionResponse or a KvError."""


class ConcurrencyCalls(Protocol):
    """The Lock and Election services."""

    def unlock(self, request: UnlockRequest, caller: Caller, reply: Reply) -> None:
        """Reply with an UnlockResponse or a KvError."""

    def proclaim(self, request: ProclaimRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a ProclaimResponse or a KvError."""

    def leader(self, request: LeaderRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a LeaderResponse or a KvError."""

    def resign(self, request: ResignRequest, caller: Caller, reply: Reply) -> None:
        """Reply with a ResignResponse or a KvError."""

    def lock(self, request: LockRequest, caller: Caller, reply: Reply) -> Callable[[], None]:
        """Reply with a LockResponse or a KvError, however long that takes.

        Returns:
            To be called if the caller goes away before the reply: nobody waits any more. It may be
            called at any time, and more than once.
        """

    def campaign(
        self, request: CampaignRequest, caller: Caller, reply: Reply
    ) -> Callable[[], None]:
        """Reply with a CampaignResponse or a KvError; as ``lock`` otherwise."""

    def observe(
        self, request: LeaderRequest, caller: Caller
    ) -> AsyncGenerator[LeaderResponse, None]:
        """Each leader from now on; closed if the caller goes away. May raise KvError."""


class Service(
    KvCalls, LeaseCalls, ClusterCalls, MaintenanceCalls, AuthCalls, ConcurrencyCalls, Protocol
):
    """All calls of one member."""

    cluster_id: int
    member_id: int
    version: str

    @property
    def cluster_version(self) -> str:
        """The version that the cluster has agreed on."""

    def when_leaderless(self, lost: Callable[[KvError], None]) -> Callable[[], None]:
        """Call ``lost`` with NO_LEADER, once, when there has been no leader for too long.

        Returns:
            To be called when that is of no interest any more; as often as one likes.
        """

    def open_watch(self, caller: Caller, on_ready: Callable[[], None]) -> WatchFeed:
        """A new stream; ``on_ready`` is called when ``take``, having run dry, has something again.

        Raises:
            KvError: there are too many streams.
        """
