"""Many watches and leases over gRPC on one member, while its leader is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from kvstore.api.grpc.encode import encode
from kvstore.types import (
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    PutRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)
from tests.e2e.cluster import Cluster
from tests.e2e.processes import Member
from tests.kvstore.api.grpc.oracle import class_of

pytestmark = pytest.mark.e2e

STREAMS = 100
WATCHES = 50
"""A stream."""
LEASES = 2_000
PUTS = 20
ALL_SECONDS = 120.0
GROWTH_BYTES_MAX = 192 * 1024 * 1024
"""What all of it may cost the member: 5,000 watches, 2,000 leases, a hundred streams, and the
events of forty revisions that each of them is told."""


def memory_bytes(member: Member) -> int:
    status = Path(f"/proc/{member.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


class Crowd:
    """A hundred watch streams of fifty watches each, and what each watch was told."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._ask = channel.stream_stream("/etcdserverpb.Watch/Watch")
        self.created = 0
        self.told: Counter[tuple[int, int]] = Counter()
        self.revisions: dict[tuple[int, int], int] = {}
        self.disorder = 0
        self.tasks = [asyncio.create_task(self._watch(number)) for number in range(STREAMS)]

    async def _watch(self, number: int) -> None:
        async def requests() -> AsyncIterator[bytes]:
            for watch in range(WATCHES):
                create = WatchCreateRequest(key=b"crowd/", range_end=b"crowd0", watch_id=watch + 1)
                yield encode(WatchRequest(create_request=create))
            await asyncio.Event().wait()

        response = class_of(WatchResponse)
        async for data in self._ask(requests()):
            answer = response.FromString(data)
            assert not answer.canceled, answer
            self.created += answer.created
            for event in answer.events:
                who = (number, answer.watch_id)
                self.told[who] += 1
                self.disorder += event.kv.mod_revision <= self.revisions.get(who, 0)
                self.revisions[who] = event.kv.mod_revision

    async def until(self, events: int) -> None:
        """Wait until each watch was told so many events."""
        while len(self.told) < STREAMS * WATCHES or min(self.told.values()) < events:
            ended = [task for task in self.tasks if task.done()]
            assert not ended, ended[0].exception()
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def keep_alive(channel: grpc.aio.Channel, leases: list[int]) -> list[int]:
    """Renew all of them over one stream: how many seconds each has then."""

    async def requests() -> AsyncIterator[bytes]:
        for lease in leases:
            yield encode(LeaseKeepAliveRequest(lease))

    ask = channel.stream_stream("/etcdserverpb.Lease/LeaseKeepAlive")
    answer = class_of(LeaseKeepAliveResponse)
    return [answer.FromString(data).TTL async for data in ask(requests())]


async def grant(channel: grpc.aio.Channel) -> list[int]:
    ask = channel.unary_unary("/etcdserverpb.Lease/LeaseGrant")
    leases = list(range(1, LEASES + 1))
    await asyncio.gather(*[ask(encode(LeaseGrantRequest(600, lease))) for lease in leases])
    return leases


async def put(channel: grpc.aio.Channel, first: int) -> None:
    ask = channel.unary_unary("/etcdserverpb.KV/Put")
    for number in range(first, first + PUTS):
        await ask(encode(PutRequest(b"crowd/%d" % (number % 7), b"%d" % number)), timeout=30.0)


@pytest.mark.timeout(400)
async def test_no_event_is_lost_to_five_thousand_watches_when_the_leader_is_killed(
    cluster: Cluster,
) -> None:
    leader = await asyncio.to_thread(cluster.leader)
    member = next(one for one in cluster.members if one is not leader)
    before = memory_bytes(member)
    options = [("grpc.max_concurrent_streams", 1000)]
    async with (
        asyncio.timeout(ALL_SECONDS * 3),
        grpc.aio.insecure_channel(f"127.0.0.1:{member.node.client_port}", options) as channel,
    ):
        leases = await grant(channel)
        crowd = Crowd(channel)
        try:
            while crowd.created < STREAMS * WATCHES:  # noqa: ASYNC110 - others count it
                await asyncio.sleep(0.05)
            await put(channel, 0)
            await crowd.until(PUTS)
            assert await keep_alive(channel, leases) == [600] * LEASES
            await asyncio.to_thread(leader.kill)
            await put(channel, PUTS)
            await crowd.until(2 * PUTS)
            renewed = await keep_alive(channel, leases)
        finally:
            await crowd.close()
    assert set(crowd.told.values()) == {2 * PUTS}
    assert crowd.disorder == 0
    assert renewed == [600] * LEASES
    assert memory_bytes(member) - before < GROWTH_BYTES_MAX
