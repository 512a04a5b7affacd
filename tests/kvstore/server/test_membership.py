"""Members come and go while the cluster works."""

import asyncio
import random

from kvstore.types import (
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
)
from tests.support.cluster import Cluster, Host
from tests.support.operator import Disturbance, Operator
from tests.support.scenario import scenario
from tests.support.watching import Roaming
from tests.support.writer import check_kept, writers

HEALTHY_SECONDS = 6.0


async def add(via: Host, new: Host, *, learner: bool = False) -> int:
    urls = list(new.config.initial_advertise_peer_urls)
    response: MemberAddResponse = await via.call("member_add", MemberAddRequest(urls, learner))
    assert response.member is not None
    return response.member.ID


async def names(host: Host) -> list[str]:
    response = await host.call("member_list", MemberListRequest())
    return sorted(member.name for member in response.members)


@scenario(1, 2)
async def test_a_voter_is_added_and_joins(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    follower = (await cluster.followers())[0]
    new = cluster.new_host()
    response = await follower.call(
        "member_add", MemberAddRequest(list(new.config.initial_advertise_peer_urls))
    )
    assert response.header.revision == 0
    assert len(response.members) == 4
    assert response.member in response.members
    assert (response.member.name, response.member.clientURLs) == ("", ())
    await new.join()
    await cluster.wait(new.node.ready.is_set)
    assert await new.get(b"k") == b"v"
    await cluster.wait_equal()
    assert await names(leader) == ["m0", "m1", "m2", "m3"]
    configuration = new.node.driver.raft.configuration
    assert new.member_id in configuration.voters
    assert len(configuration.voters) == 4


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
