"""Our bytes are protobuf's bytes, and what protobuf makes of bytes is what we make of them."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import types as t
from kvstore.api.grpc.decode import DEPTH_MAX, FIELDS_MAX, FLAT_FIELDS_MAX, Malformed, decode
from kvstore.api.grpc.encode import encode, encode_sliced, is_big
from kvstore.api.grpc.events import encode_event, encode_head
from kvstore.api.grpc.fast import (
    decode_delete_range,
    decode_keep_alive,
    decode_put,
    decode_range,
)
from kvstore.api.grpc.names import full_name
from kvstore.api.grpc.prepared import Prepared
from kvstore.api.shared_events import SharedEvents
from kvstore.api.v3_json.schema import Kind, fields_of
from kvstore.budget import CountedBudget, finish
from kvstore.errors import Code
from tests.kvstore.api.grpc import oracle

EVERY_RECORD = pytest.mark.parametrize("record", oracle.RECORDS, ids=lambda it: it.__name__)

RANDOM_REQUESTS = [
    t.PutRequest,
    t.RangeRequest,
    t.DeleteRangeRequest,
    t.TxnRequest,
    t.RequestOp,
    t.Compare,
    t.WatchRequest,
    t.WatchCreateRequest,
    t.LeaseKeepAliveRequest,
    t.AuthUserAddRequest,
    t.MemberAddRequest,
    t.Member,
    t.AlarmRequest,
    t.HashResponse,
]

CLUSTER, MEMBER = 14841639068965178418, 10276657743932975437
HEADER = t.ResponseHeader(CLUSTER, MEMBER, 300, 7)

KINDS = {
    3: Kind.INT64,
    4: Kind.UINT64,
    8: Kind.BOOL,
    9: Kind.STRING,
    11: Kind.MESSAGE,
    12: Kind.BYTES,
    13: Kind.UINT32,
    14: Kind.ENUM,
}
"""Our kinds by protobuf's types of fields."""


@EVERY_RECORD
def test_each_record_is_declared_as_its_message_is(record):
    descriptor = oracle.class_of(record).DESCRIPTOR
    ours = {field.name: field for field in fields_of(record)}
    theirs = {field.name: field for field in descriptor.fields}
    if record in (t.DefragmentResponse, t.MoveLeaderResponse):
        # Always without a header, as in etcd, so that the record has none.
        assert theirs.pop("header").number == 1
    assert list(ours) == sorted(theirs, key=lambda name: theirs[name].number)
    for name, field in ours.items():
        other = theirs[name]
        assert field.kind is KINDS[other.type], name
        assert (field.repeated is not None) == other.is_repeated, name
        if field.message is not None:
            assert full_name(field.message) == other.message_type.full_name
        if field.enum_type is not None:
            values = {value.name: value.number for value in other.enum_type.values}
            assert {value.name: value.value for value in field.enum_type} == values
        oneof = other.containing_oneof
        assert field.oneof == (oneof.name if oneof else None)


@EVERY_RECORD
@settings(max_examples=10)
@given(data=st.data())
def test_each_record_has_protobufs_bytes_and_comes_back_from_them(record, data):
    value = data.draw(oracle.records(record))
    expected = oracle.to_message(value).SerializeToString()
    assert encode(value) == expected
    assert decode(record, expected) == value
    assert finish(encode_sliced(value, CountedBudget(1)), CountedBudget(1)) == expected


