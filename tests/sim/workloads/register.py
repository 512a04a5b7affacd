"""A few keys that everybody writes and reads: the plainest test of linearizability."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import DeleteRangeRequest, PutRequest, RangeRequest

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World

KEYS = 3
PAUSE_SECONDS = (0.0, 0.1)


async def register(world: World, client: Client, rng: random.Random) -> None:
    """Put unique values, read and delete, on keys shared with all others of this workload."""
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        key = f"register/{rng.randrange(KEYS)}".encode()
        choice = rng.random()
        if choice < 0.45:
            value = f"{client.number}.{world.new_token()}".encode()
            await client.call("put", PutRequest(key, value, prev_kv=rng.random() < 0.2))
        elif choice < 0.9:
            await client.call("range", RangeRequest(key))
        else:
            await client.call("delete_range", DeleteRangeRequest(key, prev_kv=True))
