"""Every call of the service on a running member: its checks, its header, exactly one answer."""

from typing import Any

import pytest

from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import Caller
from kvstore.types import (
    AlarmAction,
    AlarmRequest,
    AlarmType,
    CompactionRequest,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseLeasesRequest,
    LeaseRevokeRequest,
    LeaseTimeToLiveRequest,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    StatusRequest,
    TxnRequest,
)
from kvstore.version import CLUSTER_VERSION, VERSION
from tests.support.cluster import Cluster
from tests.support.host import Host
from tests.support.scenario import run_scenario, scenario

ABSENT = 12345


def put(key: bytes, value: bytes = b"") -> RequestOp:
    return RequestOp(request_put=PutRequest(key, value))


def get(key: bytes, *, serializable: bool = False) -> RequestOp:
    return RequestOp(request_range=RangeRequest(key, serializable=serializable))


async def health(host: Host, *exclude: AlarmType, serializable: bool = False) -> str:
    reasons: list[str] = []
    host.run(host.service.health, serializable, frozenset(exclude), reasons.append)
    await host.cluster.wait(lambda: reasons, seconds_max=10.0)
    assert len(reasons) == 1
    return reasons[0]


REFUSED: list[tuple[str, Any, ErrorKind]] = [
    ("range", RangeRequest(), ErrorKind.EMPTY_KEY),
    ("range", RangeRequest(b"k", sort_order=3), ErrorKind.INVALID_SORT_OPTION),
    ("range", RangeRequest(b"k", sort_target=5), ErrorKind.INVALID_SORT_OPTION),
    ("range", RangeRequest(b"k", revision=99), ErrorKind.FUTURE_REVISION),
    ("put", PutRequest(), ErrorKind.EMPTY_KEY),
    ("put", PutRequest(b"k", b"v", ignore_value=True), ErrorKind.VALUE_PROVIDED),
    ("put", PutRequest(b"k", lease=1, ignore_lease=True), ErrorKind.LEASE_PROVIDED),
    ("put", PutRequest(b"absent", ignore_value=True), ErrorKind.KEY_NOT_FOUND),
    ("put", PutRequest(b"k", lease=ABSENT), ErrorKind.LEASE_NOT_FOUND),
    ("delete_range", DeleteRangeRequest(), ErrorKind.EMPTY_KEY),
    ("txn", TxnRequest(success=[put(b"k"), put(b"k")]), ErrorKind.DUPLICATE_KEY),
    ("txn", TxnRequest(success=[put(b"")]), ErrorKind.EMPTY_KEY),
    ("txn", TxnRequest(success=[put(b"%d" % n) for n in range(129)]), ErrorKind.TOO_MANY_OPS),
    ("compact", CompactionRequest(99), ErrorKind.FUTURE_REVISION),
    ("lease_grant", LeaseGrantRequest(9_000_000_001), ErrorKind.LEASE_TTL_TOO_LARGE),
    ("lease_revoke", LeaseRevokeRequest(ABSENT), ErrorKind.LEASE_NOT_FOUND),
]


def test_what_is_refused_is_refused_with_etcds_words_and_changes_nothing() -> None:
    async def work(cluster: Cluster) -> None:
        host = cluster[0]
        await host.put(b"k", b"v")
        for method, request, kind in REFUSED:
            with pytest.raises(KvError) as refusal:
                await host.call(method, request)
            assert refusal.value == kind.error(), f"{method} {request}"
        assert host.machine.store.revision == 2
        assert len(host.node.proposals) == 0

    run_scenario(work, 1, size=1)


def test_a_transaction_that_only_reads_may_be_longer_than_a_write() -> None:
    async def work(cluster: Cluster) -> None:
        limit = cluster[0].node.limits.max_request_bytes
        compare = Compare(target=CompareTarget.VALUE, key=b"k", value=bytes(limit))
        response = await cluster[0].call("txn", TxnRequest([compare], [get(b"k")]))
        assert not response.succeeded
        with pytest.raises(KvError) as refusal:
            await cluster[0].call("txn", TxnRequest([compare], [put(b"k")]))
        assert refusal.value == ErrorKind.REQUEST_TOO_LARGE.error()

    run_scenario(work, 1, size=1)


@scenario(1)
async def test_every_answer_carries_the_answering_members_header(cluster: Cluster) -> None:
    follower = (await cluster.followers())[0]
    lease = 77
    calls: list[tuple[str, Any, int]] = [
        ("put", PutRequest(b"k", b"v"), 2),
        ("range", RangeRequest(b"k"), 2),
        ("txn", TxnRequest(success=[put(b"k")]), 3),
        ("txn", TxnRequest(success=[get(b"k")]), 3),
        ("delete_range", DeleteRangeRequest(b"k"), 4),
        ("delete_range", DeleteRangeRequest(b"k"), 4),
        ("compact", CompactionRequest(2), 4),
        ("lease_grant", LeaseGrantRequest(60, lease), 4),
        ("lease_keep_alive", LeaseKeepAliveRequest(lease), 4),
        ("lease_time_to_live", LeaseTimeToLiveRequest(lease), 4),
        ("lease_leases", LeaseLeasesRequest(), 4),
        ("lease_revoke", LeaseRevokeRequest(lease), 4),
        ("status", StatusRequest(), 4),
        ("alarm", AlarmRequest(AlarmAction.GET), 4),
    ]
    node = follower.node
    for method, request, revision in calls:
        header = (await follower.call(method, request)).header
        assert header.cluster_id == node.cluster_id, method
        assert header.member_id == node.member_id, method
        assert header.raft_term == node.driver.raft.term, method
        assert header.revision == revision, method


