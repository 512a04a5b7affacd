"""A few keys that everybody writes and reads, in every way there is: the plainest test of
linearizability.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import DeleteRangeRequest, PutRequest, RangeRequest, SortOrder, SortTarget
from tests.checking.history import Outcome

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World

KEYS = 3
PAUSE_SECONDS = (0.0, 0.2)
PREFIX = b"register/"
PREFIX_END = b"register0"
BACK_MAX = 30
"""A read of the past goes so many revisions back."""


async def register(world: World, client: Client, rng: random.Random) -> None:
    """Put unique values, read and delete, on keys shared with all others of this workload."""
    revision = 0
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        key = b"register/%d" % rng.randrange(KEYS)
        choice = rng.random()
        if choice < 0.4:
            operation = await client.call("put", _put(world, client, rng, key))
        elif choice < 0.88:
            operation = await client.call("range", _range(rng, key, revision))
        else:
            operation = await client.call("delete_range", _delete(rng, key))
        if operation.outcome is Outcome.OK:
            revision = operation.response.header.revision


def _put(world: World, client: Client, rng: random.Random, key: bytes) -> PutRequest:
    value = f"{client.number}.{world.new_token()}".encode()
    request = PutRequest(key, value, prev_kv=rng.random() < 0.3)
    choice = rng.random()
    if choice < 0.08:
        # Writes a version with the value that is there; refused where there is none.
        request.value, request.ignore_value = b"", True
    elif choice < 0.16:
        request.ignore_lease = True
    return request


def _range(rng: random.Random, key: bytes, revision: int) -> RangeRequest:
    request = RangeRequest(key)
    choice = rng.random()
    if choice < 0.25:
        request.key, request.range_end = PREFIX, PREFIX_END
        request.limit = rng.choice((0, 0, 1, 2))
        request.sort_order = rng.choice((SortOrder.NONE, SortOrder.ASCEND, SortOrder.DESCEND))
        request.sort_target = rng.choice((SortTarget.KEY, SortTarget.MOD, SortTarget.CREATE))
    request.serializable = rng.random() < 0.2
    choice = rng.random()
    if choice < 0.1:
        request.count_only = True
    elif choice < 0.2:
        request.keys_only = True
    elif choice < 0.35 and revision:
        request.revision = max(1, revision - rng.randrange(BACK_MAX))
    return request


def _delete(rng: random.Random, key: bytes) -> DeleteRangeRequest:
    if rng.random() < 0.2:
        return DeleteRangeRequest(PREFIX, PREFIX_END, prev_kv=rng.random() < 0.5)
    return DeleteRangeRequest(key, prev_kv=rng.random() < 0.7)
