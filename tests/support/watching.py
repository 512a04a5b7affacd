"""A client that watches, as a face would let it: pulls, and wakes up when there is something."""

from __future__ import annotations

import asyncio
import random
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
    from tests.support.cluster import Cluster
    from tests.support.host import Host
    from tests.support.virtual_loop import Process

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


class Roaming:
    """A client that watches every key, on one member after the other: whenever the one that it
    watches on is gone it goes on with another, where it stopped.

    Every revision must bring one event, the next one; so it fits where each write changes one key.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rng = random.Random(cluster.rng.getrandbits(64))
        self.revision = 1
        self.moves = 0
        self._stopping = False
        self._task = cluster.loop.create_task(self._run())

    async def _run(self) -> None:
        while not self._stopping:
            await asyncio.sleep(0.02)
            # One that only learns takes no watch.
            up = [
                host
                for host in self._cluster.up
                if not host.node.failed.done() and not host.node.is_learner
            ]
            if up:
                self.moves += 1
                await self._watch_on(self._rng.choice(up))

    async def _watch_on(self, host: Host) -> None:
        process = host.process
        create = WatchCreateRequest(b"\0", b"\0", start_revision=self.revision + 1)
        watching = Watching(host, create)
        seen = 0
        while not self._stopping and host.up and host.process is process:
            await asyncio.sleep(0.02)
            for revision in watching.revisions[seen:]:
                assert revision == self.revision + 1, (
                    f"member {host.number}: revision {revision} follows {self.revision}"
                )
                self.revision = revision
            seen = len(watching.events)

    async def check(self) -> None:
        """Wait for the newest revision, and stop."""
        machine = self._cluster[0].machine
        await self._cluster.wait(
            lambda: self._task.done() or self.revision == machine.store.revision
        )
        self._stopping = True
        await self._task


class Following:
    """A client that watches every key on one member, and comes back where it stopped whenever the
    member's process was gone.

    Every revision must bring one event, the next one; so it fits where each write changes one key.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self.revision = 1
        self._stopping = False
        self._task = host.cluster.loop.create_task(self._run())

    async def _run(self) -> None:
        host = self._host
        while not self._stopping:
            await asyncio.sleep(0.02)
            if not host.up:
                continue
            process = host.process
            watching = Watching(
                host, WatchCreateRequest(b"\0", b"\0", start_revision=self.revision + 1)
            )
            seen = 0
            while self._is_there(process):
                await asyncio.sleep(0.02)
                for revision in watching.revisions[seen:]:
                    assert revision == self.revision + 1, (
                        f"member {host.number}: revision {revision} follows {self.revision}"
                    )
                    self.revision = revision
                seen = len(watching.events)

    def _is_there(self, process: Process | None) -> bool:
        return not self._stopping and self._host.up and self._host.process is process

    async def check(self) -> None:
        """Wait for the newest revision, and stop."""
        await self._host.cluster.wait(
            lambda: self._task.done() or self.revision == self._host.machine.store.revision
        )
        self._stopping = True
        await self._task
