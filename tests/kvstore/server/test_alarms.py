"""Alarms that members raise by themselves: when, for how long, and what they outlive."""

import asyncio

import pytest

from kvstore.apply import Outcome
from kvstore.commands import Kind
from kvstore.errors import ErrorKind, KvError
from kvstore.metrics import Metrics
from kvstore.server.alarms import CLEAR_SECONDS
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    RequestOp,
    TxnRequest,
)
from tests.kvstore.server.test_snapshots import LOG_HELD_SECONDS, wait_caught_up, wait_log_gone
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.operator import HEALTHY_SECONDS, Operator
from tests.support.scenario import scenario

QUOTA = 100_000
QUOTAS = {"quota_backend_bytes": QUOTA}
LARGE = bytes(10_000)


async def fill(host: Host) -> None:
    """Put until the quota refuses it."""
    for number in range(20):
        answered = host.begin("put", PutRequest(b"k%02d" % number, LARGE))
        await asyncio.wait([answered])
        if answered.exception() is not None:
            assert answered.exception() == ErrorKind.NO_SPACE.error()
            return
    raise AssertionError("the quota holds nothing back")


async def empty(host: Host) -> None:
    deleted = await host.delete(b"k", b"l")
    assert deleted.header is not None
    await host.call("compact", CompactionRequest(deleted.header.revision, physical=True))


def raised_everywhere(cluster: Cluster, *alarms: AlarmMember) -> bool:
    return all(host.machine.alarms == alarms for host in cluster.up)


async def refused(host: Host, method: str, request: object) -> KvError:
    with pytest.raises(KvError) as refusal:
        await host.call(method, request)
    return refusal.value


@scenario(1, 2, **QUOTAS)
async def test_what_would_grow_is_refused_and_what_makes_room_is_not(cluster: Cluster) -> None:
    host = (await cluster.followers())[0]
    await host.grant(60, 5)
    await host.put(b"k-leased", b"", lease=5)
    await fill(host)
    await cluster.wait(
        lambda: raised_everywhere(cluster, AlarmMember(host.member_id, AlarmType.NOSPACE))
    )
    other = await cluster.wait_leader()
    put = RequestOp(request_put=PutRequest(b"small"))
    full = ErrorKind.NO_SPACE.error()
    assert await refused(other, "put", PutRequest(b"small")) == full
    assert await refused(other, "txn", TxnRequest(success=[put])) == full
    assert await refused(other, "txn", TxnRequest(failure=[put])) == full
    nested = RequestOp(request_txn=TxnRequest(failure=[put]))
    assert await refused(other, "txn", TxnRequest(success=[nested])) == full
    assert await refused(other, "lease_grant", LeaseGrantRequest(60)) == full
    assert len((await other.range(b"k", b"l")).kvs) >= 9
    await other.call("lease_revoke", LeaseRevokeRequest(5))
    assert (await other.delete(b"k00")).deleted == 1
    await other.call("compact", CompactionRequest(3))


@scenario(1, 2, **QUOTAS)
async def test_no_space_ends_by_itself_once_there_was_room_for_a_while(cluster: Cluster) -> None:
    host = (await cluster.followers())[0]
    await fill(host)
    alarm = AlarmMember(host.member_id, AlarmType.NOSPACE)
    await cluster.wait(lambda: raised_everywhere(cluster, alarm))
    await asyncio.sleep(2 * CLEAR_SECONDS)
    assert raised_everywhere(cluster, alarm), "cleared, and nothing has become free"
    await empty(host)
    await asyncio.sleep(CLEAR_SECONDS / 2)
    assert raised_everywhere(cluster, alarm), "cleared in haste"
    await cluster.wait(lambda: raised_everywhere(cluster), seconds_max=2 * CLEAR_SECONDS)
    await host.put(b"k", b"v")
    alarms = host.node.upkeep.alarms
    assert (alarms.raised_total, alarms.cleared_total) == (1, 1)
    await cluster.wait_equal()


@scenario(1, size=1, **QUOTAS)
async def test_the_alarm_does_not_flap_between_its_marks(cluster: Cluster) -> None:
    """At 95 % it is neither cleared nor, once cleared by hand, raised by what still fits."""
    host = cluster[0]
    await host.put(b"k-most", bytes(92_000))
    await host.put(b"k-more", bytes(2_500))
    await refused(host, "put", PutRequest(b"k", LARGE))
    alarm = AlarmMember(host.member_id, AlarmType.NOSPACE)
    await cluster.wait(lambda: raised_everywhere(cluster, alarm))
    await asyncio.sleep(3 * CLEAR_SECONDS)
    alarms = host.node.upkeep.alarms
    assert (alarms.raised_total, alarms.cleared_total) == (1, 0)
    clear = AlarmRequest(AlarmAction.DEACTIVATE, host.member_id, AlarmType.NOSPACE)
    await host.call("alarm", clear)
    await host.put(b"k", b"small")
    await asyncio.sleep(CLEAR_SECONDS)
    assert host.machine.alarms == ()
    assert alarms.raised_total == 1


