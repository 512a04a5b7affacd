"""What is acknowledged is what everybody reads (linearizability of reads, thesis §6.4)."""

import asyncio

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import PutRequest, RangeRequest
from tests.support.cluster import Cluster
from tests.support.scenario import scenario

IMPATIENT = Caller(timeout_seconds=0.3)


@scenario(1, 2)
async def test_thesis_6_4_a_deposed_leader_answers_no_linearizable_read(cluster: Cluster) -> None:
    old = await cluster.wait_leader()
    await old.put(b"k", b"before")
    cluster.wire.isolate(old.member_id)
    # It still believes that it leads: CheckQuorum needs an election timeout to find out.
    assert old.leads
    stale = old.begin("range", RangeRequest(b"k"))
    new = await cluster.wait_leader(other_than=old)
    await new.put(b"k", b"after")
    assert await old.get(b"k", serializable=True) == b"before"
    await asyncio.sleep(1.0)
    assert not stale.done(), "it answered without a majority"
    cluster.wire.heal()
    assert (await stale).kvs[0].value == b"after"


@scenario(1)
async def test_a_linearizable_read_in_a_minority_times_out(cluster: Cluster) -> None:
    old = await cluster.wait_leader()
    cluster.wire.isolate(old.member_id)
    with pytest.raises(KvError) as refusal:
        await old.call("range", RangeRequest(b"k"), IMPATIENT)
    assert refusal.value == ErrorKind.DEADLINE_EXCEEDED.error()
    started = cluster.loop.now
    with pytest.raises(KvError) as refusal:
        await old.call("range", RangeRequest(b"k"))
    assert refusal.value == ErrorKind.TIMEOUT.error()
    # etcd's limit: 5 s and two election timeouts.
    assert 6.9 < cluster.loop.now - started < 7.3


@scenario(1)
async def test_who_asks_for_a_leader_hears_at_once_that_there_is_none(cluster: Cluster) -> None:
    old = await cluster.wait_leader()
    cluster.wire.isolate(old.member_id)
    await cluster.wait(lambda: not old.leads)
    for method, request in (("range", RangeRequest(b"k")), ("put", PutRequest(b"k", b"v"))):
        with pytest.raises(KvError) as refusal:
            await old.call(method, request, Caller(has_leader=True))
        assert refusal.value == ErrorKind.NO_LEADER.error()
    assert await old.call("range", RangeRequest(b"k", serializable=True)) is not None


@scenario(1, 2, 3)
async def test_every_member_reads_what_was_just_acknowledged_anywhere(cluster: Cluster) -> None:
    for number in range(60):
        writer, reader = cluster.rng.sample(cluster.hosts, 2)
        await writer.put(b"k", b"%d" % number)
        assert await reader.get(b"k") == b"%d" % number


@scenario(1)
async def test_a_paused_leader_wakes_up_to_no_stale_answer(cluster: Cluster) -> None:
    old = await cluster.wait_leader()
    await old.put(b"k", b"before")
    asked = old.begin("range", RangeRequest(b"k"))
    old.pause(5.0)
    new = await cluster.wait_leader(other_than=old)
    await new.put(b"k", b"after")
    assert (await asked).kvs[0].value == b"after"


@scenario(1)
async def test_many_reads_share_a_round(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    frames = cluster.wire.frames_total
    asked = [follower.begin("range", RangeRequest(b"k")) for _ in range(500)]
    await asyncio.gather(*asked)
    assert cluster.wire.frames_total - frames < 30
