"""Authentication on whole members: who is let in, on which member, and until when."""

import asyncio
import logging
import re
from typing import Any

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.server.secrets import JOBS_MAX, JOBS_PER_NAME_MAX
from kvstore.service.caller import Caller
from kvstore.types import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGetRequest,
    AuthRoleListRequest,
    AuthStatusRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGetRequest,
    AuthUserGrantRoleRequest,
    AuthUserListRequest,
    AuthUserRevokeRoleRequest,
    HashKVRequest,
    HashRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberAddRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    UserAddOptions,
)
from tests.kvstore.service.keyring import READWRITE, add_user, enable, log_in, password_of
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario


async def refusal(host: Host, method: str, request: Any, caller: Caller) -> KvError:
    with pytest.raises(KvError) as caught:
        await host.call(method, request, caller)
    return caught.value


async def prepared(cluster: Cluster) -> tuple[Caller, Caller]:
    """Callers: root, and alice, who may read and write the keys from a to b."""
    await add_user(cluster[0], "alice", (READWRITE, b"a", b"b"))
    root = await enable(cluster[0])
    return root, await log_in(cluster[0], "alice")


@scenario(1)
async def test_root_gets_hashes_and_nobody_adds_users_without_a_name(cluster: Cluster) -> None:
    root, alice = await prepared(cluster)
    denied = ErrorKind.PERMISSION_DENIED.error()
    for method, request in (("hash", HashRequest()), ("hash_kv", HashKVRequest())):
        assert (await cluster[0].call(method, request, root)).hash
        assert await refusal(cluster[0], method, request, alice) == denied
    nameless = AuthUserAddRequest("", "password")
    assert await refusal(cluster[0], "user_add", nameless, alice) == denied
    assert await refusal(cluster[0], "user_add", nameless, root) == ErrorKind.USER_EMPTY.error()


@scenario(1, 2)
async def test_a_token_of_one_member_opens_every_other_at_once(cluster: Cluster) -> None:
    root, alice = await prepared(cluster)
    assert alice.token is not None
    assert re.fullmatch(r"[A-Za-z]{16}\.[0-9]+", alice.token)
    for number, host in enumerate(cluster.hosts):
        # Straight after the log-in: the others may not have applied it yet.
        caller = await log_in(cluster[number - 1], "alice")
        await host.put(b"a%d" % number, b"v", caller=caller)
        read = await host.call("range", RangeRequest(b"a%d" % number), caller)
        assert read.kvs[0].value == b"v"
        assert await refusal(host, "put", PutRequest(b"b"), caller) == (
            ErrorKind.PERMISSION_DENIED.error()
        )
        await host.put(b"b", b"v", caller=root)


@scenario(1)
async def test_a_right_given_on_one_member_counts_on_all_at_once(cluster: Cluster) -> None:
    root, _ = await prepared(cluster)
    for number in range(6):
        name = f"user{number}"
        await add_user(cluster[0], name, (READWRITE, b"k", b""), caller=root)
        caller = await log_in(cluster[1], name)
        await cluster[2].put(b"k", b"v", caller=caller)


@scenario(1)
async def test_who_says_nothing_or_lies_is_told_so(cluster: Cluster) -> None:
    await prepared(cluster)
    nobody, liar = Caller(), Caller(token="VhgmAvJOCAQwJQxb.1")
    for method, request in (("put", PutRequest(b"a")), ("range", RangeRequest(b"a"))):
        assert await refusal(cluster[1], method, request, nobody) == ErrorKind.USER_EMPTY.error()
        assert await refusal(cluster[1], method, request, liar) == (
            ErrorKind.INVALID_AUTH_TOKEN.error()
        )


@scenario(1, size=1)
async def test_wrong_passwords_and_unknown_users_are_refused_alike(cluster: Cluster) -> None:
    host = cluster[0]
    authenticate = AuthenticateRequest("alice", password_of("alice"))
    assert await refusal(host, "authenticate", authenticate, Caller()) == (
        ErrorKind.AUTH_NOT_ENABLED.error()
    )
    root, _ = await prepared(cluster)
    await host.call(
        "user_add", AuthUserAddRequest("cert", options=UserAddOptions(no_password=True)), root
    )
    for name, password, kind in (
        ("alice", "wrong", ErrorKind.AUTH_FAILED),
        ("alice", "", ErrorKind.AUTH_FAILED),
        ("nobody", password_of("alice"), ErrorKind.AUTH_FAILED),
        ("cert", "any", ErrorKind.NO_PASSWORD_USER),
    ):
        request = AuthenticateRequest(name, password)
        assert await refusal(host, "authenticate", request, Caller()) == kind.error()
    long = AuthUserAddRequest("long", "x" * 73)
    assert await refusal(host, "user_add", long, root) == ErrorKind.PASSWORD_TOO_LONG.error()
    unnamed = AuthUserAddRequest("", "x")
    assert await refusal(host, "user_add", unnamed, root) == ErrorKind.USER_EMPTY.error()


