"""The OpenAPI document has every path, and what is really said fits it."""

import json

import msgspec
import pytest

from kvstore import types as t
from kvstore.api.answer import error_answer
from kvstore.api.error_map import HTTP_STATUS, stream_error_line
from kvstore.api.health import CHECKS
from kvstore.api.v3_json.decode import decode
from kvstore.api.v3_json.encode import encode
from kvstore.api.v3_json.openapi import document
from kvstore.api.v3_json.streams import StreamLimits, Streams
from kvstore.api.v3_json.table import STREAMS, UNARY
from kvstore.api.v3_json.unary import unary_calls
from kvstore.budget import CountedBudget
from kvstore.errors import ErrorKind
from tests.kvstore.api.fake_service import FakeService
from tests.kvstore.api.json_schema import faults
from tests.kvstore.api.test_unary import PATHS, call

DOCUMENT = document("3.7.1")
HEADER = t.ResponseHeader(2**64 - 1, 2**64 - 2, 2**63 - 1, 7)
ITEM = t.KeyValue(b"a", 1, 2, 3, b"\xff\xfe", -7)

FULL = [
    t.RangeResponse(HEADER, [ITEM, t.KeyValue()], True, 2),
    t.PutResponse(HEADER, ITEM),
    t.DeleteRangeResponse(HEADER, 1, [ITEM]),
    t.TxnResponse(
        HEADER,
        True,
        [
            t.ResponseOp(response_range=t.RangeResponse(None, [ITEM])),
            t.ResponseOp(response_txn=t.TxnResponse(t.ResponseHeader())),
        ],
    ),
    t.LeaseTimeToLiveResponse(HEADER, -1, -1, 10, [b"a"]),
    t.MemberAddResponse(HEADER, t.Member(5, "n", ("http://a",), (), True), [t.Member()]),
    t.AlarmResponse(HEADER, [t.AlarmMember(5, t.AlarmType.CORRUPT), t.AlarmMember(5, 9)]),
    t.StatusResponse(HEADER, "3.7.1", 1, 2, 3, 4, 5, ["e"], downgradeInfo=t.DowngradeInfo()),
    t.HashKVResponse(HEADER, 2**32 - 1, -1, 5),
    t.AuthRoleGetResponse(HEADER, [t.Permission(t.PermissionType.WRITE, b"a", b"\0")]),
    t.CampaignResponse(HEADER, t.LeaderKey(b"e", b"e/1", 5, 6)),
    t.DefragmentResponse(),
]


def schema_of(message):
    return {"$ref": f"#/components/schemas/{type(message).__name__}"}


def body_schema(path, status):
    response = DOCUMENT["paths"]["/v3" + path]["post"]["responses"][str(status)]
    return response["content"]["application/json"]["schema"]


def test_every_path_is_described_and_no_other():
    assert {path for path in DOCUMENT["paths"] if path.startswith("/v3/")} == {
        "/v3" + row.path for row in (*UNARY, *STREAMS)
    }
    served = set(unary_calls(FakeService()))
    limits = StreamLimits(request_bytes_max=100, watch_bytes_max=100)
    served |= set(Streams(FakeService(), limits, lambda: CountedBudget(1)).by_path())
    assert served == {
        prefix + row.path for row in (*UNARY, *STREAMS) for prefix in ("/v3", "/v3beta")
    }
    for root, names in CHECKS.items():
        assert {root, *(f"{root}/{name}" for name in names)} <= set(DOCUMENT["paths"])


