"""Every RPC of the v3 API: by which path it is called, and which row of the JSON face it is.

Messages, shapes and methods of the service are those of ``v3_json/table.py``; only what has no
form in JSON has a row of its own here.
"""

from typing import Final

from kvstore import types as t
from kvstore.api.v3_json.table import STREAMS, UNARY, Row, Shape

RANGE_STREAM: Final = Row(
    "", "range_stream", t.RangeRequest, t.RangeStreamResponse, Shape.SERVER_STREAM
)

_ROWS: Final = {row.method: row for row in (*UNARY, *STREAMS, RANGE_STREAM)}

_RPCS: Final[dict[str, dict[str, str]]] = {
    "etcdserverpb.KV": {
        "Range": "range",
        "RangeStream": "range_stream",
        "Put": "put",
        "DeleteRange": "delete_range",
        "Txn": "txn",
        "Compact": "compact",
    },
    "etcdserverpb.Watch": {"Watch": "open_watch"},
    "etcdserverpb.Lease": {
        "LeaseGrant": "lease_grant",
        "LeaseRevoke": "lease_revoke",
        "LeaseKeepAlive": "lease_keep_alive",
        "LeaseTimeToLive": "lease_time_to_live",
        "LeaseLeases": "lease_leases",
    },
    "etcdserverpb.Cluster": {
        "MemberAdd": "member_add",
        "MemberRemove": "member_remove",
        "MemberUpdate": "member_update",
        "MemberList": "member_list",
        "MemberPromote": "member_promote",
    },
    "etcdserverpb.Maintenance": {
        "Alarm": "alarm",
        "Status": "status",
        "Defragment": "defragment",
        "Hash": "hash",
        "HashKV": "hash_kv",
        "Snapshot": "snapshot",
        "MoveLeader": "move_leader",
        "Downgrade": "downgrade",
    },
    "etcdserverpb.Auth": {
        "AuthEnable": "auth_enable",
        "AuthDisable": "auth_disable",
        "AuthStatus": "auth_status",
        "Authenticate": "authenticate",
        "UserAdd": "user_add",
        "UserGet": "user_get",
        "UserList": "user_list",
        "UserDelete": "user_delete",
        "UserChangePassword": "user_change_password",
        "UserGrantRole": "user_grant_role",
        "UserRevokeRole": "user_revoke_role",
        "RoleAdd": "role_add",
        "RoleGet": "role_get",
        "RoleList": "role_list",
        "RoleDelete": "role_delete",
        "RoleGrantPermission": "role_grant_permission",
        "RoleRevokePermission": "role_revoke_permission",
    },
    "v3lockpb.Lock": {"Lock": "lock", "Unlock": "unlock"},
    "v3electionpb.Election": {
        "Campaign": "campaign",
        "Proclaim": "proclaim",
        "Leader": "leader",
        "Observe": "observe",
        "Resign": "resign",
    },
}

RPCS: Final[dict[str, Row]] = {
    f"/{service}/{rpc}": _ROWS[method]
    for service, methods in _RPCS.items()
    for rpc, method in methods.items()
}
"""By path: ``/etcdserverpb.KV/Put``. (A row's own path is that of JSON.)"""