@scenario(1)
async def test_tokens_are_void_after_a_new_password_a_deletion_and_a_disable(
    cluster: Cluster,
) -> None:
    root, alice = await prepared(cluster)
    invalid = ErrorKind.INVALID_AUTH_TOKEN.error()
    put = PutRequest(b"a")
    await cluster[1].call("user_change_password", AuthUserChangePasswordRequest("alice", "x"), root)
    assert await refusal(cluster[2], "put", put, alice) == invalid
    response = await cluster[0].call("authenticate", AuthenticateRequest("alice", "x"))
    alice = Caller(token=response.token)
    await cluster[2].put(b"a", b"", caller=alice)
    await cluster[0].call("user_delete", AuthUserDeleteRequest("alice"), root)
    assert await refusal(cluster[2], "put", put, alice) == invalid
    await cluster[0].call("auth_disable", AuthDisableRequest(), root)
    # While it is off nobody looks at tokens.
    await cluster[0].put(b"a", b"", caller=Caller(token="nonsense"))
    await cluster[0].call("auth_enable", AuthEnableRequest())
    assert await refusal(cluster[0], "put", put, root) == invalid


@scenario(1, size=1, auth_token_ttl_seconds=10)
async def test_a_token_runs_out_unless_it_is_used(cluster: Cluster) -> None:
    root, alice = await prepared(cluster)
    for _ in range(4):
        await asyncio.sleep(9.0)
        await cluster[0].put(b"a", b"", caller=alice)
    assert await refusal(cluster[0], "put", PutRequest(b"a"), root) == (
        ErrorKind.INVALID_AUTH_TOKEN.error()
    )


@scenario(1)
async def test_what_is_asked_about_users_is_current_on_every_member(cluster: Cluster) -> None:
    root, alice = await prepared(cluster)
    for host in cluster.hosts:
        status = await host.call("auth_status", AuthStatusRequest())
        assert status.enabled
        assert status.authRevision == 7
        assert (await host.call("user_list", AuthUserListRequest(), root)).users == [
            "alice",
            "root",
        ]
        assert (await host.call("role_list", AuthRoleListRequest(), root)).roles == ["alice"]
        assert (await host.call("user_get", AuthUserGetRequest("alice"), alice)).roles == ["alice"]
        role = await host.call("role_get", AuthRoleGetRequest("alice"), alice)
        assert [(perm.permType, perm.key, perm.range_end) for perm in role.perm] == [
            (READWRITE, b"a", b"b")
        ]
        assert role.header.revision == 1
        assert await refusal(host, "user_get", AuthUserGetRequest("root"), alice) == (
            ErrorKind.PERMISSION_DENIED.error()
        )
    assert await refusal(cluster[0], "user_get", AuthUserGetRequest("x"), root) == (
        ErrorKind.USER_NOT_FOUND.error()
    )
    assert await refusal(cluster[0], "role_get", AuthRoleGetRequest("x"), root) == (
        ErrorKind.ROLE_NOT_FOUND.error()
    )


@scenario(1, 2)
async def test_users_and_roles_outlive_restarts_and_leaders_and_tokens_of_others_do(
    cluster: Cluster,
) -> None:
    _, alice = await prepared(cluster)
    leader = await cluster.wait_leader()
    leader.crash()
    await cluster.wait_leader(other_than=leader)
    for host in cluster.up:
        await host.put(b"a", b"after", caller=alice)
    await leader.start()
    await cluster.wait(leader.node.ready.is_set)
    # It has forgotten whom it let in, but not who may come.
    assert await refusal(leader, "put", PutRequest(b"a"), alice) == (
        ErrorKind.INVALID_AUTH_TOKEN.error()
    )
    await leader.put(b"a", b"again", caller=await log_in(leader, "alice"))
    await cluster.wait_equal()


