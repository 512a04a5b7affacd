"""Many clients want one lock while members crash, stand still, and lose each other.

What is checked is what a client can rely on: whoever was told that it has the lock had the oldest
key at the revision that it was told, tokens only grow, and what a former holder still writes under
its token comes to nothing once there is a next one.
"""

from __future__ import annotations

import asyncio
import random

from kvstore.errors import KvError
from kvstore.service.waiting import first_of
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    PutRequest,
    RequestOp,
    TxnRequest,
    UnlockRequest,
    WatchCreateRequest,
)
from tests.kvstore.service.waiting import Call, lock
from tests.support.cluster import Cluster
from tests.support.host import Host, ProcessLostError
from tests.support.scenario import scenario
from tests.support.watching import Watching

NAME = b"lock"
RESOURCE = b"resource"
CLIENTS = 6
ROUNDS = 12
LEASE_SECONDS = 2
PATIENCE_SECONDS = 12.0


class Contender:
    """A client that takes the lock again and again, and writes while it believes to hold it."""

    def __init__(self, cluster: Cluster, tokens: list[tuple[int, bytes, int]]) -> None:
        self._cluster = cluster
        self._rng = random.Random(cluster.rng.getrandbits(64))
        self._tokens = tokens
        self.stopping = False
        self.task = cluster.loop.create_task(self._run())

    async def _run(self) -> None:
        while not self.stopping:
            await asyncio.sleep(self._rng.uniform(0.0, 0.05))
            if not self._cluster.up:
                continue
            try:
                await self._round(self._rng.choice(self._cluster.up))
            except (KvError, ProcessLostError):
                continue

    async def _round(self, host: Host) -> None:
        lease = (await host.grant(LEASE_SECONDS)).ID
        process = host.process
        call = lock(host, NAME, lease)
        give_up = self._cluster.loop.now + self._rng.uniform(0.1, PATIENCE_SECONDS)
        while not call.answered:
            await asyncio.sleep(0.01)
            if not host.up or host.process is not process:
                return
            if self._cluster.loop.now > give_up:
                call.call_off()
                return
        await self._hold(call, keep=self._rng.random() < 0.2)

    async def _hold(self, call: Call, *, keep: bool) -> None:
        result = call.answers[0]
        if isinstance(result, KvError):
            return
        host = self._rng.choice(self._cluster.up)
        (oldest,) = (await host.call("range", first_of(NAME, result.header.revision))).kvs
        assert oldest.key == result.key, "the lock was announced to one who does not have it"
        token = oldest.create_revision
        self._tokens.append((token, result.key, result.header.revision))
        for number in range(self._rng.randrange(4)):
            await self._write(self._rng.choice(self._cluster.up), result.key, token, number)
            await asyncio.sleep(self._rng.uniform(0.0, 0.05))
        if not keep:
            host = self._rng.choice(self._cluster.up)
            await host.call("unlock", UnlockRequest(result.key))

    async def _write(self, host: Host, key: bytes, token: int, number: int) -> None:
        mine = Compare(CompareResult.EQUAL, CompareTarget.CREATE, key, create_revision=token)
        put = RequestOp(request_put=PutRequest(RESOURCE, b"%d/%d" % (token, number)))
        await host.call("txn", TxnRequest(compare=[mine], success=[put]))


async def disturb(cluster: Cluster) -> None:
    """One trouble after the other, each with time to recover."""
    rng = random.Random(cluster.rng.getrandbits(64))
    for _ in range(ROUNDS):
        await asyncio.sleep(rng.uniform(0.5, 7.0))
        host = rng.choice(cluster.hosts)
        match rng.randrange(5):
            case 0:
                host.crash()
                await asyncio.sleep(rng.uniform(0.1, 3.0))
                await host.start()
            case 1:
                host.pause(rng.uniform(0.5, 6.0))
            case 2:
                cluster.wire.isolate(host.member_id)
                await asyncio.sleep(rng.uniform(0.5, 5.0))
                cluster.wire.heal()
            case 3 if host.leads:
                host.node.transfer_leadership()
            case _:
                leader = cluster.leader()
                if leader is not None:
                    leader.crash()
                    await asyncio.sleep(rng.uniform(0.1, 3.0))
                    await leader.start()


# All history is kept: the checks look back.
@scenario(*range(1, 7))
async def test_one_holder_at_a_time_whatever_happens(cluster: Cluster) -> None:
    tokens: list[tuple[int, bytes, int]] = []
    contenders = [Contender(cluster, tokens) for _ in range(CLIENTS)]
    await disturb(cluster)
    for contender in contenders:
        contender.stopping = True
    await cluster.wait(lambda: all(contender.task.done() for contender in contenders))
    for contender in contenders:
        await contender.task

    assert len(tokens) > CLIENTS, "there was hardly anything to check"
    assert len({token for token, _, _ in tokens}) == len(tokens), "one token for two holders"
    # Ordered by when they held it, the holders have growing tokens: nobody overtakes.
    by_time = sorted(tokens, key=lambda row: row[2])
    assert by_time == sorted(tokens)
    host = cluster[0]
    watching = Watching(host, WatchCreateRequest(RESOURCE, start_revision=1))
    revision = (await host.range(RESOURCE)).kvs[0].mod_revision
    await cluster.wait(lambda: watching.revisions[-1:] == [revision])
    written = [int(event.kv.value.split(b"/")[0]) for event in watching.events if event.kv]
    assert written == sorted(written), "a former holder wrote after the next"
    assert set(written) <= {token for token, _, _ in tokens}


@scenario(1, 2)
async def test_nothing_stays_behind_when_the_trouble_is_over(cluster: Cluster) -> None:
    """Every key of a caller who gave up goes, or ends with its lease: the lock is free again."""
    contenders = [Contender(cluster, []) for _ in range(CLIENTS)]
    await disturb(cluster)
    for contender in contenders:
        contender.stopping = True
    await cluster.wait(lambda: all(contender.task.done() for contender in contenders))
    await asyncio.sleep(20)
    for host in cluster.hosts:
        assert (await host.range(b"lock/", b"lock0")).kvs == []
        assert len(host.service.waiting) == 0
        assert host.node.hub.streams == 0
