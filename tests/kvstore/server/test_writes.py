"""A write counts once, however often it was sent; and there is an end to what a member takes on."""

import asyncio
from typing import Any

import pytest

from kvstore import commands
from kvstore.errors import ErrorKind, KvError, UnknownOutcomeError
from kvstore.server.driver import GATHERING_TURNS_MAX
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from raft.events import Propose
from raft.types import Proposal
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

MIB = 1024 * 1024


async def version_of(host: Host, key: bytes) -> int:
    kvs = (await host.range(key)).kvs
    return kvs[0].version if kvs else 0


@scenario(1, 2)
async def test_a_proposal_that_was_sent_twice_is_applied_once(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    cluster.wire.slow(leader.member_id, follower.member_id, 1.3)
    started = leader.machine.applied_index
    # It hears nothing of the first sending for an election timeout, and sends again.
    answered = follower.begin("put", PutRequest(b"k", b"v"))
    await cluster.wait(lambda: leader.machine.applied_index >= started + 2)
    cluster.wire.heal()
    assert (await answered).header.revision == 2
    assert follower.node.proposals.resent_total >= 1
    for host in cluster.hosts:
        assert await version_of(host, b"k") == 1
    await cluster.wait_equal()


@scenario(1)
async def test_a_forwarded_proposal_survives_the_leader_it_was_forwarded_to(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    cluster.wire.cut(leader.member_id, follower.member_id)
    answered = follower.begin("put", PutRequest(b"k", b"v"))
    await asyncio.sleep(0.05)
    leader.crash()
    cluster.wire.heal()
    assert (await answered).header.revision == 2
    for host in cluster.up:
        assert await version_of(host, b"k") == 1
    await leader.start()
    await cluster.wait_equal()


async def batches_of(host: Host, sizes: list[int]) -> list[int]:
    """How many writes each batch has, when so many come in at each look at the sockets."""
    await host.call("put", PutRequest(b"before", b"v"))
    proposals = host.node.proposals
    take_unsent = proposals.take_unsent
    batches: list[int] = []

    def taken() -> list[Proposal]:
        unsent = take_unsent()
        if unsent:
            batches.append(len(unsent))
        return unsent

    proposals.take_unsent = taken  # type: ignore[method-assign]
    answers: list[asyncio.Future[Any]] = []
    for size in sizes:
        answers += [host.begin("put", PutRequest(b"k", b"v")) for _ in range(size)]
        await asyncio.sleep(0)
    await asyncio.gather(*answers)
    del proposals.take_unsent
    return batches


@scenario(1, size=1)
async def test_writes_that_come_in_one_after_the_other_are_one_batch(cluster: Cluster) -> None:
    await cluster.wait_leader()
    assert await batches_of(cluster[0], [40, 20, 4]) == [64]


@scenario(1, size=1)
async def test_writes_do_not_wait_for_others_for_ever(cluster: Cluster) -> None:
    await cluster.wait_leader()
    batches = await batches_of(cluster[0], [2] * 40)
    assert max(batches) == 2 * (GATHERING_TURNS_MAX + 1)
    assert sum(batches) == 80


@scenario(1, size=1)
async def test_a_write_that_is_alone_does_not_wait_for_others(cluster: Cluster) -> None:
    await cluster.wait_leader()
    assert await batches_of(cluster[0], [1, 1]) == [1, 1]


@scenario(1, size=1)
async def test_a_write_whose_answer_is_lost_is_told_as_unknown(cluster: Cluster) -> None:
    """Its command was applied before, so that the entry that is waited for does nothing."""
    host = cluster[0]
    await cluster.wait(lambda: not len(host.node.proposals))
    answered = host.begin("put", PutRequest(b"k", b"v"))
    (proposal,) = host.node.proposals.take_unsent()
    command = commands.decode(proposal.data)
    host.machine.origins.admit(
        command.member, command.incarnation, command.sequence, command.low_watermark
    )
    host.run(host.node.driver.step, Propose([proposal]))
    await cluster.wait(answered.done, seconds_max=1.0)
    assert answered.exception() == ErrorKind.TIMEOUT.error()
    assert isinstance(answered.exception(), UnknownOutcomeError)


@scenario(1)
async def test_without_a_majority_a_write_times_out_as_unknown(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for follower in await cluster.followers():
        follower.crash()
    started = cluster.loop.now
    with pytest.raises(UnknownOutcomeError):
        await leader.put(b"k", b"v")
    assert 6.9 < cluster.loop.now - started < 7.3
    # By now it knows that it leads no more, and what enters no log has not happened.
    with pytest.raises(KvError) as refusal:
        await leader.put(b"never", b"v", caller=Caller(timeout_seconds=0.5))
    assert refusal.value == ErrorKind.DEADLINE_EXCEEDED.error()
    assert not isinstance(refusal.value, UnknownOutcomeError)
    await cluster.start()
    assert await leader.get(b"never") is None


@scenario(1, max_inflight_proposals=20)
async def test_too_many_writes_at_a_time_are_refused_as_retryable(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    asked = [leader.begin("put", PutRequest(b"%d" % number, b"")) for number in range(30)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, KvError)]
    assert answers[-10:] == refused == [ErrorKind.TOO_MANY_REQUESTS.error()] * 10
    assert refused[0].retryable
    assert not isinstance(refused[0], UnknownOutcomeError)
    assert leader.node.proposals.refused_total == 10
    assert leader.node.proposals.bytes_waiting == 0
    await leader.put(b"again", b"")


@scenario(1, max_inflight_bytes=MIB)
async def test_too_many_bytes_of_writes_at_a_time_are_refused(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    value = bytes(300_000)
    asked = [leader.begin("put", PutRequest(b"%d" % number, value)) for number in range(6)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    # The limit is checked before: one write may go beyond it, the next one may not.
    assert [isinstance(answer, KvError) for answer in answers] == [False] * 4 + [True] * 2
    assert answers[-1] == ErrorKind.TOO_MANY_REQUESTS.error()


@scenario(1, max_inflight_proposals=5)
async def test_lease_traffic_has_a_lane_of_its_own(cluster: Cluster) -> None:
    """A member whose clients fill it up still ends leases."""
    leader = await cluster.wait_leader()
    lease = (await leader.grant(2)).ID
    await leader.put(b"leased", b"", lease=lease)
    until = cluster.loop.now + 4.0
    while cluster.loop.now < until:
        await asyncio.sleep(0.01)
        asked = [leader.begin("put", PutRequest(b"%d" % number, b"")) for number in range(20)]
        await asyncio.gather(*asked, return_exceptions=True)
    assert await leader.get(b"leased") is None


@scenario(1)
async def test_a_request_at_the_limit_of_bytes_passes_and_one_above_is_refused(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    limit = leader.config.max_request_bytes
    room = limit - 17 - 3 - 4
    await leader.put(b"k", bytes(room))
    with pytest.raises(KvError) as refusal:
        await leader.put(b"k", bytes(room + 1))
    assert refusal.value == ErrorKind.REQUEST_TOO_LARGE.error()
    assert not isinstance(refusal.value, UnknownOutcomeError)


@scenario(1, max_txn_ops=3)
async def test_a_transaction_at_the_limit_of_operations_passes_and_one_above_is_refused(
    cluster: Cluster,
) -> None:
    puts = [RequestOp(request_put=PutRequest(b"%d" % number)) for number in range(4)]
    await cluster[0].call("txn", TxnRequest(success=puts[:3]))
    with pytest.raises(KvError) as refusal:
        await cluster[0].call("txn", TxnRequest(success=puts))
    assert refusal.value == ErrorKind.TOO_MANY_OPS.error()


@scenario(1, quota_backend_bytes=100_000)
async def test_the_quota_raises_an_alarm_under_which_room_can_be_made(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    for number in range(9):
        await leader.put(b"k%d" % number, bytes(10_000))
    await cluster.wait_equal()
    with pytest.raises(KvError) as refusal:
        await follower.put(b"k", bytes(10_000))
    assert refusal.value == ErrorKind.NO_SPACE.error()
    alarm = AlarmMember(follower.member_id, AlarmType.NOSPACE)
    await cluster.wait(lambda: all(host.machine.alarms == (alarm,) for host in cluster.hosts))
    with pytest.raises(KvError) as refusal:
        await leader.put(b"small", b"")
    assert refusal.value == ErrorKind.NO_SPACE.error()
    deleted = await leader.delete(b"k", b"l")
    assert deleted.deleted == 9
    await leader.delete(b"small")
    assert deleted.header is not None
    await leader.call("compact", CompactionRequest(deleted.header.revision, physical=True))
    await leader.call(
        "alarm", AlarmRequest(AlarmAction.DEACTIVATE, follower.member_id, AlarmType.NOSPACE)
    )
    await leader.put(b"k", bytes(10_000))
    await cluster.wait_equal()


@scenario(1)
async def test_stopping_hands_leadership_on_and_fails_nobody(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    asked = [leader.begin("put", PutRequest(b"%d" % number, b"")) for number in range(50)]
    started = cluster.loop.now
    await leader.stop()
    assert not any(isinstance(answered.exception(), KvError) for answered in asked)
    new = await cluster.wait_leader(other_than=leader)
    assert cluster.loop.now - started < 0.5, "its successor had to wait for a timeout"
    assert len((await new.range(b"\0", b"\0")).kvs) == 50
    await leader.start()
    await cluster.wait_equal()


@scenario(1, size=1, wal_segment_bytes=4 * MIB)
async def test_committed_portions_are_applied_one_after_the_other_not_one_a_tick(
    cluster: Cluster,
) -> None:
    """Raft hands out 4 MiB at a time to apply; all of this is committed by one sync."""
    host = cluster[0]
    asked = [
        host.begin("put", PutRequest(b"%d" % number, bytes(1_400_000))) for number in range(24)
    ]
    await asked[0]
    first_answered = cluster.loop.now
    assert not asked[-1].done(), "it was no more than a portion"
    await asyncio.gather(*asked)
    tick_seconds = host.config.heartbeat_interval_ms / 1000
    assert cluster.loop.now - first_answered < tick_seconds / 4


@scenario(1, 2)
async def test_a_disk_of_the_leaders_that_hangs_holds_no_write_up(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    release = leader.hang_disk("wal")
    for number in range(10):
        answered = leader.begin("put", PutRequest(b"%d" % number, b"v"))
        await cluster.wait(answered.done, seconds_max=0.1)
        assert answered.result().header.revision == number + 2
    assert leader.node.driver.raft.stable_index < leader.node.driver.raft.commit_index
    release()
