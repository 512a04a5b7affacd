"""A client of the cluster: one call at a time, each with its outcome in the history."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from kvstore.errors import KvError, UnknownOutcomeError
from kvstore.service.caller import ANYBODY, Caller
from tests.checking.history import Operation, Outcome
from tests.support.cluster import ProcessLostError

if TYPE_CHECKING:
    from tests.sim.world import World
    from tests.support.cluster import Host

PATIENCE_SECONDS = 8.0
"""A client waits so long for an answer; longer than a member's own deadline, or it would never see
that.
"""
NOBODY_UP_SECONDS = 0.1


class Client:
    """Calls members and records it.

    Args:
        world: Where.
        rng: Chooses whom to ask.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world = world
        self._rng = rng
        self.number = world.new_client_number()

    async def find(self) -> Host:
        """Some member that is up."""
        while not self.world.cluster.up:  # noqa: ASYNC110 - nobody tells, and it costs nothing
            await asyncio.sleep(NOBODY_UP_SECONDS)
        return self._rng.choice(self.world.cluster.up)

    async def call(
        self,
        method: str,
        request: Any,
        caller: Caller = ANYBODY,
        *,
        host: Host | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Operation:
        """Make one call, of ``host`` or of whoever is up, and wait for what comes of it.

        Returns:
            The call as recorded. Its ``outcome`` says what is known; nothing is raised.
        """
        world = self.world
        host = host or await self.find()
        operation = Operation(self.number, method, request, host.number, world.loop.now)
        world.history.operations.append(operation)
        world.trace.add("call", host.number, f"c{self.number} {method}")
        try:
            assert host.up, f"member {host.number} is down"
            async with asyncio.timeout(patience_seconds):
                operation.response = await host.call(method, request, caller)
            operation.outcome = Outcome.OK
        except (UnknownOutcomeError, ProcessLostError, TimeoutError) as error:
            operation.error = str(error) or "no answer"
            # The call may still happen: who goes on is another client.
            self.number = world.new_client_number()
        except KvError as error:
            operation.outcome = Outcome.REFUSED
            operation.error = str(error)
        if operation.outcome is not Outcome.UNKNOWN:
            operation.returned_at = world.loop.now
        world.trace.add(
            "answer",
            host.number,
            f"c{operation.client} {method} {operation.outcome.value} {operation.error}",
        )
        return operation
