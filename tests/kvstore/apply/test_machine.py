"""Every kind of command, and what alarms forbid."""

import pytest

from kvstore.apply import Outcome, request_cost
from kvstore.commands import ClusterVersion, Kind, LeaseCheckpoint, LeaseExpire, PublishMember
from kvstore.errors import CommandError, ErrorKind, KvError
from kvstore.types import (
    AlarmAction,
    AlarmMember,
    AlarmRequest,
    AlarmResponse,
    AlarmType,
    CompactionRequest,
    CompactionResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseId,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    Member,
    MemberId,
    PutRequest,
    PutResponse,
    RangeRequest,
    RequestOp,
    TxnRequest,
    TxnResponse,
)
from raft.codec import encode_entry
from raft.types import EntryKind, Index, Term
from tests.kvstore.apply.support import Rig, command, noop

PUT = PutRequest(b"a", b"v")
PUT_TXN = TxnRequest([], [], [RequestOp(request_put=PUT)])
DELETE_TXN = TxnRequest([], [RequestOp(request_delete_range=DeleteRangeRequest(b"x"))])
READ_TXN = TxnRequest([], [RequestOp(request_range=RangeRequest(b"x"))])


def raise_alarm(rig: Rig, alarm: AlarmType) -> None:
    rig.run(AlarmRequest(AlarmAction.ACTIVATE, 7, alarm))


def test_what_is_no_command_only_moves_the_index():
    rig = Rig()
    assert rig.apply(noop(1, term=3)) == Outcome(0, 0, 0, 1, None, 1)
    assert (rig.machine.applied_index, rig.machine.applied_term) == (1, 3)
    assert rig.machine.effects_hash == 0


def test_an_outcome_names_its_command_and_the_revision_for_the_header():
    rig = Rig()
    outcome = rig.run(PUT, member=9, incarnation=4, sequence=17)
    assert outcome == Outcome(9, 4, 17, 1, PutResponse(), 2)
    assert rig.run(DeleteRangeRequest(b"zz")).revision == 2
    assert rig.run(CompactionRequest(2)).revision == 2
    assert rig.run(DELETE_TXN).revision == 2
    assert rig.run(DeleteRangeRequest(b"a")).revision == 3


def test_the_next_entry_and_no_other_is_taken():
    rig = Rig()
    with pytest.raises(AssertionError):
        rig.apply(command(2, PUT))


@pytest.mark.parametrize(
    "data",
    [b"", b"\xc1", b"\x90", encode_entry(Index(1), Term(1), EntryKind.COMMAND, b"").data],
)
def test_bytes_that_are_no_command_stop_the_member(data):
    rig = Rig()
    with pytest.raises(CommandError):
        rig.apply(encode_entry(Index(1), Term(1), EntryKind.COMMAND, data))
    assert rig.machine.applied_index == 0


def test_an_unknown_kind_stops_the_member():
    rig = Rig()
    entry = command(1, PUT)
    unknown = entry.data.replace(bytes([Kind.PUT, 0xA0]), bytes([31, 0xA0]), 1)
    assert unknown != entry.data
    with pytest.raises(CommandError, match="31"):
        rig.apply(encode_entry(Index(1), Term(1), EntryKind.COMMAND, unknown))


