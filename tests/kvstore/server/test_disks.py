"""A member whose disk lets it down ends or waits; it never acknowledges what it does not hold."""

import asyncio
import errno
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from kvstore.commands import Kind, MembershipAction, MembershipChange
from kvstore.errors import ConfigError, ErrorKind, KvError, StateError, UnknownOutcomeError
from kvstore.server import joining
from kvstore.server.identity import derive
from kvstore.server.joining import ClusterView
from kvstore.server.membership import MembershipKeeper
from kvstore.server.network.base import Introduction, NetworkReceiver
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    DeleteRangeRequest,
    PutRequest,
)
from tests.support.cluster import Cluster
from tests.support.host import Host, ProcessLostError
from tests.support.memory_network import MemoryNetwork
from tests.support.scenario import scenario
from tests.support.writer import check_kept, writers
from wal.errors import CorruptError
from wal.memory_disk import MemoryDisk

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
    with pytest.raises(ProcessLostError):
        await answered
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


@scenario(1, snapshot_count=30)
async def test_a_log_that_stands_still_goes_on_once_there_is_room_whatever_happens_meanwhile(
    cluster: Cluster,
) -> None:
    """Each look for room is for the log, once a snapshot's mark waits in it."""
    leader = await cluster.wait_leader()
    other = (await cluster.followers())[0]
    wal = leader.node.wal
    leader.disk.capacity_bytes = leader.disk.used_bytes()
    full_since = 0.0
    for number in range(400):
        # Deletes go on while there is no room for more.
        request = DeleteRangeRequest(b"k%d" % number + bytes(8000))
        answered = (leader if leader.leads else other).begin("delete_range", request)
        await asyncio.wait([answered], timeout=0.1)
        answered.add_done_callback(lambda done: done.exception())
        await asyncio.sleep(0.05)
        if wal._held is None:
            full_since = cluster.loop.now
        elif cluster.loop.now - full_since > 10.0:
            break
    assert wal.disk_full
    taken = leader.node.snapshots.taken_total
    leader.disk.capacity_bytes = None
    async with writers(cluster, 2):
        await cluster.wait(lambda: not wal.disk_full, 10.0)
    assert leader.node.snapshots.taken_total <= taken + 2
    await cluster.wait_equal()


@scenario(1, size=1, snapshot_count=0)
async def test_a_full_disk_heals_once_deletes_and_a_compaction_make_room(cluster: Cluster) -> None:
    """The log shrinks only behind a snapshot, which must not wait for the log to grow."""
    host = cluster[0]
    wal = host.node.wal
    # Less than a segment, and less than a snapshot of all that will be written.
    host.disk.capacity_bytes = host.disk.used_bytes() + 40 * 1024
    answers: list[asyncio.Future[Any]] = []
    while not answers or answers[-1].exception() is None:
        assert len(answers) < 1000, "the disk never fills up"
        answers.append(host.begin("put", PutRequest(b"k%d" % len(answers), bytes(1000))))
        await asyncio.wait(answers[-1:])
    assert answers[-1].exception() == ErrorKind.NO_SPACE.error()
    assert wal.disk_full
    await asyncio.sleep(10.0)
    assert wal.disk_full, "there was room enough"
    deleted = await host.delete(b"k", b"l")
    assert deleted.deleted == len(answers) - 1
    assert deleted.header is not None
    await host.call("compact", CompactionRequest(deleted.header.revision, physical=True))
    oldest = host.disk.list(WAL)[0]
    await cluster.wait(lambda: not wal.disk_full)
    assert host.node.snapshots.taken_total >= 1
    assert oldest not in host.disk.list(WAL), "the log did not shrink"
    clear = AlarmRequest(AlarmAction.DEACTIVATE, host.member_id, AlarmType.NOSPACE)
    await host.call("alarm", clear)
    await host.put(b"after", b"")
    host.crash()
    await host.start()
    await cluster.wait(host.node.ready.is_set)
    kvs = (await host.range(b"\0", b"\0")).kvs
    assert [kv.key for kv in kvs] == [b"after"]


@scenario(1, 2)
async def test_a_leader_whose_disk_hangs_hands_leadership_on(cluster: Cluster) -> None:
    """No error, only silence: the others commit on, so nobody else would depose it."""
    async with writers(cluster, 3) as crew:
        await asyncio.sleep(0.5)
        old = await cluster.wait_leader()
        go_on = old.hang_disk("wal")
        election_seconds = old.config.election_timeout_ms / 1000
        await cluster.wait(lambda: cluster.leader() not in (None, old), 3 * election_seconds)
        assert old.node.upkeep.slow_disks_total == 1
        await asyncio.sleep(1.0)
        go_on()
    assert sum(len(writer.acknowledged) for writer in crew) > 100
    await check_kept(cluster, crew)


