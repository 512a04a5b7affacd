"""RangeStream: pieces of one revision that merge to what Range answers, and what ends them."""

from contextlib import aclosing
from typing import Any

import pytest

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.service.range_stream import FIRST_PIECE_RECORDS
from kvstore.types import (
    AuthUserAddRequest,
    CompactionRequest,
    DeleteRangeRequest,
    KeyValue,
    RangeRequest,
    RangeResponse,
)
from tests.kvstore.service.keyring import READ, WRITE, add_user, enable, log_in
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

ALL = RangeRequest(b"\0", b"\0")
KEYS = 25


async def pieces(
    host: Host, request: RangeRequest, caller: Caller = ANYBODY
) -> list[RangeResponse]:
    """All pieces of a stream."""

    async def collect() -> list[RangeResponse]:
        async with aclosing(host.service.range_stream(request, caller)) as stream:
            return [it.range_response async for it in stream if it.range_response is not None]

    assert host.process is not None
    found: list[RangeResponse] = await host.process.spawn(collect())
    return found


def merged(found: list[RangeResponse]) -> RangeResponse:
    """What a client makes of it. Only the last piece says more than records."""
    for piece in found[:-1]:
        assert piece == RangeResponse(kvs=piece.kvs)
        assert piece.kvs
    last = found[-1]
    kvs: list[KeyValue] = [item for piece in found for item in piece.kvs]
    return RangeResponse(last.header, kvs, last.more, last.count)


async def refused(host: Host, request: RangeRequest, caller: Caller = ANYBODY) -> KvError:
    with pytest.raises(KvError) as refusal:
        await pieces(host, request, caller)
    return refusal.value


@scenario(1, max_request_bytes=5000)
async def test_pieces_merge_to_what_a_range_answers(cluster: Cluster) -> None:
    host = (await cluster.followers())[0]
    for number in range(KEYS):
        await host.put(b"k%02d" % number, bytes(1000))
    await host.put(b"k07\0", b"right behind another")
    await host.call("delete_range", DeleteRangeRequest(b"k03", b"k05"))
    for fields in (
        {},
        {"limit": 1},
        {"limit": FIRST_PIECE_RECORDS},
        {"limit": 15},
        {"limit": KEYS - 2},
        {"limit": KEYS},
        {"keys_only": True},
        {"count_only": True},
        {"count_only": True, "limit": 3},
        {"revision": 5},
        {"serializable": True},
        {"range_end": b"k07"},
        {"key": b"k07", "range_end": b""},
        {"key": b"k07", "range_end": b"", "limit": 1},
        {"key": b"absent", "range_end": b""},
        {"key": b"k07", "range_end": b"k05"},
        {"sort_order": 1},
    ):
        asked: dict[str, Any] = {"key": b"\0", "range_end": b"\0"} | fields
        request = RangeRequest(**asked)
        found = await pieces(host, request)
        assert merged(found) == await host.call("range", request), fields
        for piece in found:
            assert sum(len(item.value) for item in piece.kvs) <= 5000 + 1000
    whole = await pieces(host, ALL)
    assert len(whole) >= 5
    assert len(whole[0].kvs) <= FIRST_PIECE_RECORDS


@scenario(1, size=1)
async def test_all_pieces_are_of_the_revision_at_the_start(cluster: Cluster) -> None:
    host = cluster[0]
    for number in range(KEYS):
        await host.put(b"k%02d" % number, b"old")
    revision = host.machine.store.revision

    async def read() -> RangeResponse:
        async with aclosing(host.service.range_stream(ALL, ANYBODY)) as stream:
            found = [(await anext(stream)).range_response]
            for number in range(KEYS):
                await host.put(b"k%02d" % number, b"new")
            found += [it.range_response async for it in stream]
        return merged([piece for piece in found if piece is not None])

    assert host.process is not None
    whole = await host.process.spawn(read())
    assert {item.value for item in whole.kvs} == {b"old"}
    assert whole.header is not None
    assert (whole.count, whole.header.revision) == (KEYS, revision)
    assert not host.machine.store.is_pinned