@scenario(1)
async def test_a_member_that_takes_in_a_snapshot_knows_users_and_roles(cluster: Cluster) -> None:
    await prepared(cluster)
    behind = (await cluster.followers())[0]
    held = behind.node.driver.raft.last_index
    behind.crash()
    # As long as the log is kept for a member that may be back at once.
    await asyncio.sleep(6.0)
    alice = await log_in(cluster.up[0], "alice")
    others = cluster.up
    for start in range(0, 1000, 50):
        keys = [b"a%d" % number for number in range(start, start + 50)]
        await asyncio.gather(*(others[0].put(key, b"v", caller=alice) for key in keys))
    leader = await cluster.wait_leader()
    await cluster.wait(lambda: leader.node.driver.raft.first_index > held + 1)
    await behind.start()
    await cluster.wait(behind.node.ready.is_set)
    await cluster.wait_equal()
    assert behind.node.snapshots.installed_total
    caller = await log_in(behind, "alice")
    await behind.put(b"a", b"v", caller=caller)
    assert await refusal(behind, "put", PutRequest(b"b"), caller) == (
        ErrorKind.PERMISSION_DENIED.error()
    )
    assert (
        await behind.call("user_list", AuthUserListRequest(), await log_in(behind, "root"))
    ).users
    root = await log_in(others[0], "root")
    await others[0].call("auth_disable", AuthDisableRequest(), root)
    await behind.put(b"b", b"v")


@scenario(1, 2)
async def test_a_right_that_is_taken_while_a_proposal_is_under_way_counts_no_more(
    cluster: Cluster,
) -> None:
    root, alice = await prepared(cluster)
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    await cluster.wait_equal()
    # Both are in the leader's log before either is applied anywhere.
    revoked = leader.begin("user_revoke_role", AuthUserRevokeRoleRequest("alice", "alice"), root)
    late = leader.begin("put", PutRequest(b"a", b"late"), alice)
    elsewhere = follower.begin("put", PutRequest(b"a", b"late"), alice)
    await revoked
    for answer in (late, elsewhere):
        with pytest.raises(KvError) as refused:
            await answer
        assert refused.value == ErrorKind.PERMISSION_DENIED.error()
    assert not (await leader.call("range", RangeRequest(b"a"), root)).kvs
    await cluster.wait_equal()


@scenario(1, 2)
async def test_whoever_is_root_no_more_changes_no_members_either(cluster: Cluster) -> None:
    await add_user(cluster[0], "ops")
    await cluster[0].call("user_grant_role", AuthUserGrantRoleRequest("ops", "root"))
    root = await enable(cluster[0])
    ops = await log_in(cluster[0], "ops")
    leader = await cluster.wait_leader()
    await cluster.wait_equal()
    # Both are in the leader's log before either is applied.
    revoked = leader.begin("user_revoke_role", AuthUserRevokeRoleRequest("ops", "root"), root)
    late = leader.begin("member_add", MemberAddRequest(["http://m9:2380"], isLearner=True), ops)
    await revoked
    with pytest.raises(KvError) as refused:
        await late
    assert refused.value == ErrorKind.PERMISSION_DENIED.error()
    listed = await leader.call("member_list", MemberListRequest(), root)
    assert len(listed.members) == len(cluster.hosts)


@scenario(1)
async def test_passwords_are_in_no_log_and_on_no_disk(cluster: Cluster) -> None:
    records: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(self.format(record))

    listener = Listener()
    logger = logging.getLogger("kvstore")
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    try:
        root, _ = await prepared(cluster)
        change = AuthUserChangePasswordRequest("alice", "sesame-of-new", "a hash of the client's")
        await cluster[0].call("user_change_password", change, root)
        wrong = AuthenticateRequest("alice", "sesame-of-wrong")
        await refusal(cluster[0], "authenticate", wrong, Caller())
        await cluster[0].call("role_delete", AuthRoleDeleteRequest("alice"), root)
    finally:
        logger.removeHandler(listener)
        logger.setLevel(level)
    assert not [line for line in records if "sesame" in line]
    for host in cluster.hosts:
        segments = host.disk.list("/data/member/wal")
        stored = b"".join(host.disk.content(f"/data/member/wal/{name}") for name in segments)
        assert b"alice" in stored
        assert b"sesame" not in stored
        assert b"a hash of the client's" not in stored
    hashed = cluster[0].machine.auth.user("alice")
    assert hashed is not None
    assert hashed.hashed_password.startswith("$2b$04$")


