"""Elections on whole members: one leader at a time, and observers who miss none."""

from __future__ import annotations

import asyncio

import pytest

from kvstore.errors import Code, KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    CampaignResponse,
    CompactionRequest,
    LeaderKey,
    LeaderRequest,
    LeaderResponse,
    LeaseRevokeRequest,
    ProclaimRequest,
    ResignRequest,
)
from tests.kvstore.service.waiting import (
    LOG_HELD_SECONDS,
    Observing,
    campaign,
    candidates,
    entered,
    revision_of,
    settle,
)
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario

NAME = b"chair"


async def grant(cluster: Cluster, *leases: int) -> None:
    for lease in leases:
        await cluster[0].grant(600, lease)


async def elected(host: Host, value: bytes, lease: int) -> LeaderKey:
    response: CampaignResponse = await campaign(host, NAME, value, lease).won()
    assert response.leader is not None
    return response.leader


async def proclaim(host: Host, leader: LeaderKey | None, value: bytes) -> int:
    response = await host.call("proclaim", ProclaimRequest(leader, value))
    revision: int = response.header.revision
    return revision


async def resign(host: Host, leader: LeaderKey | None) -> int:
    revision: int = (await host.call("resign", ResignRequest(leader))).header.revision
    return revision


async def leader_of(host: Host) -> LeaderResponse:
    response: LeaderResponse = await host.call("leader", LeaderRequest(NAME))
    return response


@scenario(1)
async def test_the_first_candidate_leads_and_its_key_says_so(cluster: Cluster) -> None:
    await grant(cluster, 77)
    response = await campaign(cluster[0], NAME, b"one", 77).won()
    (kv,) = (await cluster[0].range(b"chair/4d")).kvs
    assert response.leader == LeaderKey(NAME, b"chair/4d", kv.create_revision, 77)
    assert response.header.revision == kv.create_revision
    shown = await leader_of(cluster[1])
    assert (shown.kv, kv.value, kv.lease) == (kv, b"one", 77)


@scenario(1)
async def test_campaigning_again_with_the_same_lease_proclaims(cluster: Cluster) -> None:
    await grant(cluster, 77)
    first = await elected(cluster[0], b"one", 77)
    again = await elected(cluster[1], b"two", 77)
    assert again == first
    shown = (await leader_of(cluster[2])).kv
    assert shown is not None
    assert (shown.value, shown.version, shown.lease) == (b"two", 2, 77)
    assert await elected(cluster[1], b"two", 77) == first
    shown = (await leader_of(cluster[2])).kv
    assert shown is not None
    assert shown.version == 2, "what is said already is not said again"


@scenario(1)
async def test_the_next_candidate_leads_when_the_leader_resigns(cluster: Cluster) -> None:
    await grant(cluster, 1, 2)
    first = await elected(cluster[0], b"one", 1)
    waits = campaign(cluster[1], NAME, b"two", 2)
    await entered(cluster[0], b"chair/2")
    await settle(cluster)
    assert not waits.answered
    await resign(cluster[2], first)
    response = await waits.won()
    assert response.leader.rev > first.rev
    # As in etcd, the header is that of the candidacy, not of the victory.
    assert response.header.revision == response.leader.rev


@scenario(1, size=1)
async def test_a_candidate_without_a_lease_gets_one_of_a_minute(cluster: Cluster) -> None:
    host = cluster[0]
    response = await campaign(host, NAME, b"v").won()
    assert response.leader.lease > 0
    assert response.leader.key == b"chair/%x" % response.leader.lease
    assert 58 <= await host.time_to_live(response.leader.lease) <= 60