@pytest.mark.parametrize("record", RANDOM_REQUESTS, ids=lambda it: it.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_any_fields_are_read_as_protobuf_reads_them(record, data):
    fields = data.draw(st.lists(oracle.wire_fields(record), max_size=6))
    check_as_protobuf(record, b"".join(fields))


@pytest.mark.parametrize("record", RANDOM_REQUESTS, ids=lambda it: it.__name__)
@settings(max_examples=30)
@given(data=st.data())
def test_damaged_messages_are_errors_and_nothing_else(record, data):
    raw = bytearray(encode(data.draw(oracle.records(record))))
    for _ in range(data.draw(st.integers(0, 3))):
        if raw:
            place = data.draw(st.integers(0, len(raw) - 1))
            raw[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    check_as_protobuf(record, bytes(raw[:cut]))


def check_as_protobuf(record, raw):
    try:
        message = oracle.class_of(record).FromString(raw)
    except DecodeError:
        with pytest.raises(Malformed) as caught:
            decode(record, raw)
        assert caught.value.code == Code.INTERNAL
        return
    if record is t.WatchRequest and message.progress_request.ByteSize():
        # In a message without any field, and only there, upb takes a field of number 0.
        with contextlib.suppress(Malformed):
            assert decode(record, raw) == oracle.to_record(record, message)
        return
    assert decode(record, raw) == oracle.to_record(record, message)


@pytest.mark.parametrize(
    ("hot", "record"),
    [
        (decode_put, t.PutRequest),
        (decode_range, t.RangeRequest),
        (decode_delete_range, t.DeleteRangeRequest),
        (decode_keep_alive, t.LeaseKeepAliveRequest),
    ],
)
@given(data=st.data())
def test_hot_requests_are_read_as_all_others(hot, record, data):
    if data.draw(st.booleans()):
        raw = encode(data.draw(oracle.records(record)))
    else:
        key = data.draw(st.binary(max_size=150))
        value = data.draw(st.sampled_from([b"", b"v", b"v" * 127, b"v" * 128, b"v" * 16384]))
        raw = (
            encode(t.PutRequest(key, value) if record is t.PutRequest else record(key))
            if (record is not t.LeaseKeepAliveRequest)
            else data.draw(st.binary(max_size=12))
        )
    raw += data.draw(st.sampled_from([b"", b"", b"\x38\x01", b"\x38\x00", b"\x0a", b"\x0a\x01x"]))
    try:
        expected = decode(record, raw)
    except Malformed:
        with pytest.raises(Malformed):
            hot(raw)
    else:
        assert hot(raw) == expected


def test_a_length_that_is_longer_than_it_need_be_is_read_as_it_is():
    raw = b"\x0a\x01k\x12\x81\x80\x00V\x7a" + bytes([124]) + b"p" * 124
    assert len(raw) == 5 + 0x81
    assert decode_put(raw) == decode(t.PutRequest, raw) == t.PutRequest(b"k", b"V")


HEADERS = st.builds(
    t.ResponseHeader,
    st.sampled_from([CLUSTER, CLUSTER, 1]),
    st.sampled_from([MEMBER, MEMBER, 0]),
    st.sampled_from([0, 1, 300, 300, 301, 1 << 40]),
    st.sampled_from([0, 7, 7, 8]),
)


@settings(max_examples=30)
@given(st.data())
def test_prepared_answers_are_those_of_the_general_encoder(data):
    prepared = Prepared(CLUSTER, MEMBER)
    prepare: dict[type[t.Record], Callable[[Any], bytes]] = {
        t.PutResponse: prepared.put,
        t.DeleteRangeResponse: prepared.delete_range,
        t.RangeResponse: prepared.range,
        t.TxnResponse: prepared.txn,
        t.LeaseKeepAliveResponse: prepared.keep_alive,
    }
    # Several in turn: the last header is kept.
    for _ in range(4):
        record = data.draw(st.sampled_from(list(prepare)))
        response = data.draw(oracle.records(record, 2))
        if data.draw(st.booleans()):
            response.header = data.draw(HEADERS)
        assert prepare[record](response) == encode(response)


@settings(max_examples=15)
@given(st.data())
def test_watch_responses_are_those_of_the_general_encoder(data):
    prepared, shared = Prepared(CLUSTER, MEMBER), SharedEvents(encode_event)
    events = data.draw(st.lists(oracle.records(t.Event), min_size=1, max_size=4))
    for _ in range(3):
        response = data.draw(oracle.records(t.WatchResponse))
        response.header = data.draw(st.none() | HEADERS)
        response.events = data.draw(st.lists(st.sampled_from(events), max_size=5))
        message = encode_head(prepared, response)
        message += b"".join([shared.encode(event) for event in response.events])
        assert message == encode(response)


def test_a_reason_is_said_even_where_nothing_was_cancelled():
    response = t.WatchResponse(cancel_reason="why")
    assert encode_head(Prepared(CLUSTER, MEMBER), response) == encode(response) == b"\x32\x03why"


def test_golden_bytes_of_the_hot_messages():
    put = t.PutRequest(b"foo", b"bar", 77, True)
    assert encode(put).hex() == "0a03666f6f1203626172184d2001"
    assert encode(t.RangeRequest(b"a", b"\0", -1)).hex() == "0a016112010018ffffffffffffffffff01"
    compare = t.Compare(t.CompareResult.NOT_EQUAL, t.CompareTarget.MOD, b"k", mod_revision=0)
    assert encode(compare).hex() == "080310021a016b3000"
    compare = t.Compare(target=t.CompareTarget.VALUE, key=b"k", value=b"", range_end=b"z")
    assert encode(compare).hex() == "10031a016b3a008204017a"
    create = t.WatchCreateRequest(b"k", filters=[t.FilterType.NOPUT, t.FilterType.NODELETE])
    watch = t.WatchRequest(create_request=create)
    assert encode(watch).hex() == "0a070a016b2a020001"
    unpacked = bytes.fromhex("0a070a016b28002801")
    assert decode(t.WatchRequest, unpacked) == watch
    event = t.Event(t.EventType.DELETE, t.KeyValue(b"k", mod_revision=9))
    response = t.WatchResponse(t.ResponseHeader(1, 2, 9, 3), -1, events=[event])
    expected = "0a08080110021809200310ffffffffffffffffff015a09080112050a016b1809"
    assert encode(response).hex() == expected


def test_a_oneof_that_is_set_to_nothing_is_set():
    op = t.RequestOp(request_put=t.PutRequest())
    assert encode(op) == b"\x12\x00"
    assert decode(t.RequestOp, b"\x12\x00") == op
    assert decode(t.RequestOp, b"") == t.RequestOp()
    progress = decode(t.WatchRequest, b"\x1a\x00")
    assert progress == t.WatchRequest(progress_request=t.WatchProgressRequest())
    assert decode(t.Compare, b"\x20\x00").version == 0


def test_of_a_oneof_the_last_member_counts_and_the_same_one_merges():
    put_then_range = b"\x12\x03\x0a\x01k\x0a\x03\x0a\x01r"
    assert decode(t.RequestOp, put_then_range) == t.RequestOp(t.RangeRequest(b"r"))
    twice = b"\x12\x03\x0a\x01k\x12\x03\x12\x01v"
    assert decode(t.RequestOp, twice).request_put == t.PutRequest(b"k", b"v")


def test_lengths_and_tags_are_of_five_bytes_at_most_and_numbers_of_ten():
    for raw in (
        b"\x0a\x80\x80\x80\x80\x80\x00",
        b"\x7a\x80\x80\x80\x80\x80\x00",
        b"\x8a\x80\x80\x80\x80\x00\x00",
        b"\x18" + b"\x80" * 10 + b"\x00",
        b"\x0a\xff\xff\xff\xff\x0fa",
        b"\x0a\xff\xff\xff\xff\x1fa",
        b"\x00\x00",
        b"\x7c",
        b"\x7b\x84\x01",
        b"\x7b",
        b"\x7e\x00",
        b"\x79\x00",
        b"\x7d\x00",
        b"\x7a\x05a",
        b"\x18",
        b"\x0a\x02a",
    ):
        check_as_protobuf(t.PutRequest, raw)
        with pytest.raises(Malformed):
            decode(t.PutRequest, raw)
    beyond = b"\x18" + b"\xff" * 9 + b"\x02"
    check_as_protobuf(t.PutRequest, beyond)
    assert decode(t.PutRequest, beyond).lease == (1 << 63) - 1
    overlong = b"\x8a\x80\x00\x81\x80\x00k\x18\x81\x80\x80\x00\x20\x80\x01"
    check_as_protobuf(t.PutRequest, overlong)
    assert decode(t.PutRequest, overlong) == t.PutRequest(b"k", lease=1, prev_kv=True)


def test_text_that_is_not_utf_8_is_refused_in_grpcs_words():
    with pytest.raises(Malformed) as caught:
        decode(t.AuthenticateRequest, b"\x0a\x01\xff")
    assert caught.value.code == Code.INTERNAL
    expected = "grpc: error unmarshalling request: string field contains invalid UTF-8"
    assert caught.value.message == expected


def nested(levels):
    raw = b""
    for _ in range(levels):
        for tag in (b"\x22", b"\x12"):
            raw = tag + oracle.varint(len(raw)) + raw
    return raw


def test_transactions_may_nest_deeper_than_the_service_allows_and_no_deeper_than_that():
    request = decode(t.TxnRequest, nested(150))
    depth = 0
    while request.success:
        inner = request.success[0].request_txn
        assert inner is not None
        request = inner
        depth += 1
    assert depth == 150
    assert decode(t.TxnRequest, nested(DEPTH_MAX // 2)).success
    with pytest.raises(Malformed, match="nested too deep"):
        decode(t.TxnRequest, nested(DEPTH_MAX // 2 + 1))


def test_groups_nest_no_deeper_either():
    groups = b"\x7b" * DEPTH_MAX + b"\x7c" * DEPTH_MAX
    assert decode(t.TxnRequest, groups) == t.TxnRequest()
    with pytest.raises(Malformed, match="nested too deep"):
        decode(t.TxnRequest, b"\x7b" + groups + b"\x7c")


def test_fields_of_a_message_are_bounded_wherever_they_are():
    for field in (b"\x12\x00", b"\x78\x00", b"\x0a\x00"):
        decode(t.TxnRequest, field * FIELDS_MAX)
        with pytest.raises(Malformed, match="too many fields"):
            decode(t.TxnRequest, field * (FIELDS_MAX + 1))
    inner = b"\x28\x00" * (FIELDS_MAX // 2)
    create = b"\x0a" + oracle.varint(len(inner)) + inner
    decode(t.WatchRequest, create)
    with pytest.raises(Malformed, match="too many fields"):
        decode(t.WatchRequest, create * 2 + b"\x1a\x00")
    packed = b"\x2a" + oracle.varint(FIELDS_MAX - 1) + bytes(FIELDS_MAX - 1)
    assert len(decode(t.WatchCreateRequest, packed).filters) == FIELDS_MAX - 1
    with pytest.raises(Malformed, match="too many fields"):
        decode(t.WatchCreateRequest, packed + b"\x28\x00")
    more = b"\x2a" + oracle.varint(FIELDS_MAX) + bytes(FIELDS_MAX)
    with pytest.raises(Malformed, match="too many values"):
        decode(t.WatchCreateRequest, more)


def test_a_message_without_lists_may_have_few_fields():
    for record in (t.PutRequest, t.RangeRequest, t.LeaseKeepAliveRequest):
        decode(record, b"\x78\x00" * FLAT_FIELDS_MAX)
        with pytest.raises(Malformed, match="too many fields"):
            decode(record, b"\x78\x00" * (FLAT_FIELDS_MAX + 1))


def test_a_transaction_may_have_as_many_fields_as_its_limit_says():
    for limit in (100, FIELDS_MAX + 100):
        assert len(decode(t.TxnRequest, b"\x12\x00" * limit, limit).success) == limit
        with pytest.raises(Malformed, match="too many fields"):
            decode(t.TxnRequest, b"\x12\x00" * (limit + 1), limit)


def test_what_is_in_groups_counts_as_fields():
    group = b"\x7b" + b"\x78\x00" * 98 + b"\x7c"
    """A group, what is in it, and its end."""
    decode(t.TxnRequest, group * 2, 200)
    with pytest.raises(Malformed, match="too many fields"):
        decode(t.TxnRequest, group * 2, 199)


def test_lists_that_are_merged_again_and_again_count_each_time():
    items = b"\x0a\x0a" + b"\x28\x00" * 5
    again = b"\x0a\x00"
    created = decode(t.WatchRequest, items + again * 3, 24).create_request
    assert created is not None
    assert len(created.filters) == 5
    with pytest.raises(Malformed, match="too many fields"):
        decode(t.WatchRequest, items + again * 3, 23)


def test_big_answers_take_several_slices_of_work():
    kvs = [t.KeyValue(b"%d" % n, n, n, 1, b"v") for n in range(1, 1000)]
    found = t.RangeResponse(HEADER, kvs, True, 5000)
    nest = t.TxnResponse(HEADER, True, [t.ResponseOp(found), t.ResponseOp(response_txn=None)])
    for answer in (
        found,
        t.RangeStreamResponse(found),
        t.DeleteRangeResponse(HEADER, 999, kvs),
        nest,
        t.TxnResponse(HEADER, False, [t.ResponseOp(response_txn=nest)]),
        t.LeaseTimeToLiveResponse(HEADER, 1, 2, 3, [b"k"] * 1000),
    ):
        assert is_big(answer)
        slices = sum(1 for _ in encode_sliced(answer, CountedBudget(1)))
        assert slices >= 10
        expected = oracle.to_message(answer).SerializeToString()
        assert finish(encode_sliced(answer, CountedBudget(1)), CountedBudget(1)) == expected
    assert not is_big(t.RangeResponse(HEADER, kvs[:64], False, 64))
    assert is_big(t.RangeResponse(HEADER, [t.KeyValue(b"k", value=b"v" * 40_000)] * 2))
    assert not is_big(t.PutResponse(HEADER))


def test_shared_events_are_few_and_small():
    shared = SharedEvents(encode_event)
    for n in range(3000):
        shared.encode(t.Event(t.EventType.PUT, t.KeyValue(b"k", n + 1, n + 1, 1, b"v")))
        assert len(shared._encoded) <= 1024
    big = t.Event(t.EventType.PUT, t.KeyValue(b"k", 1, 1, 1, b"v" * 5000))
    before = len(shared._encoded)
    assert shared.encode(big) == shared.encode(big)
    assert len(shared._encoded) == before
