"""A client's seat: calls go in as JSON by their paths, and come out as status and JSON.

What is left out between the seat and the service is only the connection.
"""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from kvstore.api.answer import error_answer
from kvstore.api.v3_json.decode import Malformed
from kvstore.api.v3_json.unary import unary_calls
from kvstore.service.caller import Caller

if TYPE_CHECKING:
    from kvstore.api.answer import Answer
    from tests.support.cluster import Cluster
    from tests.support.host import Host

JsonObject = dict[str, Any]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Seen(NamedTuple):
    """An answer as a client sees it."""

    status: int
    body: JsonObject

    @property
    def ok(self) -> bool:
        return self.status == 200


class Desk:
    """One client of a cluster.

    Args:
        cluster: It is up.
        host: Whom to ask; by default the first.
    """

    def __init__(self, cluster: Cluster, host: Host | None = None) -> None:
        self.cluster = cluster
        self.host = host or cluster[0]
        self.token: str | None = None

    def at(self, host: Host) -> Desk:
        """The same client, at another member."""
        found = Desk(self.cluster, host)
        found.token = self.token
        return found

    async def ask(
        self,
        path: str,
        body: JsonObject | bytes | None = None,
        *,
        seconds: float | None = None,
        has_leader: bool = False,
    ) -> Seen:
        """Call a path below ``/v3`` and wait for the answer."""
        return await self.begin(path, body, seconds=seconds, has_leader=has_leader)

    def begin(
        self,
        path: str,
        body: JsonObject | bytes | None = None,
        *,
        seconds: float | None = None,
        has_leader: bool = False,
    ) -> asyncio.Future[Seen]:
        """As ``ask``, but the answer is waited for later."""
        answered: asyncio.Future[Seen] = self.cluster.loop.create_future()
        caller = Caller(self.token, seconds, has_leader)
        data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        service: Any = self.host.service
        call = unary_calls(service)[f"/v3{path}"]
        try:
            pending = call.pending(data, caller)
        except Malformed as error:
            answered.set_result(_seen(error_answer(error)))
            return answered
        self.host.run(
            pending.begin, lambda outcome: answered.set_result(_seen(pending.finish(outcome)))
        )
        return answered

    async def do(self, path: str, body: JsonObject | None = None) -> JsonObject:
        """Call, and see that it is not refused."""
        seen = await self.ask(path, body)
        assert seen.ok, f"{path} {body}: {seen}"
        return seen.body

    async def log_in(self, name: str, password: str) -> None:
        """Be this user from now on."""
        answer = await self.do("/auth/authenticate", {"name": name, "password": password})
        self.token = answer["token"]

    async def switch_auth_on(self) -> None:
        """Make root, switch authentication on, and be root."""
        await self.do("/auth/user/add", {"name": "root", "password": "secret"})
        await self.do("/auth/role/add", {"name": "root"})
        await self.do("/auth/user/grant", {"user": "root", "role": "root"})
        await self.do("/auth/enable")
        await self.log_in("root", "secret")


def _seen(answer: Answer) -> Seen:
    body = answer.body or b"".join(answer.slices or ())
    return Seen(answer.status, json.loads(body))
