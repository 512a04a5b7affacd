"""A cluster that is lost whole comes back from a backup; who was not restored with it stays out."""

import asyncio
import random
from contextlib import aclosing
from typing import Any

import msgspec
import pytest

from kvstore.errors import ConfigError, ErrorKind, KvError
from kvstore.server.bootstrap import RESTORING, layout
from kvstore.server.restoring import Restored, restore
from kvstore.types import AlarmType, LeaseRevokeRequest, WatchCreateRequest
from tests.kvstore.server.test_kept_state import LEASE, furnish, propose
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.operator import Operator
from tests.support.scenario import run_scenario, scenario
from tests.support.watching import Watching
from wal.errors import CorruptError, DiskFullError, LockedError
from wal.memory_disk import MemoryDisk, PowerCutError

BACKUP = "/backup"
ANOTHER_TOKEN = "another"


async def backup(host: Host) -> bytes:
    """What a client would save."""

    async def collect() -> bytes:
        async with aclosing(host.node.exports.stream()) as pieces:
            return b"".join([piece async for piece, _ in pieces])

    assert host.process is not None
    blob: bytes = await host.process.spawn(collect())
    return blob


async def lose_all(cluster: Cluster) -> bytes:
    """Back up, and lose every machine with its disk."""
    await cluster.wait_equal()
    blob = await backup(await cluster.wait_leader())
    for host in cluster.hosts:
        host.crash()
        host.disk = cluster.new_disk()
    return blob


def put(disk: MemoryDisk, blob: bytes) -> None:
    file = disk.create(BACKUP)
    file.write([blob], 0)
    file.sync()
    disk.sync_directory("")


def restored(host: Host, blob: bytes, token: str = "", **flags: Any) -> Restored:
    """Restore onto an empty disk."""
    host.disk = host.cluster.new_disk()
    put(host.disk, blob)
    if token:
        host.config = msgspec.structs.replace(host.config, initial_cluster_token=token)
    return restore(host.disk, BACKUP, host.config, random.Random(host.number), **flags)


def all_kept(host: Host) -> tuple[Any, ...]:
    machine = host.machine
    lease = machine.lessor.get(LEASE)
    assert lease is not None
    return (
        machine.auth.enabled,
        list(machine.auth.export_users()),
        list(machine.auth.export_roles()),
        (lease.ttl_seconds, machine.lessor.keys(LEASE)),
        [
            (record.key, record.value, record.mod_revision)
            for record in machine.store.log_slice(0, 1 << 20)[0]
        ],
    )


@pytest.mark.parametrize("token", ["", ANOTHER_TOKEN])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_lost_cluster_comes_back_with_everything_and_goes_on(token: str, seed: int) -> None:
    """With the same token the members have the ids of old, and are new all the same."""

    async def story(cluster: Cluster) -> None:
        await furnish(cluster)
        before, revision = all_kept(cluster[0]), cluster[0].machine.store.revision
        old = cluster[0].node.cluster_id
        blob = await lose_all(cluster)
        made = [restored(host, blob, token) for host in cluster.hosts]
        assert {one.revision for one in made} == {revision}
        assert [alarm.alarm for alarm in made[0].alarms] == [AlarmType.NOSPACE]
        await cluster.start()
        leader = await cluster.wait_leader()
        await cluster.wait_equal()
        assert (leader.node.cluster_id == old) == (not token)
        for host in cluster.hosts:
            assert all_kept(host) == before
            assert host.machine.alarms == ()
            roster = host.machine.roster
            assert [member.ID for member in roster.listed()] == sorted(
                one.identity.member_id for one in made
            )
            assert roster.removed == {}
            assert all(member.clientURLs for member in roster.listed()), "all have published"
        await propose(leader, LeaseRevokeRequest(LEASE))
        await cluster.wait_equal()
        assert {host.machine.store.revision for host in cluster.hosts} == {revision + 1}
        # What came of it outlives a restart, like everything else.
        for host in cluster.hosts:
            host.crash()
        await cluster.start()
        await cluster.wait_equal()
        assert {host.machine.store.revision for host in cluster.hosts} == {revision + 1}
        assert not any(host.machine.lessor.exists(LEASE) for host in cluster.hosts)

    run_scenario(story, seed)


