"""Members come and go while the cluster works."""

import asyncio
import logging
import random

from kvstore.server.membership import LONELY_SECONDS
from kvstore.types import MemberAddRequest, MemberRemoveRequest
from tests.support.cluster import Cluster
from tests.support.operator import HEALTHY_SECONDS, Disturbance, Operator
from tests.support.scenario import scenario
from tests.support.watching import Roaming
from tests.support.writer import check_kept, writers


async def replace_everybody(cluster: Cluster, operator: Operator) -> None:
    """Three become five, and the five lose the three that founded the cluster."""
    originals = list(cluster.hosts)
    for _ in range(2):
        new = cluster.new_host()
        await operator.add(new, learner=True)
        await operator.promote(new)
    assert len(await operator.members()) == 5
    for original in originals[:2]:
        await operator.remove(original)
    new = cluster.new_host()
    await operator.add(new, learner=True)
    await operator.promote(new)
    await operator.remove(originals[2])
    assert len(await operator.members()) == 3


async def watch_and_replace(
    cluster: Cluster, clients: int, disturb: Disturbance | None = None
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    async with writers(cluster, clients) as crew:
        operator = Operator(cluster, disturb)
        roaming = Roaming(cluster)
        await replace_everybody(cluster, operator)
    for host in cluster.hosts:
        if not host.up:
            await host.start()
    await check_kept(cluster, crew)
    await roaming.check()
    assert sum(len(writer.acknowledged) for writer in crew) > 100
    assert not {host.config.name for host in cluster.hosts} & {"m0", "m1", "m2"}
    assert cluster[0].node.driver.raft.configuration.voters == tuple(
        sorted(host.member_id for host in cluster.hosts)
    )


@scenario(1, 2)
async def test_every_member_is_replaced_while_clients_write(cluster: Cluster) -> None:
    await watch_and_replace(cluster, 3)


@scenario(1, 2)
async def test_every_member_is_replaced_though_the_leader_is_killed_in_every_step(
    cluster: Cluster,
) -> None:
    rng = random.Random(cluster.seed)
    killed = 0

    async def kill_the_leader() -> None:
        nonlocal killed
        await asyncio.sleep(rng.uniform(0.0, 0.4))
        leader = cluster.leader()
        if leader is None:
            leader = await cluster.wait_leader()
        leader.crash()
        killed += 1
        await asyncio.sleep(rng.uniform(0.0, 3.0))
        if leader in cluster.hosts:
            await leader.start()
            # Members that were just cut off count as unhealthy for a while.
            await asyncio.sleep(HEALTHY_SECONDS)

    await watch_and_replace(cluster, 1, kill_the_leader)
    assert killed == 9


@scenario(1)
async def test_everybody_restarts_after_the_members_have_changed(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    await replace_everybody(cluster, Operator(cluster))
    await cluster[0].put(b"k", b"v")
    for host in cluster.hosts:
        host.crash()
    for host in cluster.hosts:
        await host.start()
    await cluster.wait_leader()
    assert await cluster[1].get(b"k") == b"v"
    await cluster.wait_equal()


@scenario(1, 2)
async def test_who_is_removed_before_it_was_ever_linked_learns_of_it_though_no_founder_is_left(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    await replace_everybody(cluster, Operator(cluster))
    leader = await cluster.wait_leader()
    members = [host.member_id for host in cluster.hosts]
    late = cluster.new_host()
    urls = list(late.config.initial_advertise_peer_urls)
    added = (await leader.call("member_add", MemberAddRequest(urls, isLearner=True))).member.ID
    cluster.wire.partition([added], members)
    await late.join()
    await leader.call("member_remove", MemberRemoveRequest(added))
    # Whom it looks for outlives its process.
    late.crash()
    await late.start()
    await asyncio.sleep(HEALTHY_SECONDS)
    assert late.up
    assert not late.machine.applied_index
    cluster.wire.heal()
    await cluster.retire(late)


@scenario(1)
async def test_who_joins_and_reaches_nobody_says_so(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    members = [host.member_id for host in cluster.hosts]
    late = cluster.new_host()
    urls = list(late.config.initial_advertise_peer_urls)
    added = (await leader.call("member_add", MemberAddRequest(urls, isLearner=True))).member.ID
    cluster.wire.partition([added], members)
    said: list[str] = []
    watch = logging.Handler()
    watch.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("kvstore.members")
    log.addHandler(watch)
    try:
        await late.join()
        await asyncio.sleep(3 * LONELY_SECONDS)
    finally:
        log.removeHandler(watch)
    lonely = [words for words in said if "none of the members" in words]
    assert len(lonely) == 2
    assert "http://m0:2380" in lonely[0]
    cluster.wire.heal()
    await cluster.wait(lambda: late.machine.applied_index)