@scenario(1)
async def test_only_the_leadership_that_is_named_may_proclaim(cluster: Cluster) -> None:
    host = cluster[0]
    await grant(cluster, 1, 2)
    leader = await elected(host, b"one", 1)
    revision = await proclaim(cluster[1], leader, b"more")
    shown = await leader_of(cluster[2])
    assert shown.kv is not None
    assert (shown.kv.value, shown.kv.mod_revision) == (b"more", revision)
    stale = LeaderKey(leader.name, leader.key, leader.rev - 1, leader.lease)
    for named, message in (
        (stale, "election: not leader"),
        (None, '"leader" field must be provided'),
        (LeaderKey(), "etcdserver: key is not provided"),
        (LeaderKey(NAME, leader.key, leader.rev, 99), "etcdserver: requested lease not found"),
    ):
        with pytest.raises(KvError) as refusal:
            await proclaim(host, named, b"x")
        assert refusal.value == KvError(Code.UNKNOWN, message)
    assert (await leader_of(host)).kv == shown.kv


@scenario(1, size=1)
async def test_a_proclamation_without_a_lease_gets_one_of_a_minute(cluster: Cluster) -> None:
    """Else the key would be bound to no lease any more, and outlive its leader."""
    host = cluster[0]
    await grant(cluster, 1)
    leader = await elected(host, b"one", 1)
    await proclaim(host, LeaderKey(NAME, leader.key, leader.rev), b"two")
    shown = (await leader_of(host)).kv
    assert shown is not None
    assert shown.lease not in (0, 1)
    assert 58 <= await host.time_to_live(shown.lease) <= 60


@scenario(1, size=1)
async def test_resigning_from_another_leadership_succeeds_without_effect(cluster: Cluster) -> None:
    host = cluster[0]
    await grant(cluster, 1)
    leader = await elected(host, b"one", 1)
    stale = LeaderKey(leader.name, leader.key, leader.rev - 1, leader.lease)
    assert await resign(host, stale) == leader.rev
    assert await candidates(host, NAME) == [leader.key]
    assert await resign(host, leader) == leader.rev + 1
    for named, message in (
        (None, '"leader" field must be provided'),
        (LeaderKey(), "etcdserver: key is not provided"),
    ):
        with pytest.raises(KvError) as refusal:
            await resign(host, named)
        assert refusal.value == KvError(Code.UNKNOWN, message)
    with pytest.raises(KvError) as refusal:
        await leader_of(host)
    assert refusal.value == KvError(Code.UNKNOWN, "election: no leader")


@scenario(1)
async def test_a_candidate_whose_key_is_gone_is_not_elected(cluster: Cluster) -> None:
    await grant(cluster, 1, 2)
    await elected(cluster[0], b"one", 1)
    waits = campaign(cluster[1], NAME, b"two", 2)
    await entered(cluster[0], b"chair/2")
    await cluster[0].call("lease_revoke", LeaseRevokeRequest(2))
    assert await waits.error() == (Code.UNKNOWN, "election: not leader")


@scenario(1)
async def test_a_candidate_who_leaves_is_no_candidate_any_more(cluster: Cluster) -> None:
    await grant(cluster, 1, 2, 3)
    first = await elected(cluster[0], b"one", 1)
    waits = campaign(cluster[1], NAME, b"two", 2)
    late = campaign(cluster[2], NAME, b"three", 3, Caller(timeout_seconds=1.0))
    await entered(cluster[0], b"chair/2")
    waits.call_off()
    assert await waits.error() == (Code.CANCELED, "etcdserver: request canceled")
    assert await late.error() == (Code.DEADLINE_EXCEEDED, "context deadline exceeded")
    assert await candidates(cluster[0], NAME) == [first.key]


