"""The Maintenance service and the health checks, on whole members."""

import asyncio
import hashlib
from contextlib import aclosing
from typing import Any

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.server.backup import read_backup
from kvstore.server.snapshot_export import EXPORTS_MAX
from kvstore.service.caller import ANYBODY, Caller
from kvstore.service.maintenance import HASHES_MAX, SNAPSHOT_CHUNK_BYTES
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    DefragmentRequest,
    DefragmentResponse,
    DowngradeAction,
    DowngradeInfo,
    DowngradeRequest,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    MoveLeaderRequest,
    MoveLeaderResponse,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
)
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import run_scenario, scenario

CHECKS = ("data_corruption", "serializable_read", "linearizable_read", "non_learner")
MIB = 1024 * 1024


async def refused(host: Host, method: str, request: Any, caller: Caller = ANYBODY) -> KvError:
    with pytest.raises(KvError) as refusal:
        await host.call(method, request, caller)
    return refusal.value


async def write_history(host: Host) -> None:
    """Revisions 2 to 61 and a delete at 62."""
    for number in range(60):
        await host.put(b"k%02d" % (number % 7), b"%d" % number)
    await host.delete(b"k03")


# --- alarms and status ----------------------------------------------------------------------------


@scenario(1)
async def test_alarms_are_raised_listed_and_cleared_on_any_member(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    corrupt = AlarmMember(7, AlarmType.CORRUPT)
    raised = await one.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.CORRUPT))
    assert raised.alarms == [corrupt]
    space = AlarmMember(8, AlarmType.NOSPACE)
    await two.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 8, AlarmType.NOSPACE))
    listed = await three.call("alarm", AlarmRequest(AlarmAction.GET))
    assert listed.alarms == [corrupt, space]
    assert listed.header.revision == 1
    only = await three.call("alarm", AlarmRequest(AlarmAction.GET, 99, AlarmType.NOSPACE))
    assert only.alarms == [space]
    nothing = await one.call("alarm", AlarmRequest(AlarmAction.DEACTIVATE, 8, AlarmType.CORRUPT))
    assert nothing.alarms == []
    cleared = await one.call("alarm", AlarmRequest(AlarmAction.DEACTIVATE, 8, AlarmType.NOSPACE))
    assert cleared.alarms == [space]
    none = await one.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 8, AlarmType.NONE))
    assert none.alarms == []
    listed = await two.call("alarm", AlarmRequest(AlarmAction.GET))
    assert listed.alarms == [corrupt]


@scenario(1)
async def test_without_a_majority_alarms_cannot_be_listed_but_status_shows_them(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    await host.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 0, AlarmType.NOSPACE))
    await cluster.wait_equal()
    cluster[1].crash()
    cluster[2].crash()
    await cluster.wait(lambda: host.node.driver.leader == 0)
    error = await refused(host, "alarm", AlarmRequest(AlarmAction.GET))
    assert error == ErrorKind.TIMEOUT.error()
    status = await host.call("status", StatusRequest())
    assert status.errors == ["etcdserver: no leader", "alarm:NOSPACE"]


@scenario(1, quota_backend_bytes=MIB)
async def test_status_tells_all_that_etcd_tells(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    await cluster.wait(lambda: follower.machine.cluster_version)
    await follower.put(b"k", bytes(1000))
    await leader.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.CORRUPT))
    await cluster.wait_equal()
    status = await follower.call("status", StatusRequest())
    raft = follower.node.driver.raft
    assert status.leader == leader.member_id
    assert (status.raftIndex, status.raftTerm) == (raft.commit_index, raft.term)
    assert status.raftAppliedIndex == follower.machine.applied_index
    assert status.dbSize == status.dbSizeInUse == follower.machine.store.size_bytes > 1000
    assert status.dbSizeQuota == MIB
    assert status.storageVersion == "3.7.0"
    assert status.errors == ["memberID:7 alarm:CORRUPT"]
    assert status.downgradeInfo == DowngradeInfo()
    assert not status.isLearner


@scenario(1, size=1, quota_backend_bytes=-1)
async def test_status_tells_of_no_quota_as_it_was_set(cluster: Cluster) -> None:
    assert (await cluster[0].call("status", StatusRequest())).dbSizeQuota == -1


@scenario(1, size=1)
async def test_defragment_succeeds_at_once_without_a_header(cluster: Cluster) -> None:
    assert await cluster[0].call("defragment", DefragmentRequest()) == DefragmentResponse()


# --- hashes ---------------------------------------------------------------------------------------


