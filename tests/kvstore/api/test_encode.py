"""JSON out: golden bytes, defaults left out, and the same bytes by whichever way."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.v3_json.decode import decode
from kvstore.api.v3_json.encode import (
    SLICE_BYTES,
    SLICE_RECORDS,
    encode,
    encode_event,
    encode_key_value,
    encode_slices,
    is_big,
)
from kvstore.api.v3_json.prepared import Prepared
from kvstore.types import (
    AlarmMember,
    AlarmResponse,
    AlarmType,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeResponse,
    DowngradeInfo,
    Event,
    EventType,
    KeyValue,
    LeaseTimeToLiveResponse,
    Member,
    MemberListResponse,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    StatusResponse,
    TxnRequest,
    TxnResponse,
    WatchResponse,
)

HEADER = ResponseHeader(14841639068965178418, 10276657743932975437, 5, 2)
HEADER_JSON = (
    b'{"cluster_id":"14841639068965178418","member_id":"10276657743932975437",'
    b'"revision":"5","raft_term":"2"}'
)


def test_golden_responses():
    item = KeyValue(b"a", 2, 5, 3, b"\xff\xfe", 9)
    kv = (
        b'{"key":"YQ==","create_revision":"2","mod_revision":"5","version":"3",'
        b'"value":"//4=","lease":"9"}'
    )
    assert encode(PutResponse(HEADER, item)) == b'{"header":%b,"prev_kv":%b}' % (HEADER_JSON, kv)
    assert encode(RangeResponse(HEADER, [item], True, 8)) == (
        b'{"header":%b,"kvs":[%b],"more":true,"count":"8"}' % (HEADER_JSON, kv)
    )
    assert encode(RangeResponse(HEADER)) == b'{"header":%b}' % HEADER_JSON
    assert encode(LeaseTimeToLiveResponse(HEADER, 999, -1)) == (
        b'{"header":%b,"ID":"999","TTL":"-1"}' % HEADER_JSON
    )
    assert encode(LeaseTimeToLiveResponse(HEADER, 1, 5, 10, [b"a", b"b"])).endswith(
        b'"grantedTTL":"10","keys":["YQ==","Yg=="]}'
    )
    members = MemberListResponse(HEADER, [Member(7, "né", ("http://a",), (), True)])
    assert encode(members) == (
        b'{"header":%b,"members":[{"ID":"7","name":"n\xc3\xa9","peerURLs":["http://a"],'
        b'"isLearner":true}]}' % HEADER_JSON
    )
    alarms = AlarmResponse(HEADER, [AlarmMember(7, AlarmType.NOSPACE), AlarmMember(8, 9)])
    assert encode(alarms).endswith(
        b'"alarms":[{"memberID":"7","alarm":"NOSPACE"},{"memberID":"8","alarm":9}]}'
    )
    status = encode(
        StatusResponse(HEADER, "3.7.1", errors=["no leader"], downgradeInfo=DowngradeInfo())
    )
    assert status.endswith(b'"version":"3.7.1","errors":["no leader"],"downgradeInfo":{}}')


def test_a_set_but_empty_message_is_an_empty_object():
    nested = TxnResponse(ResponseHeader(), responses=[ResponseOp(response_put=PutResponse())])
    whole = TxnResponse(HEADER, True, [ResponseOp(response_txn=nested)])
    assert encode(whole) == (
        b'{"header":%b,"succeeded":true,"responses":[{"response_txn":'
        b'{"header":{},"responses":[{"response_put":{}}]}}]}' % HEADER_JSON
    )


def test_events_leave_their_default_type_out():
    item = KeyValue(b"a", 5, 5, 1, b"v")
    put = (
        b'{"kv":{"key":"YQ==","create_revision":"5","mod_revision":"5","version":"1",'
        b'"value":"dg=="}}'
    )
    assert encode_event(Event(EventType.PUT, item)) == put
    assert encode_event(Event(EventType.DELETE, KeyValue(b"a", 0, 6))) == (
        b'{"type":"DELETE","kv":{"key":"YQ==","mod_revision":"6"}}'
    )
    with_previous = encode_event(Event(EventType.PUT, item, item))
    assert json.loads(with_previous) == {
        "kv": json.loads(put)["kv"],
        "prev_kv": json.loads(put)["kv"],
    }


SMALL = st.integers(0, 3) | st.integers(0, 2**63 - 1)
ITEMS = st.builds(
    KeyValue, st.binary(max_size=4), SMALL, SMALL, SMALL, st.binary(max_size=4), SMALL
)
HEADERS = st.builds(ResponseHeader, SMALL, SMALL, SMALL, SMALL) | st.just(HEADER)


def as_json(item):
    """The mapping's rules once more, plainly."""
    fields = {}
    for name in item.__struct_fields__:
        value = getattr(item, name)
        if value:
            fields[name] = (
                base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)
            )
    return fields


