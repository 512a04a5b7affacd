"""Clients that wait for locks and elections on members of a cluster in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kvstore.errors import KvError
from kvstore.service.caller import ANYBODY, Caller
from kvstore.types import (
    CampaignRequest,
    LeaderRequest,
    LeaderResponse,
    LockRequest,
    UnlockRequest,
)

if TYPE_CHECKING:
    from tests.support.cluster import Cluster
    from tests.support.host import Host


LOG_HELD_SECONDS = 6.0
"""Longer than a leader keeps the log for a follower that may be back at once."""


class Call:
    """A call that may block. ``result`` is its answer; ``call_off`` says that the caller left."""

    def __init__(self, host: Host, method: str, request: Any, caller: Caller = ANYBODY) -> None:
        self.answers: list[Any] = []
        self._host = host
        self._call_off: Callable[[], None] = host.run(
            getattr(host.service, method), request, caller, self.answers.append
        )

    def call_off(self) -> None:
        self._host.run(self._call_off)

    @property
    def answered(self) -> bool:
        assert len(self.answers) <= 1, "answered twice"
        return bool(self.answers)

    async def result(self) -> Any:
        await self._host.cluster.wait(lambda: self.answered)
        return self.answers[0]

    async def won(self) -> Any:
        result = await self.result()
        assert not isinstance(result, KvError), result
        return result

    async def error(self) -> tuple[int, str]:
        result = await self.result()
        assert isinstance(result, KvError), result
        return result.code, result.message


def lock(host: Host, name: bytes, lease: int = 0, caller: Caller = ANYBODY) -> Call:
    return Call(host, "lock", LockRequest(name, lease), caller)


def campaign(
    host: Host, name: bytes, value: bytes, lease: int = 0, caller: Caller = ANYBODY
) -> Call:
    return Call(host, "campaign", CampaignRequest(name, lease, value), caller)


async def unlock(host: Host, key: bytes) -> None:
    await host.call("unlock", UnlockRequest(key))


def revision_of(response: Any) -> int:
    revision: int = response.header.revision
    return revision


async def candidates(host: Host, name: bytes) -> list[bytes]:
    """The keys under a name."""
    return [kv.key for kv in (await host.range(name + b"/", name + b"0")).kvs]


async def entered(host: Host, key: bytes) -> None:
    """Wait until a member knows of a candidate."""
    await host.cluster.wait(lambda: host.machine.store.get(key))


async def settle(cluster: Cluster, seconds: float = 0.5) -> None:
    """Time in which those who wait could be answered, if they were to be."""
    await asyncio.sleep(seconds)
    cluster.check()


class Observing:
    """A client that observes an election on one member."""

    def __init__(self, host: Host, name: bytes, caller: Caller = ANYBODY) -> None:
        self.responses: list[LeaderResponse] = []
        self.error: KvError | None = None
        self._stream = host.run(host.service.observe, LeaderRequest(name), caller)
        assert host.process is not None, "a process that answers is there"
        self.task = host.process.spawn(self._read())

    async def _read(self) -> None:
        try:
            async for response in self._stream:
                self.responses.append(response)
        except KvError as error:
            self.error = error

    @property
    def values(self) -> list[bytes]:
        return [response.kv.value for response in self.responses if response.kv is not None]

    @property
    def revisions(self) -> list[int]:
        return [revision_of(response) for response in self.responses]