@scenario(1)
async def test_damage_behind_the_tail_is_refused_with_file_and_offset(cluster: Cluster) -> None:
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


async def _write_through_snapshots(cluster: Cluster, count: int) -> Host:
    """Write until several snapshots were taken; return a follower, stopped."""
    leader = await cluster.wait_leader()
    for number in range(count):
        await leader.put(b"%d" % number, bytes(500))
        if number % 30 == 29:
            await asyncio.sleep(1.0)
    victim = (await cluster.followers())[0]
    await victim.stop()
    return victim


@scenario(1, 2, snapshot_count=30, snapshot_catchup_entries=10)
async def test_a_damaged_snapshot_is_passed_over_for_the_one_before(cluster: Cluster) -> None:
    victim = await _write_through_snapshots(cluster, 200)
    names = [name for name in victim.disk.list(SNAPSHOTS) if name.endswith(".snap")]
    assert len(names) == 2
    assert victim.disk.list(WAL)[0] != f"{1:016x}.wal", "the log reaches not to its beginning"
    victim.disk.flip(f"{SNAPSHOTS}/{names[-1]}", 700, 0xFF)
    await victim.start()
    await cluster.wait_equal()
    assert await victim.get(b"0") == bytes(500)
    await victim.put(b"on", b"it goes")


@scenario(1, size=1, snapshot_count=30, snapshot_catchup_entries=10)
async def test_a_member_alone_without_any_sound_snapshot_is_refused_with_its_remedy(
    cluster: Cluster,
) -> None:
    """Nobody else has what it lost."""
    victim = cluster[0]
    for number in range(200):
        await victim.put(b"%d" % number, bytes(500))
        if number % 30 == 29:
            await asyncio.sleep(1.0)
    await victim.stop()
    for name in victim.disk.list(SNAPSHOTS):
        victim.disk.flip(f"{SNAPSHOTS}/{name}", 700, 0xFF)
    with pytest.raises(StateError, match=r"no sound copy of.*do not start this member"):
        await victim.start()


def with_config(host: Host, **changes: Any) -> None:
    host.config = msgspec.structs.replace(host.config, **changes)


@scenario(1)
async def test_a_directory_of_another_member_is_refused(cluster: Cluster) -> None:
    await cluster.wait_leader()
    host = cluster[0]
    own = host.config
    await host.stop()
    with_config(host, name="m1", initial_advertise_peer_urls=("http://m1:2380",))
    refusal = r"/data holds member .* \(m0, http://m0:2380\) .* --name is m1 and --initial-adv"
    with pytest.raises(ConfigError, match=refusal):
        await host.start()
    host.config = own
    await host.start()
    await cluster.wait_equal()


@scenario(1)
async def test_once_there_is_a_log_the_flags_of_the_founding_count_for_nothing(
    cluster: Cluster,
) -> None:
    """The members may have changed since, so they could not even be right."""
    await cluster.wait_leader()
    host = cluster[0]
    own, identity = host.config, host.node.identity
    for changes in (
        {"initial_cluster_token": "another"},
        {"initial_cluster": {"m0": ("http://m0:2380",)}},
        {"initial_cluster_state": "existing"},
        {"name": "renamed", "initial_cluster": {"renamed": ("http://m0:2380",)}},
        {
            "initial_advertise_peer_urls": ("http://moved:2380",),
            "initial_cluster": {"m0": ("http://moved:2380",)},
        },
        {"initial_advertise_peer_urls": ("http://moved:2380",)},
        {"initial_cluster": {"m1": ("http://m1:2380",)}},
    ):
        await host.stop()
        host.config = own
        with_config(host, **changes)
        await host.start()
        assert host.node.identity == identity
    await cluster.wait_equal()


