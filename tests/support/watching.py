"""A client that watches, as a face would let it: pulls, and wakes up when there is something."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kvstore.budget import CountedBudget
from kvstore.service.caller import ANYBODY
from kvstore.types import (
    Event,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)

if TYPE_CHECKING:
    from kvstore.service.watch import ServiceWatch
    from tests.support.cluster import Host

TAKE_BYTES_MAX = 64 * 1024
TAKE_STEPS = 8


class Watching:
    """One stream with one watcher on one member."""

    def __init__(self, host: Host, create: WatchCreateRequest) -> None:
        self._host = host
        self._ready = asyncio.Event()
        self.responses: list[WatchResponse] = []
        self.events: list[Event] = []
        self._stream: ServiceWatch = host.run(host.service.open_watch, ANYBODY, self._ready.set)
        host.run(self._stream.request, WatchRequest(create_request=create))
        assert host.process is not None, "a process that answers is there"
        host.process.spawn(self._read())

    async def _read(self) -> None:
        budget = CountedBudget(TAKE_STEPS)
        while True:
            await self._ready.wait()
            self._ready.clear()
            budget.renew()
            for response in self._stream.take(budget, TAKE_BYTES_MAX):
                self.responses.append(response)
                self.events += response.events
            await asyncio.sleep(0)

    @property
    def revisions(self) -> list[int]:
        """Revisions of the events, as they came."""
        return [event.kv.mod_revision for event in self.events if event.kv is not None]

    def ask_progress(self) -> None:
        """Ask how far the stream is; the answer is one of ``responses``."""
        self._host.run(self._stream.request, WatchRequest(progress_request=WatchProgressRequest()))

    def check(self, first: int, last: int) -> None:
        """Every revision from first to last came once, in order.

        So it must be where every write changes one key that is watched.
        """
        assert self.revisions == list(range(first, last + 1)), (
            f"member {self._host.number}: events {self.revisions[:5]}...{self.revisions[-5:]} "
            f"({len(self.revisions)}) are not {first}..{last}"
        )
