"""A member that lost its data becomes a new one in its own place, whatever is interrupted."""

import asyncio
import random
from collections.abc import Callable

import pytest

from kvstore.errors import DivergedError, ErrorKind
from kvstore.server.admission import Admission
from kvstore.types import (
    Member,
    PutRequest,
)
from tests.support.attendant import Attendant, was_removed
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.losses import (
    ALLOWED,
    LOSSES,
    REPLACED_SECONDS_MAX,
    SMALL,
    Loss,
    check_replaced,
    damage_snapshots,
    damage_tail,
    lose,
    lose_directory,
    set_aside,
    wait_whole,
)
from tests.support.operator import HEALTHY_SECONDS, Disturbance
from tests.support.scenario import scenario
from tests.support.writer import writers
from wal.memory_disk import MemoryDisk


async def lose_and_be_replaced(cluster: Cluster, loss: Loss) -> Host:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = [*await cluster.followers(), await cluster.wait_leader()][cluster.seed % 3]
    old_id = victim.member_id
    async with writers(cluster, 2) as crew:
        await asyncio.sleep(2.0)
        attendant = await lose(victim, loss)
        await wait_whole(cluster)
    assert attendant.lives == 1
    assert attendant.ids == [old_id, victim.member_id]
    await check_replaced(cluster, victim, old_id, attendant, crew)
    return victim


@scenario(1, 2, 3, **ALLOWED, **SMALL)
async def test_a_member_that_lost_its_directory_takes_its_own_place(cluster: Cluster) -> None:
    victim = await lose_and_be_replaced(cluster, lose_directory)
    assert set_aside(victim) == []


@scenario(1, 2, 3, **ALLOWED, **SMALL)
async def test_a_member_whose_tail_is_damaged_takes_its_own_place(cluster: Cluster) -> None:
    victim = await lose_and_be_replaced(cluster, damage_tail)
    assert set_aside(victim) == ["member.damaged-1"]


@scenario(1, 2, 3, **ALLOWED, **SMALL)
async def test_a_member_with_no_sound_snapshot_and_log_takes_its_own_place(
    cluster: Cluster,
) -> None:
    victim = await lose_and_be_replaced(cluster, damage_snapshots)
    assert set_aside(victim) == ["member.damaged-1"]


@scenario(1, 2, 3, **ALLOWED, **SMALL)
async def test_a_member_whose_state_differs_takes_its_own_place(cluster: Cluster) -> None:
    """In the same process: it stops, and goes on as another."""
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = [*await cluster.followers(), await cluster.wait_leader()][cluster.seed % 3]
    old_id = victim.member_id
    attendant = await lose(victim, lambda _: None)
    await cluster.wait(lambda: victim.up and victim.node.ready.is_set())
    victim.machine._put(PutRequest(b"planted", b"by nobody"))
    async with writers(cluster, 2) as crew:
        await cluster.wait(lambda: attendant.ends, REPLACED_SECONDS_MAX)
        await wait_whole(cluster)
    assert attendant.lives == 1
    (end,) = attendant.ends
    assert isinstance(end, DivergedError)
    assert set_aside(victim) == ["member.damaged-1"]
    await check_replaced(cluster, victim, old_id, attendant, crew)


# --- whatever is interrupted goes on --------------------------------------------------------------


class Progress:
    """How far a replacement has come, as an onlooker sees it."""

    def __init__(self, cluster: Cluster, victim: Host, attendant: Attendant) -> None:
        self._cluster = cluster
        self._victim = victim
        self._attendant = attendant

    def stage(self) -> str:
        victim = self._victim
        rosters = [host.machine.roster for host in self._cluster.up if host is not victim]
        if not any(roster.removed for roster in rosters):
            return "waiting" if self._attendant.waits else "lost"
        if not any(roster.successors for roster in rosters):
            return "voting"
        if not victim.up:
            return "replaced"
        return "published" if victim.node.ready.is_set() else "joining"


async def disturb_each_stage(progress: Progress, disturb: Disturbance) -> list[str]:
    """Once in each stage, until there is none left."""
    seen: list[str] = []
    while "voting" not in seen:
        stage = progress.stage()
        if stage not in seen:
            seen.append(stage)
            await disturb()
        await asyncio.sleep(0.01)
    return seen


