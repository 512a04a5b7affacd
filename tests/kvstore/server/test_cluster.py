"""Three members, nothing going wrong: they elect, commit, forward and agree."""

from tests.support.cluster import Cluster
from tests.support.scenario import scenario


@scenario(1, 2)
async def test_three_members_elect_one_leader_and_commit(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    assert [host for host in cluster.hosts if host.leads] == [leader]
    response = await leader.put(b"k", b"v")
    assert response.header is not None
    assert response.header.revision == 2
    for host in cluster.hosts:
        assert await host.get(b"k") == b"v"
    await cluster.wait_equal()


@scenario(1)
async def test_a_follower_forwards_what_it_is_asked_to_write(cluster: Cluster) -> None:
    for number, follower in enumerate(await cluster.followers()):
        assert not follower.leads
        await follower.put(b"by-%d" % number, b"v")
        assert await follower.get(b"by-%d" % number) == b"v"
    await cluster.wait_equal()


@scenario(1, size=1)
async def test_a_single_member_serves_at_once(cluster: Cluster) -> None:
    assert cluster.loop.now < 1.0, "a single voter need not wait for an election timeout"
    await cluster[0].put(b"k", b"v")
    cluster[0].crash()
    await cluster[0].start()
    await cluster.wait(cluster[0].node.ready.is_set)
    assert await cluster[0].get(b"k") == b"v"
