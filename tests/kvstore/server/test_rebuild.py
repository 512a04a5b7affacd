"""A member whose disk is damaged below its log's tail rebuilds its state from its leader's."""

import asyncio
import random
from collections.abc import Callable

import pytest

from kvstore.errors import ErrorKind, KvError, StateError
from kvstore.metrics import Metrics
from kvstore.types import PutRequest, StatusRequest
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers
from wal.errors import CorruptError
from wal.memory_disk import MemoryDisk

WAL = "/data/member/wal"
SNAPSHOTS = "/data/member/snap"


def segments(host: Host) -> list[str]:
    return [f"{WAL}/{name}" for name in host.disk.list(WAL) if name.endswith(".wal")]


def snapshots(host: Host) -> list[str]:
    return [f"{SNAPSHOTS}/{name}" for name in host.disk.list(SNAPSHOTS) if name.endswith(".snap")]


def used(disk: MemoryDisk, path: str) -> int:
    return len(disk.content(path).rstrip(b"\0"))


def is_mute(host: Host) -> bool:
    mute = host.node.driver.raft.required_index > 0
    assert host.node.rebuild.active == mute
    return mute


async def put_many(host: Host, first: int, last: int) -> None:
    for number in range(first, last):
        await host.put(b"%d" % number, b"v" * 500)


async def stopped_follower(cluster: Cluster, writes: int = 40) -> Host:
    """A follower that crashed, with so many writes in its log, and as many again in the others'."""
    leader = await cluster.wait_leader()
    await put_many(leader, 0, writes)
    await cluster.wait_equal()
    victim = (await cluster.followers())[0]
    victim.crash()
    return victim


def flip_an_early_batch(host: Host) -> None:
    """Of the only segment in use: whatever holds the first value."""
    path = segments(host)[0]
    host.disk.flip(path, host.disk.content(path).index(b"v" * 100), 1)


async def rebuilt(cluster: Cluster, host: Host) -> None:
    await cluster.wait(lambda: not host.node.rebuild.active)
    await cluster.wait(host.node.ready.is_set)
    await cluster.wait_equal()


@scenario(1, 2, 3, snapshot_count=100_000)
async def test_i18_a_member_with_a_damaged_log_is_rebuilt_and_takes_part_again(
    cluster: Cluster,
) -> None:
    victim = await stopped_follower(cluster)
    flip_an_early_batch(victim)
    await victim.start()
    assert is_mute(victim)
    required = victim.node.rebuild.required_index
    await rebuilt(cluster, victim)
    assert victim.node.snapshots.installed_total == 1
    assert victim.node.snapshots.latest is not None
    assert victim.node.snapshots.latest.meta.index >= required
    # It is needed for a majority now, and able to lead.
    third = next(h for h in await cluster.followers() if h is not victim)
    leader = await cluster.wait_leader()
    third.crash()
    await leader.put(b"by the two of them", b"")
    await third.start()
    leader.crash()
    await cluster.wait_leader(other_than=leader)
    await leader.start()
    await cluster.wait_equal()
    # And its directory is sound.
    for host in cluster.hosts:
        host.crash()
    await cluster.start()
    assert not is_mute(victim)
    await cluster.wait_equal()
    assert await victim.get(b"0") == b"v" * 500


@scenario(1, 2, snapshot_count=30, snapshot_catchup_entries=10)
async def test_i18_a_member_whose_snapshots_are_all_damaged_is_rebuilt(cluster: Cluster) -> None:
    victim = await stopped_follower(cluster, 200)
    damaged = snapshots(victim)
    for path in damaged:
        victim.disk.flip(path, 700, 0xFF)
    await victim.start()
    assert is_mute(victim)
    await rebuilt(cluster, victim)
    aside = [f"{SNAPSHOTS}/{name}" for name in victim.disk.list(SNAPSHOTS)]
    assert {f"{path}.corrupt" for path in damaged} <= set(aside)
    victim.crash()
    await victim.start()
    assert not is_mute(victim)
    await cluster.wait_equal()


@scenario(1, 2)
async def test_i17_a_mute_member_and_one_other_elect_nobody_and_promise_nothing(
    cluster: Cluster,
) -> None:
    victim = await stopped_follower(cluster)
    leader = await cluster.wait_leader()
    third = next(h for h in cluster.up if h is not leader)
    flip_an_early_batch(victim)
    leader.crash()
    await victim.start()
    await asyncio.sleep(20.0)
    assert cluster.leader() is None
    assert is_mute(victim)
    with pytest.raises(KvError):
        await third.put(b"k", b"v")
    await leader.start()
    await rebuilt(cluster, victim)


@scenario(1)
async def test_a_member_that_rebuilds_says_so_and_serves_nothing(cluster: Cluster) -> None:
    victim = await stopped_follower(cluster)
    flip_an_early_batch(victim)
    for other in list(cluster.up):
        other.crash()
    await victim.start()
    for serializable in (False, True):
        with pytest.raises(KvError) as refusal:
            await victim.get(b"0", serializable=serializable)
        assert refusal.value == ErrorKind.REBUILDING.error()
    status = await victim.call("status", StatusRequest())
    assert ErrorKind.REBUILDING.error().message in status.errors
    reasons: dict[str, str] = {}
    victim.run(victim.service.checks, ["serializable_read", "linearizable_read"], reasons.update)
    # Alive, and not ready.
    assert reasons == {
        "serializable_read": "",
        "linearizable_read": ErrorKind.REBUILDING.error().message,
    }
    assert b"\nkvstore_rebuilding 1.0\n" in Metrics(victim.node).render()
    await cluster.start()
    await rebuilt(cluster, victim)
    text = Metrics(victim.node).render()
    assert b"\nkvstore_rebuilding 0.0\n" in text
    assert b"\nkvstore_rebuilt_total 1.0\n" in text


