"""Locks on whole members: one holder at a time, in the order of asking, whatever goes wrong."""

from __future__ import annotations

import asyncio

from tests.kvstore.service.waiting import entered, lock, settle, unlock
from tests.support.cluster import Cluster
from tests.support.scenario import scenario

NAME = b"lock"


@scenario(1)
async def test_the_key_is_the_name_and_the_lease_and_its_creation_fences(cluster: Cluster) -> None:
    host = cluster[0]
    await host.grant(60, 77)
    held = await lock(host, NAME, 77).won()
    assert held.key == b"lock/4d"
    (kv,) = (await host.range(b"lock/4d")).kvs
    assert (kv.create_revision, kv.value, kv.lease) == (held.header.revision, b"", 77)


@scenario(1, size=1)
async def test_a_negative_lease_is_written_as_etcd_writes_it(cluster: Cluster) -> None:
    host = cluster[0]
    await host.grant(60, -7)
    assert (await lock(host, NAME, -7).won()).key == b"lock/-7"


@scenario(1)
async def test_without_a_lease_one_of_a_minute_is_granted(cluster: Cluster) -> None:
    host = cluster[0]
    held = await lock(host, NAME).won()
    lease = int(held.key.removeprefix(b"lock/"), 16)
    assert lease > 0
    assert 58 <= await host.time_to_live(lease) <= 60
    await asyncio.sleep(62)
    assert await host.get(held.key) is None


@scenario(1)
async def test_the_same_lease_has_the_lock_already(cluster: Cluster) -> None:
    await cluster[0].grant(60, 77)
    first = await lock(cluster[0], NAME, 77).won()
    again = await lock(cluster[1], NAME, 77).won()
    assert again.key == first.key
    assert again.header.revision == first.header.revision


@scenario(1)
async def test_whoever_came_first_is_next(cluster: Cluster) -> None:
    for lease in range(1, 8):
        await cluster[0].grant(600, lease)
    calls = []
    for lease in range(1, 8):
        calls.append(lock(cluster[lease % 3], NAME, lease))
        await entered(cluster[0], b"lock/%x" % lease)
    held = 0
    for lease, call in enumerate(calls, 1):
        response = await call.won()
        await settle(cluster, 0.2)
        assert [other.answered for other in calls] == [n <= lease for n in range(1, 8)]
        assert response.header.revision > held
        held = response.header.revision
        await unlock(cluster[0], response.key)