@scenario(1)
async def test_the_header_of_a_write_is_its_own_revision_not_a_later_one(
    cluster: Cluster,
) -> None:
    """Many writes are answered in one turn: each names what it made."""
    leader = await cluster.wait_leader()
    asked = [leader.begin("put", PutRequest(b"k", b"%d" % number)) for number in range(50)]
    revisions = [(await answered).header.revision for answered in asked]
    assert revisions == list(range(2, 52))


@scenario(1, size=1)
async def test_a_transaction_compares_and_does_one_branch(cluster: Cluster) -> None:
    host = cluster[0]
    await host.put(b"k", b"old")
    request = TxnRequest(
        compare=[Compare(CompareResult.EQUAL, CompareTarget.VALUE, b"k", value=b"old")],
        success=[put(b"k", b"new"), get(b"k")],
        failure=[get(b"k")],
    )
    response = await host.call("txn", request)
    assert response.succeeded
    assert response.responses[1].response_range.kvs[0].value == b"new"
    response = await host.call("txn", request)
    assert not response.succeeded
    assert response.header.revision == 3


@scenario(1)
async def test_only_an_all_serializable_transaction_is_answered_without_a_majority(
    cluster: Cluster,
) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    cluster.wire.isolate(leader.member_id)
    impatient = Caller(timeout_seconds=0.2)
    stale = TxnRequest(success=[get(b"k", serializable=True)])
    assert (await leader.call("txn", stale, impatient)).succeeded
    for request in (TxnRequest(success=[get(b"k")]), TxnRequest()):
        with pytest.raises(KvError) as refusal:
            await leader.call("txn", request, impatient)
        assert refusal.value == ErrorKind.DEADLINE_EXCEEDED.error()


@scenario(1, size=1)
async def test_a_lease_without_an_id_gets_one_of_63_bits(cluster: Cluster) -> None:
    host = cluster[0]
    ids = {(await host.grant(60)).ID for _ in range(20)}
    assert len(ids) == 20
    assert all(0 < lease < 2**63 for lease in ids)
    with pytest.raises(KvError) as refusal:
        await host.grant(60, min(ids))
    assert refusal.value == ErrorKind.LEASE_EXIST.error()


@scenario(1)
async def test_members_are_listed_with_names_and_urls(cluster: Cluster) -> None:
    for host in cluster.hosts:
        response = await host.call("member_list", MemberListRequest(linearizable=True))
        ids = [member.ID for member in response.members]
        assert ids == sorted(other.member_id for other in cluster.hosts)
        assert {member.name for member in response.members} == {"m0", "m1", "m2"}
        assert all(
            member.peerURLs == (f"http://{member.name}:2380",) for member in response.members
        )
        assert all(member.clientURLs for member in response.members)


@scenario(1)
async def test_status_is_the_members_own_view(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    await leader.put(b"k", b"v")
    await cluster.wait(lambda: leader.machine.cluster_version)
    await cluster.wait_equal()
    status = await leader.call("status", StatusRequest())
    assert (status.version, status.storageVersion) == (VERSION, CLUSTER_VERSION)
    assert status.leader == leader.member_id
    assert status.raftIndex == status.raftAppliedIndex == leader.machine.applied_index
    assert status.dbSize > 0
    assert status.errors == []
    assert leader.service.cluster_version == CLUSTER_VERSION
    cluster.wire.isolate(leader.member_id)
    await cluster.wait(lambda: not leader.leads)
    status = await leader.call("status", StatusRequest())
    assert status.leader == 0
    assert status.errors == ["etcdserver: no leader"]


@scenario(1)
async def test_health_names_alarms_then_the_leader_then_the_read(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    assert await health(leader) == ""
    raised = AlarmRequest(AlarmAction.ACTIVATE, leader.member_id, AlarmType.NOSPACE)
    await leader.call("alarm", raised)
    assert await health(leader) == "ALARM NOSPACE"
    assert await health(leader, AlarmType.NOSPACE) == ""
    listed = await leader.call("alarm", AlarmRequest(AlarmAction.GET, 0, AlarmType.NONE))
    assert [(one.memberID, one.alarm) for one in listed.alarms] == [
        (leader.member_id, AlarmType.NOSPACE)
    ]
    listed = await leader.call("alarm", AlarmRequest(AlarmAction.GET, 0, AlarmType.CORRUPT))
    assert listed.alarms == []
    await leader.call(
        "alarm", AlarmRequest(AlarmAction.DEACTIVATE, leader.member_id, AlarmType.NOSPACE)
    )
    cluster.wire.isolate(leader.member_id)
    assert (await health(leader)).startswith("RANGE ERROR:")
    await cluster.wait(lambda: not leader.leads)
    assert await health(leader) == "RAFT NO LEADER"
    assert await health(leader, serializable=True) == ""


@scenario(1, size=1, max_watch_streams=2)
async def test_too_many_watch_streams_are_refused(cluster: Cluster) -> None:
    host = cluster[0]
    streams = [host.run(host.service.open_watch, Caller(), lambda: None) for _ in range(2)]
    with pytest.raises(KvError) as refusal:
        host.run(host.service.open_watch, Caller(), lambda: None)
    assert refusal.value == ErrorKind.TOO_MANY_REQUESTS.error()
    host.run(streams[0].close)
    host.run(host.service.open_watch, Caller(), lambda: None)


@scenario(1)
async def test_a_watcher_who_wants_a_leader_is_refused_without_one(cluster: Cluster) -> None:
    leader = await cluster.wait_leader()
    cluster.wire.isolate(leader.member_id)
    await cluster.wait(lambda: not leader.leads)
    with pytest.raises(KvError) as refusal:
        leader.run(leader.service.open_watch, Caller(has_leader=True), lambda: None)
    assert refusal.value == ErrorKind.NO_LEADER.error()
    leader.run(leader.service.open_watch, Caller(), lambda: None)
