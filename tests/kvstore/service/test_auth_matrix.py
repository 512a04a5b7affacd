"""Every call of the API, as everybody: nobody, users with too little, with enough, and root."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any

from kvstore import types as t
from kvstore.api.v3_json.table import STREAMS, UNARY
from kvstore.budget import CountedBudget
from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import Caller
from tests.kvstore.service.keyring import READ, READWRITE, WRITE, add_user, enable, log_in
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

LEASE = 77
"""Holds the key k1; root renews it before each call."""

EVERYBODY = ("nobody", "without", "reader", "writer", "full", "root")
USERS = EVERYBODY[1:]
READERS = ("reader", "full", "root")
WRITERS = ("writer", "full", "root")
BOTH = ("full", "root")
ROOT = ("root",)

GET = t.RequestOp(request_range=t.RangeRequest(b"k"))
PUT = t.RequestOp(request_put=t.PutRequest(b"k"))
ELSEWHERE = t.RequestOp(request_put=t.PutRequest(b"z"))


def nested(inner: t.RequestOp) -> t.RequestOp:
    return t.RequestOp(request_txn=t.TxnRequest(failure=[inner]))


ROWS: list[tuple[str, Any, Iterable[str]]] = [
    ("range", t.RangeRequest(b"k"), READERS),
    ("range", t.RangeRequest(b"k", serializable=True), READERS),
    ("range", t.RangeRequest(b"k", b"z"), ROOT),
    ("put", t.PutRequest(b"k"), WRITERS),
    ("put", t.PutRequest(b"k", prev_kv=True), BOTH),
    ("put", t.PutRequest(b"k", lease=LEASE), WRITERS),
    ("put", t.PutRequest(b"z"), ROOT),
    ("delete_range", t.DeleteRangeRequest(b"kz"), WRITERS),
    ("delete_range", t.DeleteRangeRequest(b"kz", prev_kv=True), BOTH),
    ("delete_range", t.DeleteRangeRequest(b"k", b"\0"), ROOT),
    ("txn", t.TxnRequest(success=[GET]), READERS),
    ("txn", t.TxnRequest(failure=[GET]), READERS),
    ("txn", t.TxnRequest(failure=[PUT]), WRITERS),
    ("txn", t.TxnRequest([t.Compare(key=b"k")], success=[PUT]), BOTH),
    ("txn", t.TxnRequest(success=[nested(nested(GET))]), READERS),
    ("txn", t.TxnRequest(success=[nested(nested(PUT))]), WRITERS),
    ("txn", t.TxnRequest(success=[GET, nested(nested(ELSEWHERE))]), ROOT),
    ("compact", t.CompactionRequest(1 << 40), ROOT),
    ("open_watch", t.WatchCreateRequest(b"k"), READERS),
    ("open_watch", t.WatchCreateRequest(b"k", b"\0"), ROOT),
    ("lease_grant", t.LeaseGrantRequest(60), USERS),
    ("lease_revoke", t.LeaseRevokeRequest(LEASE), WRITERS),
    ("lease_revoke", t.LeaseRevokeRequest(LEASE + 1), USERS),
    ("lease_keep_alive", t.LeaseKeepAliveRequest(LEASE), WRITERS),
    ("lease_time_to_live", t.LeaseTimeToLiveRequest(LEASE), USERS),
    ("lease_time_to_live", t.LeaseTimeToLiveRequest(LEASE, keys=True), READERS),
    ("lease_leases", t.LeaseLeasesRequest(), READERS),
    ("member_add", t.MemberAddRequest(["http://m9:2380"], isLearner=True), ROOT),
    ("member_remove", t.MemberRemoveRequest(5), ROOT),
    ("member_update", t.MemberUpdateRequest(5, ["http://x:1"]), ROOT),
    ("member_promote", t.MemberPromoteRequest(5), ROOT),
    ("member_list", t.MemberListRequest(), USERS),
    ("member_list", t.MemberListRequest(linearizable=True), USERS),
    ("alarm", t.AlarmRequest(), USERS),
    ("alarm", t.AlarmRequest(t.AlarmAction.DEACTIVATE, 5, t.AlarmType.CORRUPT), ROOT),
    ("status", t.StatusRequest(), USERS),
    ("defragment", t.DefragmentRequest(), ROOT),
    ("hash", t.HashRequest(), ROOT),
    ("hash_kv", t.HashKVRequest(), ROOT),
    ("snapshot", t.SnapshotRequest(), ROOT),
    ("move_leader", t.MoveLeaderRequest(5), ROOT),
    ("downgrade", t.DowngradeRequest(version="1.0"), ROOT),
    ("auth_enable", t.AuthEnableRequest(), ROOT),
    ("auth_status", t.AuthStatusRequest(), EVERYBODY),
    ("authenticate", t.AuthenticateRequest("full", "wrong"), EVERYBODY),
    ("user_add", t.AuthUserAddRequest("full", "x"), ROOT),
    ("user_get", t.AuthUserGetRequest("reader"), ("reader", "root")),
    ("user_list", t.AuthUserListRequest(), ROOT),
    ("user_delete", t.AuthUserDeleteRequest("absent"), ROOT),
    ("user_change_password", t.AuthUserChangePasswordRequest("absent", "x"), ROOT),
    ("user_change_password", t.AuthUserChangePasswordRequest("absent"), ROOT),
    ("user_grant_role", t.AuthUserGrantRoleRequest("absent", "full"), ROOT),
    ("user_revoke_role", t.AuthUserRevokeRoleRequest("absent", "full"), ROOT),
    ("role_add", t.AuthRoleAddRequest("full"), ROOT),
    ("role_get", t.AuthRoleGetRequest("reader"), ("reader", "root")),
    ("role_list", t.AuthRoleListRequest(), ROOT),
    ("role_delete", t.AuthRoleDeleteRequest("absent"), ROOT),
    ("role_grant_permission", t.AuthRoleGrantPermissionRequest("absent"), ROOT),
    ("role_revoke_permission", t.AuthRoleRevokePermissionRequest("absent"), ROOT),
    ("lock", t.LockRequest(b"k", LEASE), BOTH),
    ("lock", t.LockRequest(b"z"), ROOT),
    ("unlock", t.UnlockRequest(b"k/4d"), WRITERS),
    ("campaign", t.CampaignRequest(b"ke", LEASE), BOTH),
    ("proclaim", t.ProclaimRequest(t.LeaderKey(b"ke", b"ke/4d", 1, LEASE)), BOTH),
    ("leader", t.LeaderRequest(b"ke"), READERS),
    ("observe", t.LeaderRequest(b"ke"), READERS),
    ("resign", t.ResignRequest(t.LeaderKey(b"ke", b"ke/4d", 1, LEASE)), BOTH),
    # Last, for then it is over.
    ("auth_disable", t.AuthDisableRequest(), ROOT),
]

REFUSALS = {ErrorKind.USER_EMPTY.message, ErrorKind.PERMISSION_DENIED.message}


def test_every_call_that_a_face_knows_is_in_the_matrix() -> None:
    assert {row.method for row in (*UNARY, *STREAMS)} == {method for method, _, _ in ROWS}


async def stream_refusal(host: Host, method: str, request: Any, caller: Caller) -> str:
    """The first message of a stream, if it is an error; waiting for one is no refusal."""
    stream = host.run(getattr(host.service, method), request, caller)
    assert inspect.isasyncgen(stream)
    assert host.process is not None
    first = host.process.spawn(anext(stream))
    done, _ = await asyncio.wait([first], timeout=0.5)
    try:
        if not done:
            first.cancel()
            await asyncio.wait([first])
            return ""
        error = first.exception()
        assert error is None or isinstance(error, KvError), error
        return "" if error is None else error.message
    finally:
        await host.process.spawn(stream.aclose())


async def watch_refusal(host: Host, request: t.WatchCreateRequest, caller: Caller) -> str:
    feed = host.run(host.service.open_watch, caller, lambda: None)
    host.run(feed.request, t.WatchRequest(create_request=request))
    answers: list[t.WatchResponse] = []

    def answered() -> bool:
        answers.extend(host.run(feed.take, CountedBudget(10), 1 << 20))
        return bool(answers)

    await host.cluster.wait(answered)
    host.run(feed.close)
    return answers[0].cancel_reason.partition("desc = ")[2]


async def message(host: Host, method: str, request: Any, caller: Caller) -> str:
    """What a call is refused with, or fails with; "" if it does not."""
    if method == "open_watch":
        return await watch_refusal(host, request, caller)
    if method in ("observe", "snapshot"):
        return await stream_refusal(host, method, request, caller)
    try:
        await host.call(method, request, caller)
    except KvError as error:
        return error.message
    return ""


async def restore(host: Host, root: Caller) -> None:
    """What the last call may have ended is there again."""
    if await message(host, "lease_keep_alive", t.LeaseKeepAliveRequest(LEASE), root):
        raise AssertionError("root may renew any lease")
    await message(host, "lease_grant", t.LeaseGrantRequest(600, LEASE), root)
    await host.put(b"k1", b"", lease=LEASE, caller=root)


@scenario(1, size=1)
async def test_each_call_is_let_pass_for_whom_it_is_meant_and_for_nobody_else(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    whole = (b"k", b"l")
    await add_user(host, "without")
    await add_user(host, "reader", (READ, *whole))
    await add_user(host, "writer", (WRITE, *whole))
    await add_user(host, "full", (READWRITE, *whole))
    callers = {"root": await enable(host), "nobody": Caller()}
    for name in ("without", "reader", "writer", "full"):
        callers[name] = await log_in(host, name)
    wrong = []
    for method, request, allowed in ROWS:
        for name in EVERYBODY:
            await restore(host, callers["root"])
            said = await message(host, method, request, callers[name])
            kind = ErrorKind.USER_EMPTY if name == "nobody" else ErrorKind.PERMISSION_DENIED
            passed = said not in REFUSALS
            if passed != (name in allowed) or not (passed or said == kind.message):
                wrong.append(f"{method} {request} as {name}: {said or 'let pass'}")
    assert wrong == []
