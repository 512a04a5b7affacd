"""Links that are cut, slow, or break, and frames that are lost, late, repeated and overtaken."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.memory_pipe import Weather

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine
    from typing import Any

    from tests.sim.schedule import Fault
    from tests.sim.world import World

PARTITION_SECONDS_MAX = 6.0
SLOW_SECONDS_MAX = 1.0
LATE_SECONDS_MAX = 0.5
SHARE_MAX = 0.3
"""Of the frames in bad weather that are lost, repeated or overtaken, each."""
TRANSFER_BYTES_MAX = 40_000

Pair = tuple[int, int]


def members_of(world: World) -> list[int]:
    return [host.known_id for host in world.cluster.hosts if host.known_id]


def _pairs(world: World) -> list[Pair]:
    members = members_of(world)
    return [(one, other) for one in members for other in members if one != other]


def cut(world: World, pairs: list[Pair], seconds: float) -> Coroutine[Any, Any, None]:
    """Cut these directions at once; what is returned mends them after a while."""
    wire = world.cluster.wire
    for one, other in pairs:
        wire.cut(one, other)

    async def rest() -> None:
        await asyncio.sleep(seconds)
        for one, other in pairs:
            wire.mend(one, other)

    return rest()


def around(own: int, others: list[int], way: str) -> list[Pair]:
    """The directions between one member and others: what it sends ("out"), what it is sent ("in"),
    or "both".
    """
    pairs = [(own, other) for other in others if way != "in"]
    return pairs + [(other, own) for other in others if way != "out"]


def _between(group: list[int], others: list[int]) -> list[Pair]:
    return [pair for one in group for other in others for pair in ((one, other), (other, one))]


async def partition(world: World, fault: Fault, rng: random.Random) -> None:
    """Split the members in two groups that hear nothing of each other, for a while."""
    members = members_of(world)
    rng.shuffle(members)
    half = rng.randrange(1, len(members)) if len(members) > 1 else 0
    pairs = _between(members[:half], members[half:])
    await cut(world, pairs, fault.amount * PARTITION_SECONDS_MAX)


async def split_majority(world: World, fault: Fault, rng: random.Random) -> None:
    """Cut the largest minority off, the leader among it or not."""
    members = members_of(world)
    rng.shuffle(members)
    leader = world.cluster.leader()
    if leader is not None and rng.random() < 0.5:
        members.sort(key=lambda member: member != leader.known_id)
    half = (len(members) - 1) // 2
    pairs = _between(members[:half], members[half:])
    await cut(world, pairs, fault.amount * PARTITION_SECONDS_MAX)


async def isolate_leader(world: World, fault: Fault, rng: random.Random) -> None:
    """Cut the leader off, both ways or one."""
    leader = world.cluster.leader()
    if leader is None:
        return
    own = leader.known_id
    others = [member for member in members_of(world) if member != own]
    way = rng.choice(("both", "in", "out"))
    await cut(world, around(own, others, way), fault.amount * PARTITION_SECONDS_MAX)


async def one_way(world: World, fault: Fault, rng: random.Random) -> None:
    """Cut some directions between members, while the ways back stay open."""
    pairs = [pair for pair in _pairs(world) if rng.random() < 0.3]
    await cut(world, pairs, fault.amount * PARTITION_SECONDS_MAX)


async def bridge(world: World, fault: Fault, rng: random.Random) -> None:
    """Split the members in two groups that one member hears both of."""
    members = members_of(world)
    if len(members) < 3:
        return
    rng.shuffle(members)
    half = (len(members) - 1) // 2
    pairs = _between(members[:half], members[half:-1])
    await cut(world, pairs, fault.amount * PARTITION_SECONDS_MAX)


async def slow(world: World, fault: Fault, rng: random.Random) -> None:
    """Delay all that goes in some directions."""
    wire = world.cluster.wire
    pairs = [pair for pair in _pairs(world) if rng.random() < 0.5]
    for one, other in pairs:
        wire.slow(one, other, rng.random() * SLOW_SECONDS_MAX)
    await asyncio.sleep(fault.amount * PARTITION_SECONDS_MAX)
    for one, other in pairs:
        wire.slow(one, other, 0.0)


async def weather(world: World, fault: Fault, rng: random.Random) -> None:
    """Lose, repeat, delay and reorder single frames, everywhere.

    No connection does that while it lives, but raft asks for no better network, and what is lost
    in one way here is lost in another when links break.
    """
    wire = world.cluster.wire
    sky = Weather(
        rng,
        lost=rng.random() * SHARE_MAX,
        repeated=rng.random() * SHARE_MAX,
        overtaken=rng.random() * SHARE_MAX,
        late_seconds_max=rng.random() * LATE_SECONDS_MAX,
    )
    pairs = _pairs(world)
    for pair in pairs:
        wire.weather[pair] = sky
    await asyncio.sleep(fault.amount * PARTITION_SECONDS_MAX)
    for pair in pairs:
        if wire.weather.get(pair) is sky:
            del wire.weather[pair]


async def reset(world: World, fault: Fault, rng: random.Random) -> None:
    """Break connections, again and again; what was under way on them is lost."""
    for _ in range(1 + int(fault.amount * 5)):
        for one, other in _pairs(world):
            if one < other and rng.random() < 0.5:
                world.cluster.wire.reset(one, other)
        await asyncio.sleep(rng.random())


async def break_transfers(world: World, fault: Fault, rng: random.Random) -> None:
    """Break the snapshots that are under way, and the next one, or flip a bit in it."""
    wire = world.cluster.wire
    for transfer in list(wire.transfers):
        transfer.break_off()
    if rng.random() < 0.5:
        wire.pieces_to_spoil += 1
    else:
        amount = int(fault.amount * TRANSFER_BYTES_MAX)
        wire.break_transfer_after_bytes = wire.transferred_bytes + amount
