"""The exact decoder against the rows of the API facts, and what it makes of everything else."""

import base64 as stdlib_base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.api.v3_json import base64
from kvstore.api.v3_json.decode import DEPTH_MAX, Malformed, decode
from kvstore.errors import Code
from kvstore.types import (
    AlarmRequest,
    AlarmType,
    Compare,
    CompareResult,
    CompareTarget,
    FilterType,
    LeaseGrantRequest,
    Member,
    MemberListRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    SortOrder,
    SortTarget,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
)


def put(**fields):
    return PutRequest(**fields)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", put()),
        (b" \r\n\t", put()),
        (b"{}", put()),
        (b'{"key":"YQ==","value":"Yg=="}', put(key=b"a", value=b"b")),
        (b'{"key":"YQ"}', put(key=b"a")),
        (b'{"key":"-_8"}', put(key=b"\xfb\xff")),
        (b'{"key":"+/8="}', put(key=b"\xfb\xff")),
        (b'{"key":"YW\\nJj"}', put(key=b"abc")),
        (b'{"lease":5}', put(lease=5)),
        (b'{"lease":"5"}', put(lease=5)),
        (b'{"lease":"-5"}', put(lease=-5)),
        (b'{"lease":1e3}', put(lease=1000)),
        (b'{"lease":1.0}', put(lease=1)),
        (b'{"lease":"1200e-2"}', put(lease=12)),
        (b'{"lease":0.5e1}', put(lease=5)),
        (b'{"lease":-0}', put()),
        (b'{"lease":9223372036854775807}', put(lease=2**63 - 1)),
        (b'{"lease":"-9223372036854775808"}', put(lease=-(2**63))),
        (b'{"prevKv":true,"ignoreValue":true}', put(prev_kv=True, ignore_value=True)),
        (b'{"key":null,"lease":null}', put()),
        (b'{"unknown":{"key":[1,{"a":null}]},"key":"YQ=="}', put(key=b"a")),
        (b'{"Key":"YQ=="}', put()),
        (b'{"key":"YQ=="} trailing \xff text', put(key=b"a")),
        (b'{"key":"YQ=="}{"key":"Yg=="}', put(key=b"a")),
    ],
)
def test_json_input_takes_what_etcd_takes(body, expected):
    assert decode(PutRequest, body) == expected


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"null", "unexpected token null"),
        (b"[]", "unexpected token ["),
        (b'"text"', 'unexpected token "text"'),
        (b'{"key":"YQ==","key":"YQ=="}', 'duplicate field "key"'),
        (b'{"prev_kv":null,"prevKv":true}', 'duplicate field "prevKv"'),
        (b'{"key":1}', "invalid value for bytes field key: 1"),
        (b'{"key":"Y"}', "invalid value for bytes field key: "),
        (b'{"key":"YQ="}', "invalid value for bytes field key: "),
        (b'{"key":"YQ==YQ=="}', "invalid value for bytes field key: "),
        (b'{"key":"+_8="}', "invalid value for bytes field key: "),
        (b'{"key":"Y Q="}', "invalid value for bytes field key: "),
        (b'{"lease":true}', "invalid value for int64 field lease: true"),
        (b'{"lease":1.5}', "invalid value for int64 field lease: 1.5"),
        (b'{"lease":" 1"}', "invalid value for int64 field lease: "),
        (b'{"lease":"+1"}', "invalid value for int64 field lease: "),
        (b'{"lease":"01"}', "invalid value for int64 field lease: "),
        (b'{"lease":""}', "invalid value for int64 field lease: "),
        (b'{"lease":9223372036854775808}', "invalid value for int64 field lease: "),
        (b'{"lease":1e19}', "invalid value for int64 field lease: "),
        (b'{"lease":1e9999}', "invalid value for int64 field lease: "),
        (b'{"lease":1e-1}', "invalid value for int64 field lease: "),
        (b'{"prev_kv":"true"}', 'invalid value for bool field prev_kv: "true"'),
        (b'{"prev_kv":1}', "invalid value for bool field prev_kv: 1"),
        (b'{"x":"\xff"}', "invalid UTF-8"),
        (b"[" * 15000 + b"]" * 15000, "exceeded max depth"),
        (b'{"key":"YQ==', "unexpected EOF"),
    ],
)
def test_json_input_refuses_what_etcd_refuses(body, words):
    with pytest.raises(Malformed) as caught:
        decode(PutRequest, body)
    assert words in caught.value.message
    assert caught.value.code is Code.INVALID_ARGUMENT


def test_enums_come_by_name_or_number_and_unknown_names_are_ignored():
    body = b'{"sort_order":"DESCEND","sortTarget":3}'
    assert decode(RangeRequest, body) == RangeRequest(
        sort_order=SortOrder.DESCEND, sort_target=SortTarget.MOD
    )
    assert decode(RangeRequest, b'{"sort_order":"SIDEWAYS"}') == RangeRequest()
    assert decode(RangeRequest, b'{"sort_target":9}').sort_target == 9
    create = b'{"create_request":{"filters":["NOPUT","NOTHING",1,7]}}'
    assert decode(WatchRequest, create).create_request == WatchCreateRequest(
        filters=[FilterType.NOPUT, FilterType.NODELETE, 7]
    )
    with pytest.raises(Malformed):
        decode(RangeRequest, b'{"sort_target":2147483648}')


