"""Links that lose, delay, repeat and reorder."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

    from tests.sim.schedule import Fault
    from tests.sim.world import World

PARTITION_SECONDS_MAX = 6.0


async def partition(world: World, fault: Fault, rng: random.Random) -> None:
    """Split the members in two groups that hear nothing of each other, for a while."""
    members = [host.known_id for host in world.cluster.hosts]
    rng.shuffle(members)
    cut = rng.randrange(1, len(members)) if len(members) > 1 else 0
    pairs = [(one, other) for one in members[:cut] for other in members[cut:]]
    wire = world.cluster.wire
    for one, other in pairs:
        wire.cut(one, other)
        wire.cut(other, one)
    await asyncio.sleep(fault.amount * PARTITION_SECONDS_MAX)
    for one, other in pairs:
        wire.mend(one, other)
        wire.mend(other, one)