@scenario(1, 2, 3)
async def test_an_observer_sees_the_leader_then_each_change_in_order(cluster: Cluster) -> None:
    """Also those who led for a moment only, and through a change of raft's own leader."""
    await grant(cluster, *range(1, 6))
    early = Observing(cluster[0], NAME)
    await settle(cluster)
    assert early.responses == [], "nobody leads"
    leader = await elected(cluster[0], b"1", 1)
    waits = [campaign(cluster[1], NAME, b"%d" % lease, lease) for lease in range(2, 6)]
    for lease in range(2, 6):
        await entered(cluster[0], b"chair/%x" % lease)
    late = Observing(cluster[2], NAME)
    await cluster.wait(lambda: late.values)
    raft_leader = await cluster.wait_leader()
    raft_leader.node.transfer_leadership()
    host = cluster[0]
    await proclaim(host, leader, b"1 says more")
    expected = [b"1", b"1 says more"]
    by_age = sorted((await host.range(b"chair/", b"chair0")).kvs, key=lambda kv: kv.create_revision)
    for kv in by_age[1:]:
        # Within a moment: what was read of now would miss some of them.
        gone = host.begin("resign", ResignRequest(leader))
        leader = LeaderKey(NAME, kv.key, kv.create_revision, kv.lease)
        said = host.begin("proclaim", ProclaimRequest(leader, kv.value + b" says more"))
        await gone
        await said
        expected += [kv.value, kv.value + b" says more"]
    await cluster.wait(lambda: len(expected) in (len(early.values), len(late.values)))
    await settle(cluster)
    for observing in (early, late):
        assert observing.values == expected
        assert observing.revisions == sorted(observing.revisions)
    assert all(waiter.answered for waiter in waits)


@scenario(1)
async def test_an_observer_waits_again_when_nobody_follows(cluster: Cluster) -> None:
    host = cluster[0]
    await grant(cluster, 1, 2)
    observing = Observing(cluster[1], NAME)
    await resign(host, await elected(host, b"one", 1))
    await settle(cluster)
    assert observing.values == [b"one"]
    await elected(host, b"two", 2)
    await cluster.wait(lambda: observing.values == [b"one", b"two"])


@scenario(1, 2, 3, snapshot_count=50, snapshot_catchup_entries=10)
async def test_an_observer_cut_off_past_a_compaction_goes_on_with_who_leads(
    cluster: Cluster,
) -> None:
    host = await cluster.wait_leader()
    away, _ = await cluster.followers()
    await grant(cluster, 1, 2)
    first = await elected(host, b"one", 1)
    calm = Observing(away, b"calm")
    await campaign(host, b"calm", b"stays", 2).won()
    observing = Observing(away, NAME)
    await cluster.wait(lambda: observing.values == [b"one"] and calm.values == [b"stays"])
    cluster.wire.isolate(away.member_id)
    await settle(cluster, LOG_HELD_SECONDS)
    await proclaim(host, first, b"lost in history")
    await resign(host, first)
    await elected(host, b"two", 2)
    last = 0
    for number in range(300):
        last = revision_of(await host.put(b"other", b"%d" % number))
    await host.call("compact", CompactionRequest(last))
    cluster.wire.heal()
    await cluster.wait(lambda: len(observing.values) == 2)
    assert away.node.snapshots.installed_total == 1
    await settle(cluster)
    assert observing.values == [b"one", b"two"]
    assert calm.values == [b"stays"], "a leader who is still the same was shown again"
    assert not observing.task.done()


@scenario(1)
async def test_an_observer_leaves_no_stream_behind(cluster: Cluster) -> None:
    host = cluster[0]
    await grant(cluster, 1)
    await elected(host, b"one", 1)
    for name in (NAME, b"nobody leads"):
        observing = Observing(host, name)
        await settle(cluster)
        assert host.node.hub.streams == 1
        observing.task.cancel()
        await settle(cluster)
        assert host.node.hub.streams == 0
        assert len(host.service.waiting) == 0


@scenario(1, max_watch_streams=1)
async def test_an_observer_too_many_is_refused_in_etcds_words(cluster: Cluster) -> None:
    host = cluster[0]
    stream = host.run(host.service.open_watch, Caller(), lambda: None)
    observing = Observing(host, NAME)
    await cluster.wait(lambda: observing.error)
    assert observing.error == KvError(Code.UNKNOWN, "etcdserver: too many requests")
    host.run(stream.close)


@scenario(1)
async def test_a_member_that_stops_ends_its_observers(cluster: Cluster) -> None:
    host = cluster[0]
    await grant(cluster, 1)
    await elected(host, b"one", 1)
    observing = Observing(host, NAME)
    await settle(cluster)
    await asyncio.wait_for(host.stop(), 20)
    assert observing.error == KvError(Code.UNAVAILABLE, "etcdserver: server stopped")
    await host.start()
