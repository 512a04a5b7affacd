"""Every acknowledged write survives whatever happens to the members, on disks that forget
everything that was not synced.
"""

import asyncio
import errno
from typing import Any

import pytest

from raft.types import Seq
from tests.support.cluster import Cluster
from tests.support.scenario import run_scenario, scenario
from tests.support.watching import Following
from tests.support.writer import Counter, check_kept, writers
from wal.wal import Wal

ROUNDS = 6


async def crash_leader(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    leader.crash()
    await cluster.wait_leader()
    await asyncio.sleep(cluster.rng.uniform(0, 2))
    await leader.start()


async def crash_follower(cluster: Cluster) -> None:
    follower = cluster.rng.choice(await cluster.followers())
    follower.crash()
    await asyncio.sleep(cluster.rng.uniform(0, 2))
    await follower.start()


async def crash_all(cluster: Cluster) -> None:
    for host in cluster.hosts:
        host.crash()
    await asyncio.sleep(cluster.rng.uniform(0, 0.5))
    for host in cluster.hosts:
        await host.start()


async def pause_leader(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    leader.pause(5.0)
    await cluster.wait_leader(other_than=leader)
    await asyncio.sleep(5.5)


async def isolate_leader(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    cluster.wire.isolate(leader.member_id)
    await cluster.wait_leader(other_than=leader)
    await asyncio.sleep(cluster.rng.uniform(0, 6))
    cluster.wire.heal()


async def mute_leader(cluster: Cluster) -> None:
    """It hears everybody, and nobody hears it."""
    leader = await cluster.wait_leader()
    for host in cluster.hosts:
        if host is not leader:
            cluster.wire.cut(leader.member_id, host.member_id)
    await asyncio.sleep(cluster.rng.uniform(0.5, 6))
    cluster.wire.heal()


async def break_disk(cluster: Cluster) -> None:
    """A sync fails: of the log, and the process ends; of a snapshot, and it is taken anew."""
    victim = cluster.rng.choice(cluster.up)
    victim.failure_expected = True
    victim.disk.failures["sync"] = OSError(errno.EIO, "the disk broke")
    await cluster.wait(lambda: not victim.disk.failures)
    await asyncio.sleep(cluster.rng.uniform(0, 0.1))
    victim.crash()
    victim.failure_expected = False
    await asyncio.sleep(cluster.rng.uniform(0, 2))
    await victim.start()


async def break_links(cluster: Cluster) -> None:
    """Connections break again and again, and what was under way in them is lost."""
    ids = [host.member_id for host in cluster.hosts]
    for _ in range(10):
        one, other = cluster.rng.sample(ids, 2)
        cluster.wire.reset(one, other)
        cluster.wire.slow(one, other, cluster.rng.uniform(0, 0.3))
        await asyncio.sleep(cluster.rng.uniform(0, 0.5))
    cluster.wire.heal()


async def stop_leader(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.stop()
    await asyncio.sleep(cluster.rng.uniform(0, 1))
    await leader.start()


TROUBLES = [
    crash_leader,
    crash_follower,
    crash_all,
    pause_leader,
    isolate_leader,
    mute_leader,
    break_disk,
    break_links,
    stop_leader,
]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_acknowledged_writes_survive(trouble) -> None:
    async def work(cluster: Cluster) -> None:
        async with writers(cluster, 3) as crew:
            await asyncio.sleep(1.0)
            await trouble(cluster)
            await cluster.wait_leader()
            await asyncio.sleep(1.0)
        assert all(writer.acknowledged for writer in crew)
        await check_kept(cluster, crew)

    run_scenario(work, 1)


@scenario(11, 12)
async def test_acknowledged_writes_survive_rounds_of_troubles(cluster: Cluster) -> None:
    counter = Counter(cluster, 2)
    followings = [Following(host) for host in cluster.hosts]
    async with writers(cluster, 3) as crew:
        for _ in range(ROUNDS):
            await asyncio.sleep(cluster.rng.uniform(0.2, 1.0))
            await cluster.rng.choice(TROUBLES)(cluster)
            await cluster.wait_leader()
        await asyncio.sleep(1.0)
    await counter.check()
    assert counter.reads > 100
    await check_kept(cluster, crew)
    for following in followings:
        await following.check()


def test_an_acknowledgement_before_the_sync_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above bites: a planted bug loses what was promised when the power goes."""
    persist = Wal.persist

    def persist_and_claim_so(wal: Wal, seq: Seq, *what: Any) -> None:
        persist(wal, seq, *what)
        wal._on_persisted(seq)

    async def work(cluster: Cluster) -> None:
        # Not from the start: members that forgot even that they were part of it are not let in.
        await cluster.wait_equal()
        monkeypatch.setattr(Wal, "persist", persist_and_claim_so)
        for host in cluster.hosts:
            host.disk_seconds = (0.3, 0.5)
        async with writers(cluster, 2) as crew:
            await asyncio.sleep(2.0)
        await crash_all(cluster)
        await check_kept(cluster, crew)

    with pytest.raises(AssertionError, match="was acknowledged"):
        run_scenario(work, 1)