@scenario(1, 2)
async def test_all_members_are_restored_alike(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    blob = await lose_all(cluster)
    files = set()
    for host in cluster.hosts:
        restored(host, blob, bump_revision=7)
        (name,) = host.disk.list(layout("/data").snapshots)
        files.add((name, host.disk.content(f"/data/member/snap/{name}")))
    assert len(files) == 1


@scenario(1, 2)
async def test_a_revision_that_was_raised_ends_watches_of_the_old_cluster(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    blob = await lose_all(cluster)
    for host in cluster.hosts:
        assert restored(host, blob, bump_revision=1_000).revision == 1_002
    await cluster.start()
    leader = await cluster.wait_leader()
    assert await leader.get(b"k") == b"v"
    follower = (await cluster.followers())[0]
    watching = Watching(follower, WatchCreateRequest(b"k", start_revision=3))
    await cluster.wait(lambda: watching.responses and watching.responses[-1].canceled)
    assert watching.responses[-1].compact_revision == 1_002
    with pytest.raises(KvError) as refusal:
        await leader.range(b"k", revision=2)
    assert refusal.value == ErrorKind.COMPACTED.error()
    await leader.put(b"k", b"w")
    assert (await leader.range(b"k")).kvs[0].mod_revision == 1_003


@scenario(1, 2)
async def test_a_restored_cluster_takes_in_new_members_and_lets_restored_ones_go(
    cluster: Cluster,
) -> None:
    """Its log begins behind a snapshot: whoever joins has to begin with that."""
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    blob = await lose_all(cluster)
    for host in cluster.hosts:
        restored(host, blob)
    await cluster.start()
    operator = Operator(cluster)
    gone, new = cluster[0], cluster.new_host()
    await operator.add(new, learner=True)
    await operator.promote(new)
    await operator.remove(gone)
    await cluster.wait_equal()
    assert new.node.snapshots.installed_total == 1
    assert await new.get(b"k") == b"v"
    assert len(await operator.members()) == 3


# --- who stays out --------------------------------------------------------------------------------


async def stays_out(cluster: Cluster, stranger: Host, reason: str) -> None:
    """Two of three work, and are linked with nobody who was not restored with them."""
    for host in cluster.hosts:
        if not host.up:
            await host.start()
    leader = await cluster.wait_leader()
    assert leader is not stranger
    await leader.put(b"goes on", b"by two")
    await asyncio.sleep(10.0)
    assert not stranger.node.ready.is_set()
    others = [host for host in cluster.hosts if host is not stranger]
    for host in others:
        assert not host.node.network.is_up(stranger.member_id)
    told = [
        words for pair, words in cluster.wire.refused_links.items() if stranger.member_id in pair
    ]
    assert any(reason in words for words in told) if reason else not told
    # With its vote two would be a majority again.
    next(host for host in others if host is not leader).crash()
    await cluster.wait(lambda: cluster.leader() is None)
    await asyncio.sleep(10.0)
    assert cluster.leader() is None
    stranger.crash()


async def two_backups(cluster: Cluster) -> tuple[bytes, bytes]:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    early = await backup(leader)
    await leader.put(b"k", b"later")
    return early, await lose_all(cluster)


@scenario(1, 2)
async def test_a_member_of_another_file_stays_out(cluster: Cluster) -> None:
    early, late = await two_backups(cluster)
    for host, blob in zip(cluster.hosts, (late, late, early), strict=True):
        restored(host, blob)
    await stays_out(cluster, cluster[2], "restore all members from the same file")


@scenario(1)
async def test_a_member_of_another_revision_stays_out(cluster: Cluster) -> None:
    _, blob = await two_backups(cluster)
    for host, bump in zip(cluster.hosts, (5, 5, 6), strict=True):
        restored(host, blob, bump_revision=bump)
    await stays_out(cluster, cluster[2], "restore all members from the same file")


@scenario(1)
async def test_a_member_of_another_token_stays_out(cluster: Cluster) -> None:
    """Of another cluster: links begin with that question (``test_handshake.py``)."""
    _, blob = await two_backups(cluster)
    for host, token in zip(cluster.hosts, ("", "", ANOTHER_TOKEN), strict=True):
        restored(host, blob, token)
    await stays_out(cluster, cluster[2], "")


@scenario(1)
async def test_a_founder_with_nothing_stays_out(cluster: Cluster) -> None:
    _, blob = await two_backups(cluster)
    for host in cluster.hosts[:2]:
        restored(host, blob)
    await stays_out(cluster, cluster[2], "restore all members from the same file")


@scenario(1, 2)
async def test_a_member_that_took_part_and_is_restored_again_stays_out(cluster: Cluster) -> None:
    """It is as it was made, and has forgotten what it promised since."""
    _, blob = await two_backups(cluster)
    for host in cluster.hosts:
        restored(host, blob)
    await cluster.start()
    await cluster.wait_equal()
    lost = (await cluster.followers())[0]
    lost.crash()
    restored(lost, blob)
    await stays_out(cluster, lost, "a log that was not used yet, but it has been part of")


@scenario(1)
async def test_a_member_that_never_started_may_be_restored_again(cluster: Cluster) -> None:
    _, blob = await two_backups(cluster)
    for host in cluster.hosts:
        restored(host, blob)
    await cluster[0].start()
    await cluster[1].start()
    await cluster.wait_leader()
    restored(cluster[2], blob)
    await cluster.start()
    await cluster.wait_equal()


# --- the directory --------------------------------------------------------------------------------


async def lone_backup(cluster: Cluster) -> tuple[Host, bytes]:
    (host,) = cluster.hosts
    await host.put(b"k", b"v")
    return host, await lose_all(cluster)


@scenario(1, size=1)
async def test_a_restore_that_is_killed_leaves_nothing_half_done(cluster: Cluster) -> None:
    """At whichever step: under its own name the directory is whole, or not there."""
    host, blob = await lone_backup(cluster)
    finished = steps = 0
    while not finished:
        steps += 1
        host.disk = disk = MemoryDisk()
        put(disk, blob)
        disk.steps_left = steps
        try:
            restore(disk, BACKUP, host.config, random.Random(1))
            finished = steps
        except PowerCutError:
            pass
        disk.crash(random.Random(steps))
        if disk.list("/data/member"):
            await host.start()
            assert await host.get(b"k") == b"v"
            await host.stop()
            continue
        if RESTORING in disk.list("/data"):
            with pytest.raises(ConfigError, match="not restored to its end: run kvstore snapshot"):
                await host.start()
        restore(disk, BACKUP, host.config, random.Random(1))
        assert disk.list("/data") == ["member"]
    assert finished > 8, "the power was cut at few steps"


@scenario(1, size=1)
async def test_a_restore_that_returned_survives_a_power_cut(cluster: Cluster) -> None:
    host, blob = await lone_backup(cluster)
    for seed in range(20):
        restored(host, blob)
        host.disk.crash(random.Random(seed))
        await host.start()
        assert await host.get(b"k") == b"v"
        await host.stop()


@scenario(1, size=1)
async def test_what_cannot_be_restored_changes_nothing(cluster: Cluster) -> None:
    host, blob = await lone_backup(cluster)
    put(host.disk, blob[:100] + b"\xff" + blob[101:])
    with pytest.raises(CorruptError, match="damaged at byte"):
        restore(host.disk, BACKUP, host.config, random.Random(1))
    assert host.disk.list("/data") == []
    restored(host, blob)
    with pytest.raises(ConfigError, match=r"--data-dir /data is not empty \(it has member\)"):
        restore(host.disk, BACKUP, host.config, random.Random(1))
    stranger = msgspec.structs.replace(host.config, name="other")
    with pytest.raises(ConfigError, match="does not name this member"):
        restore(host.disk, BACKUP, stranger, random.Random(1))
    await host.start()
    assert await host.get(b"k") == b"v"


@scenario(1, size=1)
async def test_a_restore_for_which_there_is_no_room_leaves_nothing(cluster: Cluster) -> None:
    host, blob = await lone_backup(cluster)
    for room in (200, 2_000):
        disk = MemoryDisk()
        put(disk, blob)
        disk.capacity_bytes = disk.used_bytes() + room
        with pytest.raises(DiskFullError):
            restore(disk, BACKUP, host.config, random.Random(1))
        assert disk.list("/data") == []


@scenario(1, size=1)
async def test_two_restores_into_one_directory_do_not_meet(cluster: Cluster) -> None:
    host, blob = await lone_backup(cluster)
    put(host.disk, blob)
    lock = host.disk.lock(f"/data/{RESTORING}/wal")
    with pytest.raises(LockedError, match="in use"):
        restore(host.disk, BACKUP, host.config, random.Random(1))
    lock.release()
    restore(host.disk, BACKUP, host.config, random.Random(1))
    assert host.disk.list("/data") == ["member"]
