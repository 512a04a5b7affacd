"""A client that writes, and remembers exactly what it was promised."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kvstore.errors import KvError, UnknownOutcomeError
from tests.support.cluster import ProcessLostError

if TYPE_CHECKING:
    from tests.support.cluster import Cluster

PAUSE_SECONDS = (0.0, 0.02)


class Writer:
    """Writes keys of its own, each once, through whichever member it finds up.

    ``acknowledged`` holds what was answered with success, ``refused`` what was answered with an
    error that promises that nothing happened, ``unknown`` the rest: neither success nor failure.
    """

    def __init__(self, cluster: Cluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._rng = random.Random(cluster.rng.getrandbits(64))
        self.acknowledged: dict[bytes, bytes] = {}
        self.refused: dict[bytes, str] = {}
        self.unknown: dict[bytes, str] = {}
        self._stopping = False
        self._task = cluster.loop.create_task(self._run())

    async def _run(self) -> None:
        number = 0
        while not self._stopping:
            await asyncio.sleep(self._rng.uniform(*PAUSE_SECONDS))
            up = self._cluster.up
            if not up:
                continue
            number += 1
            key = f"{self._name}/{number:06}".encode()
            value = self._rng.randbytes(self._rng.randrange(1, 300))
            try:
                await self._rng.choice(up).put(key, value)
            except (UnknownOutcomeError, ProcessLostError) as error:
                self.unknown[key] = str(error)
            except KvError as error:
                self.refused[key] = str(error)
            else:
                self.acknowledged[key] = value

    async def stop(self) -> None:
        """Finish the write under way."""
        self._stopping = True
        await self._task


@asynccontextmanager
async def writers(cluster: Cluster, count: int) -> AsyncIterator[list[Writer]]:
    """So many writers at work for as long as the block lasts."""
    crew = [Writer(cluster, f"w{number}") for number in range(count)]
    yield crew
    for writer in crew:
        await writer.stop()


async def check_kept(cluster: Cluster, crew: list[Writer]) -> None:
    """Every member holds every acknowledged write and no refused one, and all are alike."""
    for host in cluster.hosts:
        kvs = (await host.range(b"w", b"x")).kvs
        held = {kv.key: kv for kv in kvs}
        for writer in crew:
            for key, value in writer.acknowledged.items():
                assert key in held, f"member {host.number} lost {key!r}, which was acknowledged"
                assert held[key].value == value, f"member {host.number} changed {key!r}"
            for key, reason in writer.refused.items():
                assert key not in held, f"{key!r} was refused ({reason}) and yet happened"
        for kv in kvs:
            assert kv.version == 1, f"{kv.key!r} was proposed once and applied {kv.version} times"
    await cluster.wait_equal()