def test_two_members_of_one_oneof_are_refused_and_null_is_none():
    both = b'{"success":[{"request_put":{"key":"YQ=="},"requestRange":{}}]}'
    with pytest.raises(Malformed, match=r"oneof request is already set in field success\[0\]"):
        decode(TxnRequest, both)
    with pytest.raises(Malformed, match="oneof target_union is already set"):
        decode(TxnRequest, b'{"compare":[{"version":1,"value":"YQ=="}]}')
    one = b'{"success":[{"request_put":{"key":"YQ=="},"request_range":null}]}'
    assert decode(TxnRequest, one) == TxnRequest(success=[RequestOp(request_put=PutRequest(b"a"))])


def test_a_set_zero_in_a_oneof_is_told_from_absent():
    compare = b'{"compare":[{"result":"GREATER","target":"VERSION","key":"YQ==","version":"0"}]}'
    assert decode(TxnRequest, compare).compare == [
        Compare(CompareResult.GREATER, CompareTarget.VERSION, b"a", version=0)
    ]
    assert decode(TxnRequest, b'{"compare":[{}]}').compare[0].version is None


def test_null_inside_a_list_of_messages_is_refused_with_its_place():
    with pytest.raises(Malformed, match=r"unexpected token null in field success\[1\]"):
        decode(TxnRequest, b'{"success":[{},null]}')
    with pytest.raises(Malformed, match=r"bytes field success\[0\]\.request_put\.key: 7$"):
        decode(TxnRequest, b'{"success":[{"request_put":{"key":7}}]}')


def test_names_without_underscore_have_one_form():
    assert decode(LeaseGrantRequest, b'{"ttl":"5","TTL":7,"ID":"8"}') == LeaseGrantRequest(7, 8)
    assert decode(AlarmRequest, b'{"memberID":"18446744073709551615","alarm":"CORRUPT"}') == (
        AlarmRequest(memberID=2**64 - 1, alarm=AlarmType.CORRUPT)
    )
    with pytest.raises(Malformed):
        decode(AlarmRequest, b'{"memberID":-1}')
    assert decode(MemberListRequest, b'{"linearizable":true}').linearizable


def test_strings_are_text_and_nothing_less():
    body = '{"name":"né\\ud83d\\ude00","peerURLs":["http://a",""],"ID":1e1}'.encode()
    assert decode(Member, body) == Member(10, "né\U0001f600", ("http://a", ""))
    with pytest.raises(Malformed, match="invalid UTF-8 in string"):
        decode(Member, b'{"name":"\\ud83d"}')
    with pytest.raises(Malformed, match=r"string field peerURLs\[1\]: null"):
        decode(Member, b'{"peerURLs":["http://a",null]}')


def nested(levels):
    return b'{"success":[{"request_txn":' * levels + b"{}" + b"}]}" * levels


def test_transactions_nest_as_deep_as_their_operations_allow_and_no_deeper():
    decode(TxnRequest, nested(128))
    for levels in (DEPTH_MAX // 3 + 1, 300, 5000):
        with pytest.raises(Malformed, match="exceeded max depth"):
            decode(TxnRequest, nested(levels))


def test_a_body_of_more_values_than_allowed_is_refused_unparsed():
    body = b'{"success":[' + b",".join([b"{}"] * 50) + b"]}"
    assert len(decode(TxnRequest, body, values_max=101).success) == 50
    with pytest.raises(Malformed, match="more than 100 JSON values"):
        decode(TxnRequest, body, values_max=100)


@given(st.binary(max_size=40), st.booleans(), st.booleans())
def test_base64_is_read_in_every_form(value, url_safe, padded):
    encode = stdlib_base64.urlsafe_b64encode if url_safe else stdlib_base64.b64encode
    text = encode(value).decode()
    if not padded:
        text = text.rstrip("=")
    assert base64.decode(text) == value
    assert base64.encode(value) == stdlib_base64.b64encode(value)


@given(st.text("AQ=-_+/\n\r xé", max_size=12))
def test_base64_is_bytes_or_a_value_error(text):
    try:
        value = base64.decode(text)
    except ValueError:
        return
    stripped = (
        text.replace("\n", "").replace("\r", "").rstrip("=").translate(str.maketrans("-_", "+/"))
    )
    # The last character may carry bits that no byte takes; all before it come back.
    assert base64.encode(value).decode().rstrip("=")[:-1] == stripped[:-1]


def attempt(message, body):
    """The message, or the words of the refusal; nothing else may come out."""
    try:
        return decode(message, body)
    except Malformed as error:
        return error.message


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_malformed(body):
    outcome = attempt(TxnRequest, body)
    assert isinstance(outcome, TxnRequest) or outcome


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["compare", "success", "key", "request_put", "requestTxn", "value", "other"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_is_a_message_or_malformed(tree):
    outcome = attempt(TxnRequest, json.dumps(tree).encode())
    assert isinstance(outcome, TxnRequest) or outcome.startswith("proto: ")
