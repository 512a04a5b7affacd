"""A client's watch stream: some watchers on one member, and what each was told."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

import msgspec

from kvstore.budget import CountedBudget
from kvstore.errors import KvError
from kvstore.types import (
    WatchCancelRequest,
    WatchCreateRequest,
    WatchProgressRequest,
    WatchRequest,
    WatchResponse,
)
from tests.checking.history import Watch

if TYPE_CHECKING:
    from kvstore.service.watch import ServiceWatch
    from tests.sim.client import Client
    from tests.support.host import Host

TAKE_BYTES_MAX = 16 * 1024
TAKE_STEPS = 4
WHOLE_STREAM = -1
"""The watch id of what is said to all watchers of a stream."""


class Feed:
    """One stream, read by the process that serves it: what that did not send is lost with it.

    Args:
        client: Whose it is; its user's token opens it.
        host: Where.
        lag_seconds: Between two readings up to so much time goes by: a slow reader.
    """

    def __init__(self, client: Client, host: Host, lag_seconds: float = 0.0) -> None:
        assert host.process is not None, f"member {host.number} is down"
        self.host = host
        self.ended = ""
        self.progress_revision = 0
        """The highest that the stream as a whole was said to have reached."""
        self._world = client.world
        self._rng = client.rng
        self._caller = client.caller
        self._user = client.user
        self._lag_seconds = lag_seconds
        self._ready = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._stream: ServiceWatch | None = None
        self._asked: deque[Watch] = deque()
        self._open: dict[int, Watch] = {}
        self._process = host.process
        self._task = self._process.spawn(self._read())

    @property
    def lost(self) -> bool:
        """Whether nothing more can come."""
        return bool(self.ended) or not self._process.alive

    @property
    def watches(self) -> list[Watch]:
        """Those that are open or have been asked for."""
        return [*self._open.values(), *self._asked]

    def watch(self, client: int, create: WatchCreateRequest) -> Watch:
        """Ask for a watcher, which this client number is to have."""
        request = msgspec.structs.replace(create)
        now = self._world.loop.now
        watch = Watch(client, self.host.number, request, now, user=self._user)
        self._world.history.watches.append(watch)
        self._asked.append(watch)
        self._request(WatchRequest(create_request=create))
        return watch

    def cancel(self, watch: Watch) -> None:
        """Ask for no more of a watcher that is open."""
        for watch_id, each in self._open.items():
            if each is watch:
                watch.cancelled_at = min(watch.cancelled_at, self._world.loop.now)
                self._request(WatchRequest(cancel_request=WatchCancelRequest(watch_id)))

    def hold(self) -> None:
        """Take nothing any more: what is to come waits with the member."""
        self._going.clear()

    def go_on(self) -> None:
        """Take again what is there."""
        self._going.set()

    def ask_progress(self) -> None:
        """Ask how far the stream is."""
        self._request(WatchRequest(progress_request=WatchProgressRequest()))

    def close(self, why: str = "closed") -> None:
        """Hear no more, as the client wishes or since the member is gone."""
        for watch in self.watches:
            self._end(watch, why)
        self._open.clear()
        self._asked.clear()
        self.ended = self.ended or why
        if self._process.alive:
            self._process.call_soon(self._leave)

    # --- in the member's process ------------------------------------------------------------------

    def _request(self, request: WatchRequest) -> None:
        self._process.call_soon(self._carry, request)

    def _carry(self, request: WatchRequest) -> None:
        if self._stream is None or self.ended:
            return
        try:
            self._stream.request(request)
        except KvError as error:
            self.ended = str(error)

    def _leave(self) -> None:
        self._task.cancel()
        if self._stream is not None:
            self._stream.close()

    async def _read(self) -> None:
        try:
            service = self.host.service
            self._stream = stream = service.open_watch(self._caller, self._ready.set)
            budget = CountedBudget(TAKE_STEPS)
            while True:
                await self._ready.wait()
                if self._lag_seconds:
                    await asyncio.sleep(self._rng.uniform(0.0, self._lag_seconds))
                await self._going.wait()
                if self.ended:
                    return
                self._ready.clear()
                budget.renew()
                for response in stream.take(budget, TAKE_BYTES_MAX):
                    self._hear(response)
                await asyncio.sleep(0)
        except KvError as error:
            self.ended = str(error)
            if self._stream is not None:
                self._stream.close()

    def _hear(self, response: WatchResponse) -> None:
        now = self._world.loop.now
        if response.created:
            watch = self._asked.popleft()
            watch.responses.append((now, response))
            if response.canceled:
                self._end(watch, response.cancel_reason or "refused")
            else:
                self._open[response.watch_id] = watch
            return
        if response.watch_id == WHOLE_STREAM:
            assert response.header is not None, "a response has a header"
            self.progress_revision = response.header.revision
            for watch in self._open.values():
                watch.responses.append((now, response))
            return
        watch = self._open[response.watch_id]
        watch.responses.append((now, response))
        if response.canceled:
            del self._open[response.watch_id]
            why = f"compacted at {response.compact_revision}" if response.compact_revision else ""
            self._end(watch, response.cancel_reason or why or "cancelled")

    def _end(self, watch: Watch, why: str) -> None:
        watch.ended = why
        watch.ended_at = self._world.loop.now


def seen_revision(watch: Watch) -> int:
    """Up to which revision a watcher has seen everything; 0: it does not know."""
    seen = max(0, watch.request.start_revision - 1)
    for _, response in watch.responses:
        header = response.header
        assert header is not None, "a response has a header"
        if response.canceled:
            break
        if response.events:
            last = response.events[-1].kv
            assert last is not None, "an event has a key"
            # Of a revision in fragments the rest may be missing.
            seen = last.mod_revision - response.fragment
        elif not response.created or not watch.request.start_revision:
            seen = max(seen, header.revision)
    return seen
