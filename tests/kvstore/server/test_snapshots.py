"""A follower that fell behind the log comes back through a snapshot, while writes go on."""

import asyncio
from typing import Any

import pytest

from kvstore.types import CompactionRequest, WatchCreateRequest
from raft.types import NodeId
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario
from tests.support.watching import Watching
from tests.support.writer import check_kept, writers

SMALL = {"snapshot_count": 60, "snapshot_catchup_entries": 20}
NONE_TAKEN = {"snapshot_count": 0, "snapshot_catchup_entries": 20}
"""Memory's log is short, and there is no snapshot yet when a follower needs one."""
LOG_HELD_SECONDS = 6.0
"""For two election timeouts a leader keeps the log for a follower that may be back at once; after
five seconds the connection breaks, and with it what was under way.
"""


async def wait_log_gone(cluster: Cluster, index: int) -> None:
    """Wait till no member that is linked holds the log from this index on."""

    def gone() -> bool:
        leader = cluster.leader()
        return leader is not None and leader.node.driver.raft.first_index > index + 1

    await cluster.wait(gone)


async def wait_caught_up(cluster: Cluster, host: Host) -> None:
    leader = await cluster.wait_leader()
    goal = leader.node.driver.raft.commit_index
    await cluster.wait(lambda: host.machine.applied_index >= goal)


@scenario(1, 2, **SMALL)
async def test_a_follower_whose_log_is_gone_returns_through_a_snapshot(cluster: Cluster) -> None:
    async with writers(cluster, 2) as crew:
        follower = cluster.rng.choice(await cluster.followers())
        held = follower.node.driver.raft.last_index
        follower.crash()
        await wait_log_gone(cluster, held)
        await follower.start()
        await wait_caught_up(cluster, follower)
        assert follower.node.snapshots.installed_total >= 1
        await asyncio.sleep(1.0)
    await check_kept(cluster, crew)


@scenario(1, 2, **SMALL)
async def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    cluster.wire.isolate(follower.member_id)
    await asyncio.sleep(LOG_HELD_SECONDS)
    held = follower.node.driver.raft.last_index
    for number in range(120):
        await leader.put(b"w%03d" % number, cluster.rng.randbytes(2000))
    await wait_log_gone(cluster, held)
    cluster.wire.break_transfer_after_bytes = 100_000
    async with writers(cluster, 2) as crew:
        cluster.wire.heal()
        await wait_caught_up(cluster, follower)
        assert cluster.wire.transfers_broken == 1
        assert follower.node.snapshots.installed_total == 1
        assert cluster.wire.resumed_bytes > 0, "the second attempt began anew"
    await check_kept(cluster, crew)


async def miss_writes(cluster: Cluster, leader: Host, follower: Host, *, value_bytes: int) -> int:
    """Let a follower be down until nobody's log holds what it lacks; return where its log ends."""
    held = follower.node.driver.raft.last_index
    follower.crash()
    await asyncio.sleep(LOG_HELD_SECONDS)
    for number in range(120):
        await leader.put(b"w%03d" % number, cluster.rng.randbytes(value_bytes))
    await wait_log_gone(cluster, held)
    return held


