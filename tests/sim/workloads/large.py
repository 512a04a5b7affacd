"""Large values, and commands over hundreds of keys, which are applied in slices."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import (
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    TxnRequest,
)
from tests.checking.history import Outcome

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World

KEYS = 360
KEYS_A_TXN = 120
VALUE_BYTES_MAX = 60_000
PAUSE_SECONDS = (0.5, 3.0)


async def large(world: World, client: Client, rng: random.Random) -> None:
    """Write hundreds of keys, perhaps under one lease, and take them away in one command."""
    prefix = b"large/%d/" % world.new_token()
    end = prefix[:-1] + b"0"
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        if rng.random() < 0.5:
            value = rng.randbytes(rng.randrange(VALUE_BYTES_MAX))
            await client.call("put", PutRequest(prefix + b"value", value))
        lease = 0
        if rng.random() < 0.4:
            granted = await client.call("lease_grant", LeaseGrantRequest(rng.randint(2, 4)))
            lease = granted.response.ID if granted.outcome is Outcome.OK else 0
        for first in range(0, KEYS, KEYS_A_TXN):
            value = b"%d" % world.new_token()
            keys = [prefix + b"%04d" % number for number in range(first, first + KEYS_A_TXN)]
            puts = [RequestOp(request_put=PutRequest(key, value, lease)) for key in keys]
            await client.call("txn", TxnRequest(success=puts))
        request = RangeRequest(prefix, end, keys_only=rng.random() < 0.5)
        await client.call("range", request)
        if not lease:
            await client.call("delete_range", DeleteRangeRequest(prefix, end))
        elif rng.random() < 0.5:
            await client.call("lease_revoke", LeaseRevokeRequest(lease))
