"""Leases that end while leaders change: what a leader decides, or promises, is out of date."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import (
    LeaseGrantRequest,
    LeaseId,
    LeaseKeepAliveRequest,
    PutRequest,
    RangeRequest,
)
from tests.checking.history import Outcome
from tests.sim.client import Client
from tests.sim.faults import links
from tests.sim.faults.leadership import wait_leader

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

TTL_SECONDS = 2
LOOK_SECONDS = 0.005
PROPOSED_SECONDS_MAX = 4.0
"""By then the end of a lease that nobody renews was proposed, or its leader is gone."""
SUCCESSOR_SECONDS_MAX = 4.0
ENDED_SECONDS_MAX = 6.0
RENEWALS_MAX = 3
RENEWAL_PAUSE_SECONDS = 0.2
ABOUT_TO_END_SECONDS = 0.5
WAKES_SECONDS_MAX = 0.05
SUSPENDED_SHARE = 0.7
DEAF_SHARE = 0.7
DEAF_SECONDS = 0.3
CALLS = 3


async def hold_up_expiry(world: World, _fault: Fault, rng: random.Random) -> None:
    """Cut the leader off in the step in which it proposes a lease's end, and let it back once the
    next leader has renewed that lease.
    """
    leader = await _wait_leader_of_many(world)
    key, lease = await _grant(world, rng)
    if leader is None or not lease:
        return
    pairs = _around(world, leader, "both")
    proposed: list[bool] = []

    def strike(member: int) -> bool:
        if member != leader.number or not leader.leads or not _is_over(leader, lease):
            return False
        for pair in pairs:
            world.cluster.wire.cut(*pair)
        proposed.append(True)
        return True

    def is_decided() -> bool:
        return bool(proposed) or not leader.leads

    with world.at_mark("lease expiry proposed", strike):
        await _wait(world, is_decided, PROPOSED_SECONDS_MAX)
    if proposed:
        await _wait(world, lambda: _successor(world, leader) is not None, SUCCESSOR_SECONDS_MAX)
        next_leader = _successor(world, leader)
        holder = Client(world, rng)
        for _ in range(rng.randint(1, RENEWALS_MAX) if next_leader is not None else 0):
            await holder.call("lease_keep_alive", LeaseKeepAliveRequest(lease), host=next_leader)
            await asyncio.sleep(rng.random() * RENEWAL_PAUSE_SECONDS)
    _mend(world, pairs if proposed else [])
    # Whoever believes in the renewal finds the key there.
    await Client(world, rng).call("range", RangeRequest(key))


async def wake_late(world: World, _fault: Fault, rng: random.Random) -> None:
    """Let the leader stand still until a lease that it knows is about to end, or has ended, with
    the next one; then it goes on, and clients who take it for the leader have asked it meanwhile.
    """
    leader = await _wait_leader_of_many(world)
    key, lease = await _grant(world, rng)
    if leader is None or not lease or not leader.leads:
        return
    process = leader.process
    if process is None or process.paused:
        return
    # A machine that was suspended with its clock does not even know that the lease has run out.
    with_clock = rng.random() < SUSPENDED_SHARE
    world.trace.add("pause", leader.number, "suspended" if with_clock else "SIGSTOP")
    process.pause(with_clock=with_clock)
    # It does not hear at once, either, that there is another one.
    pairs = _around(world, leader, "in") if rng.random() < DEAF_SHARE else []
    for pair in pairs:
        world.cluster.wire.cut(*pair)
    left_seconds = rng.uniform(-ABOUT_TO_END_SECONDS, ABOUT_TO_END_SECONDS)

    def is_due() -> bool:
        other = _successor(world, leader)
        return other is not None and _left(other, lease) < left_seconds

    fresh = key + b"/fresh"
    await _wait(world, is_due, ENDED_SECONDS_MAX)
    other = _successor(world, leader)
    if other is not None:
        await Client(world, rng).call("put", PutRequest(fresh, b"fresh"), host=other)
    calls = [
        world.loop.create_task(client.call(method, request, host=leader), context=world.loop.nobody)
        for method, request in (
            *(("range", RangeRequest(fresh)),) * CALLS,
            *(("lease_keep_alive", LeaseKeepAliveRequest(lease)),) * CALLS,
        )
        for client in [Client(world, rng)]
    ]
    await asyncio.sleep(rng.random() * WAKES_SECONDS_MAX)
    world.trace.add("resume", leader.number, "")
    process.resume()
    await asyncio.sleep(DEAF_SECONDS)
    _mend(world, pairs)
    await asyncio.gather(*calls)


async def _wait_leader_of_many(world: World) -> Host | None:
    """Who leads, if others could lead in its place."""
    return await wait_leader(world) if len(world.cluster.up) > 2 else None


async def _grant(world: World, rng: random.Random) -> tuple[bytes, LeaseId]:
    """A short lease with a key of its own; the lease is 0 if nobody gave any."""
    client = Client(world, rng)
    key = b"leases/overdue/%d" % world.new_token()
    granted = await client.call("lease_grant", LeaseGrantRequest(TTL_SECONDS, 0))
    if granted.outcome is not Outcome.OK:
        return key, LeaseId(0)
    lease = granted.response.ID
    await client.call("put", PutRequest(key, b"held", lease))
    return key, LeaseId(lease)


def _left(host: Host, lease: LeaseId) -> float:
    """How long a lease has left, as a leader knows; -1: there is none."""
    return host.machine.lessor.remaining(lease, host.node.loop.time())


def _is_over(host: Host, lease: LeaseId) -> bool:
    return host.machine.lessor.exists(lease) and _left(host, lease) <= 0


def _successor(world: World, leader: Host) -> Host | None:
    other = world.cluster.leader()
    return other if other is not leader else None


def _around(world: World, host: Host, way: str) -> list[links.Pair]:
    own = host.known_id
    return links.around(own, [each for each in links.members_of(world) if each != own], way)


def _mend(world: World, pairs: list[links.Pair]) -> None:
    for pair in pairs:
        world.cluster.wire.mend(*pair)


async def _wait(world: World, condition: Callable[[], bool], seconds: float) -> bool:
    """Until something is so, or so much time has gone by; whether it is."""
    give_up = world.loop.now + seconds
    while world.loop.now < give_up and not condition():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(LOOK_SECONDS)
    return condition()
