"""Lists that everybody appends to, each token once, by compare and set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.types import (
    Compare,
    CompareTarget,
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

LISTS = 2
PAUSE_SECONDS = (0.0, 0.3)


async def append(world: World, client: Client, rng: random.Random) -> None:
    """Read a list, and put it with one token more if nobody else did meanwhile.

    The answer of a lost race carries the list as it is, so the next try needs no read.
    """
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        key = b"append/%d" % rng.randrange(LISTS)
        read = await client.call("range", RangeRequest(key))
        if read.outcome is not Outcome.OK:
            continue
        kvs = read.response.kvs
        for _ in range(3):
            value = kvs[0].value if kvs else b""
            longer = value + (b"," if value else b"") + b"%d" % world.new_token()
            revision = kvs[0].mod_revision if kvs else 0
            operation = await client.call(
                "txn",
                TxnRequest(
                    [Compare(target=CompareTarget.MOD, key=key, mod_revision=revision)],
                    [RequestOp(request_put=PutRequest(key, longer))],
                    [RequestOp(request_range=RangeRequest(key))],
                ),
            )
            if operation.outcome is not Outcome.OK or operation.response.succeeded:
                break
            kvs = operation.response.responses[0].response_range.kvs
