"""etcd's JSON mapping, a test a row: what goes in, what comes out, through the path that serves."""

import json

import pytest

from kvstore import types as t
from kvstore.api.error_map import HTTP_STATUS
from kvstore.api.v3_json.decode import Malformed
from kvstore.api.v3_json.encode import encode
from kvstore.api.v3_json.unary import unary_calls
from kvstore.errors import Code
from kvstore.service.caller import ANYBODY
from tests.kvstore.api.fake_service import FakeService

# --- Input ----------------------------------------------------------------------------------------


def asked(path, body):
    """The request that a body becomes, on its way through the face to the service."""
    service = FakeService()
    unary_calls(service)["/v3" + path].pending(body, ANYBODY).begin(lambda outcome: None)
    ((_, request),) = service.calls
    return request


RANGE, PUT, TXN, GRANT = "/kv/range", "/kv/put", "/kv/txn", "/lease/grant"

TAKEN = {
    "int64 as a number": (RANGE, b'{"limit":5}', t.RangeRequest(limit=5)),
    "int64 as a string": (RANGE, b'{"limit":"5"}', t.RangeRequest(limit=5)),
    "int64 negative": (GRANT, b'{"TTL":"-5","ID":-7}', t.LeaseGrantRequest(-5, -7)),
    "int64 with an exponent": (RANGE, b'{"limit":1e3}', t.RangeRequest(limit=1000)),
    "int64 with a fraction of zero": (RANGE, b'{"limit":1.0}', t.RangeRequest(limit=1)),
    "int64 text with an exponent": (RANGE, b'{"limit":"1e3"}', t.RangeRequest(limit=1000)),
    "int64 at its end": (
        RANGE,
        b'{"limit":9223372036854775807}',
        t.RangeRequest(limit=2**63 - 1),
    ),
    "uint64 at its end": (
        "/cluster/member/remove",
        b'{"ID":"18446744073709551615"}',
        t.MemberRemoveRequest(2**64 - 1),
    ),
    "base64 padded": (RANGE, b'{"key":"YQ=="}', t.RangeRequest(b"a")),
    "base64 unpadded": (RANGE, b'{"key":"YQ"}', t.RangeRequest(b"a")),
    "base64 standard alphabet": (RANGE, b'{"key":"+/8="}', t.RangeRequest(b"\xfb\xff")),
    "base64 safe for URLs": (RANGE, b'{"key":"-_8"}', t.RangeRequest(b"\xfb\xff")),
    "base64 safe for URLs, padded": (RANGE, b'{"key":"-_8="}', t.RangeRequest(b"\xfb\xff")),
    "base64 escaped": (RANGE, b'{"key":"\\u0059Q=="}', t.RangeRequest(b"a")),
    "enum by name": (
        RANGE,
        b'{"sort_order":"DESCEND"}',
        t.RangeRequest(sort_order=t.SortOrder.DESCEND),
    ),
    "enum by number": (RANGE, b'{"sort_order":2}', t.RangeRequest(sort_order=2)),
    "enum by a number without a name": (RANGE, b'{"sort_order":9}', t.RangeRequest(sort_order=9)),
    "enum by an unknown name": (RANGE, b'{"sort_order":"descend"}', t.RangeRequest()),
    "unknown field": (RANGE, b'{"unheard":{"of":[1]},"limit":5}', t.RangeRequest(limit=5)),
    "name in camelCase": (RANGE, b'{"rangeEnd":"AA=="}', t.RangeRequest(range_end=b"\0")),
    "name as in the proto": (RANGE, b'{"range_end":"AA=="}', t.RangeRequest(range_end=b"\0")),
    "name in the wrong case": (GRANT, b'{"ttl":"5"}', t.LeaseGrantRequest()),
    "null for a field": (RANGE, b'{"key":null,"limit":null}', t.RangeRequest()),
    "null for a list": (TXN, b'{"success":null}', t.TxnRequest()),
    "null for a message": (
        "/auth/role/grant",
        b'{"name":"r","perm":null}',
        t.AuthRoleGrantPermissionRequest("r"),
    ),
    "null for a member of a oneof": (
        TXN,
        b'{"success":[{"request_put":null,"request_range":{}}]}',
        t.TxnRequest(success=[t.RequestOp(request_range=t.RangeRequest())]),
    ),
    "empty body": (RANGE, b"", t.RangeRequest()),
    "body of spaces": (RANGE, b" \r\n\t", t.RangeRequest()),
    "text after the first value": (RANGE, b'{"limit":5} {"limit":6}', t.RangeRequest(limit=5)),
    "rubbish after the first value": (RANGE, b'{"limit":5}]\xff', t.RangeRequest(limit=5)),
    "zero of an optional operand": (
        TXN,
        b'{"compare":[{"version":"0"}]}',
        t.TxnRequest(compare=[t.Compare(version=0)]),
    ),
    "empty member of a oneof": (
        TXN,
        b'{"success":[{}]}',
        t.TxnRequest(success=[t.RequestOp()]),
    ),
}

