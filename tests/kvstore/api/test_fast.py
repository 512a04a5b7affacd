"""The fast decoder never says anything that the exact one does not say."""

import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.api.v3_json import fast
from kvstore.api.v3_json.decode import Malformed, decode
from kvstore.types import DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest

DECODERS = {
    PutRequest: fast.decode_put,
    RangeRequest: fast.decode_range,
    DeleteRangeRequest: fast.decode_delete_range,
    TxnRequest: fast.decode_txn,
}


def outcome(decoder, *args):
    try:
        return decoder(*args)
    except Malformed as error:
        return error


def assert_same(message, body):
    expected = outcome(decode, message, body)
    found = outcome(DECODERS[message], body)
    assert found == expected
    assert type(found) is type(expected)


def is_fast(monkeypatch, message, body):
    """Whether a body is decoded without the exact decoder's help."""

    def never(*args):
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(fast, "decode", never)
        try:
            DECODERS[message](body)
        except AssertionError:
            return False
        return True


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (PutRequest, b'{"key":"YQ==","value":"Yg=="}'),
        (PutRequest, b' {"value": "Yg==", "key": "YQ==", "lease": "12", "prev_kv": true} '),
        (RangeRequest, b'{"key":"YQ=="}'),
        (RangeRequest, b'{"key":"YQ==","range_end":"AA==","limit":10,"serializable":true}'),
        (DeleteRangeRequest, b'{"key":"YQ==","range_end":"Yg=="}'),
        (
            TxnRequest,
            b'{"compare":[{"key":"YQ==","target":"MOD","result":0,"mod_revision":"5"}],'
            b'"success":[{"request_put":{"key":"YQ==","value":"Yg=="}},'
            b'{"request_delete_range":{"key":"Yg=="}}],'
            b'"failure":[{"request_range":{"key":"YQ=="}}]}',
        ),
    ],
)
def test_what_clients_send_takes_the_fast_path(monkeypatch, message, body):
    assert is_fast(monkeypatch, message, body)
    assert_same(message, body)


@pytest.mark.parametrize(
    ("message", "body"),
    [
        (PutRequest, b""),
        (PutRequest, b"null"),
        (PutRequest, b'{"key":"YQ=="}{}'),
        (PutRequest, b'{"key":"YQ","value":"Yg"}'),
        (PutRequest, b'{"key":"YQ==","key":"Yg==","value":"Yg=="}'),
        (PutRequest, b'{"key":"YQ==","value":"Yg==","lease":1.5}'),
        (PutRequest, b'{"key":"YQ==","value":"Yg==","lease":9007199254740993.0}'),
        (PutRequest, b'{"key":"YQ==","value":"Yg==","lease":1.00000000000000000001}'),
        (PutRequest, b'{"key":"YQ==","value":"Yg==","lease":{"a":1}}'),
        (PutRequest, b'{"key":"YQ==","value":"Yg==","ignoreLease":true}'),
        (PutRequest, b'{"key":"YQ==","value":"Yg==","x\\u003a":"Yg=="}'),
        (RangeRequest, b'{"key":"YQ==","sort_order":"ASCEND"}'),
        (TxnRequest, b'{"compare":[{"version":1,"lease":2}]}'),
        (TxnRequest, b'{"compare":[{"version":1,"version":2}]}'),
        (TxnRequest, b'{"compare":[{"target":"NOPE"}]}'),
        (TxnRequest, b'{"success":[{}]}'),
        (TxnRequest, b'{"success":[{"request_put":{},"request_range":{}}]}'),
        (TxnRequest, b'{"success":[{"request_txn":{}}]}'),
        (TxnRequest, b'{"success":[],"success":[]}'),
    ],
)
def test_what_is_doubtful_is_decided_by_the_exact_decoder(monkeypatch, message, body):
    assert not is_fast(monkeypatch, message, body)
    assert_same(message, body)