@scenario(1, **SMALL)
async def test_a_follower_that_dies_while_a_snapshot_arrives_gets_it_again(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    await miss_writes(cluster, leader, follower, value_bytes=2000)
    await follower.start()
    start = cluster.wire.transferred_bytes
    await cluster.wait(lambda: cluster.wire.transferred_bytes - start > 100_000)
    follower.crash()
    await follower.start()
    await wait_caught_up(cluster, follower)
    await cluster.wait_equal()
    assert await follower.get(b"w119") is not None


@scenario(1, 2, **SMALL)
async def test_a_follower_that_dies_before_it_says_that_it_has_the_snapshot_goes_on(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    held = await miss_writes(cluster, leader, follower, value_bytes=0)
    await follower.start()
    while not follower.node.snapshots.installed_total:  # noqa: ASYNC110 - a step of the disk
        await asyncio.sleep(0.000_01)
    # What it says of it goes nowhere.
    cluster.wire.isolate(follower.member_id)
    await cluster.wait(lambda: follower.node.wal.mark_durable_index > held)
    follower.kill()
    cluster.wire.heal()
    match = leader.node.driver.raft.progress()[NodeId(follower.known_id)]["match"]
    assert int(match) <= held, "the leader knows it"
    await follower.start()
    await wait_caught_up(cluster, follower)
    await cluster.wait_equal()


@scenario(1, 2, **SMALL)
async def test_a_member_starts_from_its_own_snapshot(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for number in range(150):
        await leader.put(b"w%03d" % (number % 40), b"%d" % number)
    await leader.call("compact", CompactionRequest(revision=100))
    await leader.delete(b"w000", b"w010")
    await cluster.wait_equal()
    for host in cluster.hosts:
        assert host.node.snapshots.taken_total >= 1
        host.crash()
    for host in cluster.hosts:
        await host.start()
        assert host.machine.applied_index > 0, "the snapshot is there before anything is applied"
    await cluster.wait_leader()
    for host in cluster.hosts:
        kvs = (await host.range(b"w", b"x")).kvs
        assert [kv.key for kv in kvs] == [b"w%03d" % number for number in range(10, 40)]
        assert host.machine.store.compacted_revision == 100
    await cluster.wait_equal()


@scenario(1, 2, **SMALL)
async def test_a_watch_goes_on_through_the_install_of_a_snapshot(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"w/first", b"")
    follower = (await cluster.followers())[0]
    watching = Watching(follower, WatchCreateRequest(b"w", b"x", start_revision=2))
    cluster.wire.isolate(follower.member_id)
    await asyncio.sleep(LOG_HELD_SECONDS)
    held = follower.node.driver.raft.last_index
    for number in range(100):
        await leader.put(b"w/%03d" % (number % 7), b"%d" % number)
    await wait_log_gone(cluster, held)
    cluster.wire.heal()
    await wait_caught_up(cluster, follower)
    assert follower.node.snapshots.installed_total == 1
    await follower.put(b"w/last", b"")
    await cluster.wait(lambda: watching.revisions[-1:] == [103])
    watching.check(2, 103)


@scenario(1, **SMALL)
async def test_a_watch_that_a_snapshot_overtook_is_cancelled_with_the_compact_revision(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    watching = Watching(follower, WatchCreateRequest(b"w", b"x"))
    cluster.wire.isolate(follower.member_id)
    await asyncio.sleep(LOG_HELD_SECONDS)
    held = follower.node.driver.raft.last_index
    for number in range(100):
        await leader.put(b"w/%03d" % (number % 7), b"%d" % number)
    await leader.call("compact", CompactionRequest(revision=80))
    await leader.put(b"w/after", b"")
    await wait_log_gone(cluster, held)
    cluster.wire.heal()
    await wait_caught_up(cluster, follower)
    await cluster.wait(lambda: watching.responses and watching.responses[-1].canceled)
    assert watching.responses[-1].compact_revision == 80
    assert watching.events == []


async def fall_behind(cluster: Cluster, leader: Host, follower: Host) -> None:
    """Cut a follower off until memory's log no longer holds what it lacks."""
    cluster.wire.isolate(follower.member_id)
    await asyncio.sleep(LOG_HELD_SECONDS)
    held = follower.node.driver.raft.last_index
    for number in range(60):
        await leader.put(b"w%03d" % number, b"")
    await wait_log_gone(cluster, held)


@scenario(1, 2, **NONE_TAKEN)
async def test_a_leader_deposed_while_it_takes_a_snapshot_does_not_send_it(
    cluster: Cluster,
) -> None:
    """Sent in the name of its successor's term, it would say that this member leads that term."""
    old = await cluster.wait_leader()
    follower, _ = await cluster.followers()
    await fall_behind(cluster, old, follower)
    go_on = old.hang_disk("snapshots")
    cluster.wire.heal()
    snapshots = old.node.snapshots
    await cluster.wait(lambda: snapshots._sending and snapshots._taking)
    cluster.wire.isolate(old.member_id)
    new = await cluster.wait_leader(other_than=old)
    cluster.wire.heal()
    await cluster.wait(lambda: old.node.driver.leader == new.member_id)
    term = new.node.driver.raft.term
    offers: list[Any] = []

    async def send_snapshot(_member: int, offer: Any, _read: object) -> None:
        offers.append(offer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(old.node.network, "send_snapshot", send_snapshot)
        go_on()
        await cluster.wait(lambda: not snapshots._sending)
    assert snapshots.taken_total == 1
    assert offers == []
    assert (cluster.leader(), new.node.driver.raft.term) == (new, term)
    await cluster.wait_equal()


@scenario(1, **NONE_TAKEN)
async def test_a_transfer_that_ends_by_a_mistake_of_our_own_is_begun_again(
    cluster: Cluster,
) -> None:
    """Raft sends a follower nothing until it hears what became of its snapshot."""
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    await fall_behind(cluster, leader, follower)
    send_snapshot = leader.node.network.send_snapshot
    mistakes = [RuntimeError("a mistake")]

    async def send_badly_at_first(*what: Any) -> None:
        if mistakes:
            raise mistakes.pop()
        await send_snapshot(*what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leader.node.network, "send_snapshot", send_badly_at_first)
        cluster.wire.heal()
        await cluster.wait(lambda: not mistakes)
        await wait_caught_up(cluster, follower)
    assert follower.node.snapshots.installed_total == 1
    await cluster.wait_equal()
