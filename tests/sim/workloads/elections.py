"""Elections: candidates who lead, proclaim and resign, and observers who see all of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.errors import KvError
from kvstore.types import (
    CampaignRequest,
    LeaderRequest,
    LeaderResponse,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    ProclaimRequest,
    ResignRequest,
)
from tests.checking.history import Observation, Outcome

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World
    from tests.support.host import Host

ELECTION = b"election"
TTL_SECONDS = (2, 6)
PATIENCE_SECONDS = (0.5, 4.0)
PAUSE_SECONDS = (0.0, 1.0)
WORDS_MAX = 4


async def candidate(world: World, client: Client, rng: random.Random) -> None:
    """Campaign, lead for a while, and step down in one way or another."""
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        granted = await client.call("lease_grant", LeaseGrantRequest(rng.randint(*TTL_SECONDS)))
        if granted.outcome is not Outcome.OK:
            continue
        lease = granted.response.ID
        campaign = CampaignRequest(ELECTION, lease, b"%d" % world.new_token())
        patience = rng.uniform(*PATIENCE_SECONDS)
        elected = await client.call("campaign", campaign, patience_seconds=patience)
        if elected.outcome is Outcome.OK:
            leader = elected.response.leader
            for _ in range(rng.randrange(WORDS_MAX)):
                await asyncio.sleep(rng.uniform(0.0, 0.5))
                word = b"%d" % world.new_token()
                await client.call("proclaim", ProclaimRequest(leader, word))
            if rng.random() < 0.5:
                await client.call("leader", LeaderRequest(ELECTION))
            if rng.random() < 0.7:
                await client.call("resign", ResignRequest(leader))
        if rng.random() < 0.7:
            await client.call("lease_revoke", LeaseRevokeRequest(lease))


async def observer(world: World, client: Client, rng: random.Random) -> None:
    """Observe the election on one member after the other."""
    while world.working:
        host = await client.find()
        process = host.process
        assert process is not None, "who was found is up"
        observation = Observation(host.number, ELECTION)
        world.history.observations.append(observation)
        task = process.spawn(_observe(client, host, observation.responses))
        until = world.loop.now + rng.uniform(1.0, 6.0)
        while process.alive and not task.done() and world.loop.now < until:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
        if process.alive:
            process.call_soon(task.cancel)
        await asyncio.sleep(0.1)


async def _observe(client: Client, host: Host, shown: list[LeaderResponse]) -> None:
    try:
        responses = host.service.observe(LeaderRequest(ELECTION), client.caller)
        async for response in responses:
            shown.append(response)  # noqa: PERF401 - somebody reads it meanwhile
    except KvError:
        # Refused, or its member lost its quorum: another one is asked next.
        return
