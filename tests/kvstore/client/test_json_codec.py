"""v3 JSON as a client writes and reads it."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client import json_codec
from kvstore.errors import Code, KvError
from kvstore.types import (
    AlarmResponse,
    AlarmType,
    Compare,
    CompareTarget,
    EventType,
    KeyValue,
    MemberListResponse,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    SortOrder,
    TxnRequest,
    WatchCreateRequest,
    WatchRequest,
    WatchResponse,
)


def written(message):
    return json.loads(json_codec.encode(message))


def test_defaults_are_left_out_and_bytes_are_base64():
    assert written(PutRequest(key=b"a\xff")) == {"key": "Yf8="}
    assert written(RangeRequest()) == {}
    assert written(RangeRequest(key=b"a", sort_order=SortOrder.DESCEND, limit=3)) == {
        "key": "YQ==",
        "sort_order": "DESCEND",
        "limit": 3,
    }


def test_an_operand_that_was_given_is_written_even_if_it_is_zero():
    # Left out, the union would be empty: for a lease of 0 that is the same, for the server's checks
    # it need not be.
    compare = Compare(key=b"a", target=CompareTarget.CREATE, create_revision=0)
    assert written(compare) == {"key": "YQ==", "target": "CREATE", "create_revision": 0}


def test_nested_messages():
    request = TxnRequest(success=[RequestOp(request_put=PutRequest(key=b"k", value=b"v"))])
    assert written(request) == {"success": [{"request_put": {"key": "aw==", "value": "dg=="}}]}
    assert written(WatchRequest(create_request=WatchCreateRequest())) == {"create_request": {}}


def test_a_range_answer_of_etcd():
    body = (
        b'{"header":{"cluster_id":"14089571842301612623","revision":"3"},"kvs":[{"key":"YQ==",'
        b'"create_revision":"2","mod_revision":"3","version":"2","value":"Mg=="}],"count":"1"}'
    )
    response = json_codec.decode(RangeResponse, body)
    assert response.header is not None
    assert response.header.cluster_id == 14089571842301612623
    assert response.kvs == [KeyValue(b"a", 2, 3, 2, b"2", 0)]
    assert response.count == 1


def test_enums_by_name_or_number_and_unknown_fields_are_ignored():
    body = b'{"events":[{"type":"DELETE","kv":{"key":"YQ=="},"new":1},{"type":1}]}'
    response = json_codec.decode(WatchResponse, body)
    assert [event.type for event in response.events] == [EventType.DELETE, EventType.DELETE]
    alarms = json_codec.decode(AlarmResponse, b'{"alarms":[{"memberID":"7","alarm":"NOSPACE"}]}')
    assert alarms.alarms[0].alarm is AlarmType.NOSPACE


def test_tuples_and_null():
    body = b'{"members":[{"ID":"5","name":"a","peerURLs":["http://a:1"],"clientURLs":null}]}'
    member = json_codec.decode(MemberListResponse, body).members[0]
    assert (member.ID, member.peerURLs, member.clientURLs) == (5, ("http://a:1",), ())


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nonsense", b'{"kvs":[1]}', b'{"kvs":[{"key":"*"}]}', b'{"count":"x"}', b"3"],
)
def test_an_answer_that_is_something_else_is_an_error_of_its_own(body):
    with pytest.raises(KvError, match="RangeResponse") as caught:
        json_codec.decode(RangeResponse, body)
    assert caught.value.code is Code.INTERNAL


@given(
    st.builds(
        KeyValue,
        key=st.binary(max_size=20),
        create_revision=st.integers(-(2**63), 2**63 - 1),
        mod_revision=st.integers(0, 2**63 - 1),
        value=st.binary(max_size=20),
        lease=st.integers(-(2**63), 2**63 - 1),
    )
)
def test_what_is_written_is_read_back(pair):
    assert json_codec.decode(KeyValue, json_codec.encode(pair)) == pair
    as_strings = {
        name: str(value) if isinstance(value, int) else value
        for name, value in json_codec.to_object(pair).items()
    }
    assert json_codec.decode(KeyValue, msgspec.json.encode(as_strings)) == pair