async def be_replaced_though(
    cluster: Cluster, loss: Loss, new_disturbance: Callable[[Host, Attendant], Disturbance]
) -> list[str]:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[cluster.seed % 2]
    old_id = victim.member_id
    async with writers(cluster, 2) as crew:
        await asyncio.sleep(1.0)
        attendant = await lose(victim, loss)
        progress = Progress(cluster, victim, attendant)
        stages = await disturb_each_stage(progress, new_disturbance(victim, attendant))
        await wait_whole(cluster)
    await check_replaced(cluster, victim, old_id, attendant, crew)
    return stages


@scenario(1, 2, 3, 4, **ALLOWED, **SMALL)
async def test_it_goes_on_though_the_leader_is_killed_in_every_step(cluster: Cluster) -> None:
    rng = random.Random(cluster.seed)
    killed = 0

    def new_disturbance(victim: Host, _: Attendant) -> Disturbance:
        async def kill_the_leader() -> None:
            nonlocal killed
            await asyncio.sleep(rng.uniform(0.0, 0.5))
            leader = cluster.leader()
            if leader is None or leader is victim:
                return
            leader.crash()
            killed += 1
            await asyncio.sleep(rng.uniform(0.0, 3.0))
            await leader.start()

        return kill_the_leader

    loss = list(LOSSES.values())[cluster.seed % 3]
    stages = await be_replaced_though(cluster, loss, new_disturbance)
    assert len(stages) >= 3
    assert killed >= 3


@scenario(1, 2, 3, 4, **ALLOWED, **SMALL)
async def test_it_goes_on_though_its_own_process_is_killed_in_every_step(
    cluster: Cluster,
) -> None:
    rng = random.Random(cluster.seed)

    def new_disturbance(_: Host, attendant: Attendant) -> Disturbance:
        async def kill_the_process() -> None:
            await asyncio.sleep(rng.uniform(0.0, 0.2))
            attendant.crash()

        return kill_the_process

    loss = list(LOSSES.values())[cluster.seed % 3]
    stages = await be_replaced_though(cluster, loss, new_disturbance)
    assert len(stages) >= 4


# --- again and again ------------------------------------------------------------------------------


@scenario(1, 2, **ALLOWED, **SMALL)
async def test_it_is_replaced_again_and_the_oldest_directory_goes(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    for times in range(1, 5):
        old_id = victim.member_id
        attendant = await lose(victim, damage_tail)
        await wait_whole(cluster)
        assert victim.member_id != old_id
        await attendant.end()
        await victim.start()
        await wait_whole(cluster)
        newest = [f"member.damaged-{n}" for n in range(max(1, times - 1), times + 1)]
        assert set_aside(victim) == newest
    assert len(cluster[0].machine.roster.removed) == 4


@scenario(1, 2, 3, **ALLOWED, **SMALL)
async def test_who_is_lost_again_before_it_votes_is_replaced_once_more(cluster: Cluster) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    victim = (await cluster.followers())[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Admission, "_admit_promotion", _never_in_sync)
        attendant = await lose(victim, damage_tail)
        await cluster.wait(lambda: victim.up and victim.node.ready.is_set(), 60.0)
        second = victim.member_id
        await attendant.end()
        victim.disk = MemoryDisk()
        attendant = Attendant(victim)
        await cluster.wait(lambda: victim.up and victim.node.ready.is_set(), 60.0)
        assert victim.member_id != second
        leader = await cluster.wait_leader()
        assert list(leader.machine.roster.successors) == [victim.member_id]
    await wait_whole(cluster)
    await attendant.end()
    await victim.start()


def _never_in_sync(_admission: Admission, _member: Member) -> None:
    raise ErrorKind.LEARNER_NOT_READY.error()


@scenario(1, 2, 3, **ALLOWED)
async def test_who_came_up_empty_while_nobody_answered_is_replaced_all_the_same(
    cluster: Cluster,
) -> None:
    """It founds its cluster once more, as far as it knows; nobody links with it."""
    await asyncio.sleep(HEALTHY_SECONDS)
    victim, other = await cluster.followers()
    leader = await cluster.wait_leader()
    old_id = victim.member_id
    for host in (other, leader):
        host.crash()
    attendant = await lose(victim, lose_directory)
    await cluster.wait(lambda: victim.up)
    assert victim.member_id == old_id
    assert victim.node.peer_port.is_blank()
    for host in (other, leader):
        await host.start()
    await wait_whole(cluster)
    assert victim.member_id != old_id
    assert was_removed(attendant)
    await attendant.end()
    await victim.start()
