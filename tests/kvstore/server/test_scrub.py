"""Damage that is found while the member runs is mended by it: memory is right."""

import asyncio

import pytest

from kvstore.metrics import Metrics
from kvstore.server import scrub
from tests.kvstore.server.test_rebuild import is_mute, put_many, segments, snapshots
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "PAUSE_SECONDS", 0.5)


async def mended(cluster: Cluster, host: Host, count: int = 1) -> None:
    reader = host.node.scrub
    await cluster.wait(lambda: reader.mended_total >= count)
    passes = reader.passes_total
    await cluster.wait(lambda: reader.passes_total >= passes + 2)
    assert reader.damaged_total == reader.mended_total == count, "it is not mended for good"


async def check_restart(cluster: Cluster, host: Host) -> None:
    """What is on the disk is whole: the member comes back without anybody's help."""
    host.crash()
    await host.start()
    assert not is_mute(host)
    await cluster.wait(host.node.ready.is_set)
    await cluster.wait_equal()
    assert await host.get(b"0") == b"v" * 500


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_damaged_segment_is_written_anew(size: int, place: int) -> None:
    @scenario(1, 2, size=size, snapshot_count=100_000)
    async def story(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        await put_many(leader, 0, 300)
        victim = cluster.rng.choice(cluster.hosts)
        numbers = [each.number for each in victim.node.wal.written()]
        assert len(numbers) >= 3
        damaged = segments(victim)[place if place >= 0 else len(numbers) - 1]
        victim.disk.flip(damaged, 5000, 0x20)
        await mended(cluster, victim)
        assert damaged not in segments(victim)
        await put_many(leader, 300, 310)
        await check_restart(cluster, victim)

    for seed in (1, 2):
        story(seed)


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("place", [0, 1])
def test_a_damaged_snapshot_is_taken_again(size: int, place: int) -> None:
    @scenario(1, 2, size=size, snapshot_count=40, snapshot_catchup_entries=10)
    async def story(cluster: Cluster) -> None:
        leader = await cluster.wait_leader()
        for first in (0, 60, 120):
            await put_many(leader, first, first + 60)
            await asyncio.sleep(1.0)
        victim = cluster.rng.choice(cluster.hosts)
        assert len(snapshots(victim)) == 2
        damaged = snapshots(victim)[place]
        victim.disk.flip(damaged, 700, 0xFF)
        await mended(cluster, victim)
        assert f"{damaged}.corrupt" in [f"/data/member/snap/{name}" for name in names(victim)]
        await put_many(leader, 200, 260)
        await asyncio.sleep(2.0)
        assert len(snapshots(victim)) == 2
        await check_restart(cluster, victim)

    for seed in (1, 2):
        story(seed)


@scenario(1, 2, 3, 4, snapshot_count=40, snapshot_catchup_entries=10)
async def test_what_counts_as_mended_outlives_a_crash_at_that_moment(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for first in (0, 60, 120):
        await put_many(leader, first, first + 60)
        await asyncio.sleep(1.0)
    victim = cluster.rng.choice(cluster.hosts)
    reader = victim.node.scrub
    # A log that was written anew stands on one snapshot alone: there is none before that would do.
    tail = victim.node.wal.written()[-1].number
    victim.disk.flip(next(path for path in segments(victim) if f"{tail:016x}" in path), 700, 0xFF)
    await cluster.wait(lambda: reader.mended_total == 1)
    victim.disk.flip(snapshots(victim)[-1], 700, 0xFF)
    await cluster.wait(lambda: reader.mended_total == 2)
    await check_restart(cluster, victim)


def names(host: Host) -> list[str]:
    return host.disk.list("/data/member/snap")


async def settled(cluster: Cluster, host: Host, path: str) -> None:
    """Wait till damage is found, or its file superseded before it is read again."""
    found = host.node.scrub.damaged_total

    def is_settled() -> bool:
        return host.node.scrub.damaged_total > found or path not in snapshots(host) + segments(host)

    await cluster.wait(is_settled)


@scenario(
    1, 2, 3, 4, snapshot_count=60, snapshot_catchup_entries=20, scrub_bytes_per_second=1 << 20
)
async def test_damage_after_damage_under_writes_is_mended_and_nothing_is_lost(
    cluster: Cluster,
) -> None:
    async with writers(cluster, 2) as crew:
        await asyncio.sleep(5.0)
        victim = cluster.rng.choice(cluster.hosts)
        for _ in range(3):
            path = cluster.rng.choice([*snapshots(victim), segments(victim)[0]])
            end = len(victim.disk.content(path).rstrip(b"\0"))
            victim.disk.flip(path, cluster.rng.randrange(end), 1)
            await settled(cluster, victim, path)
            await asyncio.sleep(1.0)
        passes = victim.node.scrub.passes_total
        await cluster.wait(lambda: victim.node.scrub.passes_total > passes + 1)
    victim.crash()
    await victim.start()
    assert not is_mute(victim)
    await cluster.wait(victim.node.ready.is_set)
    await check_kept(cluster, crew)


@scenario(1, snapshot_count=100_000, scrub_bytes_per_second=65536)
async def test_the_rate_is_kept_and_what_is_sound_is_found_sound(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await put_many(leader, 0, 300)
    reader = leader.node.scrub
    started, before, passes = cluster.loop.now, reader.bytes_total, reader.passes_total
    await cluster.wait(lambda: reader.passes_total == passes + 2)
    read = reader.bytes_total - before
    assert 300 * 1024 <= read <= 64 * 1024 + 65536 * (cluster.loop.now - started)
    assert reader.damaged_total == 0
    text = f"\nkvstore_scrub_passes_total {passes + 2}.0\n"
    assert text.encode() in Metrics(leader.node).render()


@scenario(1, scrub_bytes_per_second=0)
async def test_nothing_is_read_again_where_the_rate_is_0(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await asyncio.sleep(5.0)
    assert leader.node.scrub.passes_total == 0
    assert "scrub" not in [lane.name for lane in leader.disk.lanes]
