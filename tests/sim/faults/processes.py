"""Processes that crash, stop and stand still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World

DOWN_SECONDS_MAX = 4.0
PAUSE_SECONDS_MAX = 6.0


async def crash(world: World, fault: Fault, _rng: random.Random) -> None:
    """Cut the power of one machine; it comes back after a while."""
    host = world.victim(fault)
    if host is None:
        return
    world.crash(host)
    await asyncio.sleep(fault.amount * DOWN_SECONDS_MAX)
    await world.start(host)


async def restart(world: World, fault: Fault, _rng: random.Random) -> None:
    """SIGTERM, and start again at once."""
    host = world.victim(fault)
    if host is None:
        return
    await world.stop(host)
    await world.start(host)


async def pause(world: World, fault: Fault, _rng: random.Random) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    host = world.victim(fault)
    if host is None or host.process is None:
        return
    host.process.pause()
    await asyncio.sleep(fault.amount * PAUSE_SECONDS_MAX)
    host.process.resume()
