"""Leaders that do not last: what one has begun, the next one finds half done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

ROUNDS_MAX = 7
LEADER_SECONDS_MAX = 4.0
"""A round waits so long for somebody to lead."""
LEADS_SECONDS_MAX = 0.5
GONE_SECONDS_MAX = 3.0
LOOK_SECONDS = 0.005


async def storm(world: World, fault: Fault, rng: random.Random) -> None:
    """Take every leader away soon after its election, in one way or another, and bring it back.

    Cut off but for some it leaves entries on a minority; the next one may have them, or cut them
    off, or neither (Raft, figure 8).
    """
    ends: list[asyncio.Task[None]] = []
    for _ in range(2 + int(fault.amount * (ROUNDS_MAX - 1))):
        leader = await _wait_leader(world)
        if leader is None:
            break
        await asyncio.sleep(rng.random() ** 2 * LEADS_SECONDS_MAX)
        if not leader.up:
            continue
        take = rng.choices((_cut_off, _cut_off_but_for_one, _crash, _pause), (3, 4, 2, 1))[0]
        seconds = rng.random() * GONE_SECONDS_MAX
        ends.append(world.loop.create_task(take(world, leader, seconds, rng)))
        # It is struck before anybody looks for a leader again.
        await asyncio.sleep(0)
    await asyncio.gather(*ends)


async def _wait_leader(world: World) -> Host | None:
    """Somebody who leads and is heard by somebody; None if that takes too long."""
    give_up = world.loop.now + LEADER_SECONDS_MAX
    wire = world.cluster.wire
    while world.loop.now < give_up:
        leader = world.cluster.leader()
        if leader is not None and leader.process is not None and not leader.process.paused:
            others = [host for host in world.cluster.up if host is not leader]
            if not others or any(wire.is_open(leader.known_id, host.known_id) for host in others):
                return leader
        await asyncio.sleep(LOOK_SECONDS)
    return None


async def _cut(world: World, leader: Host, spared: int, seconds: float, rng: random.Random) -> None:
    """Cut a leader off from all but so many: what it sends, what it is sent, or both."""
    own = leader.known_id
    others = [host.known_id for host in world.cluster.hosts if host.known_id not in (0, own)]
    rng.shuffle(others)
    way = rng.choice(("both", "both", "in", "out"))
    pairs = [(own, other) for other in others[spared:] if way != "in"]
    pairs += [(other, own) for other in others[spared:] if way != "out"]
    for pair in pairs:
        world.cluster.wire.cut(*pair)
    await asyncio.sleep(seconds)
    for pair in pairs:
        world.cluster.wire.mend(*pair)


async def _cut_off(world: World, leader: Host, seconds: float, rng: random.Random) -> None:
    await _cut(world, leader, 0, seconds, rng)


async def _cut_off_but_for_one(
    world: World, leader: Host, seconds: float, rng: random.Random
) -> None:
    await _cut(world, leader, 1, seconds, rng)


async def _crash(world: World, leader: Host, seconds: float, rng: random.Random) -> None:
    if rng.random() < 0.5:
        world.crash(leader)
    else:
        world.kill(leader)
    await asyncio.sleep(seconds)
    await world.start(leader)


async def _pause(world: World, leader: Host, seconds: float, _rng: random.Random) -> None:
    process = leader.process
    assert process is not None, "who leads is up"
    world.trace.add("pause", leader.number, "SIGSTOP")
    process.pause()
    await asyncio.sleep(seconds)
    world.trace.add("resume", leader.number, "")
    process.resume()
