"""One huge command holds nobody up: it goes in slices, and everything else goes on between them."""

import asyncio

import pytest

from kvstore.budget import CountedBudget
from kvstore.types import (
    CompactionRequest,
    DeleteRangeRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    TxnRequest,
    WatchCreateRequest,
)
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import run_scenario, scenario
from tests.support.watching import Watching

KEYS = 20_000
KEYS_A_TXN = 5_000
SLOW_CLOCK_SECONDS = 0.0005
"""With each look at the clock a slice is over, as if everything took long."""
SETTINGS = {"max_txn_ops": KEYS_A_TXN, "snapshot_count": 0, "snapshot_catchup_entries": 5000}

ALL = RangeRequest(b"k", b"l")
READS = {"range": ALL, "txn": TxnRequest(success=[RequestOp(request_range=ALL)])}


async def fill(host: Host, lease: int = 0) -> None:
    for start in range(0, KEYS, KEYS_A_TXN):
        puts = [
            RequestOp(request_put=PutRequest(b"k%07d" % number, b"v", lease))
            for number in range(start, start + KEYS_A_TXN)
        ]
        await host.call("txn", TxnRequest(success=puts))


async def watch_the_members(cluster: Cluster, done: asyncio.Future[object]) -> int:
    """Until it is done, nobody loses the leader and local reads see the last revision.

    Returns how often that was looked at.
    """
    leader = cluster.leader()
    term = cluster[0].node.driver.raft.term
    looks = 0
    while not done.done():
        assert cluster.leader() is leader
        for host in cluster.hosts:
            assert host.node.driver.raft.term == term
            if not host.node.applier.busy:
                continue
            response = await host.range(b"k0000007", serializable=True)
            looks += len(response.kvs)
        await asyncio.sleep(0.02)
    return looks


@pytest.mark.parametrize("how", ["delete", "revoke"])
def test_a_huge_command_is_no_reason_for_an_election(how: str) -> None:
    async def work(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        lease = (await leader.grant(3600)).ID
        await fill(leader, lease if how == "revoke" else 0)
        await cluster.wait_equal()
        cluster.loop.clock_cost_seconds = SLOW_CLOCK_SECONDS
        started = cluster.loop.now
        turns = leader.node.driver.turns_total
        if how == "delete":
            done = leader.begin("delete_range", DeleteRangeRequest(b"k", b"l"))
        else:
            done = leader.begin("lease_revoke", LeaseRevokeRequest(lease))
        assert await watch_the_members(cluster, done) > 0, "it was over before anybody looked"
        response = await done
        assert how == "revoke" or response.deleted == KEYS
        # Longer than an election timeout: a member that had stood still would have been deposed.
        assert cluster.loop.now - started > 1.5
        assert leader.node.driver.turns_total - turns > 10
        await cluster.wait_equal()
        for host in cluster.hosts:
            assert host.node.applier.huge_total >= 1
            assert (await host.range(b"k", b"l")).count == 0

    run_scenario(work, 1, **SETTINGS)


@scenario(1, **SETTINGS)
async def test_a_huge_range_is_read_in_slices_at_one_revision(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await fill(leader)
    term = leader.node.driver.raft.term
    cluster.loop.clock_cost_seconds = SLOW_CLOCK_SECONDS
    reading = leader.begin("range", RangeRequest(b"k", b"l"))
    revision = leader.machine.store.revision
    for number in range(5):
        await leader.put(b"k%07d" % (KEYS + number), b"later")
    response = await reading
    assert response.count >= KEYS
    later = [kv.mod_revision for kv in response.kvs if kv.mod_revision > revision]
    assert later == list(range(revision + 1, revision + 1 + len(later)))
    assert [kv.key for kv in response.kvs] == sorted(kv.key for kv in response.kvs)
    assert leader.node.driver.raft.term == term
    assert leader.leads


@pytest.mark.parametrize("how", READS)
def test_list_then_watch_misses_nothing_that_was_written_between_the_slices(how: str) -> None:
    """A list answers with the revision it was read at, so that a watch can begin behind it."""

    async def work(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        await fill(leader)
        cluster.loop.clock_cost_seconds = SLOW_CLOCK_SECONDS
        reading = leader.begin(how, READS[how])
        written: list[int] = []
        while not reading.done():
            key = b"k%07d" % (KEYS + len(written))
            header = (await leader.put(key, b"later")).header
            assert header is not None
            written.append(header.revision)
        response = await reading
        read_at = response.header.revision
        listed: RangeResponse
        listed = response if how == "range" else response.responses[0].response_range
        watching = Watching(leader, WatchCreateRequest(b"k", b"l", start_revision=read_at + 1))
        await cluster.wait(lambda: watching.revisions[-1:] == written[-1:])
        heard = [event.kv.key for event in watching.events if event.kv is not None]
        assert [kv.key for kv in listed.kvs] + heard == [
            b"k%07d" % number for number in range(KEYS + len(written))
        ]
        assert read_at < written[-2], "nothing was written between the slices"

    run_scenario(work, 1, **SETTINGS)


class LookedAt(CountedBudget):
    """Counts how often it was looked at, and how often that ended a slice."""

    __slots__ = ("ended", "looks")

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self.looks = 0
        self.ended = 0

    def spent(self) -> bool:
        spent = super().spent()
        self.looks += 1
        self.ended += spent
        return spent


@pytest.mark.parametrize("how", READS)
def test_a_long_read_has_as_many_slices_as_its_budget_says(how: str) -> None:
    """Were another budget than the one it looks at renewed, its first slice's end would be that of
    each step after it.
    """

    async def work(cluster: Cluster) -> None:
        host = cluster[0]
        await fill(host)
        budget = LookedAt(8)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(host.node, "read_budget", lambda: budget)
            await host.call(how, READS[how])
        assert budget.looks > 5 * 8
        assert budget.ended == budget.looks // 8

    run_scenario(work, 1, size=1, **SETTINGS)


@scenario(1, **SETTINGS)
async def test_a_physical_compaction_is_answered_when_it_is_swept(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await fill(leader)
    await leader.delete(b"k", b"l")
    # What was deleted at the compacted revision itself stays, for watches that begin there.
    await leader.put(b"k", b"v")
    await cluster.wait_equal()
    size = leader.machine.store.size_bytes
    cluster.loop.clock_cost_seconds = SLOW_CLOCK_SECONDS
    revision = leader.machine.store.revision
    await leader.call("compact", CompactionRequest(revision, physical=True))
    assert leader.machine.store.size_bytes < size / 100
    assert not leader.machine.store.sweep_due


@scenario(1, **SETTINGS)
async def test_watchers_hear_a_huge_delete_as_one_revision(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    await fill(follower)
    watching = Watching(follower, WatchCreateRequest(b"k", b"l"))
    response = await follower.delete(b"k", b"l")
    assert response.header is not None
    await cluster.wait(lambda: len(watching.events) == KEYS)
    assert set(watching.revisions) == {response.header.revision}
