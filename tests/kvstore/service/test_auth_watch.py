"""Watches and who may: at their creation, and after users have changed."""

import pytest

from kvstore.budget import CountedBudget
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    AuthUserAddRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    RangeRequest,
    WatchCancelRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from tests.kvstore.service.keyring import READ, READWRITE, add_user, enable, log_in, password_of
from tests.kvstore.service.waiting import Observing, lock, settle
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

DENIED = "rpc error: code = PermissionDenied desc = etcdserver: permission denied"


class Stream:
    """A watch stream that is taken from only when it is asked."""

    def __init__(self, host: Host, caller: Caller) -> None:
        self._host = host
        self.woken = 0
        self._feed = host.run(host.service.open_watch, caller, self._wake)
        self.responses: list[WatchResponse] = []

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, request: WatchRequest) -> None:
        self._host.run(self._feed.request, request)

    def create(self, key: bytes, range_end: bytes = b"") -> None:
        self.ask(WatchRequest(create_request=WatchCreateRequest(key, range_end)))

    def take(self) -> list[WatchResponse]:
        """All there is now."""
        while taken := self._host.run(self._feed.take, CountedBudget(1000), 1 << 20):
            self.responses += taken
        return self.responses

    async def answers(self, count: int) -> list[WatchResponse]:
        await self._host.cluster.wait(lambda: len(self.take()) >= count)
        assert len(self.responses) == count
        return self.responses


@scenario(1)
async def test_a_watch_is_refused_where_reading_is_and_the_stream_lives_on(
    cluster: Cluster,
) -> None:
    await add_user(cluster[0], "alice", (READ, b"a", b"b"), (READ, b"p", b""))
    root = await enable(cluster[0])
    stream = Stream(cluster[1], await log_in(cluster[0], "alice"))
    # To the open end, from nothing, and beyond a permission for one key.
    for key, end in ((b"p", b"\0"), (b"", b""), (b"p", b"q"), (b"a", b"c")):
        stream.create(key, end)
    stream.create(b"a", b"b")
    # Asked after the others, so it is answered after them, whoever had to be judged twice.
    stream.ask(WatchRequest(cancel_request=WatchCancelRequest(0)))
    answers = await stream.answers(6)
    for refused in answers[:4]:
        assert (refused.watch_id, refused.created, refused.canceled) == (-1, True, True)
        assert refused.cancel_reason == DENIED
        assert refused.header is not None
        assert refused.header.revision == 1
    assert (answers[4].created, answers[4].canceled, answers[4].watch_id) == (True, False, 0)
    assert answers[5].canceled
    await cluster[0].put(b"b", b"secret", caller=root)
    await cluster.wait_equal()
    assert len(stream.take()) == 6


@scenario(1)
async def test_who_says_nothing_or_lies_watches_nothing(cluster: Cluster) -> None:
    await enable(cluster[0])
    for caller, reason in (
        (Caller(), "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"),
        (
            Caller(token="nonsense.1"),
            "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token",
        ),
    ):
        stream = Stream(cluster[2], caller)
        stream.create(b"a")
        assert (await stream.answers(1))[0].cancel_reason == reason


@scenario(1, 2)
async def test_whoever_loses_the_right_hears_no_event_after_that(cluster: Cluster) -> None:
    await add_user(cluster[0], "alice", (READWRITE, b"a", b"b"))
    await add_user(cluster[0], "bob", (READWRITE, b"a", b"b"))
    root = await enable(cluster[0])
    alice = Stream(cluster[1], await log_in(cluster[0], "alice"))
    bob = Stream(cluster[1], await log_in(cluster[0], "bob"))
    for stream in (alice, bob):
        stream.create(b"a", b"b")
        await stream.answers(1)
    await cluster[0].put(b"a1", b"", caller=root)
    for stream in (alice, bob):
        await stream.answers(2)
    await cluster[0].call("user_revoke_role", AuthUserRevokeRoleRequest("alice", "alice"), root)
    await cluster[0].put(b"a2", b"secret", caller=root)
    await cluster.wait_equal()
    await cluster.wait(lambda: alice.take()[-1].canceled)
    last = alice.responses[-1]
    assert (last.watch_id, last.canceled, last.cancel_reason) == (0, True, DENIED)
    assert sum(len(response.events) for response in alice.responses) == 1
    assert [event.kv.key for event in (await bob.answers(3))[2].events if event.kv] == [b"a2"]


