"""Locks on whole members: one holder at a time, in the order of asking, whatever goes wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service import waiting
from kvstore.service.caller import Caller
from kvstore.types import CompactionRequest, LeaseRevokeRequest, UnlockRequest
from tests.kvstore.service.waiting import (
    LOG_HELD_SECONDS,
    candidates,
    entered,
    lock,
    revision_of,
    settle,
    unlock,
)
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario, scenario

NAME = b"lock"


@scenario(1)
async def test_the_key_is_the_name_and_the_lease_and_its_creation_fences(cluster: Cluster) -> None:
    host = cluster[0]
    await host.grant(60, 77)
    held = await lock(host, NAME, 77).won()
    assert held.key == b"lock/4d"
    (kv,) = (await host.range(b"lock/4d")).kvs
    assert (kv.create_revision, kv.value, kv.lease) == (held.header.revision, b"", 77)


@scenario(1, size=1)
async def test_a_negative_lease_is_written_as_etcd_writes_it(cluster: Cluster) -> None:
    host = cluster[0]
    await host.grant(60, -7)
    assert (await lock(host, NAME, -7).won()).key == b"lock/-7"


@scenario(1)
async def test_without_a_lease_one_of_a_minute_is_granted(cluster: Cluster) -> None:
    host = cluster[0]
    held = await lock(host, NAME).won()
    lease = int(held.key.removeprefix(b"lock/"), 16)
    assert lease > 0
    assert 58 <= await host.time_to_live(lease) <= 60
    await asyncio.sleep(62)
    assert await host.get(held.key) is None


@scenario(1)
async def test_the_same_lease_has_the_lock_already(cluster: Cluster) -> None:
    await cluster[0].grant(60, 77)
    first = await lock(cluster[0], NAME, 77).won()
    again = await lock(cluster[1], NAME, 77).won()
    assert again.key == first.key
    assert again.header.revision == first.header.revision


@scenario(1)
async def test_whoever_came_first_is_next(cluster: Cluster) -> None:
    for lease in range(1, 8):
        await cluster[0].grant(600, lease)
    calls = []
    for lease in range(1, 8):
        calls.append(lock(cluster[lease % 3], NAME, lease))
        await entered(cluster[0], b"lock/%x" % lease)
    held = 0
    for lease, call in enumerate(calls, 1):
        response = await call.won()
        await settle(cluster, 0.2)
        assert [other.answered for other in calls] == [n <= lease for n in range(1, 8)]
        assert response.header.revision > held
        held = response.header.revision
        await unlock(cluster[0], response.key)


@scenario(1)
async def test_a_caller_who_leaves_takes_the_key_along(cluster: Cluster) -> None:
    for lease in (1, 2, 3):
        await cluster[0].grant(600, lease)
    held = await lock(cluster[0], NAME, 1).won()
    second, third = lock(cluster[1], NAME, 2), lock(cluster[2], NAME, 3)
    await entered(cluster[0], b"lock/2")
    await entered(cluster[0], b"lock/3")
    second.call_off()
    assert await second.error() == (Code.CANCELED, "etcdserver: request canceled")
    second.call_off()
    await settle(cluster)
    assert await candidates(cluster[0], NAME) == [b"lock/1", b"lock/3"]
    assert not third.answered
    await unlock(cluster[1], held.key)
    won = await third.won()
    third.call_off()
    await settle(cluster)
    assert await candidates(cluster[0], NAME) == [won.key]


@scenario(1)
async def test_a_lease_granted_for_a_caller_who_leaves_is_revoked(cluster: Cluster) -> None:
    await lock(cluster[0], NAME).won()
    waits = lock(cluster[1], NAME)
    await cluster.wait(lambda: len(cluster[0].machine.lessor) == 2)
    waits.call_off()
    await waits.error()
    await cluster.wait(lambda: len(cluster[0].machine.lessor) == 1)
    assert len(await candidates(cluster[0], NAME)) == 1


@scenario(*range(1, 7))
async def test_a_caller_without_a_lease_who_leaves_holds_nothing_whenever_that_is(
    cluster: Cluster,
) -> None:
    """The lock may be won in the moment in which its caller leaves: nobody could give it back."""
    for step in range(24):
        call = lock(cluster[step % 3], NAME)
        await asyncio.sleep(step * 0.0007 + cluster.rng.uniform(0.0, 0.0007))
        told = call.answered
        call.call_off()
        result = await call.result()
        await settle(cluster)
        if told:
            await unlock(cluster[0], result.key)
        assert await candidates(cluster[0], NAME) == []


@scenario(1)
async def test_a_caller_whose_time_is_up_is_told_and_the_key_is_gone(cluster: Cluster) -> None:
    await lock(cluster[0], NAME).won()
    await cluster[0].grant(600, 9)
    started = cluster.loop.now
    late = lock(cluster[1], NAME, 9, Caller(timeout_seconds=2.0))
    assert await late.error() == (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    assert 2.0 <= cluster.loop.now - started < 2.5
    assert len(await candidates(cluster[0], NAME)) == 1


@scenario(1)
async def test_the_lock_passes_on_when_the_holders_lease_ends(cluster: Cluster) -> None:
    await cluster[0].grant(3, 1)
    await cluster[0].grant(600, 2)
    held = await lock(cluster[0], NAME, 1).won()
    waits = lock(cluster[1], NAME, 2)
    await settle(cluster, 1.5)
    assert not waits.answered
    assert (await waits.won()).header.revision > held.header.revision


@scenario(1)
async def test_a_waiter_whose_own_lease_ends_is_told_at_once(cluster: Cluster) -> None:
    await cluster[0].grant(600, 1)
    await cluster[0].grant(600, 2)
    await lock(cluster[0], NAME, 1).won()
    waits = lock(cluster[1], NAME, 2)
    await entered(cluster[1], b"lock/2")
    await cluster[0].call("lease_revoke", LeaseRevokeRequest(2))
    started = cluster.loop.now
    assert await waits.error() == (Code.UNKNOWN, "mutex: session is expired")
    assert cluster.loop.now - started < 0.5


@scenario(1)
async def test_a_key_put_again_without_its_lease_holds_no_lock(cluster: Cluster) -> None:
    """It would outlive the lease, which is what a holder is known by."""
    host = cluster[0]
    for lease in (1, 2):
        await host.grant(600, lease)
    held = await lock(host, NAME, 1).won()
    waits = lock(host, NAME, 2)
    await entered(host, b"lock/2")
    await host.put(b"lock/2", b"")
    await host.call("lease_revoke", LeaseRevokeRequest(2))
    await unlock(host, held.key)
    assert await waits.error() == (Code.UNKNOWN, "mutex: session is expired")


@scenario(1, size=1)
async def test_unlock_deletes_whatever_key_it_is_given(cluster: Cluster) -> None:
    host = cluster[0]
    await host.put(b"any", b"")
    response = await host.call("unlock", UnlockRequest(b"any"))
    assert response.header.revision == 3
    assert (await host.call("unlock", UnlockRequest(b"any"))).header.revision == 3
    with pytest.raises(KvError) as refusal:
        await host.call("unlock", UnlockRequest())
    assert refusal.value == KvError(Code.UNKNOWN, "etcdserver: key is not provided")


@scenario(1, size=1)
async def test_errors_of_the_calls_inside_keep_their_words_under_code_unknown(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    absent = lock(host, NAME, 5)
    assert await absent.error() == (Code.UNKNOWN, "etcdserver: requested lease not found")
    large = lock(host, b"n" * 280_000)
    assert await large.error() == (Code.UNKNOWN, "etcdserver: request is too large")
    await cluster.wait(lambda: not len(host.machine.lessor))
    assert await candidates(host, NAME) == []


@scenario(1)
async def test_without_a_quorum_a_lock_times_out_and_one_who_wants_a_leader_hears_it(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    await leader.grant(600, 1)
    cluster.wire.isolate(leader.member_id)
    code, message = await lock(leader, NAME, 1).error()
    assert (code, message) in (
        (Code.UNKNOWN, "etcdserver: request timed out"),
        (Code.DEADLINE_EXCEEDED, "context deadline exceeded"),
    )
    await cluster.wait(lambda: leader.node.driver.leader == 0)
    impatient = lock(leader, NAME, 1, Caller(has_leader=True))
    assert await impatient.error() == (Code.UNAVAILABLE, "etcdserver: no leader")
    cluster.wire.heal()


@scenario(1)
async def test_a_change_of_leader_loses_no_place_in_the_queue(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    first, second = await cluster.followers()
    for lease in (1, 2, 3):
        await leader.grant(600, lease)
    held = await lock(first, NAME, 1).won()
    waits = lock(first, NAME, 2)
    await entered(second, b"lock/2")
    then = lock(second, NAME, 3)
    await entered(second, b"lock/3")
    leader.crash()
    await cluster.wait_leader(other_than=leader)
    await settle(cluster)
    assert not waits.answered
    await unlock(second, held.key)
    await waits.won()
    await settle(cluster)
    assert not then.answered
    await unlock(second, b"lock/2")
    await then.won()
    await leader.start()


@scenario(1, 2, 3, snapshot_count=50, snapshot_catchup_entries=10)
async def test_a_waiter_on_a_member_that_was_cut_off_past_a_compaction_has_its_turn(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    away, _ = await cluster.followers()
    for lease in (1, 2):
        await leader.grant(600, lease)
    held = await lock(leader, NAME, 1).won()
    waits = lock(away, NAME, 2)
    await entered(leader, b"lock/2")
    await settle(cluster)
    cluster.wire.isolate(away.member_id)
    await settle(cluster, LOG_HELD_SECONDS)
    await unlock(leader, held.key)
    last = 0
    for number in range(300):
        last = revision_of(await leader.put(b"other", b"%d" % number))
    await leader.call("compact", CompactionRequest(last))
    cluster.wire.heal()
    response = await waits.won()
    assert away.node.snapshots.installed_total == 1
    assert response.header.revision >= last


def test_a_release_wakes_one_waiter_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(cluster: Cluster) -> None:
        host = cluster[0]
        asked: list[object] = []
        txn = host.service.txn

        def counted(*arguments: Any) -> None:
            asked.append(arguments)
            txn(*arguments)

        monkeypatch.setattr(host.service, "txn", counted)
        for lease in range(1, 12):
            await host.grant(600, lease)
        held = await lock(host, NAME, 1).won()
        waiters = []
        for lease in range(2, 12):
            waiters.append(lock(host, NAME, lease))
            await entered(host, b"lock/%x" % lease)
        await settle(cluster)
        asked.clear()
        await settle(cluster, 5.0)
        assert asked == [], "a waiter polls"
        await unlock(host, held.key)
        await waiters[0].won()
        await settle(cluster)
        assert len(asked) == 1
        assert [waiter.answered for waiter in waiters] == [True] + 9 * [False]

    run_scenario(work, 1)


def test_more_waiters_than_there_may_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TURNS_MAX", 2)

    async def work(cluster: Cluster) -> None:
        host = cluster[0]
        held = await lock(host, NAME).won()
        await settle(cluster)
        first, second = lock(host, NAME), lock(host, NAME)
        await settle(cluster)
        leases = len(host.machine.lessor)
        refused = lock(host, NAME)
        assert await refused.error() == (Code.UNKNOWN, "etcdserver: too many requests")
        await settle(cluster)
        assert len(host.machine.lessor) == leases, "a refused call left something behind"
        await unlock(host, held.key)
        await first.won()
        second.call_off()
        await second.error()
        await settle(cluster)
        assert not lock(host, NAME).answered

    run_scenario(work, 1)


@scenario(1, max_watch_streams=1)
async def test_a_waiter_for_whom_there_is_no_watch_stream_leaves_nothing_behind(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    for lease in (1, 2):
        await host.grant(600, lease)
    await lock(host, NAME, 1).won()
    stream = host.run(host.service.open_watch, Caller(), lambda: None)
    code, message = await lock(host, NAME, 2).error()
    # Not etcd's words: those would promise that nothing was written.
    assert (code, message) == (Code.UNKNOWN, "kvstore: too many callers wait on this member")
    assert await candidates(host, NAME) == [b"lock/1"]
    host.run(stream.close)


@scenario(1)
async def test_a_member_that_stops_takes_the_keys_of_its_waiters_along(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    follower, other = await cluster.followers()
    for lease in (1, 2, 3):
        await leader.grant(600, lease)
    await lock(leader, NAME, 1).won()
    for host, lease in ((follower, 2), (leader, 3)):
        waits = lock(host, NAME, lease)
        await entered(other, b"lock/%x" % lease)
        await host.stop()
        assert await waits.error() == (Code.UNAVAILABLE, "etcdserver: server stopped")
        await host.start()
        await cluster.wait(host.node.ready.is_set)
        assert await candidates(other, NAME) == [b"lock/1"]


@scenario(*range(1, 13))
async def test_who_was_told_keeps_the_lock_when_another_call_of_the_lease_is_given_up(
    cluster: Cluster,
) -> None:
    """A client whose connection broke asks elsewhere; only then does the first member notice."""
    for lease in (1, 2):
        await cluster[0].grant(600, lease)
    held = await lock(cluster[0], NAME, 1).won()
    given_up = lock(cluster[0], NAME, 2)
    await entered(cluster[1], b"lock/2")
    again = lock(cluster[1], NAME, 2)
    await settle(cluster)
    released = cluster[2].begin("unlock", UnlockRequest(held.key))
    await asyncio.sleep(cluster.rng.uniform(0.0, 0.02))
    given_up.call_off()
    await released
    result = await again.result()
    await settle(cluster)
    present = await candidates(cluster[2], NAME)
    if isinstance(result, KvError):
        assert result.message == ErrorKind.MUTEX_SESSION_EXPIRED.message
        assert present == []
    else:
        assert present == [b"lock/2"]


@scenario(1, 2, 3)
async def test_who_was_told_keeps_the_lock_when_a_member_that_could_not_ask_gives_up(
    cluster: Cluster,
) -> None:
    """It knows that the turn has come, asks whether it has, and hears nothing for too long."""
    leader = await cluster.wait_leader()
    away, other = await cluster.followers()
    for lease in (1, 2, 3):
        await leader.grant(600, lease)
    held = await lock(leader, NAME, 1).won()
    given_up = lock(away, NAME, 2)
    await entered(other, b"lock/2")
    await settle(cluster)
    released = leader.begin("unlock", UnlockRequest(held.key))
    while away.machine.store.get(held.key) is not None:  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(0.0001)
    cluster.wire.isolate(away.member_id)
    await released
    await given_up.error()
    again = await lock(other, NAME, 2).won()
    follower = lock(leader, NAME, 3)
    await settle(cluster)
    cluster.wire.heal()
    await settle(cluster, 20.0)
    assert await candidates(leader, NAME) == [again.key, b"lock/3"]
    assert not follower.answered


@scenario(*range(1, 7))
async def test_who_was_told_keeps_the_lock_when_the_member_of_an_earlier_call_stops(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    stops, other = await cluster.followers()
    for lease in (1, 2, 3):
        await leader.grant(600, lease)
    held = await lock(leader, NAME, 1).won()
    lock(stops, NAME, 2)
    await entered(other, b"lock/2")
    again = lock(other, NAME, 2)
    await settle(cluster)
    released = leader.begin("unlock", UnlockRequest(held.key))
    await asyncio.sleep(cluster.rng.uniform(0.0, 0.01))
    await stops.stop()
    await released
    result = await again.result()
    await settle(cluster)
    told = not isinstance(result, KvError)
    assert await candidates(leader, NAME) == ([b"lock/2"] if told else [])
    await stops.start()