async def hash_kv(host: Host, revision: int = 0) -> HashKVResponse:
    response: HashKVResponse = await host.call("hash_kv", HashKVRequest(revision))
    return response


@scenario(1)
async def test_members_hash_equal_history_alike_at_every_revision(cluster: Cluster) -> None:
    await write_history(cluster[0])
    await cluster.wait_equal()
    seen = set()
    for revision in (1, 2, 30, 61, 62):
        answers = [await hash_kv(host, revision) for host in cluster.hosts]
        assert len({answer.hash for answer in answers}) == 1
        assert {answer.hash_revision for answer in answers} == {revision}
        assert {answer.compact_revision for answer in answers} == {-1}
        seen.add(answers[0].hash)
    assert len(seen) == 5, "different histories have the same hash"
    now = await hash_kv(cluster[1])
    assert (now.hash in seen, now.hash_revision) == (True, 62)
    assert now.header is not None
    assert now.header.revision == 62


@scenario(1)
async def test_hash_kv_does_not_depend_on_whether_a_compaction_has_swept(cluster: Cluster) -> None:
    await write_history(cluster[0])
    await cluster.wait_equal()
    before = await hash_kv(cluster[0], 62)
    held = cluster[1].machine.store
    held.pin()
    await cluster[0].call("compact", CompactionRequest(40, physical=True))
    await cluster.wait_equal()
    await asyncio.sleep(1.0)
    assert held.swept_revision == -1, "the pin held nothing back"
    assert cluster[2].machine.store.swept_revision == 40
    hashes: set[int] = set()
    for revision in (40, 50, 62):
        answers = [await hash_kv(host, revision) for host in cluster.hosts]
        hashes = {answer.hash for answer in answers}
        assert len(hashes) == 1
        assert {answer.compact_revision for answer in answers} == {40}
    assert before.hash not in hashes, "what compaction takes still counts"
    held.unpin()
    cluster[2].crash()
    await cluster[2].start()
    await cluster.wait_equal()
    assert {(await hash_kv(cluster[2], 62)).hash} == hashes


@scenario(1, size=1)
async def test_hash_kv_refuses_what_cannot_be_read(cluster: Cluster) -> None:
    host = cluster[0]
    await write_history(host)
    await host.call("compact", CompactionRequest(40))
    assert await refused(host, "hash_kv", HashKVRequest(63)) == ErrorKind.FUTURE_REVISION.error()
    assert await refused(host, "hash_kv", HashKVRequest(39)) == ErrorKind.COMPACTED.error()
    assert (await hash_kv(host, 40)).hash_revision == 40
    assert (await hash_kv(host, -5)).hash_revision == -5


@scenario(1)
async def test_members_hash_equal_states_alike_and_other_states_otherwise(
    cluster: Cluster,
) -> None:
    await write_history(cluster[0])
    await cluster[0].grant(60, 5)
    await cluster.wait_equal()
    before = {(await host.call("hash", HashRequest())).hash for host in cluster.hosts}
    assert len(before) == 1
    await cluster[0].call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.NOSPACE))
    await cluster.wait_equal()
    after = {(await host.call("hash", HashRequest())).hash for host in cluster.hosts}
    assert len(after) == 1
    assert after != before


@scenario(1, size=1)
async def test_hashes_under_way_are_bounded(cluster: Cluster) -> None:
    host = cluster[0]
    host.service._hashing = HASHES_MAX
    assert await refused(host, "hash", HashRequest()) == ErrorKind.TOO_MANY_REQUESTS.error()
    host.service._hashing = 0
    await hash_kv(host)
    assert host.service._hashing == 0


# --- backups --------------------------------------------------------------------------------------


async def _collect(host: Host, caller: Caller = ANYBODY) -> list[SnapshotResponse]:
    async with aclosing(host.service.snapshot(SnapshotRequest(), caller)) as chunks:
        return [chunk async for chunk in chunks]


async def snapshot(host: Host, caller: Caller = ANYBODY) -> list[SnapshotResponse]:
    assert host.process is not None
    responses: list[SnapshotResponse] = await host.process.spawn(_collect(host, caller))
    return responses


