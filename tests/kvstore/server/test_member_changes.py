"""Single changes of membership: what each does, and which are refused."""

import asyncio
from typing import Any

import msgspec
import pytest

from kvstore.commands import Kind, MembershipAction, MembershipChange
from kvstore.errors import ConfigError, ErrorKind, KvError
from kvstore.server.membership import MembershipKeeper
from kvstore.service.caller import ANYBODY
from kvstore.types import (
    LeaseLeasesRequest,
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
    PutRequest,
    RangeRequest,
    StatusRequest,
)
from raft.node import RaftNode
from raft.types import Configuration, NodeId
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.memory_network import MemoryNetwork
from tests.support.operator import HEALTHY_SECONDS, Operator
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers
from wal.memory_disk import MemoryDisk


async def add(via: Host, new: Host, *, learner: bool = False) -> MemberAddResponse:
    urls = list(new.config.initial_advertise_peer_urls)
    response: MemberAddResponse = await via.call("member_add", MemberAddRequest(urls, learner))
    return response


async def refusal(host: Host, method: str, request: Any) -> KvError:
    with pytest.raises(KvError) as error:
        await host.call(method, request)
    return error.value


@scenario(1, 2)
async def test_a_voter_is_added_and_joins(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    follower = (await cluster.followers())[0]
    new = cluster.new_host()
    response = await add(follower, new)
    assert response.header is not None
    assert response.header.revision == 0
    assert len(response.members) == 4
    assert response.member in response.members
    assert response.member is not None
    assert (response.member.name, response.member.clientURLs) == ("", ())
    await new.join()
    await cluster.wait(new.node.ready.is_set)
    assert await new.get(b"k") == b"v"
    await cluster.wait_equal()
    listed = await leader.call("member_list", MemberListRequest())
    assert sorted(member.name for member in listed.members) == ["m0", "m1", "m2", "m3"]
    configuration = new.node.driver.raft.configuration
    assert new.member_id in configuration.voters
    assert len(configuration.voters) == 4


@scenario(1)
async def test_a_learner_serves_little_until_it_is_promoted(cluster: Cluster) -> None:
    operator = Operator(cluster)
    await cluster[0].put(b"k", b"v")
    new = cluster.new_host()
    await operator.add(new, learner=True)
    await cluster.wait_equal()
    for method, request in (
        ("put", PutRequest(b"k", b"v")),
        ("range", RangeRequest(b"k")),
        ("lease_leases", LeaseLeasesRequest()),
        ("member_list", MemberListRequest()),
        ("member_remove", MemberRemoveRequest(cluster[0].member_id)),
    ):
        error = await refusal(new, method, request)
        assert error == ErrorKind.NOT_SUPPORTED_FOR_LEARNER.error(), method
    with pytest.raises(KvError, match="not supported for learner"):
        new.run(new.service.open_watch, ANYBODY, lambda: None)
    assert await new.get(b"k", serializable=True) == b"v"
    status = await new.call("status", StatusRequest())
    assert status.isLearner
    assert new.member_id in new.node.driver.raft.configuration.learners
    await operator.promote(new)
    await cluster.wait(lambda: not new.node.is_learner)
    await new.put(b"k", b"voting")
    assert await new.get(b"k") == b"voting"


@scenario(1)
async def test_a_learner_does_not_vote_and_no_second_one_is_let_in(cluster: Cluster) -> None:
    learner, another = cluster.new_host(), cluster.new_host()
    await Operator(cluster).add(learner, learner=True)
    with pytest.raises(KvError) as error:
        await add(cluster[0], another, learner=True)
    assert error.value == ErrorKind.TOO_MANY_LEARNERS.error()
    cluster.hosts.remove(another)
    leader = await cluster.wait_leader()
    others = [host for host in cluster.hosts if host not in (learner, leader)]
    for voter in others:
        voter.crash()
    await cluster.wait(lambda: cluster.leader() is None)
    await asyncio.sleep(10.0)
    assert cluster.leader() is None, "two of three voters are down, and the learner has no vote"
    for voter in others:
        await voter.start()
    await cluster.wait_equal()


@scenario(1, snapshot_catchup_entries=10, snapshot_count=50)
async def test_who_joins_late_catches_up_by_snapshot_while_clients_write(cluster: Cluster) -> None:
    operator = Operator(cluster)
    for number in range(300):
        await cluster[0].put(b"k%d" % number, b"v")
    async with writers(cluster, 2) as crew:
        new = cluster.new_host()
        await operator.add(new, learner=True)
        assert new.node.snapshots.installed_total > 0
        await operator.promote(new)
    await check_kept(cluster, crew)
    rosters = [host.machine.roster for host in cluster.hosts]
    assert all(roster.members == rosters[0].members for roster in rosters)
    assert all(roster.version == rosters[0].version for roster in rosters)
    assert all(roster.log_ids == rosters[0].log_ids for roster in rosters)


@scenario(1, 2)
async def test_of_two_additions_at_once_neither_undoes_the_other(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    olds = list(cluster.hosts)
    news = [cluster.new_host(), cluster.new_host()]
    results = await asyncio.gather(
        *(add(olds[place], new) for place, new in enumerate(news)), return_exceptions=True
    )
    # The second waits for the first, which has to be started: else it would count as not started,
    # and a third that does not run would be one too many.
    for new, result in zip(news, results, strict=True):
        if isinstance(result, BaseException):
            cluster.hosts.remove(new)
        else:
            await new.join()
            await cluster.wait(new.node.ready.is_set)
    assert len(cluster.hosts) >= 4
    await cluster.wait_equal()
    target = Configuration(tuple(sorted(NodeId(host.member_id) for host in cluster.hosts)))
    assert cluster[0].node.driver.raft.configuration == target


@scenario(1, 2)
async def test_the_leader_is_removed_and_another_leads_at_once(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    response = await leader.call("member_remove", MemberRemoveRequest(leader.member_id))
    assert len(response.members) == 2
    began = cluster.loop.now
    await cluster.retire(leader)
    await cluster.wait_leader()
    assert cluster.loop.now - began < 1.0, "it handed over, so nobody had to time out"
    await cluster[0].put(b"k", b"v")
    await cluster.wait_equal()


@scenario(1, 2, 3, size=2)
async def test_a_leader_left_alone_in_its_own_removal_stays_until_that_is_committed(
    cluster: Cluster,
) -> None:
    """Until then the other cannot be elected without it: both are asked, and its log is longer."""
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    rest = next(host for host in cluster.hosts if host is not leader)
    left = leader.member_id
    answered = leader.begin("member_remove", MemberRemoveRequest(left))
    answered.add_done_callback(asyncio.Future.exception)
    await cluster.wait(lambda: left in leader.machine.roster.removed)
    rest.crash()
    await cluster.wait(lambda: left not in leader.node.driver.raft.configuration.voters)
    await asyncio.sleep(5.0)
    if cluster.seed % 2:
        leader.crash()
        await leader.start()
    await rest.start()
    await cluster.retire(leader)
    await cluster.wait(lambda: rest.leads)
    assert rest.node.driver.raft.configuration.voters == (rest.member_id,)
    await rest.put(b"k", b"v")


@scenario(1, 2, size=2)
async def test_a_removed_member_that_restarts_stays_until_the_configuration_is_without_it(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    removed = (await cluster.followers())[0]
    gone = removed.member_id
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MembershipKeeper, "_reconcile", lambda _: None)
        change = MembershipChange(
            leader.machine.roster.version, MembershipAction.REMOVE, gone, [], is_learner=False
        )
        await leader.run(leader.node.propose, Kind.MEMBERSHIP, change)
        removed.crash()
        await removed.start()
        await asyncio.sleep(10.0)
        assert removed.up, "without it nothing can be committed"
        await leader.put(b"k", b"v")
    await cluster.retire(removed)
    await leader.put(b"k", b"alone")


@scenario(1, 2, 3)
async def test_a_member_that_was_down_when_it_was_removed_learns_of_it(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    lost = (await cluster.followers())[cluster.seed % 2]
    lost.crash()
    await cluster.wait(lambda: not leader.node.network.is_up(lost.known_id))
    await leader.call("member_remove", MemberRemoveRequest(lost.known_id))
    await lost.start()
    await cluster.retire(lost)
    await leader.put(b"k", b"v")
    await cluster.wait_equal()


@scenario(1)
async def test_a_member_that_lost_its_data_is_replaced_under_its_old_urls(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    operator = Operator(cluster)
    lost = (await cluster.followers())[0]
    old_id = lost.member_id
    lost.crash()
    lost.disk = MemoryDisk()
    lost.config = msgspec.structs.replace(lost.config, initial_cluster_state="existing")
    with pytest.raises(ConfigError, match=f"kvstore member replace {lost.config.name}"):
        await lost.join()
    leader = await cluster.wait_leader()
    await leader.call("member_remove", MemberRemoveRequest(old_id))
    with pytest.raises(ConfigError, match=f"kvstore member add {lost.config.name} --peer-urls="):
        await lost.join()
    await operator.add(lost, learner=True)
    await operator.promote(lost)
    assert lost.member_id != old_id
    await cluster.wait_equal()


@scenario(1)
async def test_who_takes_a_lost_founders_place_does_not_look_for_it_at_its_own_urls(
    cluster: Cluster,
) -> None:
    """It begins with the founders, among them the one whose URLs it has."""
    await asyncio.sleep(HEALTHY_SECONDS)
    lost = (await cluster.followers())[0]
    old_id, urls = lost.member_id, lost.config.initial_advertise_peer_urls
    lost.crash()
    lost.disk = MemoryDisk()
    lost.config = msgspec.structs.replace(lost.config, initial_cluster_state="existing")
    leader = await cluster.wait_leader()
    await cluster.wait(lambda: not leader.node.network.is_up(old_id))
    await leader.call("member_remove", MemberRemoveRequest(old_id))
    await add(leader, lost, learner=True)
    told: list[tuple[int, dict[int, tuple[str, ...]]]] = []
    set_peers = MemoryNetwork.set_peers

    def spy(network: MemoryNetwork, peers: dict[int, tuple[str, ...]]) -> None:
        told.append((network.member_id, peers))
        set_peers(network, peers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryNetwork, "set_peers", spy)
        await lost.join()
        await cluster.wait(lost.node.ready.is_set)
    looked_for = [peers for member, peers in told if member == lost.member_id]
    begin = looked_for[0]
    assert begin[old_id] == ()
    assert begin[leader.member_id] == leader.config.initial_advertise_peer_urls
    assert not any(url in own for peers in looked_for for own in peers.values() for url in urls)


@scenario(1, strict_reconfig_check=False)
async def test_a_roster_two_changes_ahead_goes_through_a_joint_configuration(
    cluster: Cluster,
) -> None:
    """As a leader finds it whose predecessor had no time to carry the changes out."""
    leader = await cluster.wait_leader()
    raft = leader.node.driver.raft
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MembershipKeeper, "_reconcile", lambda _: None)
        for number in (1, 2):
            version = leader.machine.roster.version
            urls = [f"http://x{number}:2380"]
            change = MembershipChange(version, MembershipAction.ADD, number, urls)
            await leader.run(leader.node.propose, Kind.MEMBERSHIP, change)
        assert len(leader.machine.members) == 5
        assert len(raft.configuration.voters) == 3
    joint: list[bool] = []
    step = RaftNode.step

    def spy(node: RaftNode, event: Any) -> None:
        step(node, event)
        joint.append(bool(raft.configuration.voters_outgoing))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RaftNode, "step", spy)
        await cluster.wait(lambda: len(raft.configuration.voters) == 5)
        await cluster.wait(lambda: raft.configuration_is_committed)
    assert True in joint
    await leader.put(b"k", b"v")


@scenario(1)
async def test_what_would_cost_the_quorum_is_refused(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    one, other = await cluster.followers()
    one.crash()
    await cluster.wait(lambda: not leader.node.network.is_up(one.known_id))
    urls = ["http://m9:2380"]
    unhealthy = ErrorKind.UNHEALTHY.error()
    assert await refusal(other, "member_add", MemberAddRequest(urls)) == unhealthy
    removal = MemberRemoveRequest(other.member_id)
    assert await refusal(other, "member_remove", removal) == unhealthy
    await one.start()
    await asyncio.sleep(HEALTHY_SECONDS)
    await leader.call("member_add", MemberAddRequest(urls))
    # Not linked, since it was never started.
    more = MemberAddRequest(["http://m10:2380"])
    assert await refusal(other, "member_add", more) == unhealthy
    (unstarted,) = [row.ID for row in leader.machine.roster.listed() if not row.name]
    await leader.call("member_remove", MemberRemoveRequest(unstarted))
    assert len(leader.machine.members) == 3


@scenario(1, size=2)
async def test_no_more_voters_are_let_in_than_those_that_run_can_carry(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    await leader.call("member_add", MemberAddRequest(["http://m9:2380"]))
    too_few = ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
    more = MemberAddRequest(["http://m10:2380"])
    assert await refusal(leader, "member_add", more) == too_few
    (unstarted,) = [row.ID for row in leader.machine.roster.listed() if not row.name]
    one = (await cluster.followers())[0]
    # Of the two that were left one would run, and that is no majority.
    removal = MemberRemoveRequest(one.member_id)
    assert await refusal(leader, "member_remove", removal) == too_few
    await leader.call("member_remove", MemberRemoveRequest(unstarted))


@scenario(1)
async def test_what_cannot_be_meant_is_refused(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    other = (await cluster.followers())[0]
    taken = list(leader.config.initial_advertise_peer_urls)
    free = ["http://m9:2380"]
    own = other.member_id
    for method, request, kind in (
        ("member_add", MemberAddRequest([]), ErrorKind.MEMBER_BAD_URLS),
        ("member_add", MemberAddRequest(["nonsense"]), ErrorKind.MEMBER_BAD_URLS),
        ("member_add", MemberAddRequest(taken), ErrorKind.PEER_URL_EXIST),
        ("member_add", MemberAddRequest(taken, isLearner=True), ErrorKind.PEER_URL_EXIST),
        ("member_remove", MemberRemoveRequest(12345), ErrorKind.MEMBER_NOT_FOUND),
        ("member_promote", MemberPromoteRequest(12345), ErrorKind.MEMBER_NOT_FOUND),
        ("member_promote", MemberPromoteRequest(own), ErrorKind.MEMBER_NOT_LEARNER),
        ("member_update", MemberUpdateRequest(own, ["bad"]), ErrorKind.MEMBER_BAD_URLS),
        ("member_update", MemberUpdateRequest(own, []), ErrorKind.MEMBER_BAD_URLS),
        ("member_update", MemberUpdateRequest(own, taken), ErrorKind.PEER_URL_EXIST),
        ("member_update", MemberUpdateRequest(12345, free), ErrorKind.MEMBER_NOT_FOUND),
    ):
        assert await refusal(other, method, request) == kind.error(), (method, request)
    assert leader.machine.roster.version == 0


@scenario(1)
async def test_a_learner_that_lags_is_not_promoted(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    new = cluster.new_host()
    cluster.hosts.remove(new)
    member = (await add(leader, new, learner=True)).member
    assert member is not None
    request = MemberPromoteRequest(member.ID)
    assert await refusal(leader, "member_promote", request) == ErrorKind.LEARNER_NOT_READY.error()
    await leader.call("member_remove", MemberRemoveRequest(member.ID))


@scenario(1)
async def test_the_same_urls_in_the_same_second_do_not_bring_a_member_back(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    new = cluster.new_host()
    cluster.hosts.remove(new)
    await asyncio.sleep(1.05 - cluster.loop.now % 1)
    member = (await add(leader, new, learner=True)).member
    assert member is not None
    await leader.call("member_remove", MemberRemoveRequest(member.ID))
    urls = list(member.peerURLs)
    again = await refusal(leader, "member_add", MemberAddRequest(urls, isLearner=True))
    assert again == ErrorKind.MEMBER_NOT_FOUND.error()
    await asyncio.sleep(1.0)
    newer = (await add(leader, new, learner=True)).member
    assert newer is not None
    assert newer.ID != member.ID


@scenario(1)
async def test_a_member_that_moves_is_looked_for_under_its_new_urls(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    mover = (await cluster.followers())[0]
    urls = ("http://elsewhere:1",)
    request = MemberUpdateRequest(mover.member_id, list(urls))
    response = await mover.call("member_update", request)
    assert {row.ID: row.peerURLs for row in response.members}[mover.member_id] == urls
    network: Any = leader.node.network
    await cluster.wait(lambda: network.peers[mover.member_id] == urls)


@scenario(1, size=1)
async def test_one_member_becomes_two_and_then_one_again(cluster: Cluster) -> None:
    (only,) = cluster.hosts
    removal = MemberRemoveRequest(only.member_id)
    too_few = ErrorKind.MEMBER_NOT_ENOUGH_STARTED.error()
    assert await refusal(only, "member_remove", removal) == too_few
    new = cluster.new_host()
    await add(only, new)
    await asyncio.sleep(10.0)
    assert cluster.leader() is None, "one of two is no majority"
    await new.join()
    await cluster.wait(new.node.ready.is_set)
    await new.put(b"k", b"v")
    await asyncio.sleep(HEALTHY_SECONDS)
    await new.call("member_remove", MemberRemoveRequest(new.member_id))
    await cluster.retire(new)
    assert await only.get(b"k") == b"v"


@scenario(1, 2)
async def test_leadership_is_moved_where_it_is_asked_to_go(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    one, other = await cluster.followers()

    async def move(host: Host, target: int) -> KvError | None:
        answered: asyncio.Future[KvError | None] = cluster.loop.create_future()
        host.run(host.node.move_leader, target, answered.set_result)
        return await answered

    assert await move(one, other.member_id) == ErrorKind.NOT_LEADER.error()
    assert await move(leader, 12345) == ErrorKind.BAD_LEADER_TRANSFEREE.error()
    assert await move(leader, leader.member_id) is None
    assert leader.leads
    assert await move(leader, one.member_id) is None
    assert one.leads
    other.crash()
    assert await move(one, other.known_id) == ErrorKind.TIMEOUT_LEADER_TRANSFER.error()
    assert one.leads
    await other.start()