@scenario(1, 2, 3)
async def test_an_idle_cluster_grows_its_log_for_a_member_that_needs_more(cluster: Cluster) -> None:
    """What it acknowledged was never committed: the others' log ends below it."""
    leader = await cluster.wait_leader()
    await put_many(leader, 0, 5)
    await cluster.wait_equal()
    others = await cluster.followers()
    for other in others:
        other.crash()
    asked = [
        leader.begin("put", PutRequest(b"never committed %d" % number, b"")) for number in range(30)
    ]
    await asyncio.sleep(0.3)
    required = leader.node.driver.raft.last_index
    leader.crash()
    await asyncio.gather(*asked, return_exceptions=True)
    for other in others:
        await other.start()
    await cluster.wait_leader(other_than=leader)
    flip_an_early_batch(leader)
    await leader.start()
    assert leader.node.rebuild.required_index == required
    await rebuilt(cluster, leader)


@scenario(1, size=1, snapshot_count=100_000)
async def test_a_member_that_is_alone_is_refused_with_file_offset_and_remedy(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    await put_many(host, 0, 20)
    await host.stop()
    flip_an_early_batch(host)
    before = {path: host.disk.content(path) for path in segments(host)}
    with pytest.raises(CorruptError, match=r"damaged at byte .* restore a copy") as refusal:
        await host.start()
    assert refusal.value.file == segments(host)[0]
    # Nothing was written: whoever looks into it finds it as it was.
    assert {path: host.disk.content(path) for path in segments(host)} == before


@scenario(1, 2, snapshot_count=100_000)
async def test_i18_a_power_cut_at_every_step_of_rebuilding_brings_it_back_mute_or_whole(
    cluster: Cluster,
) -> None:
    victim = await stopped_follower(cluster)
    flip_an_early_batch(victim)
    required = jobs = 0
    while True:
        await victim.start()
        if not is_mute(victim):
            break
        assert not required or victim.node.rebuild.required_index == required
        required = victim.node.rebuild.required_index
        stands_still = disk_of(victim, jobs)
        jobs += 1
        assert jobs < 200, "it is never rebuilt"
        await cluster.wait(stands_still)
        # Perhaps in the middle of the next job.
        victim.crash()
    assert jobs > 5
    latest = victim.node.snapshots.latest
    assert latest is not None
    assert latest.meta.index >= required > 0
    await rebuilt(cluster, victim)


def disk_of(host: Host, jobs: int) -> Callable[[], bool]:
    """Let the disk do so many more jobs, then stand still; returns what tells whether it does."""
    schedule = host.disk.schedule
    assert schedule is not None
    done = 0

    def counting(run: Callable[[], None]) -> None:
        nonlocal done
        done += 1
        if done <= jobs:
            schedule(run)

    host.disk.schedule = counting
    return lambda: done > jobs


def damage(host: Host, rng: random.Random) -> str:
    """Flip a byte anywhere in what the member has on its disk; say where."""
    logs = [path for path in segments(host) if used(host.disk, path)]
    path = rng.choice([rng.choice(logs), logs[-1], rng.choice(snapshots(host) or logs)])
    end = used(host.disk, path)
    offset = rng.randrange(rng.choice([0, max(0, end - 2000)]), end)
    host.disk.flip(path, offset, rng.randrange(1, 256))
    return f"{path} at {offset}"


@scenario(*range(1, 13), snapshot_count=60, snapshot_catchup_entries=20)
async def test_a_flipped_byte_anywhere_is_harmless_or_mended_or_refused(cluster: Cluster) -> None:
    """One member at a time, under writes; what was acknowledged is kept by all that come up."""
    await _damage_and_restart(cluster, damage)


async def _damage_and_restart(cluster: Cluster, harm: Callable[[Host, random.Random], str]) -> None:
    async with writers(cluster, 3) as crew:
        await asyncio.sleep(cluster.rng.uniform(2.0, 6.0))
        victim = cluster.rng.choice(cluster.hosts)
        if cluster.rng.random() < 0.5:
            victim.crash()
        else:
            await victim.stop()
        place, reason = harm(victim, cluster.rng), ""
        await asyncio.sleep(cluster.rng.uniform(0.0, 1.0))
        try:
            await victim.start()
        except (CorruptError, StateError) as refusal:
            reason = str(refusal)
            cluster.hosts.remove(victim)
        else:
            await cluster.wait(lambda: not victim.node.rebuild.active)
        await asyncio.sleep(2.0)
    print(f"{place}: {reason or 'mended'}")  # noqa: T201
    assert not reason or "kvstore member replace" in reason or "copy it again" in reason
    await check_kept(cluster, crew)