def test_put_and_delete_answer_with_what_was():
    rig = Rig()
    rig.run(PutRequest(b"a", b"1"))
    old = KeyValue(b"a", 2, 2, 1, b"1", 0)
    assert rig.ask(PutRequest(b"a", b"2", prev_kv=True)) == PutResponse(None, old)
    new = KeyValue(b"a", 2, 3, 2, b"2", 0)
    response = rig.ask(DeleteRangeRequest(b"a", b"\0", prev_kv=True))
    assert response == DeleteRangeResponse(None, 1, [new])
    assert rig.ask(PutRequest(b"a", b"3", prev_kv=True)) == PutResponse()
    assert rig.machine.store.get(b"a") == KeyValue(b"a", 5, 5, 1, b"3", 0)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (PutRequest(b"", b"v"), ErrorKind.EMPTY_KEY),
        (PutRequest(b"a", lease=5), ErrorKind.LEASE_NOT_FOUND),
        (PutRequest(b"a", ignore_value=True), ErrorKind.KEY_NOT_FOUND),
        (PutRequest(b"a", ignore_lease=True), ErrorKind.KEY_NOT_FOUND),
        (PutRequest(b"a", b"v", ignore_value=True), ErrorKind.VALUE_PROVIDED),
        (PutRequest(b"b", lease=1, ignore_lease=True), ErrorKind.LEASE_PROVIDED),
        (DeleteRangeRequest(b"", b"\0"), ErrorKind.EMPTY_KEY),
        (CompactionRequest(3), ErrorKind.FUTURE_REVISION),
        (CompactionRequest(-1), ErrorKind.COMPACTED),
        (LeaseGrantRequest(5, 1), ErrorKind.LEASE_EXIST),
        (LeaseGrantRequest(9_000_000_001, 2), ErrorKind.LEASE_TTL_TOO_LARGE),
        (LeaseRevokeRequest(5), ErrorKind.LEASE_NOT_FOUND),
        (PublishMember(11, "x", []), ErrorKind.MEMBER_NOT_FOUND),
    ],
)
def test_a_refused_command_changes_nothing_but_the_hash(body, kind):
    rig = Rig()
    rig.run(LeaseGrantRequest(5, 1))
    rig.run(PutRequest(b"b"))
    store = rig.machine.store
    before = (store.revision, store.log_slice(0, 99), dict(rig.machine.members))
    crc = rig.machine.effects_hash
    heard = list(rig.hub.published)
    response = rig.ask(body)
    assert response == kind.error()
    assert isinstance(response, KvError)
    assert response.__traceback__ is None
    assert (store.revision, store.log_slice(0, 99), dict(rig.machine.members)) == before
    assert rig.hub.published == heard
    assert rig.machine.effects_hash != crc


def test_leases_are_granted_kept_and_ended_with_their_keys_at_one_revision():
    rig = Rig()
    assert rig.ask(LeaseGrantRequest(-5, -7)) == LeaseGrantResponse(None, -7, 2)
    for key in (b"c", b"a", b"b"):
        rig.run(PutRequest(key, lease=-7))
    rig.run(PutRequest(b"b", ignore_value=True))
    outcome = rig.run(LeaseRevokeRequest(-7))
    assert (outcome.response, outcome.revision) == (LeaseRevokeResponse(), 6 + 0)
    assert rig.hub.published[-1] == (6, [KeyValue(b"a", 0, 6), KeyValue(b"c", 0, 6)])
    assert rig.ask(LeaseRevokeRequest(-7)) == ErrorKind.LEASE_NOT_FOUND.error()
    assert rig.run(LeaseGrantRequest(5, 1)).revision == 6
    assert rig.run(LeaseRevokeRequest(1)).revision == 6


def test_expiry_counts_only_in_the_term_that_proposed_it():
    rig = Rig()
    for lease in (1, 2):
        rig.run(LeaseGrantRequest(5, lease))
        rig.run(PutRequest(b"%d" % lease, lease=lease))
    assert rig.run(LeaseExpire(1, [1]), term=2).revision == 3
    assert rig.machine.lessor.exists(LeaseId(1))
    # Each lease's keys go at a revision of their own; unknown leases are passed over.
    assert rig.run(LeaseExpire(2, [1, 5, 2]), term=2).revision == 5
    assert rig.hub.published[-2:] == [(4, [KeyValue(b"1", 0, 4)]), (5, [KeyValue(b"2", 0, 5)])]
    assert not rig.machine.lessor.exists(LeaseId(2))


