"""A client that writes, and remembers exactly what it was promised."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from kvstore.errors import KvError, UnknownOutcomeError
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from tests.support.host import ProcessLostError

if TYPE_CHECKING:
    from tests.support.cluster import Cluster
    from tests.support.host import Host

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


class Counter:
    """Several clients raise one number by compare-and-set, each through any member.

    Whoever reads must see all that was acknowledged before the read began; and in the end the
    number is what was acknowledged, and at most what is unknown on top.
    """

    KEY = b"counter"

    def __init__(self, cluster: Cluster, clients: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(cluster.rng.getrandbits(64))
        self.acknowledged = 0
        self.unknown = 0
        self.reads = 0
        self._stopping = False
        self._tasks = [cluster.loop.create_task(self._run()) for _ in range(clients)]

    async def _run(self) -> None:
        while not self._stopping:
            await asyncio.sleep(self._rng.uniform(*PAUSE_SECONDS))
            if not self._cluster.up:
                continue
            try:
                value, revision = await self._read(self._rng.choice(self._cluster.up))
            except (KvError, ProcessLostError):
                continue
            if self._cluster.up:
                await self._raise(value, revision)

    async def _read(self, host: Host) -> tuple[int, int]:
        floor = self.acknowledged
        kvs = (await host.range(self.KEY)).kvs
        value, revision = (int(kvs[0].value), kvs[0].mod_revision) if kvs else (0, 0)
        assert value >= floor, f"member {host.number} shows {value}, {floor} was acknowledged"
        self.reads += 1
        return value, revision

    async def _raise(self, value: int, revision: int) -> None:
        unchanged = Compare(CompareResult.EQUAL, CompareTarget.MOD, self.KEY, mod_revision=revision)
        put = RequestOp(request_put=PutRequest(self.KEY, b"%d" % (value + 1)))
        try:
            response = await self._rng.choice(self._cluster.up).call(
                "txn", TxnRequest(compare=[unchanged], success=[put])
            )
        except (UnknownOutcomeError, ProcessLostError):
            self.unknown += 1
        except KvError:
            return
        else:
            self.acknowledged += response.succeeded

    async def check(self) -> None:
        """Stop, and count."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        for host in self._cluster.hosts:
            value, _ = await self._read(host)
            assert value <= self.acknowledged + self.unknown


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
