"""Operators who change the members, and who leads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from kvstore.errors import ConfigError
from kvstore.types import (
    Member,
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
    MemberUpdateRequest,
    MoveLeaderRequest,
    StatusRequest,
)
from tests.checking.history import Outcome
from tests.checking.violation import ViolationError

if TYPE_CHECKING:
    import random

    from tests.sim.client import Client
    from tests.sim.world import World
    from tests.support.host import Host

VOTERS_MIN = 3
MEMBERS_MAX = 7
PAUSE_SECONDS = (0.3, 2.5)
TRANSFER_PAUSE_SECONDS = (0.5, 4.0)
LATE_SECONDS = 10.0
"""A change whose outcome is unknown happens by then, or never."""
SETTLE_SECONDS_MAX = 30.0


async def leadership(world: World, client: Client, rng: random.Random) -> None:
    """Hand leadership on, to whom it may be."""
    while world.working:
        await asyncio.sleep(rng.uniform(*TRANSFER_PAUSE_SECONDS))
        status = await client.call("status", StatusRequest())
        if status.outcome is not Outcome.OK:
            continue
        ids = [host.known_id for host in world.cluster.hosts]
        leader = [host for host in world.cluster.up if host.known_id == status.response.leader]
        if leader:
            request = MoveLeaderRequest(rng.choice(ids))
            await client.call("move_leader", request, host=leader[0])


async def members(world: World, client: Client, rng: random.Random) -> None:
    """Add, promote, remove, replace and move members, within 3 to 7 of them."""
    crew = _Crew(world, client, rng)
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        async with world.changing_members:
            await crew.step()
    async with world.changing_members:
        await crew.settle()


class _Crew:
    """One operator.

    ``_waiting`` are machines that the cluster was asked to let in, by their URL. They take no part
    in a run before they are members, and none of its faults finds them.
    """

    def __init__(self, world: World, client: Client, rng: random.Random) -> None:
        self._world = world
        self._client = client
        self._rng = rng
        self._waiting: dict[str, Host] = {}
        self._late_until = 0.0
        self._moves = 0

    async def step(self) -> None:
        rows = await self._list()
        if rows is None:
            # Perhaps until somebody is there who was let in: a new machine finds that out itself.
            for host in list(self._waiting.values()):
                await self._join(host)
            return
        await self._reconcile(rows)
        voters = [row for row in rows if not row.isLearner]
        learners = [row for row in rows if row.isLearner]
        rng = self._rng
        choice = rng.random()
        if learners and choice < 0.6:
            await self._change("member_promote", MemberPromoteRequest(learners[0].ID))
        elif learners and choice < 0.7:
            await self._change("member_remove", MemberRemoveRequest(learners[0].ID))
        elif choice < 0.85 and len(rows) < MEMBERS_MAX and (len(voters) <= 4 or choice < 0.3):
            await self._add(learner=rng.random() < 0.6)
        elif len(voters) > VOTERS_MIN:
            await self._change("member_remove", MemberRemoveRequest(rng.choice(voters).ID))
        else:
            self._moves += 1
            moved = rng.choice(rows)
            urls = [*moved.peerURLs[:1], f"http://moved-{self._moves}:2380"]
            await self._change("member_update", MemberUpdateRequest(moved.ID, urls))

    async def settle(self) -> None:
        """Bring it to an end: who was let in runs, and who was removed has ended by itself."""
        give_up = self._world.loop.now + SETTLE_SECONDS_MAX
        while True:
            rows = await self._list()
            if rows is not None:
                await self._reconcile(rows)
                late = self._world.loop.now < self._late_until
                if not late and self._is_settled(rows):
                    return
            if self._world.loop.now > give_up:
                hosts = [host.number for host in self._world.cluster.hosts]
                self._world.report(
                    ViolationError(
                        "liveness", f"members never settle: machines {hosts}, members {rows}"
                    )
                )
                return
            await asyncio.sleep(0.3)

    async def _list(self) -> list[Member] | None:
        """Who the members are, as of now."""
        listed = await self._client.call("member_list", MemberListRequest(linearizable=True))
        return listed.response.members if listed.outcome is Outcome.OK else None

    async def _change(self, method: str, request: Any) -> None:
        operation = await self._client.call(method, request)
        if operation.outcome is Outcome.UNKNOWN:
            self._late_until = self._world.loop.now + LATE_SECONDS
        elif operation.outcome is Outcome.OK:
            await self._start_new(operation.response.members)

    async def _add(self, *, learner: bool) -> None:
        cluster = self._world.cluster
        host = cluster.new_host()
        cluster.hosts.remove(host)
        url = host.config.initial_advertise_peer_urls[0]
        self._waiting[url] = host
        await self._change("member_add", MemberAddRequest([url], learner))

    async def _reconcile(self, rows: list[Member]) -> None:
        """Start who was let in, and let go of who was removed."""
        world = self._world
        listed = {row.ID for row in rows}
        places = {url for row in rows for url in row.peerURLs}
        await self._start_new(rows)
        for host in list(world.cluster.hosts):
            if not host.known_id or host.known_id in listed:
                continue
            if not places.isdisjoint(host.config.initial_advertise_peer_urls):
                # It is about to be another in its own place.
                continue
            if host.up or (host.opens and host.number not in world.machines.damaged):
                # It hears of it by itself, and ends.
                continue
            if host.ending is None and self._rng.random() < 0.7:
                # It was down, and hears of it when it comes back.
                await world.start(host)
                continue
            world.observer.on_end(host)
            world.marks.hit("member removed", host.number)
            world.cluster.hosts.remove(host)

    async def _start_new(self, rows: list[Member]) -> None:
        for row in rows:
            host = next((self._waiting[url] for url in row.peerURLs if url in self._waiting), None)
            if host is not None:
                await self._join(host)

    async def _join(self, host: Host) -> None:
        cluster = self._world.cluster
        if not [other for other in cluster.up if other is not host]:
            return
        cluster.hosts.append(host)
        try:
            await host.join()
        except ConfigError:
            # Nobody who was asked knows of it yet.
            cluster.hosts.remove(host)
            return
        self._waiting.pop(host.config.initial_advertise_peer_urls[0])
        self._world.marks.hit("member added", host.number)

    def _is_settled(self, rows: list[Member]) -> bool:
        ids = {host.known_id for host in self._world.cluster.hosts}
        return ids == {row.ID for row in rows} and all(
            host.up and host.node.ready.is_set() for host in self._world.cluster.hosts
        )
