"""A member whose disk lets it down ends or waits; it never acknowledges what it does not hold."""

import asyncio
import errno
from typing import Any

import msgspec
import pytest

from kvstore.errors import ConfigError, ErrorKind, KvError, StateError
from kvstore.server import bootstrap
from kvstore.types import AlarmType, PutRequest
from tests.support.cluster import Cluster, Host
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers
from wal.errors import CorruptError

WAL = "/data/member/wal"
SNAPSHOTS = "/data/member/snap"


@scenario(1, 2)
async def test_a_failed_sync_ends_the_member_and_acknowledges_nothing(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"before", b"")
    await cluster.wait_equal()
    # Nobody else can acknowledge the write: it is the leader's disk that decides.
    for follower in await cluster.followers():
        follower.pause(3.0)
    leader.failure_expected = True
    leader.disk.failures["sync"] = OSError(errno.EIO, "the disk broke")
    answered = leader.begin("put", PutRequest(b"k", b"v"))
    await cluster.wait(lambda: leader.node.failed.done())
    await asyncio.sleep(8.0)
    assert not answered.done(), "a member that cannot go on answered"
    leader.crash()
    leader.failure_expected = False
    await cluster.wait_leader()
    await leader.start()
    assert await leader.get(b"before") == b""
    await cluster.wait_equal()


async def _break_a_disk(cluster: Cluster, kind: str) -> None:
    victim = cluster.rng.choice(cluster.hosts)
    victim.failure_expected = True
    victim.disk.failures[kind] = OSError(errno.EIO, "the disk broke")
    await cluster.wait(lambda: not victim.disk.failures)
    await asyncio.sleep(cluster.rng.uniform(0, 0.1))
    victim.crash()
    victim.failure_expected = False
    await cluster.wait_leader()
    await victim.start()


@scenario(1, 2, 3)
async def test_acknowledged_writes_survive_disks_that_break(cluster: Cluster) -> None:
    async with writers(cluster, 3) as crew:
        for kind in ("sync", "write", "sync"):
            await asyncio.sleep(0.5)
            await _break_a_disk(cluster, kind)
    await check_kept(cluster, crew)


@scenario(1)
async def test_a_full_disk_raises_the_alarm_while_deletes_still_pass(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    follower.disk.capacity_bytes = follower.disk.used_bytes()
    answers: list[asyncio.Future[Any]] = []
    while not leader.machine.alarms:
        answers.append(leader.begin("put", PutRequest(b"k%d" % len(answers), bytes(1000))))
        await asyncio.wait(answers[-1:])
        assert len(answers) < 1000, "the disk never fills up"
    with pytest.raises(KvError) as refusal:
        await leader.put(b"k", b"")
    assert refusal.value == ErrorKind.NO_SPACE.error()
    written = sum(answered.exception() is None for answered in answers)
    raised = leader.machine.alarms
    assert [(alarm.memberID, alarm.alarm) for alarm in raised] == [
        (follower.member_id, AlarmType.NOSPACE)
    ]
    assert (await follower.delete(b"k", b"l")).deleted == written
    follower.disk.capacity_bytes = None
    await cluster.wait(lambda: not follower.node.wal.disk_full)
    await cluster.wait_equal()


@scenario(1)
async def test_damage_below_the_tail_is_refused_with_file_and_offset(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for number in range(20):
        await leader.put(b"%d" % number, bytes(500))
    victim = (await cluster.followers())[0]
    await victim.stop()
    first = f"{WAL}/{victim.disk.list(WAL)[0]}"
    place = victim.disk.content(first).index(bytes(500))
    victim.disk.flip(first, place, 1)
    with pytest.raises(CorruptError) as refusal:
        await victim.start()
    assert first in str(refusal.value)
    await leader.put(b"others", b"go on")


@scenario(1, snapshot_count=30, snapshot_catchup_entries=10)
async def test_a_lost_snapshot_is_refused_with_its_remedy(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    for number in range(100):
        await leader.put(b"%d" % number, bytes(500))
    victim = (await cluster.followers())[0]
    await victim.stop()
    for name in victim.disk.list(SNAPSHOTS):
        victim.disk.flip(f"{SNAPSHOTS}/{name}", 700, 0xFF)
    with pytest.raises(StateError, match="remove it from the cluster"):
        await victim.start()


def with_config(host: Host, **changes: Any) -> None:
    host.config = msgspec.structs.replace(host.config, **changes)


@scenario(1)
async def test_a_directory_of_another_cluster_or_member_is_refused(cluster: Cluster) -> None:
    await cluster.wait_leader()
    host = cluster[0]
    own = host.config
    await host.stop()
    for changes in (
        {"initial_cluster_token": "another"},
        {"name": "m1", "initial_advertise_peer_urls": ("http://m1:2380",)},
        {"initial_cluster": {"m0": ("http://m0:2380",)}},
    ):
        host.config = own
        with_config(host, **changes)
        with pytest.raises(ConfigError, match="/data holds member"):
            await host.start()
    host.config = own
    await host.start()
    await cluster.wait_equal()


@scenario(1)
async def test_a_fresh_directory_of_a_known_member_is_refused(cluster: Cluster) -> None:
    await cluster.wait_equal()
    lost = (await cluster.followers())[0]
    identity = lost.node.identity
    by_id = {host.member_id: host for host in cluster.hosts}

    async def members_at(_session: object, member: Any) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = msgspec.json.decode(by_id[member.ID].node.members_json())
        return rows

    async def nobody_answers(_session: object, _member: Any) -> list[dict[str, object]]:
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bootstrap, "_members_at", members_at)
        with pytest.raises(ConfigError, match="known to its cluster"):
            await bootstrap.refuse_if_known(lost.config, identity)
        patch.setattr(bootstrap, "_members_at", nobody_answers)
        await bootstrap.refuse_if_known(lost.config, identity)