@scenario(1)
async def test_who_is_given_the_name_of_another_inherits_no_watch(cluster: Cluster) -> None:
    await add_user(cluster[0], "alice", (READWRITE, b"a", b"b"))
    root = await enable(cluster[0])
    stream = Stream(cluster[1], await log_in(cluster[0], "alice"))
    stream.create(b"a", b"b")
    await stream.answers(1)
    # All between two takes.
    call = cluster[0].call
    await call("user_delete", AuthUserDeleteRequest("alice"), root)
    await call("user_add", AuthUserAddRequest("alice", password_of("alice")), root)
    await call("user_grant_role", AuthUserGrantRoleRequest("alice", "alice"), root)
    await cluster[0].put(b"a1", b"secret", caller=root)
    await cluster.wait_equal()
    last = (await stream.answers(2))[1]
    assert (last.canceled, last.events) == (True, [])


@scenario(1)
async def test_an_idle_watcher_is_told_without_any_event(cluster: Cluster) -> None:
    stream = Stream(cluster[1], Caller())
    stream.create(b"a")
    await stream.answers(1)
    await enable(cluster[0])
    woken = stream.woken
    await cluster.wait(lambda: stream.woken > woken)
    answer = (await stream.answers(2))[1]
    assert answer.canceled
    assert "user name is empty" in answer.cancel_reason


@scenario(1)
async def test_a_stream_that_wants_a_leader_ends_without_one_and_others_wait(
    cluster: Cluster,
) -> None:
    follower = (await cluster.followers())[0]
    demanding = Stream(follower, Caller(has_leader=True))
    patient = Stream(follower, Caller())
    cluster.wire.isolate(follower.member_id)
    before = cluster.loop.now
    woken = demanding.woken
    await cluster.wait(lambda: demanding.woken > woken)
    assert cluster.loop.now - before >= 3.0
    with pytest.raises(KvError) as ended:
        demanding.take()
    assert ended.value == ErrorKind.NO_LEADER.error()
    assert patient.take() == []
    cluster.wire.heal()


@scenario(1)
async def test_who_loses_the_right_waits_for_no_lock_any_more_and_leaves_nothing_behind(
    cluster: Cluster,
) -> None:
    await add_user(cluster[0], "alice", (READWRITE, b"lock/", b"lock0"))
    root = await enable(cluster[0])
    alice = await log_in(cluster[0], "alice")
    held = await lock(cluster[1], b"lock", 0, root).won()
    waits = [lock(host, b"lock", 0, alice) for host in cluster.hosts]
    observing = Observing(cluster[2], b"lock", alice)
    await cluster.wait(lambda: len(cluster[0].machine.lessor) == 1 + len(waits))
    await settle(cluster)
    revoke = AuthUserRevokeRoleRequest("alice", "alice")
    await cluster[0].call("user_revoke_role", revoke, root)
    denied = (Code.UNKNOWN, ErrorKind.PERMISSION_DENIED.message)
    assert [await wait.error() for wait in waits] == [denied] * len(waits)
    await settle(cluster)
    assert observing.error == KvError(*denied)
    read = await cluster[0].call("range", RangeRequest(b"lock/", b"lock0"), root)
    assert [kv.key for kv in read.kvs] == [held.key]
    assert len(cluster[0].machine.lessor) == 1
    assert all(len(host.service.waiting) == 0 for host in cluster.hosts)