def test_operations_have_names_of_their_own_and_every_status():
    operations = [op for item in DOCUMENT["paths"].values() for op in item.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for path, item in DOCUMENT["paths"].items():
        if path.startswith("/v3/"):
            statuses = set(item["post"]["responses"])
            assert {str(status) for status in HTTP_STATUS.values()} <= statuses


def test_references_lead_somewhere():
    def references(value):
        if isinstance(value, dict):
            for name, item in value.items():
                if name == "$ref":
                    yield item
                else:
                    yield from references(item)
        elif isinstance(value, list):
            for item in value:
                yield from references(item)

    found = set(references(DOCUMENT))
    assert len(found) > 90
    for reference in found:
        target = DOCUMENT
        for name in reference.removeprefix("#/").split("/"):
            target = target[name]
        assert target
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert schemas <= found


@pytest.mark.parametrize("path", PATHS)
def test_requests_and_answers_of_each_path_fit_it(path):
    _, asked, _ = PATHS[path]
    item = DOCUMENT["paths"]["/v3" + path]["post"]
    schema = item["requestBody"]["content"]["application/json"]["schema"]
    # The fixtures use both forms of names: those in camelCase pass as unknown ones do.
    assert faults(asked, schema, DOCUMENT) == []
    answer = call(FakeService(), "/v3" + path, json.dumps(asked).encode())
    assert faults(json.loads(answer.body), body_schema(path, 200), DOCUMENT) == []


@pytest.mark.parametrize("message", FULL, ids=lambda message: type(message).__name__)
def test_full_answers_fit_their_schema_and_nothing_else_does(message):
    body = json.loads(encode(message))
    assert faults(body, schema_of(message), DOCUMENT) == []
    assert faults(body | {"surprise": 1}, schema_of(message), DOCUMENT) != []
    for name, value in body.items():
        wrong = [value] if not isinstance(value, list) else value[0]
        assert faults(body | {name: wrong}, schema_of(message), DOCUMENT) != []


@pytest.mark.parametrize("kind", ErrorKind)
def test_errors_fit_at_every_path(kind):
    answer = error_answer(kind.error())
    body = json.loads(answer.body)
    line = json.loads(stream_error_line(kind.error()))
    assert faults(body, body_schema("/kv/put", answer.status), DOCUMENT) == []
    assert faults(line, body_schema("/watch", answer.status), DOCUMENT) == []
    assert faults(line, body_schema("/watch", 200), DOCUMENT) == []
    assert faults(line, body_schema("/kv/put", answer.status), DOCUMENT) != []


def test_lines_of_streams_fit():
    event = t.Event(t.EventType.DELETE, ITEM, ITEM)
    response = t.WatchResponse(HEADER, -1, canceled=True, compact_revision=5, events=[event])
    body = {"result": json.loads(encode(response))}
    assert faults(body, body_schema("/watch", 200), DOCUMENT) == []
    snapshot = {"result": json.loads(encode(t.SnapshotResponse(None, 5, b"x" * 70, "3.7.0")))}
    assert faults(snapshot, body_schema("/maintenance/snapshot", 200), DOCUMENT) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("limit", 5),
        ("limit", "-5"),
        ("limit", None),
        ("key", "YQ=="),
        ("sort_order", "ASCEND"),
        ("sort_order", 1),
        ("serializable", True),
        ("unheard_of", [1]),
    ],
)
def test_what_the_document_lets_in_is_taken(name, value):
    schema = {"$ref": "#/components/schemas/RangeRequest"}
    assert faults({name: value}, schema, DOCUMENT) == []
    decode(t.RangeRequest, json.dumps({name: value}).encode())


@pytest.mark.parametrize(
    ("name", "value"), [("limit", "x"), ("limit", 1 << 63), ("key", 5), ("serializable", "true")]
)
def test_what_it_does_not_let_in_is_refused(name, value):
    schema = {"$ref": "#/components/schemas/RangeRequest"}
    assert faults({name: value}, schema, DOCUMENT) != []
    with pytest.raises(Exception, match="invalid value"):
        decode(t.RangeRequest, json.dumps({name: value}).encode())


def test_the_document_is_the_same_each_time():
    assert msgspec.json.encode(document("3.7.1")) == msgspec.json.encode(DOCUMENT)