def test_checkpoints_count_only_in_the_term_that_measured_them():
    rig = Rig()
    rig.run(LeaseGrantRequest(50, 1))
    rig.run(LeaseCheckpoint(1, [1], [20]), term=2)
    assert rig.machine.lessor.remaining(LeaseId(1), 0.0) == 50
    rig.run(LeaseCheckpoint(2, [1, 9], [20, 5]), term=2)
    assert rig.machine.lessor.remaining(LeaseId(1), 0.0) == 20
    rig.run(LeaseCheckpoint(2, [1], [0]), term=2)
    assert rig.machine.lessor.remaining(LeaseId(1), 0.0) == 50


def test_what_was_decided_about_a_lease_does_not_befall_the_next_of_its_id():
    rig = Rig()
    rig.run(LeaseGrantRequest(50, 1))
    before = rig.machine.lessor.get(LeaseId(1))
    assert before is not None
    rig.run(LeaseRevokeRequest(1))
    rig.run(LeaseGrantRequest(50, 1))
    rig.run(PutRequest(b"k", lease=1))
    rig.run(LeaseExpire(2, [1], [before.granted_index]), term=2)
    rig.run(LeaseCheckpoint(2, [1], [20], [before.granted_index]), term=2)
    after = rig.machine.lessor.get(LeaseId(1))
    assert after is not None
    assert after.remaining_seconds == 0
    rig.run(LeaseCheckpoint(2, [1], [20], [after.granted_index]), term=2)
    assert rig.machine.lessor.remaining(LeaseId(1), 0.0) == 20
    rig.run(LeaseExpire(2, [1], [after.granted_index]), term=2)
    assert not rig.machine.lessor.exists(LeaseId(1))


def test_compaction_forgets():
    rig = Rig()
    rig.run(PUT)
    assert rig.ask(CompactionRequest(0)) == CompactionResponse()
    assert rig.ask(CompactionRequest(0)) == ErrorKind.COMPACTED.error()
    assert rig.ask(CompactionRequest(2, physical=True)) == CompactionResponse()
    assert rig.machine.store.compacted_revision == 2


def test_alarms_are_kept_by_member_and_type_until_taken_back():
    rig = Rig()
    space = AlarmMember(7, AlarmType.NOSPACE)
    corrupt = AlarmMember(3, AlarmType.CORRUPT)
    on, off, get = AlarmAction.ACTIVATE, AlarmAction.DEACTIVATE, AlarmAction.GET
    for _ in range(2):
        assert rig.ask(AlarmRequest(on, 7, AlarmType.NOSPACE)) == AlarmResponse(None, [space])
    rig.run(AlarmRequest(on, 3, AlarmType.CORRUPT))
    assert list(rig.machine.alarms) == [corrupt, space]
    assert rig.ask(AlarmRequest(get)) == AlarmResponse(None, [corrupt, space])
    assert rig.ask(AlarmRequest(get, 99, AlarmType.NOSPACE)) == AlarmResponse(None, [space])
    assert rig.ask(AlarmRequest(on, 0, AlarmType.NONE)) == AlarmResponse()
    assert rig.ask(AlarmRequest(off, 8, AlarmType.NOSPACE)) == AlarmResponse()
    assert rig.ask(AlarmRequest(off, 7, AlarmType.NOSPACE)) == AlarmResponse(None, [space])
    assert list(rig.machine.alarms) == [corrupt]


@pytest.mark.parametrize("body", [PUT, PUT_TXN, LeaseGrantRequest(5, 2)])
def test_no_space_refuses_what_adds(body):
    rig = Rig()
    raise_alarm(rig, AlarmType.NOSPACE)
    assert rig.ask(body) == ErrorKind.NO_SPACE.error()
    rig.run(AlarmRequest(AlarmAction.DEACTIVATE, 7, AlarmType.NOSPACE))
    assert not isinstance(rig.ask(body), KvError)