BYTES = st.binary(max_size=6).map(lambda value: base64.b64encode(value).decode())
ODD_BYTES = BYTES.map(lambda text: text.rstrip("=")) | st.sampled_from(["A", "YQ=", "YR==", "\n"])
NUMBERS = (
    st.integers(-(2**64), 2**64)
    | st.integers(-5, 5)
    | st.sampled_from(["0", "7", "-3", "01", "1e2", "9223372036854775808", ""])
    | st.floats(allow_nan=False, allow_infinity=False)
)
ENUMS = st.integers(-1, 5) | st.sampled_from(["EQUAL", "LESS", "MOD", "VALUE", "OTHER", "1"])
VALUES = {
    "bytes": BYTES | BYTES | ODD_BYTES | st.none(),
    "number": NUMBERS,
    "bool": st.booleans() | st.booleans() | st.sampled_from([0, "true", None]),
    "enum": ENUMS,
}


def objects(**kinds):
    """Objects as pairs, so that names may come twice."""
    pairs = st.one_of(
        *[
            st.tuples(st.just(name), VALUES[kind] if isinstance(kind, str) else kind)
            for name, kind in kinds.items()
        ],
    )
    return st.lists(pairs, max_size=4).map(Pairs)


class Pairs(list):
    """An object that may repeat a name."""


def text_of(tree):
    if isinstance(tree, Pairs):
        inner = ",".join(f"{json.dumps(name)}:{text_of(value)}" for name, value in tree)
        return "{" + inner + "}"
    if isinstance(tree, list):
        return "[" + ",".join(text_of(item) for item in tree) + "]"
    return json.dumps(tree)


PUT = objects(key="bytes", value="bytes", lease="number", prev_kv="bool", prevKv="bool")
RANGE = objects(
    key="bytes", range_end="bytes", limit="number", revision="number", serializable="bool"
)
DELETE = objects(key="bytes", range_end="bytes", prev_kv="bool")
OP = objects(request_put=PUT, request_range=RANGE, request_delete_range=DELETE, requestPut=PUT)
COMPARE = objects(
    result="enum", target="enum", key="bytes", version="number", value="bytes", lease="number"
)
TXN = objects(
    compare=st.lists(COMPARE, max_size=2),
    success=st.lists(OP | st.none(), max_size=2),
    failure=st.lists(OP, max_size=2),
)


@given(PUT)
def test_fast_and_exact_agree_on_puts(tree):
    assert_same(PutRequest, text_of(tree).encode())


@given(RANGE)
def test_fast_and_exact_agree_on_ranges(tree):
    assert_same(RangeRequest, text_of(tree).encode())


@given(DELETE)
def test_fast_and_exact_agree_on_deletes(tree):
    assert_same(DeleteRangeRequest, text_of(tree).encode())


@given(TXN)
@settings(max_examples=150)
def test_fast_and_exact_agree_on_transactions(tree):
    assert_same(TxnRequest, text_of(tree).encode())


GOOD = {
    PutRequest: b'{"key":"YQ==","value":"Yg==","lease":"12","prev_kv":true}',
    RangeRequest: b'{"key":"YQ==","range_end":"AA==","limit":"10","revision":3}',
    DeleteRangeRequest: b'{"key":"YQ==","range_end":"AA==","prev_kv":false}',
    TxnRequest: b'{"compare":[{"result":"EQUAL","target":"MOD","key":"YQ==","mod_revision":"5"}],'
    b'"success":[{"request_put":{"key":"YQ==","value":"Yg=="}}]}',
}


@given(st.sampled_from(list(GOOD)), st.data())
@settings(max_examples=300)
def test_fast_and_exact_agree_when_bytes_are_changed(message, data):
    body = bytearray(GOOD[message])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        char = data.draw(st.sampled_from(b'{}[]",:\\ \n01.eE-=+/_YQnul\x00\xff'))
        if data.draw(st.booleans()):
            body[at] = char
        else:
            body.insert(at, char)
    assert_same(message, bytes(body))
