"""Leases over a cluster: whoever is asked, whoever leads, they last as long as was promised."""

import asyncio
from collections.abc import Callable

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    LeaseGrantRequest,
    LeaseId,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
)
from raft.effects import Rejected
from raft.events import TransferLeader
from raft.types import NodeId
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import run_scenario, scenario

SLACK_SECONDS = 2.0
"""Expiry is looked for twice a second, and takes a round through the log."""
EXTENSION_SECONDS = 1.0
"""What a new leader gives on top: an election timeout."""


async def wait_gone(cluster: Cluster, host: Host, key: bytes) -> float:
    """When the key was gone, in virtual seconds."""
    while await host.get(key) is not None:  # noqa: ASYNC110 - time is virtual
        await asyncio.sleep(0.05)
    return cluster.loop.now


@scenario(1)
async def test_a_lease_granted_through_a_follower_ends_in_its_time(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    granted = cluster.loop.now
    lease = await follower.grant(5)
    assert lease.TTL == 5
    await follower.put(b"k", b"v", lease=lease.ID)
    assert await follower.time_to_live(lease.ID) in (4, 5)
    gone = await wait_gone(cluster, follower, b"k")
    assert 5.0 <= gone - granted < 5.0 + SLACK_SECONDS
    assert await follower.time_to_live(lease.ID) == -1
    assert await follower.keep_alive(lease.ID) == 0
    await cluster.wait_equal()


@scenario(1)
async def test_keep_alive_through_a_follower_starts_the_time_anew(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    lease = (await follower.grant(3)).ID
    await follower.put(b"k", b"v", lease=lease)
    for _ in range(10):
        await asyncio.sleep(1.5)
        assert await follower.keep_alive(lease) == 3
    assert await follower.get(b"k") == b"v"
    renewed = cluster.loop.now
    gone = await wait_gone(cluster, follower, b"k")
    assert 2.9 <= gone - renewed < 3.0 + SLACK_SECONDS


@scenario(1)
async def test_a_lease_too_short_for_an_election_is_granted_the_least(cluster: Cluster) -> None:
    assert (await cluster[0].grant(1)).TTL == 2


@scenario(1, 2)
async def test_a_new_leader_keeps_leases_alive_and_ends_them(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    kept = (await leader.grant(10)).ID
    left = (await leader.grant(10)).ID
    for lease in (kept, left):
        await leader.put(b"%d" % lease, b"v", lease=lease)
    await asyncio.sleep(4.0)
    leader.crash()
    new = await cluster.wait_leader()
    started = cluster.loop.now
    while cluster.loop.now < started + 14.0:
        assert await new.keep_alive(kept) == 10
        await asyncio.sleep(1.0)
    assert await new.get(b"%d" % kept) == b"v"
    assert await new.get(b"%d" % left) is None
    response = await new.call("lease_leases", LeaseLeasesRequest())
    assert [status.ID for status in response.leases] == [kept]
    await leader.start()
    await cluster.wait_equal()


@scenario(1, election_timeout_ms=1000)
async def test_remaining_time_survives_a_change_of_leader(cluster: Cluster) -> None:
    """Its rest is written down every 300 s, so that it does not start anew with each leader."""
    leader = await cluster.wait_leader()
    granted = cluster.loop.now
    lease = (await leader.grant(400)).ID
    await leader.put(b"k", b"v", lease=lease)
    await asyncio.sleep(305.0)
    leader.crash()
    new = await cluster.wait_leader()
    await asyncio.sleep(0.5)
    assert await new.time_to_live(lease) <= 101
    await leader.start()
    gone = await wait_gone(cluster, new, b"k")
    assert 400.0 <= gone - granted < 412.0


@scenario(1)
async def test_a_checkpoint_that_was_refused_is_not_proposed_later(cluster: Cluster) -> None:
    """It says what was left when it was made; by then the lease may have been renewed."""
    leader = await cluster.wait_leader()
    term = leader.node.driver.raft.term
    lease = LeaseId((await leader.grant(400)).ID)
    await asyncio.sleep(299.7)
    # For an election timeout it tries to hand over, and takes no proposals meanwhile.
    target = (await cluster.followers())[0]
    transfer = TransferLeader(NodeId(target.member_id))
    target.crash()
    proposals = leader.node.proposals
    reject = proposals.reject
    refused: list[Rejected] = []

    def note(rejected: Rejected) -> None:
        refused.append(rejected)
        reject(rejected)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proposals, "reject", note)
        leader.run(leader.node.driver.step, transfer)
        await asyncio.sleep(3.0)
    assert refused, "no checkpoint was due meanwhile"
    await leader.put(b"k", b"")
    assert leader.node.driver.raft.term == term
    for host in cluster.up:
        kept = host.machine.lessor.get(lease)
        assert kept is not None
        assert kept.remaining_seconds == 0, "an old checkpoint came late"


@scenario(1)
async def test_a_deposed_leader_ends_no_lease(cluster: Cluster) -> None:
    """It slept past the lease's end, and its successor has renewed the lease meanwhile."""
    old = await cluster.wait_leader()
    lease = (await old.grant(4)).ID
    await old.put(b"k", b"v", lease=lease)
    old.pause(8.0)
    new = await cluster.wait_leader(other_than=old)
    until = cluster.loop.now + 12.0
    while cluster.loop.now < until:
        assert await new.keep_alive(lease) == 4
        assert await new.get(b"k") == b"v"
        await asyncio.sleep(0.5)
    await cluster.wait_equal()


@scenario(1)
async def test_a_cut_off_leader_promises_no_time(cluster: Cluster) -> None:
    old = await cluster.wait_leader()
    lease = (await old.grant(60)).ID
    cluster.wire.isolate(old.member_id)
    assert old.leads
    for call in (old.keep_alive, old.time_to_live):
        with pytest.raises(KvError):
            await call(lease)
    cluster.wire.heal()
    await cluster.wait_leader()
    assert await old.keep_alive(lease) == 60


@scenario(1)
async def test_revoke_deletes_the_keys_on_all_members_in_one_revision(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    lease = (await follower.grant(60)).ID
    for number in range(5):
        await follower.put(b"k%d" % number, b"", lease=lease)
    response = await follower.call("lease_revoke", LeaseRevokeRequest(lease))
    assert response.header.revision == 7
    for host in cluster.hosts:
        assert (await host.range(b"k", b"l")).kvs == []
    with pytest.raises(KvError) as refusal:
        await follower.call("lease_revoke", LeaseRevokeRequest(lease))
    assert refusal.value == ErrorKind.LEASE_NOT_FOUND.error()


@scenario(1)
async def test_all_power_lost_leases_come_back(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    lease = (await leader.grant(20)).ID
    await leader.put(b"k", b"v", lease=lease)
    for host in cluster.hosts:
        host.crash()
    await cluster.start()
    started = cluster.loop.now
    assert await cluster[0].get(b"k") == b"v"
    gone = await wait_gone(cluster, cluster[0], b"k")
    assert gone - started < 20.0 + EXTENSION_SECONDS + SLACK_SECONDS


PATIENCE_SECONDS = 0.3
QUESTIONS: dict[str, Callable[[int], object]] = {
    "lease_keep_alive": LeaseKeepAliveRequest,
    "lease_time_to_live": LeaseTimeToLiveRequest,
    "lease_leases": lambda _lease: LeaseLeasesRequest(),
}


async def check_patience(host: Host, method: str, request: object) -> None:
    """A call ends when the caller's time is up, and says so."""
    loop = host.cluster.loop
    asked = loop.now
    with pytest.raises(KvError) as refusal:
        await host.call(method, request, Caller(timeout_seconds=PATIENCE_SECONDS))
    assert refusal.value == ErrorKind.DEADLINE_EXCEEDED.error()
    tick_seconds = host.config.heartbeat_interval_ms / 1000
    assert abs(loop.now - asked - PATIENCE_SECONDS) < 2 * tick_seconds


@scenario(1)
async def test_lease_calls_heed_the_callers_timeout_where_nobody_leads(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    lease = (await leader.grant(60)).ID
    cluster.wire.isolate(leader.member_id)
    await cluster.wait(lambda: not leader.leads)
    await check_patience(leader, "lease_grant", LeaseGrantRequest(60))
    await check_patience(leader, "lease_revoke", LeaseRevokeRequest(lease))
    for method, ask_for in QUESTIONS.items():
        await check_patience(leader, method, ask_for(lease))


@pytest.mark.parametrize("method", QUESTIONS)
def test_lease_questions_heed_the_callers_timeout_where_the_leader_is_silent(method: str) -> None:
    async def work(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        lease = (await leader.grant(60)).ID
        follower = (await cluster.followers())[0]
        cluster.wire.cut(follower.member_id, leader.member_id)
        await check_patience(follower, method, QUESTIONS[method](lease))
        cluster.wire.heal()

    run_scenario(work, 1)


@pytest.mark.parametrize("method", QUESTIONS)
def test_lease_questions_heed_the_callers_timeout_at_a_leader_without_followers(
    method: str,
) -> None:
    async def work(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        lease = (await leader.grant(60)).ID
        cluster.wire.isolate(leader.member_id)
        await check_patience(leader, method, QUESTIONS[method](lease))
        assert leader.leads, "it was to be asked while it thinks that it leads"

    run_scenario(work, 1)