@scenario(1, 2, snapshot_count=0)
async def test_a_snapshot_comes_in_chunks_with_the_digest_of_all_and_can_be_loaded(
    cluster: Cluster,
) -> None:
    host = (await cluster.followers())[0]
    await cluster.wait(lambda: host.machine.cluster_version)
    for number in range(20):
        await host.put(b"k%02d" % number, cluster.rng.randbytes(20_000))
    *chunks, last = await snapshot(host)
    blob = b"".join(chunk.blob for chunk in chunks)
    left = len(blob)
    for chunk in chunks:
        assert 0 < len(chunk.blob) <= SNAPSHOT_CHUNK_BYTES
        left -= len(chunk.blob)
        assert chunk.remaining_bytes == left
        assert chunk.version == "3.7.0"
    assert left == 0
    assert {len(chunk.blob) for chunk in chunks[:-1]} == {SNAPSHOT_CHUNK_BYTES}
    assert (last.blob, last.remaining_bytes) == (hashlib.sha256(blob).digest(), 0)
    latest = host.node.snapshots.latest
    assert latest is not None
    content = host.disk.content(latest.path)
    # etcdctl takes it for whole only if it has whole sectors, and the digest behind them.
    assert len(blob) % 512 == 0
    assert 0 <= len(blob) - len(content) < 512
    assert blob == content + bytes(len(blob) - len(content))
    host.disk.create("/data/backup").write([blob + last.blob], 0)
    loaded = read_backup(host.disk, "/data/backup").machine
    assert loaded.effects_hash == host.machine.effects_hash
    assert loaded.store.revision == 21


@scenario(1, snapshot_count=0)
async def test_a_snapshot_has_what_was_written_while_another_was_being_taken(
    cluster: Cluster,
) -> None:
    host = await cluster.wait_leader()
    await host.put(b"k", b"v")
    go_on = host.hang_disk("snapshots")
    host.run(host.node.snapshots.take)
    await asyncio.sleep(0.5)
    await host.put(b"late", b"v")
    assert host.process is not None
    asked = host.process.spawn(_collect(host))
    go_on()
    await asked
    latest = host.node.snapshots.latest
    assert latest is not None
    assert latest.meta.index == host.machine.applied_index
    again = host.node.snapshots.taken_total
    await snapshot(host)
    assert host.node.snapshots.taken_total == again, "nothing has changed since"


@scenario(1, size=1, snapshot_count=0)
async def test_snapshots_on_their_way_are_bounded_and_end_with_their_client(
    cluster: Cluster,
) -> None:
    host = cluster[0]
    for number in range(20):
        await host.put(b"k%02d" % number, bytes(40_000))

    async def fill() -> None:
        streams = [host.service.snapshot(SnapshotRequest(), ANYBODY) for _ in range(EXPORTS_MAX)]
        for stream in streams:
            await anext(stream)
        assert host.node.exports.open == EXPORTS_MAX
        with pytest.raises(KvError) as refusal:
            await anext(host.service.snapshot(SnapshotRequest(), ANYBODY))
        assert refusal.value == ErrorKind.TOO_MANY_REQUESTS.error()
        for stream in streams:
            await stream.aclose()

    assert host.process is not None
    await host.process.spawn(fill())
    exports = host.node.exports
    assert (exports.open, exports.refused_total, exports.exported_total) == (0, 1, 0)
    assert not host.machine.store.is_pinned
    await snapshot(host)
    assert exports.exported_total == 1
    leftovers = [name for name in host.disk.list("/data/snapshots") if not name.endswith(".snap")]
    assert leftovers == []


@scenario(1)
async def test_a_snapshot_needs_no_leader_unless_the_caller_asks_for_one(cluster: Cluster) -> None:
    host = cluster[0]
    cluster[1].crash()
    cluster[2].crash()
    await cluster.wait(lambda: host.node.driver.leader == 0)
    assert len(await snapshot(host)) >= 2
    with pytest.raises(KvError) as refusal:
        await snapshot(host, Caller(has_leader=True))
    assert refusal.value == ErrorKind.NO_LEADER.error()


# --- who leads ------------------------------------------------------------------------------------