REFUSED = {
    "int64 with a fraction": (RANGE, b'{"limit":1.5}'),
    "int64 too large": (RANGE, b'{"limit":9223372036854775808}'),
    "uint64 below zero": ("/cluster/member/remove", b'{"ID":-1}'),
    "int64 as a word": (RANGE, b'{"limit":"five"}'),
    "int64 as a boolean": (RANGE, b'{"limit":true}'),
    "bool as a string": (RANGE, b'{"serializable":"true"}'),
    "bytes as a number": (RANGE, b'{"key":5}'),
    "bytes that are not base64": (RANGE, b'{"key":"Y"}'),
    "bytes in two alphabets": (RANGE, b'{"key":"-_+/"}'),
    "same field twice": (RANGE, b'{"limit":5,"limit":5}'),
    "same field in both names": (RANGE, b'{"range_end":"","rangeEnd":""}'),
    "two members of a oneof": (TXN, b'{"success":[{"request_put":{},"request_range":{}}]}'),
    "two operands of a comparison": (TXN, b'{"compare":[{"version":"1","lease":"1"}]}'),
    "null inside a list of messages": (TXN, b'{"success":[null]}'),
    "null inside a list of texts": ("/cluster/member/add", b'{"peerURLs":[null]}'),
    "body null": (RANGE, b"null"),
    "body a list": (RANGE, b"[]"),
    "body a number": (RANGE, b"5"),
    "bad syntax": (RANGE, b'{"key":x}'),
    "body cut short": (RANGE, b'{"key":'),
    "an object for a list": (TXN, b'{"success":{}}'),
    "a list for an object": (TXN, b'{"success":[[]]}'),
    "text that is not UTF-8": ("/auth/user/get", b'{"name":"\xff"}'),
}


@pytest.mark.parametrize("row", TAKEN)
def test_taken(row):
    path, body, request = TAKEN[row]
    assert asked(path, body) == request


@pytest.mark.parametrize("row", REFUSED)
def test_refused(row):
    path, body = REFUSED[row]
    with pytest.raises(Malformed) as caught:
        asked(path, body)
    assert HTTP_STATUS[caught.value.code] == 400
    assert caught.value.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"key":', "unexpected EOF"),
        (b"x", "invalid character 'x' looking for beginning of value"),
        (b'{"key":"YQ=="', "unexpected EOF"),
        (b"{5}", "invalid character '5' looking for beginning of object key string"),
        (b'{"key":tru}', "invalid character '}' in literal true (expecting 'e')"),
    ],
)
def test_bad_syntax_is_named_in_the_words_of_go(body, words):
    with pytest.raises(Malformed) as caught:
        asked(PUT, body)
    assert (caught.value.code, caught.value.message) == (Code.INVALID_ARGUMENT, words)


# --- Output ---------------------------------------------------------------------------------------

ITEM = t.KeyValue(b"\xfb\xff\xfe", 1, 2, 3, b"a", 9)

WRITTEN = {
    "proto names": (
        t.LeaseTimeToLiveResponse(None, 7, 5, 10, [b"a"]),
        {"ID": "7", "TTL": "5", "grantedTTL": "10", "keys": ["YQ=="]},
    ),
    "int64 and uint64 as strings": (
        t.ResponseHeader(2**64 - 1, 1, -1, 2),
        {
            "cluster_id": "18446744073709551615",
            "member_id": "1",
            "revision": "-1",
            "raft_term": "2",
        },
    ),
    "uint32 as a number": (t.HashResponse(None, 2**32 - 1), {"hash": 4294967295}),
    "bytes in standard base64 with padding": (
        ITEM,
        {
            "key": "+//+",
            "create_revision": "1",
            "mod_revision": "2",
            "version": "3",
            "value": "YQ==",
            "lease": "9",
        },
    ),
    "enums by name": (
        t.AlarmMember(5, t.AlarmType.NOSPACE),
        {"memberID": "5", "alarm": "NOSPACE"},
    ),
    "a first watcher has no watch_id": (t.WatchResponse(created=True), {"created": True}),
    "a put has no type": (
        t.Event(t.EventType.PUT, t.KeyValue(b"a", 0, 2)),
        {"kv": {"key": "YQ==", "mod_revision": "2"}},
    ),
    "a delete has one": (
        t.Event(t.EventType.DELETE, t.KeyValue(b"a", 0, 2)),
        {"type": "DELETE", "kv": {"key": "YQ==", "mod_revision": "2"}},
    ),
    "a failed txn has no succeeded": (t.TxnResponse(), {}),
    "an empty range has no kvs and no count": (t.RangeResponse(), {}),
    "a permission to read has no permType": (t.Permission(key=b"a"), {"key": "YQ=="}),
    "a message that is set and empty is there": (
        t.ResponseOp(response_txn=t.TxnResponse(t.ResponseHeader())),
        {"response_txn": {"header": {}}},
    ),
    "defragment has not even a header": (t.DefragmentResponse(), {}),
    "moving leadership has not even a header": (t.MoveLeaderResponse(), {}),
    "a status always has its downgrade": (
        t.StatusResponse(downgradeInfo=t.DowngradeInfo()),
        {"downgradeInfo": {}},
    ),
}


@pytest.mark.parametrize("row", WRITTEN)
def test_written(row):
    message, body = WRITTEN[row]
    assert json.loads(encode(message)) == body


@pytest.mark.parametrize("enumeration", [t.AlarmType, t.SortOrder, t.PermissionType])
def test_an_enum_without_a_name_is_its_number(enumeration):
    number = max(enumeration) + 5
    assert json.loads(encode(t.AlarmMember(0, number))) == {"alarm": number}