@scenario(1, size=1)
async def test_a_stream_ends_when_its_revision_is_compacted_and_holds_nothing_back(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    for number in range(KEYS):
        await host.put(b"k%02d" % number, b"v")

    async def read() -> None:
        async with aclosing(host.service.range_stream(ALL, ANYBODY)) as stream:
            await anext(stream)
            assert not host.machine.store.is_pinned
            written = await host.put(b"z", b"v")
            assert written.header is not None
            await host.call("compact", CompactionRequest(written.header.revision))
            await anext(stream)

    assert host.process is not None
    with pytest.raises(KvError) as refusal:
        await host.process.spawn(read())
    assert refusal.value == ErrorKind.COMPACTED.error()


@scenario(1, size=1)
async def test_what_cannot_be_streamed_is_refused_in_etcds_words(cluster: Cluster) -> None:
    host = cluster[0]
    orders = KvError(Code.UNIMPLEMENTED, "RangeStream does not support custom sort orders")
    filters = KvError(Code.UNIMPLEMENTED, "RangeStream does not support revision filters")
    assert await refused(host, RangeRequest()) == ErrorKind.EMPTY_KEY.error()
    assert await refused(host, RangeRequest(b"k", sort_order=9)) == (
        ErrorKind.INVALID_SORT_OPTION.error()
    )
    assert await refused(host, RangeRequest(b"k", sort_order=2)) == orders
    assert await refused(host, RangeRequest(b"k", sort_order=1, sort_target=3)) == orders
    for name in (
        "min_mod_revision",
        "max_mod_revision",
        "min_create_revision",
        "max_create_revision",
    ):
        request = RangeRequest(b"k")
        setattr(request, name, 1)
        assert await refused(host, request) == filters
    future = RangeRequest(b"k", revision=99)
    assert await refused(host, future) == ErrorKind.FUTURE_REVISION.error()


@scenario(1)
async def test_a_stream_needs_a_leader_unless_it_is_serializable(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    cluster.wire.isolate(leader.member_id)
    await cluster.wait(lambda: not leader.leads)
    demanding = Caller(has_leader=True)
    assert await refused(leader, ALL, demanding) == ErrorKind.NO_LEADER.error()
    assert (await refused(leader, ALL)).code in (Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED)
    local = RangeRequest(b"\0", b"\0", serializable=True)
    assert merged(await pieces(leader, local)).count == 1


@scenario(1, size=1, max_request_bytes=5000)
async def test_only_who_may_read_reads_and_only_as_long_as_users_stay_the_same(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    for number in range(KEYS):
        await host.put(b"k%02d" % number, bytes(1000))
    await add_user(host, "reader", (READ, b"k", b"l"))
    await add_user(host, "writer", (WRITE, b"k", b"l"))
    root = await enable(host)
    mine = RangeRequest(b"k", b"l")
    reader = await log_in(host, "reader")
    assert merged(await pieces(host, mine, reader)).count == KEYS
    for serializable in (False, True):
        request = RangeRequest(b"k", b"l", serializable=serializable)
        writer = await log_in(host, "writer")
        assert await refused(host, request, writer) == ErrorKind.PERMISSION_DENIED.error()
        assert await refused(host, request) == ErrorKind.USER_EMPTY.error()

    async def read() -> None:
        async with aclosing(host.service.range_stream(mine, reader)) as stream:
            await anext(stream)
            await host.call("user_add", AuthUserAddRequest("new", "word"), root)
            await anext(stream)

    assert host.process is not None
    with pytest.raises(KvError) as refusal:
        await host.process.spawn(read())
    assert refusal.value == ErrorKind.AUTH_OLD_REVISION.error()


@scenario(1)
async def test_streams_that_want_a_leader_hear_of_it_when_there_is_none_for_long(
    cluster: Cluster,
) -> None:
    follower = (await cluster.followers())[0]
    lost: list[KvError] = []
    left: list[KvError] = []
    follower.run(follower.service.when_leaderless, lost.append)
    leave = follower.run(follower.service.when_leaderless, left.append)
    leave()
    leave()
    cluster.wire.isolate(follower.member_id)
    before = cluster.loop.now
    await cluster.wait(lambda: lost)
    assert cluster.loop.now - before >= 3.0
    assert (lost, left) == ([ErrorKind.NO_LEADER.error()], [])
    # There is none now: whoever comes hears so at once, and once.
    follower.run(follower.service.when_leaderless, left.append)
    assert left == lost
    cluster.wire.heal()
    await cluster.wait(lambda: follower.node.driver.leader)
    assert len(lost) == 1
