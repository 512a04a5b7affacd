"""gRPC's health checking protocol: is this member well, as ``/health`` has it?

Each of our services is as well as the member.
"""

import asyncio
import enum
from functools import partial
from typing import Annotated, Final, TypeAlias

import msgspec

from kvstore.api.answer import Leave, Reply
from kvstore.api.backend import Service
from kvstore.api.grpc.calls import Call, Exchange, Unary
from kvstore.api.grpc.decode import decode
from kvstore.api.grpc.encode import encode
from kvstore.api.grpc.pb.descriptors import SERVICES
from kvstore.api.grpc.stream_calls import only_request
from kvstore.errors import Code, KvError
from kvstore.service.caller import Caller
from kvstore.types import Record

SERVICE: Final = "grpc.health.v1.Health"

CHECK_SECONDS: Final = 1.0
"""How often the member is looked at, while anybody watches its health."""


class ServingStatus(enum.IntEnum):
    """HealthCheckResponse.ServingStatus."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


AnyServingStatus: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": ServingStatus})]


class HealthCheckRequest(Record):
    """Ask after a service; "" is the server as a whole."""

    service: str = ""


class HealthCheckResponse(Record):
    """How it is."""

    status: AnyServingStatus = ServingStatus.UNKNOWN


class Health:
    """The Health service of one member.

    Args:
        service: asked how it is.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._draining = asyncio.Event()
        self._asked: asyncio.Future[ServingStatus] | None = None
        self._asked_at = 0.0

    def calls(self) -> dict[str, Call]:
        """Check and Watch."""
        return {
            f"/{SERVICE}/Check": Unary(self.check, encode),
            f"/{SERVICE}/Watch": self.watch,
        }

    def drain(self) -> None:
        """The server stops: whoever asks or watches is sent elsewhere."""
        self._draining.set()

    def check(self, data: bytes, _caller: Caller, reply: Reply) -> Leave | None:
        """How a service is. NOT_FOUND if it is none of ours."""
        try:
            request = decode(HealthCheckRequest, data)
        except KvError as error:
            reply(error)
            return None
        if not _is_ours(request.service):
            reply(KvError(Code.NOT_FOUND, "unknown service"))
        elif self._draining.is_set():
            reply(HealthCheckResponse(ServingStatus.NOT_SERVING))
        else:
            self._service.health(False, frozenset(), partial(_answer, reply))
        return None

    async def watch(self, exchange: Exchange, _caller: Caller) -> None:
        """How a service is, and then each change, until the call ends."""
        request = await only_request(HealthCheckRequest, exchange)
        if not _is_ours(request.service):
            await exchange.send([encode(HealthCheckResponse(ServingStatus.SERVICE_UNKNOWN))])
            # It may become known some day, by the protocol; not while this server runs.
            await self._draining.wait()
            return
        told: ServingStatus | None = None
        while True:
            status = await self._status()
            if status is not told:
                told = status
                await exchange.send([encode(HealthCheckResponse(status))])
            if self._draining.is_set():
                return
            await self._pause()

    async def _pause(self) -> None:
        """Until it is time to look again, or the server stops."""
        waiting = asyncio.ensure_future(self._draining.wait())
        try:
            await asyncio.wait([waiting], timeout=CHECK_SECONDS)
        finally:
            waiting.cancel()

    async def _status(self) -> ServingStatus:
        """How the member is; all who watch share one look a second."""
        if self._draining.is_set():
            return ServingStatus.NOT_SERVING
        loop = asyncio.get_running_loop()
        asked = self._asked
        if asked is None or (asked.done() and loop.time() - self._asked_at >= CHECK_SECONDS / 2):
            asked = self._asked = loop.create_future()
            self._asked_at = loop.time()
            self._service.health(False, frozenset(), partial(_settle, asked))
        # One who leaves must not take the answer from the others.
        return await asyncio.shield(asked)


def _is_ours(service: str) -> bool:
    return not service or service in SERVICES


def _answer(reply: Reply, reason: str) -> None:
    reply(HealthCheckResponse(_by_reason(reason)))


def _settle(asked: "asyncio.Future[ServingStatus]", reason: str) -> None:
    if not asked.done():
        asked.set_result(_by_reason(reason))


def _by_reason(reason: str) -> ServingStatus:
    return ServingStatus.NOT_SERVING if reason else ServingStatus.SERVING
