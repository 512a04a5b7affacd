"""Every path of the v3 API: its messages, and the service's method behind it.

As in etcd: each is asked by POST, and nothing else. ``unary.py`` and ``streams.py`` serve the rows,
``openapi.py`` describes them.
"""

import enum
from typing import Final, NamedTuple

from kvstore import types as t

PREFIXES: Final = ("/v3", "/v3beta")
"""The second is an old name of the first, still served."""


class Shape(enum.Enum):
    """How a call is asked and answered."""

    UNARY = "unary"
    """One request, one answer."""
    PATIENT = "patient"
    """The same, but the answer may be long in coming: the caller may go away before it."""
    SERVER_STREAM = "server stream"
    """One request, many answers."""
    BOTH_WAYS = "bidirectional stream"
    """Many requests, many answers."""


class Row(NamedTuple):
    """One path below a prefix."""

    path: str
    method: str
    request: type[t.Record]
    response: type[t.Record]
    shape: Shape = Shape.UNARY


_KV: Final = (
    Row("/kv/range", "range", t.RangeRequest, t.RangeResponse),
    Row("/kv/put", "put", t.PutRequest, t.PutResponse),
    Row("/kv/deleterange", "delete_range", t.DeleteRangeRequest, t.DeleteRangeResponse),
    Row("/kv/txn", "txn", t.TxnRequest, t.TxnResponse),
    Row("/kv/compaction", "compact", t.CompactionRequest, t.CompactionResponse),
)

_LEASE: Final = (
    Row("/lease/grant", "lease_grant", t.LeaseGrantRequest, t.LeaseGrantResponse),
    *[
        row
        for below in ("/lease", "/kv/lease")
        for row in (
            Row(f"{below}/revoke", "lease_revoke", t.LeaseRevokeRequest, t.LeaseRevokeResponse),
            Row(
                f"{below}/timetolive",
                "lease_time_to_live",
                t.LeaseTimeToLiveRequest,
                t.LeaseTimeToLiveResponse,
            ),
            Row(f"{below}/leases", "lease_leases", t.LeaseLeasesRequest, t.LeaseLeasesResponse),
        )
    ],
)

_CLUSTER: Final = (
    Row("/cluster/member/add", "member_add", t.MemberAddRequest, t.MemberAddResponse),
    Row("/cluster/member/remove", "member_remove", t.MemberRemoveRequest, t.MemberRemoveResponse),
    Row("/cluster/member/update", "member_update", t.MemberUpdateRequest, t.MemberUpdateResponse),
    Row("/cluster/member/list", "member_list", t.MemberListRequest, t.MemberListResponse),
    Row(
        "/cluster/member/promote", "member_promote", t.MemberPromoteRequest, t.MemberPromoteResponse
    ),
)

_MAINTENANCE: Final = (
    Row("/maintenance/alarm", "alarm", t.AlarmRequest, t.AlarmResponse),
    Row("/maintenance/status", "status", t.StatusRequest, t.StatusResponse),
    Row("/maintenance/defragment", "defragment", t.DefragmentRequest, t.DefragmentResponse),
    Row("/maintenance/hash", "hash", t.HashRequest, t.HashResponse),
    Row("/maintenance/hashkv", "hash_kv", t.HashKVRequest, t.HashKVResponse),
    Row(
        "/maintenance/transfer-leadership",
        "move_leader",
        t.MoveLeaderRequest,
        t.MoveLeaderResponse,
    ),
    Row("/maintenance/downgrade", "downgrade", t.DowngradeRequest, t.DowngradeResponse),
)

_USERS: Final = (
    Row("/auth/enable", "auth_enable", t.AuthEnableRequest, t.AuthEnableResponse),
    Row("/auth/disable", "auth_disable", t.AuthDisableRequest, t.AuthDisableResponse),
    Row("/auth/status", "auth_status", t.AuthStatusRequest, t.AuthStatusResponse),
    Row("/auth/authenticate", "authenticate", t.AuthenticateRequest, t.AuthenticateResponse),
    Row("/auth/user/add", "user_add", t.AuthUserAddRequest, t.AuthUserAddResponse),
    Row("/auth/user/get", "user_get", t.AuthUserGetRequest, t.AuthUserGetResponse),
    Row("/auth/user/list", "user_list", t.AuthUserListRequest, t.AuthUserListResponse),
    Row("/auth/user/delete", "user_delete", t.AuthUserDeleteRequest, t.AuthUserDeleteResponse),
    Row(
        "/auth/user/changepw",
        "user_change_password",
        t.AuthUserChangePasswordRequest,
        t.AuthUserChangePasswordResponse,
    ),
    Row(
        "/auth/user/grant",
        "user_grant_role",
        t.AuthUserGrantRoleRequest,
        t.AuthUserGrantRoleResponse,
    ),
    Row(
        "/auth/user/revoke",
        "user_revoke_role",
        t.AuthUserRevokeRoleRequest,
        t.AuthUserRevokeRoleResponse,
    ),
)

_ROLES: Final = (
    Row("/auth/role/add", "role_add", t.AuthRoleAddRequest, t.AuthRoleAddResponse),
    Row("/auth/role/get", "role_get", t.AuthRoleGetRequest, t.AuthRoleGetResponse),
    Row("/auth/role/list", "role_list", t.AuthRoleListRequest, t.AuthRoleListResponse),
    Row("/auth/role/delete", "role_delete", t.AuthRoleDeleteRequest, t.AuthRoleDeleteResponse),
    Row(
        "/auth/role/grant",
        "role_grant_permission",
        t.AuthRoleGrantPermissionRequest,
        t.AuthRoleGrantPermissionResponse,
    ),
    Row(
        "/auth/role/revoke",
        "role_revoke_permission",
        t.AuthRoleRevokePermissionRequest,
        t.AuthRoleRevokePermissionResponse,
    ),
)

_CONCURRENCY: Final = (
    Row("/lock/lock", "lock", t.LockRequest, t.LockResponse, Shape.PATIENT),
    Row("/lock/unlock", "unlock", t.UnlockRequest, t.UnlockResponse),
    Row("/election/campaign", "campaign", t.CampaignRequest, t.CampaignResponse, Shape.PATIENT),
    Row("/election/proclaim", "proclaim", t.ProclaimRequest, t.ProclaimResponse),
    Row("/election/leader", "leader", t.LeaderRequest, t.LeaderResponse),
    Row("/election/resign", "resign", t.ResignRequest, t.ResignResponse),
)

UNARY: Final = (*_KV, *_LEASE, *_CLUSTER, *_MAINTENANCE, *_USERS, *_ROLES, *_CONCURRENCY)

STREAMS: Final = (
    Row("/watch", "open_watch", t.WatchRequest, t.WatchResponse, Shape.BOTH_WAYS),
    Row(
        "/lease/keepalive",
        "lease_keep_alive",
        t.LeaseKeepAliveRequest,
        t.LeaseKeepAliveResponse,
        Shape.BOTH_WAYS,
    ),
    Row(
        "/maintenance/snapshot",
        "snapshot",
        t.SnapshotRequest,
        t.SnapshotResponse,
        Shape.SERVER_STREAM,
    ),
    Row("/election/observe", "observe", t.LeaderRequest, t.LeaderResponse, Shape.SERVER_STREAM),
)
