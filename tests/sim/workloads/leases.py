"""Leases: granted, renewed in time or not, with keys that come and go, revoked and granted anew."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.errors import ErrorKind
from kvstore.types import (
    LeaseGrantRequest,
    LeaseId,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
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
    from tests.support.host import Host

SLOTS = 2
KEYS = 3
TTL_SECONDS = (2, 5)
PAUSE_SECONDS = (0.0, 0.5)
MEDDLE_SECONDS = (0.0, 2.0)
MANY_KEYS = 40
LAST_SECONDS_MAX = 7.0
"""By then a lease that nobody renews is about to end, unless its leader is gone."""
LOOK_SECONDS = 0.002
LEASE_EXIST = ErrorKind.LEASE_EXIST.message
LEASE_NOT_FOUND = ErrorKind.LEASE_NOT_FOUND.message


async def leases(world: World, client: Client, rng: random.Random) -> None:
    """Keep a few leases, each with keys of its own, and be careless about some.

    Somebody else knows them, too: what one is told must fit what the other one does.
    """
    own = world.new_token()
    slots = [_Slot(world, client, rng, own * SLOTS + number) for number in range(SLOTS)]
    friend = asyncio.create_task(_meddle(world, client.another(), rng, slots))
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        await rng.choice(slots).step()
    await friend


async def _meddle(world: World, friend: Client, rng: random.Random, slots: list[_Slot]) -> None:
    """Ask after leases that another client keeps, renew them, and now and then end one."""
    while world.working:
        await asyncio.sleep(rng.uniform(*MEDDLE_SECONDS))
        lease = rng.choice(slots).lease
        choice = rng.random()
        if not lease:
            continue
        if choice < 0.5:
            await friend.call("lease_time_to_live", LeaseTimeToLiveRequest(lease))
        elif choice < 0.85:
            await friend.call("lease_keep_alive", LeaseKeepAliveRequest(lease))
        else:
            await friend.call("lease_revoke", LeaseRevokeRequest(lease))


class _Slot:
    """A place for one lease at a time."""

    def __init__(self, world: World, client: Client, rng: random.Random, number: int) -> None:
        self._world = world
        self._client = client
        self._rng = rng
        self._number = number
        self._prefix = b"leases/%d/" % number
        self._lease = 0
        self._idle_until = 0.0

    @property
    def lease(self) -> int:
        """The one that is there, or was a moment ago; 0 if there is none."""
        return self._lease

    async def step(self) -> None:
        if not self._lease:
            await self._grant()
        elif self._world.loop.now < self._idle_until:
            await self._look()
        else:
            actions = [self._attach, self._keep_alive, self._look, self._end]
            await self._rng.choices(actions, (3, 4, 2, 1.5))[0]()

    async def _grant(self) -> None:
        # Most under one id, again and again: the new lease must not be taken for the old one.
        lease = self._rng.choice((0, 1000 + self._number, 1000 + self._number))
        request = LeaseGrantRequest(self._rng.randint(*TTL_SECONDS), lease)
        operation = await self._client.call("lease_grant", request)
        if operation.outcome is Outcome.OK:
            self._lease = operation.response.ID
        elif LEASE_EXIST in operation.error:
            self._lease = lease

    async def _attach(self) -> None:
        rng = self._rng
        key = self._prefix + b"%d" % rng.randrange(KEYS)
        value = b"%d" % self._world.new_token()
        choice = rng.random()
        if choice < 0.15:
            request = PutRequest(key, value)
        elif choice < 0.25:
            request = PutRequest(key, value, ignore_lease=True)
        else:
            request = PutRequest(key, value, self._lease)
        if choice > 0.97:
            keys = [self._prefix + b"many/%d" % number for number in range(MANY_KEYS)]
            puts = [RequestOp(request_put=PutRequest(many, value, self._lease)) for many in keys]
            operation = await self._client.call("txn", TxnRequest(success=puts))
        else:
            operation = await self._client.call("put", request)
        if LEASE_NOT_FOUND in operation.error:
            self._lease = 0

    async def _keep_alive(self, host: Host | None = None) -> None:
        request = LeaseKeepAliveRequest(self._lease)
        operation = await self._client.call("lease_keep_alive", request, host=host)
        if operation.outcome is Outcome.OK and operation.response.TTL <= 0:
            self._lease = 0

    async def _look(self) -> None:
        choice = self._rng.random()
        if choice < 0.4:
            request = RangeRequest(self._prefix, self._prefix[:-1] + b"0")
            await self._client.call("range", request)
        elif choice < 0.9:
            ask = LeaseTimeToLiveRequest(self._lease, keys=self._rng.random() < 0.5)
            operation = await self._client.call("lease_time_to_live", ask)
            if operation.outcome is Outcome.OK and operation.response.TTL < 0:
                self._lease = 0
        else:
            await self._client.call("lease_leases", LeaseLeasesRequest())

    async def _end(self) -> None:
        if self._rng.random() < 0.5:
            # Not renewed for a while: it may end by itself.
            if self._rng.random() < 0.5:
                await self._renew_at_its_end()
            else:
                self._idle_until = self._world.loop.now + self._rng.uniform(1.0, 6.0)
            return
        operation = await self._client.call("lease_revoke", LeaseRevokeRequest(self._lease))
        if operation.outcome is not Outcome.UNKNOWN:
            self._lease = 0

    async def _renew_at_its_end(self) -> None:
        """Not before some lease's end, its own perhaps, is on its way through the log."""
        world, lease = self._world, LeaseId(self._lease)
        marks = world.marks.counts
        mark = "lease expiry proposed"
        give_up = world.loop.now + LAST_SECONDS_MAX
        while world.working and world.loop.now < give_up and self._lease:
            seen = marks[mark]
            while marks[mark] == seen and world.loop.now < give_up:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
            leader = world.cluster.leader()
            if leader is None or not leader.machine.lessor.exists(lease):
                return
            if leader.node.leases._lessor.remaining(lease, leader.node.loop.time()) <= 0:
                await self._keep_alive(leader)
                return
