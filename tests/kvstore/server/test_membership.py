"""Members come and go while the cluster works."""

import asyncio

from kvstore.types import (
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
)
from tests.support.cluster import Cluster, Host
from tests.support.scenario import scenario

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
