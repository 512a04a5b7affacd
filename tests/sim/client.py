"""A client of the cluster: one call at a time, each with its outcome in the history."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

from kvstore.errors import Code, ErrorKind, KvError, UnknownOutcomeError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import AuthenticateRequest
from tests.checking.history import Operation, Outcome
from tests.support.host import ProcessLostError

if TYPE_CHECKING:
    from tests.sim.world import World
    from tests.support.host import Host

PATIENCE_SECONDS = 8.0
"""A client waits so long for an answer; longer than a member's own deadline, or it would never see
that.
"""
NOBODY_UP_SECONDS = 0.1
USER_EMPTY = ErrorKind.USER_EMPTY.error()
LOST_TURN = (ErrorKind.MUTEX_SESSION_EXPIRED.error(), ErrorKind.ELECTION_NOT_LEADER.error())
"""Who waits for a lock and is told this had a key for a while: that is not nothing."""

Login = tuple[str, str]
"""A user's name and password."""

ROOT: Login = ("root", "roots-secret")
"""Who sets users up, and switches authentication on and off."""
WORKER: Login = ("worker", "workers-secret")
"""Who all are that need no user of their own: may do everything, as root, and always."""


class Client:
    """Calls members and records it.

    While authentication is on it logs in before its next call, whenever it is told that nobody
    knows who it is.

    Args:
        world: Where.
        rng: Chooses whom to ask.
        login: As whom.
    """

    def __init__(self, world: World, rng: random.Random, login: Login = WORKER) -> None:
        self.world = world
        self.rng = rng
        self.number = world.new_client_number()
        self.login = login
        self.token: str | None = None
        self.login_error = ""
        """Why it was not let in, when it last tried."""
        self._stranger = False

    async def find(self) -> Host:
        """Some member that is up."""
        while not self.world.cluster.up:  # noqa: ASYNC110 - nobody tells, and it costs nothing
            await asyncio.sleep(NOBODY_UP_SECONDS)
        return self.rng.choice(self.world.cluster.up)

    def another(self) -> Client:
        """One more client, of the same user: what does two things at once is two."""
        return Client(self.world, self.rng, self.login)

    @property
    def caller(self) -> Caller:
        """Who it says that it is."""
        return ANYBODY if self.token is None else Caller(self.token)

    @property
    def user(self) -> str:
        """Whose token it has."""
        return "" if self.token is None else self.login[0]

    async def log_in(self, host: Host | None = None) -> bool:
        """Ask for a token; whether there is one now."""
        self._stranger = False
        self.token = None
        operation = await self._make("authenticate", AuthenticateRequest(*self.login), host)
        self.login_error = operation.error
        if operation.outcome is Outcome.OK:
            self.token = operation.response.token
        return self.token is not None

    async def call(
        self,
        method: str,
        request: Any,
        *,
        host: Host | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Operation:
        """Make one call, of ``host`` or of whoever is up, and wait for what comes of it.

        Returns:
            The call as recorded. Its ``outcome`` says what is known; nothing is raised.
        """
        if self._stranger:
            await self.log_in()
        return await self._make(method, request, host, patience_seconds)

    async def _make(
        self,
        method: str,
        request: Any,
        host: Host | None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> Operation:
        world = self.world
        if host is None or not host.up:
            host = await self.find()
        operation = Operation(
            self.number, method, request, host.number, world.loop.now, user=self.user
        )
        world.history.operations.append(operation)
        world.trace.add("call", host.number, f"c{self.number} {method}")
        try:
            async with asyncio.timeout(patience_seconds):
                operation.response = await host.send(method, request, self.caller)
            operation.outcome = Outcome.OK
        except (UnknownOutcomeError, ProcessLostError, TimeoutError) as error:
            operation.error = str(error) or "no answer"
            # The call may still happen: who goes on is another client.
            self.number = world.new_client_number()
        except KvError as error:
            operation.error = str(error)
            if method in ("lock", "campaign") and error in LOST_TURN:
                self.number = world.new_client_number()
            else:
                operation.outcome = Outcome.REFUSED
            self._stranger = error.code is Code.UNAUTHENTICATED or error == USER_EMPTY
        if operation.outcome is not Outcome.UNKNOWN:
            operation.returned_at = world.loop.now
        world.trace.add(
            "answer",
            host.number,
            f"c{operation.client} {method} {operation.outcome.value} {operation.error}",
        )
        return operation