@scenario(1, 2)
async def test_the_leader_hands_leadership_to_whom_it_is_told(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    target = (await cluster.followers())[1]
    answer = await leader.call("move_leader", MoveLeaderRequest(target.member_id))
    assert answer == MoveLeaderResponse()
    assert await cluster.wait_leader() is target
    itself = await target.call("move_leader", MoveLeaderRequest(target.member_id))
    assert itself == MoveLeaderResponse()
    await target.put(b"k", b"v")


@scenario(1)
async def test_leadership_is_moved_by_the_leader_and_to_a_voting_member_only(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    error = await refused(follower, "move_leader", MoveLeaderRequest(follower.member_id))
    assert error == ErrorKind.NOT_LEADER.error()
    error = await refused(leader, "move_leader", MoveLeaderRequest(12345))
    assert error == ErrorKind.BAD_LEADER_TRANSFEREE.error()
    assert await cluster.wait_leader() is leader


@scenario(1)
async def test_moving_leadership_to_a_member_that_is_down_fails_and_the_leader_goes_on(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    target = (await cluster.followers())[0]
    member = target.member_id
    target.crash()
    error = await refused(leader, "move_leader", MoveLeaderRequest(member))
    assert error == ErrorKind.TIMEOUT_LEADER_TRANSFER.error()
    await leader.put(b"k", b"v")


# --- downgrade ------------------------------------------------------------------------------------


async def speaking(cluster: Cluster, version: str) -> None:
    """Wait till all members know this version of the cluster."""
    await cluster.wait(
        lambda: all(host.machine.cluster_version == version for host in cluster.hosts)
    )


@scenario(1)
async def test_a_downgrade_is_validated_prepared_and_given_up(cluster: Cluster) -> None:
    host = cluster[0]
    await cluster.wait(lambda: host.machine.cluster_version == "3.7.0")

    async def ask(action: int, version: str = "") -> str:
        answer = await host.call("downgrade", DowngradeRequest(DowngradeAction(action), version))
        assert answer.header.member_id == host.member_id
        text: str = answer.version
        return text

    for version in ("3.6", "3.6.0", "3.6.9", "3.6.0-rc.1"):
        assert await ask(DowngradeAction.VALIDATE, version) == "3.7"
    assert await ask(DowngradeAction.CANCEL) == "3.7"
    assert await ask(DowngradeAction.ENABLE, "3.6") == "3.7"
    await speaking(cluster, "3.6.0")
    for other in cluster.hosts:
        status = await other.call("status", StatusRequest())
        assert status.downgradeInfo == DowngradeInfo(True, "3.6.0")
        assert (status.storageVersion, status.version) == ("3.6.0", "3.7.1")
    request = DowngradeRequest(DowngradeAction.ENABLE, "3.5")
    assert await refused(host, "downgrade", request) == ErrorKind.DOWNGRADE_IN_PROCESS.error()
    assert await ask(DowngradeAction.CANCEL) == "3.6"
    await speaking(cluster, "3.7.0")
    status = await host.call("status", StatusRequest())
    assert status.downgradeInfo == DowngradeInfo()


@pytest.mark.parametrize(
    ("action", "version", "kind"),
    [
        (0, "", ErrorKind.WRONG_DOWNGRADE_VERSION_FORMAT),
        (1, "3", ErrorKind.WRONG_DOWNGRADE_VERSION_FORMAT),
        (0, "v3.6", ErrorKind.WRONG_DOWNGRADE_VERSION_FORMAT),
        (0, "3.6.x", ErrorKind.WRONG_DOWNGRADE_VERSION_FORMAT),
        (0, "3.7", ErrorKind.INVALID_DOWNGRADE_TARGET_VERSION),
        (1, "3.5.0", ErrorKind.INVALID_DOWNGRADE_TARGET_VERSION),
        (1, "2.6", ErrorKind.INVALID_DOWNGRADE_TARGET_VERSION),
        (9, "3.6", ErrorKind.UNKNOWN_METHOD),
    ],
)
def test_a_downgrade_to_elsewhere_is_refused(action: int, version: str, kind: ErrorKind) -> None:
    async def work(cluster: Cluster) -> None:
        host = cluster[0]
        await cluster.wait(lambda: host.machine.cluster_version == "3.7.0")
        error = await refused(host, "downgrade", DowngradeRequest(action, version))
        assert error == kind.error()

    run_scenario(work, 1, size=1)


# --- health ---------------------------------------------------------------------------------------


async def checks(host: Host, *names: str) -> dict[str, str]:
    answers: list[dict[str, str]] = []
    host.run(host.service.checks, names, answers.append)
    await host.cluster.wait(lambda: answers, seconds_max=10.0)
    assert len(answers) == 1
    assert tuple(answers[0]) == names
    return answers[0]


@scenario(1)
async def test_the_checks_say_what_is_wrong_and_no_more(cluster: Cluster) -> None:
    host = cluster[0]
    assert await checks(host, *CHECKS) == dict.fromkeys(CHECKS, "")
    await host.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, 7, AlarmType.CORRUPT))
    corrupt = await checks(host, "data_corruption", "serializable_read")
    assert corrupt == {"data_corruption": "alarm activated: CORRUPT", "serializable_read": ""}
    cluster[1].crash()
    cluster[2].crash()
    await cluster.wait(lambda: host.node.driver.leader == 0)
    assert await checks(host, "serializable_read") == {"serializable_read": ""}
    late = await checks(host, "linearizable_read", "non_learner")
    assert late == {"linearizable_read": "etcdserver: request timed out", "non_learner": ""}
