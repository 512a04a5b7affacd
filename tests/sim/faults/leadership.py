"""Leaders that do not last: what one has begun, the next one finds half done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import PutRequest
from tests.sim.client import Client
from tests.sim.faults import links, processes
from tests.support.host import DISK_SECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine
    from typing import Any

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

ROUNDS_MAX = 7
LEADER_SECONDS_MAX = 4.0
"""A round waits so long for somebody to lead."""
LEADS_SECONDS_MAX = 0.5
GONE_SECONDS_MAX = 3.0
LOOK_SECONDS = 0.005
SLOW_SHARE = 0.3
SLOW_SECONDS_MAX = 1.0
BURST_MAX = 10
BURST_SECONDS_MAX = 0.01
BEHIND_SECONDS = (2.0, 5.0)
SPREAD_SECONDS_MAX = 0.05


def storm(world: World, fault: Fault, rng: random.Random) -> Coroutine[Any, Any, None]:
    """Take every leader away soon after its election, in one way or another, and bring it back.

    Cut off but for some it leaves entries on a minority; the next one may have them, or cut them
    off, or neither (Raft, figure 8). Some disks are slow, so that much is on its way to them when
    the next leader comes. Who leads in the situation that the fault has waited for is taken in that
    very step.
    """
    host = world.victim(fault)
    slowed = [other for other in world.cluster.up if rng.random() < SLOW_SHARE]
    for other in slowed:
        other.disk_seconds = (0.0, rng.random() * SLOW_SECONDS_MAX)
    ends: list[asyncio.Task[None]] = []
    if host is not None and host.leads and rng.random() < 0.5:
        ends.append(take_away(world, host, rng))

    async def rest() -> None:
        for _ in range(1 + int(fault.amount * ROUNDS_MAX)):
            leader = await wait_leader(world)
            if leader is None:
                break
            await asyncio.sleep(rng.random() ** 2 * LEADS_SECONDS_MAX)
            if leader.up:
                ends.extend(_burst(world, leader, rng))
                await asyncio.sleep(rng.random() * BURST_SECONDS_MAX)
            if leader.up and leader.process is not None and not leader.process.paused:
                ends.append(take_away(world, leader, rng))
        for other in slowed:
            other.disk_seconds = DISK_SECONDS
        await asyncio.gather(*ends)

    return rest()


async def overtake(world: World, fault: Fault, rng: random.Random) -> None:
    """Let the others elect a leader and go on, while entries of the last one, which only a single
    follower was sent, are still on their way to that follower's slow disk.
    """
    leader = await wait_leader(world)
    others = [host for host in world.cluster.up if not host.leads]
    if leader is None or len(others) < 2:
        return
    behind = others[fault.victim % len(others)]
    ids = [member for member in links.members_of(world) if member != behind.known_id]
    rest = [member for member in ids if member != leader.known_id]
    seconds = rng.uniform(*BEHIND_SECONDS)
    behind.disk_seconds = (seconds / 2, seconds)
    # It must not have synced them itself when it crashes.
    leader.disk_seconds = (SPREAD_SECONDS_MAX, 2 * SPREAD_SECONDS_MAX)
    # What it acknowledges reaches whoever leads then.
    apart = links.cut(world, links.around(behind.known_id, rest, "both"), seconds / 3)
    alone = links.cut(world, links.around(leader.known_id, rest, "both"), SPREAD_SECONDS_MAX)
    bursts = _burst(world, leader, rng)
    await asyncio.sleep(rng.random() * SPREAD_SECONDS_MAX)
    leader.disk_seconds = DISK_SECONDS
    if leader.up:
        world.crash(leader)
    gone = links.cut(world, links.around(behind.known_id, ids, "both"), seconds / 3)
    await asyncio.gather(alone, world.start(leader), gone, apart)
    await asyncio.gather(asyncio.sleep(2 * seconds / 3), *bursts)
    behind.disk_seconds = DISK_SECONDS


async def wait_leader(world: World) -> Host | None:
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


def _burst(world: World, leader: Host, rng: random.Random) -> list[asyncio.Task[None]]:
    """Writes that are under way when it goes: nobody looks at what comes of them but the judges."""

    async def write() -> None:
        put = PutRequest(b"storm/%d" % world.new_token())
        await Client(world, rng).call("put", put, host=leader)

    nobody = world.loop.nobody
    return [
        world.loop.create_task(write(), context=nobody) for _ in range(rng.randrange(BURST_MAX))
    ]


def take_away(world: World, leader: Host, rng: random.Random) -> asyncio.Task[None]:
    """At once; the task brings it back by and by."""
    (take,) = rng.choices((_cut_off, _cut_off_but_for_one, _crash, _pause), (3, 4, 2, 1))
    back = take(world, leader, rng.random() * GONE_SECONDS_MAX, rng)
    return world.loop.create_task(back, context=world.loop.nobody)


def _cut(
    world: World, leader: Host, spared: int, seconds: float, rng: random.Random
) -> Coroutine[Any, Any, None]:
    """Cut a leader off from all but so many: what it sends, what it is sent, or both."""
    own = leader.known_id
    others = [member for member in links.members_of(world) if member != own]
    rng.shuffle(others)
    way = rng.choice(("both", "both", "in", "out"))
    return links.cut(world, links.around(own, others[spared:], way), seconds)


def _cut_off(
    world: World, leader: Host, seconds: float, rng: random.Random
) -> Coroutine[Any, Any, None]:
    return _cut(world, leader, 0, seconds, rng)


def _cut_off_but_for_one(
    world: World, leader: Host, seconds: float, rng: random.Random
) -> Coroutine[Any, Any, None]:
    return _cut(world, leader, 1, seconds, rng)


def _crash(
    world: World, leader: Host, seconds: float, rng: random.Random
) -> Coroutine[Any, Any, None]:
    if rng.random() < 0.5:
        world.crash(leader)
    else:
        world.kill(leader)

    async def back() -> None:
        await asyncio.sleep(seconds)
        await world.start(leader)

    return back()


def _pause(
    world: World, leader: Host, seconds: float, _rng: random.Random
) -> Coroutine[Any, Any, None]:
    return processes.stand_still(world, leader, seconds)