@scenario(1, size=1)
async def test_too_many_logins_at_once_are_refused_and_not_queued(cluster: Cluster) -> None:
    host = cluster[0]
    await prepared(cluster)
    go_on = host.hang_disk("passwords")
    request = AuthenticateRequest("alice", password_of("alice"))
    waiting = [host.begin("authenticate", request) for _ in range(JOBS_PER_NAME_MAX)]
    strangers = [
        host.begin("authenticate", AuthenticateRequest(f"nobody{place}", "guess"))
        for place in range(JOBS_MAX - JOBS_PER_NAME_MAX)
    ]
    await cluster.wait(lambda: host.node.secret_work.jobs == JOBS_MAX)
    for name in ("alice", "root"):
        asked = AuthenticateRequest(name, password_of(name))
        assert await refusal(host, "authenticate", asked, Caller()) == (
            ErrorKind.TOO_MANY_REQUESTS.error()
        )
    go_on()
    tokens = {(await answer).token for answer in waiting}
    assert len(tokens) == JOBS_PER_NAME_MAX
    for stranger in strangers:
        with pytest.raises(KvError) as refused:
            await stranger
        assert refused.value == ErrorKind.AUTH_FAILED.error()


@scenario(1)
async def test_a_lease_is_renewed_and_shown_by_who_may_write_and_read_its_keys(
    cluster: Cluster,
) -> None:
    root, alice = await prepared(cluster)
    denied = ErrorKind.PERMISSION_DENIED.error()
    mine = (await cluster[0].call("lease_grant", LeaseGrantRequest(60), alice)).ID
    theirs = (await cluster[0].call("lease_grant", LeaseGrantRequest(60), root)).ID
    await cluster[0].put(b"a1", b"", lease=mine, caller=alice)
    await cluster[0].put(b"x1", b"", lease=theirs, caller=root)
    for host in cluster.hosts:
        renewed = await host.call("lease_keep_alive", LeaseKeepAliveRequest(mine), alice)
        assert renewed.TTL == 60
        shown = await host.call("lease_time_to_live", LeaseTimeToLiveRequest(mine, True), alice)
        assert shown.keys == [b"a1"]
        await host.call("lease_time_to_live", LeaseTimeToLiveRequest(theirs), alice)
        for method, request in (
            ("lease_keep_alive", LeaseKeepAliveRequest(theirs)),
            ("lease_revoke", LeaseRevokeRequest(theirs)),
            ("lease_time_to_live", LeaseTimeToLiveRequest(theirs, keys=True)),
            ("lease_leases", LeaseLeasesRequest()),
            ("put", PutRequest(b"a2", b"", theirs)),
        ):
            assert await refusal(host, method, request, alice) == denied, method
            assert await refusal(host, method, request, Caller()) == ErrorKind.USER_EMPTY.error()
        assert len((await host.call("lease_leases", LeaseLeasesRequest(), root)).leases) == 2
    await cluster[0].call("lease_revoke", LeaseRevokeRequest(mine), alice)


@scenario(1, auth_token="jwt,sign-method=HS256,priv-key=hmac.key,ttl=60s")
async def test_a_signed_token_holds_until_it_runs_out_or_users_change(cluster: Cluster) -> None:
    root, alice = await prepared(cluster)
    put = PutRequest(b"a")
    for host in cluster.hosts:
        await host.put(b"a", b"", caller=alice)
    # Nothing is remembered about it, so a restart forgets nothing.
    cluster[1].crash()
    await cluster[1].start()
    await cluster.wait(cluster[1].node.ready.is_set)
    await cluster[1].put(b"a", b"", caller=alice)
    await cluster[0].call("role_add", AuthRoleAddRequest("new"), root)
    old = ErrorKind.AUTH_OLD_REVISION.error()
    for host in cluster.hosts:
        for caller in (alice, root):
            assert await refusal(host, "put", put, caller) == old
            assert await refusal(host, "range", RangeRequest(b"a"), caller) == old
    # As in etcd, whoever administrates goes on with it.
    await cluster[0].call("role_delete", AuthRoleDeleteRequest("new"), root)
    alice = await log_in(cluster[2], "alice")
    await cluster[0].put(b"a", b"", caller=alice)
    await asyncio.sleep(61.0)
    assert await refusal(cluster[0], "put", put, alice) == ErrorKind.INVALID_AUTH_TOKEN.error()