@scenario(1)
async def test_a_fresh_directory_of_a_known_member_is_refused(cluster: Cluster) -> None:
    await cluster.wait_equal()
    lost = (await cluster.followers())[0]
    identity = lost.node.identity
    by_url = {host.config.listen_peer_urls[0]: host for host in cluster.hosts}

    async def all_answer(urls: Sequence[str]) -> list[ClusterView]:
        said = [by_url[url].node.peer_port.cluster_json() for url in urls]
        return [msgspec.json.decode(view, type=ClusterView) for view in said]

    async def all_await(urls: Sequence[str]) -> list[ClusterView]:
        return [msgspec.structs.replace(view, started=()) for view in await all_answer(urls)]

    async def nobody_answers(_urls: Sequence[str]) -> list[ClusterView]:
        return []

    existing = msgspec.structs.replace(lost.config, initial_cluster_state="existing")
    # Of three members that were not all among the founders other ids follow.
    other_ids = derive(lost.config.name, lost.config.initial_cluster, "another founding")
    remedy = r"known to its cluster.*kvstore member replace m\d"
    with pytest.raises(ConfigError, match=remedy):
        await joining.refuse_if_known(lost.config, identity, all_answer)
    with pytest.raises(ConfigError, match=remedy):
        await joining.refuse_if_known(lost.config, other_ids, all_answer)
    with pytest.raises(ConfigError, match=remedy):
        await joining.join(existing, all_answer)
    await joining.refuse_if_known(lost.config, identity, all_await)
    with pytest.raises(ConfigError, match=r"waits for member .*cluster-state=existing"):
        await joining.refuse_if_known(lost.config, other_ids, all_await)
    await joining.refuse_if_known(lost.config, identity, nobody_answers)
    with pytest.raises(ConfigError, match="none of the other members in --initial-cluster"):
        await joining.join(existing, nobody_answers)


@scenario(1, 2)
async def test_a_member_that_lost_its_data_votes_and_acknowledges_nothing(
    cluster: Cluster,
) -> None:
    """Nobody answered when it asked at its start, so it came up: then no link takes it in."""
    leader = await cluster.wait_leader()
    await cluster.wait_equal()
    lost, other = await cluster.followers()
    await lost.stop()
    lost.disk = MemoryDisk()
    await lost.start()
    await leader.put(b"k", b"v")
    await asyncio.sleep(3.0)
    # With its vote or its acknowledgement two would be a majority again.
    other.crash()
    with pytest.raises(UnknownOutcomeError):
        await leader.put(b"k", b"not by two")
    await cluster.wait(lambda: cluster.leader() is None)
    await asyncio.sleep(10.0)
    assert cluster.leader() is None
    assert lost.node.peer_port.is_blank()
    await other.start()
    await cluster.wait_leader()
    await leader.put(b"k", b"v")
    assert lost.node.peer_port.is_blank()
    refusals = {
        one: reason
        for (one, refused), reason in cluster.wire.refused_links.items()
        if refused == lost.member_id
    }
    assert refusals
    for reason in refusals.values():
        assert f"{lost.member_id:x} ({lost.config.name})" in reason
        assert "it lost its data" in reason
        assert f"kvstore member replace {lost.config.name}" in reason


@scenario(1, 2, size=5)
async def test_a_member_that_lost_its_data_votes_no_more_while_it_is_being_removed(
    cluster: Cluster,
) -> None:
    """It is out of the list of members already, and still in the configuration."""
    leader = await cluster.wait_leader()
    await cluster.wait_equal()
    lost = (await cluster.followers())[0]
    old_id = lost.member_id
    lost.crash()
    lost.disk = MemoryDisk()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MembershipKeeper, "_reconcile", lambda _: None)
        version = leader.machine.roster.version
        change = MembershipChange(version, MembershipAction.REMOVE, old_id, [])
        await leader.run(leader.node.propose, Kind.MEMBERSHIP, change)
        await lost.start()
        await asyncio.sleep(5.0)
        assert old_id in leader.node.driver.raft.configuration.voters
        assert lost.node.peer_port.is_blank()
        assert not any(host.node.network.is_up(old_id) for host in cluster.up)
    assert "about to be removed" in "".join(cluster.wire.refused_links.values())
    await cluster.retire(lost)
    await leader.put(b"k", b"v")


@scenario(1)
async def test_a_member_listens_only_once_it_knows_whom_to_refuse(cluster: Cluster) -> None:
    """Who has been part of the cluster is in the log that it applies when it starts."""
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    await leader.put(b"k", b"and what is committed is written down")
    await cluster.wait_equal()
    lost, other = await cluster.followers()
    lost_id = lost.member_id
    for host in (lost, other):
        host.crash()
    refusals: list[str] = []
    listen = MemoryNetwork.start

    async def ask_and_listen(network: MemoryNetwork, receiver: NetworkReceiver) -> None:
        refusals.append(receiver.refuse_link(lost_id, Introduction(blank=True)))
        await listen(network, receiver)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MemoryNetwork, "start", ask_and_listen)
        await other.start()
    (refusal,) = refusals
    assert "it lost its data" in refusal
