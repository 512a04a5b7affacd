"""Clocks that are fast, slow or wrong; ``processes.suspend`` makes one stand still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World
    from tests.support.host import Host

DRIFT_MAX = 0.05
DRIFT_SECONDS_MAX = 8.0
WALL_JUMP_SECONDS_MAX = 100_000.0


async def drift(world: World, fault: Fault, rng: random.Random) -> None:
    """Let the monotonic clock of each machine run at a rate of its own, for a while."""
    hosts = list(world.cluster.hosts)
    for host in hosts:
        _set_rate(host, 1 + rng.uniform(-DRIFT_MAX, DRIFT_MAX))
    await asyncio.sleep(fault.amount * DRIFT_SECONDS_MAX)
    for host in hosts:
        _set_rate(host, 1.0)


def _set_rate(host: Host, rate: float) -> None:
    host.clock_rate = rate
    process = host.process
    if process is not None and process.alive and not process.suspended:
        process.set_clock_rate(rate)


async def wall_jump(world: World, fault: Fault, rng: random.Random) -> None:
    """Set the time of day on one machine, forwards or backwards, and some time later right."""
    host = world.victim(fault)
    if host is None:
        return
    host.wall_offset_seconds = rng.uniform(-WALL_JUMP_SECONDS_MAX, WALL_JUMP_SECONDS_MAX)
    await asyncio.sleep(fault.amount * DRIFT_SECONDS_MAX)
    host.wall_offset_seconds = 0.0
