"""Watchers of all kinds, which go on elsewhere when their stream or its member is gone."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import msgspec

from kvstore.types import FilterType, WatchCreateRequest
from tests.checking.violation import ViolationError
from tests.sim.feed import Feed, seen_revision

if TYPE_CHECKING:
    import random

    from tests.checking.history import Watch
    from tests.sim.client import Client
    from tests.sim.world import World

WATCHERS_MAX = 5
CREATIONS_MAX = 60
PAUSE_SECONDS = (0.05, 0.8)
BACK_MAX = 60
FUTURE_MAX = 20
LAGS_SECONDS = (0.0, 0.0, 0.3, 2.0, 8.0)
"""The slowest still hold what they have not taken when their member gets another state."""
CATCH_UP_SECONDS_MAX = 12.0
RANGES = (
    (b"\0", b"\0"),
    (b"register/", b"register0"),
    (b"register/0", b""),
    (b"register/1", b""),
    (b"append/", b"append0"),
    (b"bank/", b"bank0"),
    (b"txn/", b"txn0"),
    (b"leases/", b"leases0"),
    (b"large/", b"large0"),
    (b"l", b"m"),
)
LOST = "the member is gone"


async def watches(world: World, client: Client, rng: random.Random) -> None:
    """Hold a stream of a few watchers; open, cancel and move them."""
    crowd = _Crowd(world, client, rng)
    while world.working:
        await asyncio.sleep(rng.uniform(*PAUSE_SECONDS))
        await crowd.step()
    await crowd.finish()


class _Crowd:
    """The watchers of one client's stream, over all its lives.

    ``_wanted`` are those to hold: each as it was last opened.
    """

    def __init__(self, world: World, client: Client, rng: random.Random) -> None:
        self._world = world
        self._client = client
        self._rng = rng
        self._feed: Feed | None = None
        self._wanted: list[Watch] = []
        self._created = 0
        self._lag_seconds = rng.choice(LAGS_SECONDS)

    async def step(self) -> None:
        rng = self._rng
        feed = await self._held()
        self._mend(feed)
        choice = rng.random()
        if choice < 0.35 or not self._wanted:
            if len(self._wanted) < WATCHERS_MAX and self._created < CREATIONS_MAX:
                self._watch(feed, self._world.new_client_number(), self._draw())
        elif choice < 0.45:
            watch = self._wanted.pop(rng.randrange(len(self._wanted)))
            feed.cancel(watch)
        elif choice < 0.7:
            feed.ask_progress()
        elif choice < 0.78:
            feed.close()

    async def finish(self) -> None:
        """Everybody hears of everything before the end: faults are over."""
        give_up = self._world.loop.now + CATCH_UP_SECONDS_MAX
        target = self._world.truth.revision
        self._lag_seconds = 0.0
        if self._feed is not None:
            self._feed.close()
        while True:
            if self._feed is None or self._feed.lost:
                # Progress is not told while a watcher of the stream waits for the future.
                self._wanted = [watch for watch in self._wanted if _is_owed(watch, target)]
            if not self._wanted:
                return
            feed = await self._held()
            self._mend(feed)
            feed.ask_progress()
            await asyncio.sleep(0.1)
            if feed.progress_revision >= target:
                # The stream stays open to the end of the run.
                return
            if self._world.loop.now > give_up:
                message = f"a stream on member {feed.host.number} does not reach {target}"
                self._world.report(ViolationError("watch", message))
                return

    def _draw(self) -> WatchCreateRequest:
        rng = self._rng
        key, range_end = rng.choice(RANGES)
        revision = self._world.truth.revision
        start = rng.choice(
            (
                0,
                0,
                max(1, revision - rng.randrange(BACK_MAX)),
                1,
                max(1, self._world.truth.compacted_revision + rng.choice((-1, 0, 0, 1))),
                revision + rng.randrange(FUTURE_MAX),
            )
        )
        filters = rng.choice(([], [], [], [FilterType.NOPUT], [FilterType.NODELETE]))
        return WatchCreateRequest(
            key,
            range_end,
            start,
            progress_notify=rng.random() < 0.3,
            filters=list(filters),
            prev_kv=rng.random() < 0.3,
            fragment=rng.random() < 0.3,
        )

    def _watch(self, feed: Feed, client: int, create: WatchCreateRequest) -> None:
        self._created += 1
        self._wanted.append(feed.watch(client, create))

    async def _held(self) -> Feed:
        """The stream, or another one in which all go on where they stopped."""
        feed = self._feed
        if feed is not None and not feed.lost:
            return feed
        if feed is not None:
            if "user" in feed.ended or "token" in feed.ended:
                await self._client.log_in()
            feed.close(LOST)
        host = await self._client.find()
        self._feed = feed = Feed(self._client, host, self._lag_seconds)
        stopped, self._wanted = self._wanted, []
        for watch in stopped:
            self._resume(feed, watch)
        return feed

    def _mend(self, feed: Feed) -> None:
        """Open again what a member has ended: history was gone, or a right."""
        ended = [watch for watch in self._wanted if watch.ended]
        for watch in ended:
            self._wanted.remove(watch)
            reason = watch.ended
            last = watch.responses[-1][1] if watch.responses else None
            if last is not None and last.compact_revision:
                # A gap, of which it was told: another watcher, from where there is something.
                self._world.marks.hit("watcher compacted")
                create = msgspec.structs.replace(watch.request)
                create.start_revision = last.compact_revision
                if self._created < CREATIONS_MAX:
                    self._watch(feed, self._world.new_client_number(), create)
            elif "user" in reason or "token" in reason:
                feed.close(reason)

    def _resume(self, feed: Feed, watch: Watch) -> None:
        if self._created >= CREATIONS_MAX:
            return
        create = msgspec.structs.replace(watch.request)
        seen = seen_revision(watch)
        if seen:
            self._world.marks.hit("watcher resumed")
            create.start_revision = seen + 1
        self._watch(feed, watch.client, create)


def _is_owed(watch: Watch, target: int) -> bool:
    return seen_revision(watch) < target
