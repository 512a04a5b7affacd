"""Who is not replaced, or not yet: nothing is taken from the quorum, and nobody who is well."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from kvstore.commands import MembershipAction
from kvstore.errors import ConfigError, ErrorKind, KvError, RemovedError
from kvstore.server.admission import Admission, Ask
from kvstore.server.joining import ClusterView
from kvstore.server.network.base import Introduction
from kvstore.server.node import Environment
from kvstore.server.replacements import ASKED_SECONDS_MAX, ReplacementKeeper
from kvstore.server.self_replacement import MemberOpening
from kvstore.types import (
    Member,
    MemberAddRequest,
    MemberId,
    MemberPromoteRequest,
    MemberRemoveRequest,
)
from tests.support.attendant import Attendant
from tests.support.cluster import Cluster
from tests.support.losses import (
    ALLOWED,
    REPLACED_SECONDS_MAX,
    SMALL,
    check_replaced,
    damage_tail,
    is_whole,
    lose,
    lose_directory,
    lose_log,
    set_aside,
    voters,
    wait_whole,
)
from tests.support.operator import HEALTHY_SECONDS
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers

# --- one after the other, and never below the quorum ----------------------------------------------


@scenario(1, 2, 3, size=5, **ALLOWED, **SMALL)
async def test_of_two_that_are_lost_at_once_one_waits_for_the_other(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victims = (await cluster.followers())[:2]
    old_ids = [victim.member_id for victim in victims]
    most = 0
    async with writers(cluster, 2) as crew:
        await asyncio.sleep(1.0)
        attendants = [await lose(victims[0], lose_directory), await lose(victims[1], damage_tail)]

        def replaced() -> bool:
            nonlocal most
            for host in cluster.up:
                listed = host.machine.roster.listed()
                most = max(most, sum(row.isLearner for row in listed))
                assert len(listed) == 5
                assert len(voters(host)) >= 4
            return is_whole(cluster, 5)

        await cluster.wait(replaced, REPLACED_SECONDS_MAX)
    assert most == 1
    for victim, old_id, attendant in zip(victims, old_ids, attendants, strict=True):
        await check_replaced(cluster, victim, old_id, attendant, crew)


@scenario(1, size=5, **ALLOWED, **SMALL)
async def test_the_leader_admits_no_second_replacement_before_the_first_one_votes(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    one, other = (await cluster.followers())[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "_admit_promotion", _never_in_sync)
        first = await lose(one, lose_directory)
        await cluster.wait(lambda: one.up and one.node.ready.is_set())
        second = await lose(other, lose_directory)
        await cluster.wait(lambda: leader.node.replacements.asks(other.known_id))
        admission = leader.node.membership._admission
        with pytest.raises(KvError, match=f"first member {one.member_id:x} must get its vote"):
            admission.admit(Ask(MembershipAction.REPLACE, other.known_id, []))
    await wait_whole(cluster, 5)
    for attendant, host in ((first, one), (second, other)):
        await attendant.end()
        await host.start()


def _never_in_sync(_admission: Admission, _member: Member) -> None:
    raise ErrorKind.LEARNER_NOT_READY.error()


@scenario(1, 2, **ALLOWED)
async def test_who_has_a_directory_set_aside_founds_nothing_though_nobody_answers(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim, other = await cluster.followers()
    leader = await cluster.wait_leader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplacementKeeper, "_next_ask", lambda _: None)
        attendant = await lose(victim, damage_tail)
        await cluster.wait(lambda: attendant.ids)
        for host in (leader, other):
            host.crash()
        attendant.crash()
        await cluster.wait(lambda: attendant.lives == 2)
        await asyncio.sleep(10.0)
        assert attendant.waits
        assert not victim.up
        for host in (leader, other):
            await host.start()
    await wait_whole(cluster)
    assert set_aside(victim) == ["member.damaged-1"]
    await attendant.end()
    await victim.start()


@scenario(1, 2, **ALLOWED)
async def test_without_a_majority_a_lost_member_waits_until_there_is_one(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim, other = await cluster.followers()
    async with writers(cluster, 2) as crew:
        await asyncio.sleep(1.0)
        other.crash()
        attendant = await lose(victim, lose_directory)
        await asyncio.sleep(30.0)
        (left,) = cluster.up
        assert attendant.waits
        assert len(voters(left)) == 3
        assert not left.machine.roster.removed
        await other.start()
        await wait_whole(cluster)
    await check_kept(cluster, crew)
    await attendant.end()
    await victim.start()


@scenario(1, size=5, **ALLOWED)
async def test_a_majority_that_was_only_just_linked_has_to_last_a_while(cluster: Cluster) -> None:
    """The rest must carry the cluster while one learns: three of five, and for five seconds."""
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    victim, one, other, _ = await cluster.followers()
    one.crash()
    other.crash()
    attendant = await lose(victim, lose_directory)
    await asyncio.sleep(20.0)
    assert attendant.waits
    await one.start()
    began = cluster.loop.now
    await cluster.wait(lambda: any(host.machine.roster.removed for host in cluster.up))
    assert cluster.loop.now - began >= 5.0
    await other.start()
    await wait_whole(cluster, 5)
    assert leader.machine.roster.listed() == one.machine.roster.listed()
    await attendant.end()
    await victim.start()


@scenario(1, 2, size=2, **ALLOWED)
async def test_in_a_cluster_of_two_nobody_can_be_replaced(cluster: Cluster) -> None:
    victim = (await cluster.followers())[0]
    leader = await cluster.wait_leader()
    attendant = await lose(victim, damage_tail if cluster.seed % 2 else lose_directory)
    await cluster.wait(lambda: attendant.ends)
    error = attendant.ends[0]
    assert isinstance(error, ConfigError)
    assert "does not help a cluster of 2: what is left of it is no majority" in str(error)
    assert set_aside(victim) == [], "nothing was changed"
    assert not leader.machine.roster.removed
    await attendant.end()
    cluster.hosts.remove(victim)


@scenario(1, size=1, **ALLOWED)
async def test_in_a_cluster_of_one_nobody_has_what_was_lost(cluster: Cluster) -> None:
    (only,) = cluster.hosts
    attendant = await lose(only, damage_tail)
    await cluster.wait(lambda: attendant.ends)
    assert "does not help a cluster of one" in str(attendant.ends[0])
    assert set_aside(only) == [], "nothing was changed"
    await attendant.end()


# --- who may not be replaced ----------------------------------------------------------------------


@scenario(1, 2, **SMALL)
async def test_who_has_snapshots_and_no_log_founds_nothing_though_nobody_answers(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim, *_ = await cluster.followers()
    async with writers(cluster, 2):
        await cluster.wait(lambda: victim.node.snapshots.taken_total > 0)
    others = [host for host in cluster.hosts if host is not victim]
    for host in others:
        host.crash()
    attendant = await lose(victim, lose_log)
    await cluster.wait(lambda: len(attendant.ends) == 2)
    for error in attendant.ends:
        assert "kvstore member replace" in str(error)
    assert attendant.ids == [], "it never showed itself to the others"
    await attendant.end()
    cluster.hosts.remove(victim)
    for host in others:
        await host.start()


@scenario(1, 2)
async def test_without_the_flag_it_is_refused_and_the_command_is_named(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    attendant = await lose(victim, damage_tail if cluster.seed % 2 else lose_directory)
    await cluster.wait(lambda: len(attendant.ends) == 3)
    for error in attendant.ends:
        assert "kvstore member replace" in str(error)
    assert attendant.ids == [], "it never showed itself to the others"
    assert set_aside(victim) == []
    leader = await cluster.wait_leader()
    assert not leader.machine.roster.removed
    await attendant.end()
    cluster.hosts.remove(victim)


@scenario(1, 2)
async def test_where_the_others_do_not_allow_it_it_waits_for_an_operator(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    old_id = victim.member_id
    victim.config = msgspec.structs.replace(victim.config, replace_damaged_member=True)
    attendant = await lose(victim, damage_tail)
    await asyncio.sleep(30.0)
    assert attendant.waits
    leader = await cluster.wait_leader()
    assert not leader.machine.roster.removed
    # As kvstore member replace does.
    await leader.call("member_remove", MemberRemoveRequest(old_id))
    await asyncio.sleep(5.0)
    urls = list(victim.config.initial_advertise_peer_urls)
    await leader.call("member_add", MemberAddRequest(urls, isLearner=True))
    await cluster.wait(lambda: victim.up and victim.node.ready.is_set())
    await asyncio.sleep(30.0)
    assert victim.node.is_learner, "an operator's learner is promoted by the operator"
    await leader.call("member_promote", MemberPromoteRequest(victim.member_id))
    await wait_whole(cluster)
    await attendant.end()
    await victim.start()


@scenario(1, 2, **ALLOWED)
async def test_nobody_who_is_linked_with_anybody_is_replaced(cluster: Cluster) -> None:
    """Whatever is said where the leader looks for it: somebody hears the member itself."""
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    victim, other = await cluster.followers()
    lost = Introduction(log_id=victim.node.peer_port.log_id, replace_me=True)

    def say() -> None:
        leader.run(leader.node.peer_port.on_lost, victim.member_id, lost)

    for _ in range(10):
        say()
        await asyncio.sleep(1.0)
    assert "it is alive" in leader.node.replacements.said
    cluster.wire.partition([leader.member_id], [victim.member_id])
    await cluster.wait(lambda: not leader.node.network.is_up(victim.member_id))
    for _ in range(20):
        if leader.leads:
            say()
        await asyncio.sleep(0.5)
    assert f"member {other.member_id:x} hears it" in leader.node.replacements.said
    cluster.wire.heal()
    await cluster.wait_equal()
    assert not leader.machine.roster.removed


@scenario(1, **ALLOWED)
async def test_who_lost_another_members_log_is_not_replaced(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    victim = (await cluster.followers())[0]
    victim.crash()
    await cluster.wait(lambda: not leader.node.network.is_up(victim.known_id))
    stranger = Introduction(log_id=12345, replace_me=True)
    leader.run(leader.node.peer_port.on_lost, victim.known_id, stranger)
    assert not leader.node.replacements.asks(victim.known_id)
    assert "the log that it lost was not its own" in leader.node.replacements.said
    await victim.start()
    await cluster.wait_equal()


@scenario(1, **ALLOWED)
async def test_who_was_mended_meanwhile_asks_no_more(cluster: Cluster) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplacementKeeper, "_next_ask", lambda _: None)
        leader = await cluster.wait_leader()
        victim = (await cluster.followers())[0]
        lost = Introduction(replace_me=True)
        victim.crash()
        await cluster.wait(lambda: not leader.node.network.is_up(victim.known_id))
        leader.run(leader.node.peer_port.on_lost, victim.known_id, lost)
        assert leader.node.replacements.asks(victim.known_id)
        await victim.start()
        await cluster.wait(lambda: leader.node.network.is_up(victim.member_id))
        assert not leader.node.replacements.asks(victim.known_id)
        victim.crash()
        await cluster.wait(lambda: not leader.node.network.is_up(victim.known_id))
        leader.run(leader.node.peer_port.on_lost, victim.known_id, lost)
        await asyncio.sleep(ASKED_SECONDS_MAX + 1.0)
        assert not leader.node.replacements.asks(victim.known_id)
    await victim.start()
    await cluster.wait_equal()


@scenario(1, **ALLOWED)
async def test_who_has_no_place_any_more_ends(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    leader = await cluster.wait_leader()
    attendant = await lose(victim, damage_tail)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReplacementKeeper, "_next_ask", lambda _: None)
        await cluster.wait(lambda: attendant.ids)
        await leader.call("member_remove", MemberRemoveRequest(victim.known_id))
        await cluster.wait(lambda: attendant.ends)
    assert "kvstore member add" in str(attendant.ends[0])
    await attendant.end()
    cluster.hosts.remove(victim)


@scenario(1, **ALLOWED)
async def test_a_place_that_an_operator_gives_to_another_machine_is_not_taken(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    attendant = await lose(victim, lambda _: None)
    await cluster.wait(lambda: victim.up and victim.node.ready.is_set())
    await asyncio.sleep(HEALTHY_SECONDS)
    leader = await cluster.wait_leader()
    await leader.call("member_remove", MemberRemoveRequest(victim.member_id))
    urls = list(victim.config.initial_advertise_peer_urls)
    added = await leader.call("member_add", MemberAddRequest(urls, isLearner=True))
    await cluster.wait(lambda: len(attendant.ends) >= 2)
    assert all(isinstance(end, RemovedError) for end in attendant.ends)
    assert added.member.ID not in attendant.ids
    await attendant.end()
    cluster.hosts.remove(victim)


@scenario(1, **ALLOWED)
async def test_who_was_replaced_looks_for_its_place_where_the_cluster_is_now(
    cluster: Cluster,
) -> None:
    """All whom its flags name have left their addresses since it was started."""
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    own = victim.config.initial_advertise_peer_urls
    here, moved = Member(77, victim.config.name, own, (), True), ("http://elsewhere:2380",)
    now = ClusterView(
        cluster_id=victim.node.cluster_id,
        version=99,
        founders=(),
        members=(Member(99, "new", moved, ("http://elsewhere:2379",)), here),
        started=(99,),
        removed=(victim.member_id,),
        successors=((77, victim.member_id),),
    )

    async def ask(urls: Sequence[str]) -> list[ClusterView]:
        return [now] if moved[0] in urls else []

    async def left_alone() -> None:
        """Its directory, while it still runs here."""

    environment = Environment(victim.disk, lambda _: victim.node.network, random.Random(1))
    opening = MemberOpening(victim.config, environment, ask)
    members = victim.machine.roster.members
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(opening, "_new_node", lambda identity: identity)
        patch.setattr(opening, "_set_aside", left_alone)
        opening._node, opening._member_id = victim.node, victim.member_id
        with pytest.raises(RemovedError):
            await opening.open(RemovedError("planted"))
        members[MemberId(99)] = now.members[0]
        opening._node = victim.node
        found: Any = await opening.open(RemovedError("planted"))
    del members[MemberId(99)]
    assert found.member_id == 77


@scenario(1, **ALLOWED)
async def test_the_damaged_directory_of_another_member_is_left_alone(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim, other = await cluster.followers()
    await other.stop()
    damage_tail(other)
    await victim.stop()
    victim.disk, other.disk = other.disk, victim.disk
    attendant = Attendant(victim)
    await cluster.wait(lambda: attendant.ends)
    assert f"is of member {other.known_id:x} of cluster" in str(attendant.ends[0])
    assert set_aside(victim) == [], "nothing was changed"
    await attendant.end()
    victim.disk, other.disk = other.disk, victim.disk
    await victim.start()
    attendant = Attendant(other)
    await wait_whole(cluster)
    await attendant.end()
    await other.start()