@given(ITEMS)
def test_a_key_value_is_encoded_by_the_rules(item):
    assert json.loads(encode_key_value(item)) == as_json(item)


@given(HEADERS, st.lists(ITEMS, max_size=2), st.booleans(), SMALL)
def test_prepared_answers_have_the_bytes_of_any_other(header, items, more, count):
    prepared = Prepared(HEADER.cluster_id, HEADER.member_id)
    found = RangeResponse(header, items, more, count)
    assert prepared.range(found) == encode(found)
    found = RangeResponse(header, items, False, len(items))
    assert prepared.range(found) == encode(found)
    put = PutResponse(header, items[0] if items else None)
    assert prepared.put(put) == encode(put)
    deleted = DeleteRangeResponse(header, count, items)
    assert prepared.delete_range(deleted) == encode(deleted)
    puts = [PutResponse(ResponseHeader(revision=count)), PutResponse(HEADER)]
    puts += [PutResponse(prev_kv=item) for item in items]
    for put in puts:
        ops = [ResponseOp(response_put=put)] * len(items)
        for decided in (TxnResponse(header, more, ops), TxnResponse(header, more)):
            assert prepared.txn(decided) == encode(decided)


def sample(count, value=b"v"):
    return [KeyValue(b"%06d" % n, n + 1, n + 1, 1, value) for n in range(count)]


def test_slices_joined_are_the_whole_and_each_is_bounded():
    many = sample(3 * SLICE_RECORDS + 7)
    nested = TxnResponse(
        None, True, [ResponseOp(response_delete_range=DeleteRangeResponse(None, 5, many))]
    )
    for response in (
        RangeResponse(HEADER, many, True, 5000),
        DeleteRangeResponse(HEADER, len(many), many),
        TxnResponse(HEADER, True, [ResponseOp(response_txn=nested), ResponseOp()]),
        LeaseTimeToLiveResponse(HEADER, 5, 6, 7, [item.key for item in many]),
        WatchResponse(HEADER, 3, events=[Event(EventType.PUT, item) for item in many]),
        RangeResponse(HEADER),
        TxnResponse(),
    ):
        slices = list(encode_slices(response))
        assert b"".join(slices) == encode(response)
        assert all(part.count(b'"key"') <= SLICE_RECORDS for part in slices)
        assert all(slices)


def test_slices_end_at_many_bytes_too():
    value = bytes(SLICE_BYTES // 2)
    slices = list(encode_slices(RangeResponse(HEADER, sample(20, value), False, 20)))
    assert len(slices) >= 10
    assert max(map(len, slices)) < 2 * SLICE_BYTES


def test_only_big_responses_are_sliced():
    assert not is_big(PutResponse(HEADER))
    assert not is_big(RangeResponse(HEADER, sample(SLICE_RECORDS)))
    assert is_big(RangeResponse(HEADER, sample(SLICE_RECORDS + 1)))
    assert is_big(RangeResponse(HEADER, sample(3, bytes(SLICE_BYTES // 2))))
    many = RangeResponse(None, sample(SLICE_RECORDS + 1))
    nested = TxnResponse(None, responses=[ResponseOp(response_range=many)])
    assert is_big(TxnResponse(HEADER, responses=[ResponseOp(response_txn=nested)]))
    assert not is_big(TxnResponse(HEADER, responses=[ResponseOp()]))
    assert is_big(LeaseTimeToLiveResponse(HEADER, keys=[b"a"] * (SLICE_RECORDS + 1)))


def test_requests_survive_the_way_out_and_in():
    request = TxnRequest(
        [Compare(CompareResult.NOT_EQUAL, CompareTarget.LEASE, b"a", lease=0, range_end=b"b")],
        [RequestOp(request_range=RangeRequest(b"a", limit=-3, keys_only=True))],
    )
    assert decode(TxnRequest, encode(request)) == request