@scenario(1, size=1, **QUOTAS)
async def test_one_request_too_large_for_what_is_free_stops_no_other(cluster: Cluster) -> None:
    host = cluster[0]
    await host.put(b"k", bytes(QUOTA // 2))
    for _ in range(3):
        error = await refused(host, "put", PutRequest(b"k2", bytes(QUOTA // 2)))
        assert error == ErrorKind.NO_SPACE.error()
    await asyncio.sleep(1.0)
    assert host.machine.alarms == ()
    await host.put(b"small", b"")


@scenario(1, size=1, **QUOTAS)
async def test_the_warning_comes_once_and_again_only_after_it_was_calm(cluster: Cluster) -> None:
    host = cluster[0]
    alarms = host.node.upkeep.alarms
    await host.put(b"k", bytes(76_000))
    await asyncio.sleep(0.5)
    assert not alarms.warning
    await host.put(b"k2", bytes(5_000))
    await asyncio.sleep(0.5)
    assert (alarms.warning, alarms.warnings_total) == (True, 1)
    await host.delete(b"k2")
    await host.call("compact", CompactionRequest(host.machine.store.revision, physical=True))
    await host.put(b"k2", bytes(5_000))
    await asyncio.sleep(0.5)
    assert (alarms.warning, alarms.warnings_total) == (True, 1), "76 % is not calm"
    await empty(host)
    await asyncio.sleep(0.5)
    assert not alarms.warning
    await host.put(b"k", bytes(85_000))
    await asyncio.sleep(0.5)
    assert (alarms.warning, alarms.warnings_total) == (True, 2)
    shown = Metrics(host.node).render().decode()
    assert "kvstore_quota_warnings_total 2.0" in shown
    assert "kvstore_quota_used_ratio 0.85" in shown
    assert 'kvstore_alarms{alarm="NOSPACE"} 0.0' in shown


@scenario(1)
async def test_an_alarm_raised_by_hand_is_cleared_by_hand_only(cluster: Cluster) -> None:
    host = cluster[0]
    by_hand = AlarmMember(host.member_id, AlarmType.NOSPACE)
    # What it finds when it starts it takes for its own.
    await asyncio.sleep(1.0)
    await host.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, *_fields(by_hand)))
    await asyncio.sleep(3 * CLEAR_SECONDS)
    assert raised_everywhere(cluster, by_hand)
    await host.call("alarm", AlarmRequest(AlarmAction.DEACTIVATE, *_fields(by_hand)))
    await cluster.wait(lambda: raised_everywhere(cluster))


def _fields(alarm: AlarmMember) -> tuple[int, int]:
    return alarm.memberID, alarm.alarm


@scenario(1, 2, snapshot_count=60, snapshot_catchup_entries=20)
async def test_alarms_outlive_restart_leader_change_and_snapshot_install(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    follower = (await cluster.followers())[0]
    held = follower.node.driver.raft.last_index
    follower.crash()
    await asyncio.sleep(LOG_HELD_SECONDS)
    corrupt = AlarmMember(7, AlarmType.CORRUPT)
    for number in range(60):
        await leader.put(b"w%03d" % number, b"")
    await leader.call("alarm", AlarmRequest(AlarmAction.ACTIVATE, *_fields(corrupt)))
    for _ in range(60):
        await refused(leader, "put", PutRequest(b"k"))
    await wait_log_gone(cluster, held)
    await follower.start()
    await wait_caught_up(cluster, follower)
    assert follower.node.snapshots.installed_total >= 1
    assert follower.machine.alarms == (corrupt,)
    leader.crash()
    new = await cluster.wait_leader(other_than=leader)
    assert await refused(new, "put", PutRequest(b"k")) == ErrorKind.CORRUPT.error()
    await leader.start()
    for host in cluster.hosts:
        host.crash()
    for host in cluster.hosts:
        await host.start()
    await cluster.wait_leader()
    await cluster.wait(lambda: raised_everywhere(cluster, corrupt))
    await cluster.wait_equal()


@scenario(1, 2)
async def test_an_alarm_that_comes_behind_the_removal_of_its_member_does_not_stay(
    cluster: Cluster,
) -> None:
    await asyncio.sleep(HEALTHY_SECONDS)
    gone = (await cluster.followers())[0]
    own = gone.member_id
    await Operator(cluster).remove(gone)
    leader = await cluster.wait_leader()
    late = AlarmRequest(AlarmAction.ACTIVATE, own, AlarmType.NOSPACE)
    assert leader.process is not None
    raised = await leader.process.finish(leader.node.propose(Kind.ALARM, late))
    assert isinstance(raised, Outcome)
    assert isinstance(raised.response, AlarmResponse)
    assert raised.response.alarms == [AlarmMember(own, AlarmType.NOSPACE)]
    await cluster.wait(lambda: raised_everywhere(cluster), seconds_max=5.0)
    await leader.put(b"k", b"v")


@scenario(1, **QUOTAS)
async def test_a_member_takes_back_the_alarm_of_its_life_before(cluster: Cluster) -> None:
    host = (await cluster.followers())[0]
    await fill(host)
    await cluster.wait(
        lambda: raised_everywhere(cluster, AlarmMember(host.member_id, AlarmType.NOSPACE))
    )
    host.crash()
    await empty(await cluster.wait_leader())
    await host.start()
    await cluster.wait(lambda: raised_everywhere(cluster), seconds_max=3 * CLEAR_SECONDS)
