"""Locks: taken, held for a while, let go or lost; what is written meanwhile is fenced."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import (
    Compare,
    CompareTarget,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LockRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
    UnlockRequest,
)
from tests.checking.history import Outcome

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World

LOCKS = 2
TTL_SECONDS = (2, 6)
PATIENCE_SECONDS = (0.5, 4.0)
PAUSE_SECONDS = (0.0, 1.0)
WRITES_MAX = 4


async def locks(world: World, client: Client, rng: random.Random) -> None:
    """Take a lock under a lease, write under its fence, and let go in one way or another."""
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        lease = 0
        if rng.random() < 0.9:
            request = LeaseGrantRequest(rng.randint(*TTL_SECONDS))
            granted = await client.call("lease_grant", request)
            if granted.outcome is not Outcome.OK:
                continue
            lease = granted.response.ID
        name = b"lock/%d" % rng.randrange(LOCKS)
        patience = rng.uniform(*PATIENCE_SECONDS)
        locked = await client.call("lock", LockRequest(name, lease), patience_seconds=patience)
        if locked.outcome is Outcome.OK:
            world.marks.hit("lock held")
            await _hold(world, client, rng, name, locked.response.key, lease)
        if lease and rng.random() < 0.7:
            await client.call("lease_revoke", LeaseRevokeRequest(lease))


async def _hold(
    world: World, client: Client, rng: random.Random, name: bytes, key: bytes, lease: int
) -> None:
    read = await client.call("range", RangeRequest(key))
    if read.outcome is not Outcome.OK or not read.response.kvs:
        return
    fence = read.response.kvs[0].create_revision
    for _ in range(rng.randrange(WRITES_MAX)):
        await asyncio.sleep(rng.uniform(0.0, 0.5))
        if lease and rng.random() < 0.3:
            await client.call("lease_keep_alive", LeaseKeepAliveRequest(lease))
        put = PutRequest(b"guarded/" + name, b"%d" % world.new_token())
        written = await client.call(
            "txn",
            TxnRequest(
                [Compare(target=CompareTarget.CREATE, key=key, create_revision=fence)],
                [RequestOp(request_put=put)],
            ),
        )
        if written.outcome is Outcome.OK and not written.response.succeeded:
            world.marks.hit("lock lost")
            return
    if rng.random() < 0.8:
        await client.call("unlock", UnlockRequest(key))