@pytest.mark.parametrize(
    ("body", "response"),
    [
        (DeleteRangeRequest(b"a"), DeleteRangeResponse(None, 1)),
        (CompactionRequest(2), CompactionResponse()),
        (LeaseRevokeRequest(1), LeaseRevokeResponse()),
    ],
)
def test_no_space_lets_pass_what_frees(body, response):
    rig = Rig()
    rig.run(LeaseGrantRequest(5, 1))
    rig.run(PutRequest(b"a", lease=1))
    raise_alarm(rig, AlarmType.NOSPACE)
    assert rig.ask(body) == response
    assert isinstance(rig.ask(DELETE_TXN), TxnResponse)


@pytest.mark.parametrize(
    "body",
    [
        PUT,
        PUT_TXN,
        DELETE_TXN,
        DeleteRangeRequest(b"b"),
        LeaseGrantRequest(5, 2),
        LeaseRevokeRequest(1),
        LeaseExpire(1, [1]),
        CompactionRequest(2),
    ],
)
def test_corruption_refuses_every_change(body):
    rig = Rig()
    rig.run(LeaseGrantRequest(5, 1))
    rig.run(PUT)
    raise_alarm(rig, AlarmType.NOSPACE)
    raise_alarm(rig, AlarmType.CORRUPT)
    assert rig.ask(body) == ErrorKind.CORRUPT.error()
    assert isinstance(rig.ask(READ_TXN), TxnResponse)


def test_members_and_the_cluster_version_are_told_through_the_log():
    rig = Rig()
    assert rig.ask(PublishMember(9, "two", ["http://c"])) is None
    assert rig.machine.members[MemberId(9)] == Member(9, "two", ("http://b:1",), ("http://c",))
    rig.run(ClusterVersion("3.6.0"))
    assert rig.machine.cluster_version == "3.6.0"


def test_the_quota_counts_versions_and_leases_and_what_a_request_may_add():
    put_cost = request_cost(PUT)
    assert put_cost == 256 + 2
    dear = TxnRequest([], [RequestOp(request_put=PutRequest(b"a", bytes(100)))])
    both = TxnRequest([], [RequestOp(request_put=PUT), RequestOp(request_txn=dear)], dear.success)
    assert request_cost(both) == 258 + 357
    assert request_cost(LeaseGrantRequest(5)) == 64
    assert request_cost(DeleteRangeRequest(b"a", b"\0")) == 0

    rig = Rig(quota=2 * 258 + 64)
    rig.run(LeaseGrantRequest(5, 1))
    assert rig.machine.size_bytes == 64
    assert not rig.machine.would_exceed(put_cost)
    rig.run(PUT)
    assert rig.machine.size_bytes == 64 + 258
    # At the quota is too much, as in etcd.
    assert rig.machine.would_exceed(put_cost)
    assert not rig.machine.would_exceed(put_cost - 1)
    assert not rig.machine.would_exceed(0)
    assert not Rig(quota=-1).machine.would_exceed(1 << 60)


def test_the_hash_tells_apart_what_differs():
    def hash_of(*bodies) -> int:
        rig = Rig()
        for body in bodies:
            rig.run(body)
        return rig.machine.effects_hash

    histories = [
        (PutRequest(b"a", b"b"),),
        (PutRequest(b"ab", b""),),
        (PutRequest(b"a", b"b"), DeleteRangeRequest(b"a")),
        (PutRequest(b"a", b"b"), PutRequest(b"a", b"b")),
        (PutRequest(b"a", b"b"), PutRequest(b"b", lease=3)),
        (PutRequest(b"a", b"b"), CompactionRequest(1)),
        (PutRequest(b"a", b"b"), CompactionRequest(2)),
        (PutRequest(b"a", b"b"), ClusterVersion("3.6.0")),
        (LeaseGrantRequest(5, 1), PutRequest(b"a", b"b", lease=1)),
        (LeaseGrantRequest(5, 1), PutRequest(b"a", b"b")),
    ]
    assert len({hash_of(*history) for history in histories}) == len(histories)
    assert hash_of(PutRequest(b"a", b"b")) == hash_of(PutRequest(b"a", b"b"))
