"""An operator who changes the members, and tries again until it is done."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from kvstore.errors import ConfigError, KvError
from kvstore.types import (
    Member,
    MemberAddRequest,
    MemberListRequest,
    MemberPromoteRequest,
    MemberRemoveRequest,
)
from tests.support.host import ProcessLostError

if TYPE_CHECKING:
    from tests.support.cluster import Cluster
    from tests.support.host import Host

TRIES_MAX = 200
PAUSE_SECONDS = 0.3
HEALTHY_SECONDS = 6.0
"""After so long a link counts as healthy."""

Disturbance = Callable[[], Awaitable[None]]


class Operator:
    """Asks whichever member is up.

    Args:
        cluster: Whose members.
        disturb: What happens while each step is under way.
    """

    def __init__(self, cluster: Cluster, disturb: Disturbance | None = None) -> None:
        self._cluster = cluster
        self._rng = random.Random(cluster.rng.getrandbits(64))
        self._disturb = disturb

    async def _ask(self, method: str, request: Any) -> Any:
        while not self._cluster.up:  # noqa: ASYNC110 - nobody tells, and it costs nothing
            await asyncio.sleep(PAUSE_SECONDS)
        return await self._rng.choice(self._cluster.up).call(method, request)

    async def members(self) -> list[Member]:
        """All members, as of now."""
        for _ in range(TRIES_MAX):
            try:
                response = await self._ask("member_list", MemberListRequest(linearizable=True))
            except (KvError, ProcessLostError):
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                members: list[Member] = response.members
                return members
        raise AssertionError("nobody says who the members are")

    async def _step(
        self, method: str, request: Any, is_done: Callable[[list[Member]], bool]
    ) -> None:
        """Ask until it is so; what a member answers meanwhile may be that it was done before."""
        disturbance = asyncio.ensure_future(self._disturb()) if self._disturb else None
        last: object = None
        for _ in range(TRIES_MAX):
            if is_done(await self.members()):
                break
            try:
                await self._ask(method, request)
            except (KvError, ProcessLostError) as error:
                last = error
                await asyncio.sleep(PAUSE_SECONDS)
        else:
            raise AssertionError(f"{method} never succeeds: {last}")
        if disturbance is not None:
            await disturbance

    async def add(self, host: Host, *, learner: bool = False) -> None:
        """Let a new machine in, and start it."""
        urls = host.config.initial_advertise_peer_urls
        request = MemberAddRequest(list(urls), learner)
        await self._step(
            "member_add", request, lambda members: any(row.peerURLs == urls for row in members)
        )
        await self.join(host)

    async def join(self, host: Host) -> None:
        """Start a machine that was let in."""
        await self._cluster.wait(lambda: _is_known(host))
        for _ in range(TRIES_MAX):
            if host.joined:
                break
            try:
                await host.join()
            except ConfigError:
                # Nobody who hears it knows of it yet.
                await asyncio.sleep(PAUSE_SECONDS)
        await self._cluster.wait(lambda: host.up and host.node.ready.is_set())

    async def promote(self, host: Host) -> None:
        """Let a learner vote."""
        own = host.known_id
        await self._step(
            "member_promote",
            MemberPromoteRequest(own),
            lambda members: any(own == row.ID and not row.isLearner for row in members),
        )

    async def remove(self, host: Host) -> None:
        """Take a member out, and wait till its process has ended."""
        own = host.known_id
        await self._step(
            "member_remove",
            MemberRemoveRequest(own),
            lambda members: all(own != row.ID for row in members),
        )
        await self._cluster.retire(host)


def _is_known(host: Host) -> bool:
    """Whether somebody who is up lists this machine by now."""
    urls = host.config.initial_advertise_peer_urls
    return any(
        row.peerURLs == urls
        for other in host.cluster.up
        if other is not host
        for row in other.machine.roster.listed()
    )
