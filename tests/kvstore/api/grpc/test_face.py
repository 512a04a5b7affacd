"""Every call of the API by its gRPC path, against a service of one dict."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore import types as t
from kvstore.api.grpc.calls import Unary
from kvstore.api.grpc.face import Face
from kvstore.api.grpc.pb.descriptors import FILES, IMPORTS, SERVICES, SYMBOLS
from kvstore.api.grpc.table import RPCS
from kvstore.api.v3_json.table import STREAMS, UNARY, Shape
from kvstore.budget import CountedBudget, finish
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller
from tests.kvstore.api.fake_service import CLUSTER_ID, MEMBER_ID, FakeService
from tests.kvstore.api.grpc import oracle

ROOT = Path(__file__).resolve().parents[4]

# As the API's documents have them, and not as our table does.
EXPECTED = {
    "etcdserverpb.KV": "Range RangeStream> Put DeleteRange Txn Compact",
    "etcdserverpb.Watch": "Watch<>",
    "etcdserverpb.Lease": "LeaseGrant LeaseRevoke LeaseKeepAlive<> LeaseTimeToLive LeaseLeases",
    "etcdserverpb.Cluster": "MemberAdd MemberRemove MemberUpdate MemberList MemberPromote",
    "etcdserverpb.Maintenance": (
        "Alarm Status Defragment Hash HashKV Snapshot> MoveLeader Downgrade"
    ),
    "etcdserverpb.Auth": (
        "AuthEnable AuthDisable AuthStatus Authenticate UserAdd UserGet UserList UserDelete"
        " UserChangePassword UserGrantRole UserRevokeRole RoleAdd RoleGet RoleList RoleDelete"
        " RoleGrantPermission RoleRevokePermission"
    ),
    "v3lockpb.Lock": "Lock Unlock",
    "v3electionpb.Election": "Campaign Proclaim Leader Observe> Resign",
    "grpc.health.v1.Health": "Check Watch>",
    "grpc.reflection.v1.ServerReflection": "ServerReflectionInfo<>",
    "grpc.reflection.v1alpha.ServerReflection": "ServerReflectionInfo<>",
}
KINDS = {
    f"/{service}/{rpc.rstrip('<>')}": rpc.removeprefix(rpc.rstrip("<>"))
    for service, rpcs in EXPECTED.items()
    for rpc in rpcs.split()
}
"""By path: "" for unary, ">" for a stream of answers, "<>" for both ways."""

UNARY_PATHS = [path for path, row in RPCS.items() if row.shape in (Shape.UNARY, Shape.PATIENT)]


def face(service):
    return Face(service, 1000, lambda: CountedBudget(100))


def ask(service, path, request=b"", caller=ANYBODY):
    """One call's outcome, and its bytes if it is no error."""
    call = face(service).calls[path]
    assert isinstance(call, Unary)
    outcomes: list[Any] = []
    data = request if isinstance(request, bytes) else oracle.to_message(request).SerializeToString()
    call.begin(data, caller, outcomes.append)
    (outcome,) = outcomes
    return outcome if isinstance(outcome, KvError) else call.encode(outcome)


def read(path, raw):
    record = RPCS[path].response
    return oracle.to_record(record, oracle.class_of(record).FromString(raw))


# --- the table ------------------------------------------------------------------------------------


async def test_every_call_is_there_with_its_kind():
    calls = face(FakeService()).calls
    assert calls.keys() == KINDS.keys()
    for path, kind in KINDS.items():
        assert isinstance(calls[path], Unary) == (kind == ""), path
        service, _, rpc = path[1:].partition("/")
        method = oracle.POOL.FindServiceByName(service).methods_by_name[rpc]
        assert (method.client_streaming, method.server_streaming) == {
            "": (False, False),
            ">": (False, True),
            "<>": (True, True),
        }[kind]
    patient = {path for path, call in calls.items() if isinstance(call, Unary) and call.is_patient}
    assert patient == {"/v3lockpb.Lock/Lock", "/v3electionpb.Election/Campaign"}


def test_each_call_has_the_messages_that_its_descriptor_says():
    for path, row in RPCS.items():
        service, _, rpc = path[1:].partition("/")
        method = oracle.POOL.FindServiceByName(service).methods_by_name[rpc]
        assert oracle.class_of(row.request).DESCRIPTOR is method.input_type
        assert oracle.class_of(row.response).DESCRIPTOR is method.output_type


def test_what_json_has_grpc_has_too():
    rows = {row.method for row in (*UNARY, *STREAMS)}
    assert rows == {row.method for row in RPCS.values()} - {"range_stream"}


def test_generated_tables_are_those_of_the_proto_files():
    pytest.importorskip("grpc_tools")
    script = ROOT / "proto" / "generate.py"
    done = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_files_come_behind_what_they_import_and_symbols_are_found_in_them():
    seen: set[str] = set()
    for name, imported in IMPORTS.items():
        assert seen.issuperset(imported)
        seen.add(name)
    assert list(FILES) == list(IMPORTS)
    assert set(SERVICES) == set(EXPECTED)
    assert SYMBOLS["etcdserverpb.KV.Put"] == "kvstore/etcdserverpb.proto"


def test_another_authors_messages_of_the_same_names_live_in_the_same_process():
    """As those of etcd clients do, in the pool that all generated code shares."""
    theirs = descriptor_pb2.FileDescriptorProto(name="rpc.proto", package="etcdserverpb")
    theirs.syntax = "proto3"
    message = theirs.message_type.add(name="PutRequest")
    message.field.add(name="key", number=1, type=12, label=1)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(theirs.SerializeToString())
    descriptor = pool.FindMessageTypeByName("etcdserverpb.PutRequest")
    assert len(descriptor.fields) == 1
    raw = message_factory.GetMessageClass(descriptor)(key=b"k").SerializeToString()
    assert isinstance(ask(FakeService(), "/etcdserverpb.KV/Put", raw), bytes)


def test_the_server_needs_no_protobuf():
    code = (
        "import sys; import kvstore.api.grpc.face;"
        "print([name for name in sys.modules if name.startswith('google.protobuf')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- one request, one answer ----------------------------------------------------------------------


@pytest.mark.parametrize("path", UNARY_PATHS)
@settings(max_examples=5)
@given(st.data())
def test_each_call_reaches_its_method_and_comes_back(path, data):
    service = FakeService()
    row = RPCS[path]
    request = data.draw(oracle.records(row.request))
    caller = Caller(token="t")
    simple = {t.RangeRequest, t.PutRequest, t.DeleteRangeRequest, t.TxnRequest}
    if row.request in simple:
        request = row.request(b"k") if row.request is not t.TxnRequest else t.TxnRequest()
    answer = read(path, ask(service, path, request, caller))
    assert service.calls == [(row.method, request)]
    assert service.callers == [caller]
    if row.response not in (t.DefragmentResponse, t.MoveLeaderResponse):
        header = answer.header
        assert (header.cluster_id, header.member_id, header.raft_term) == (CLUSTER_ID, MEMBER_ID, 7)


@pytest.mark.parametrize("path", UNARY_PATHS)
def test_each_call_answers_an_error_as_the_service_has_it(path):
    service = FakeService()
    service.fails_with = ErrorKind.NO_LEADER.error()
    assert ask(service, path) is service.fails_with


@pytest.mark.parametrize("path", UNARY_PATHS)
def test_no_call_takes_bytes_that_are_no_message(path):
    service = FakeService()
    for raw in (b"\x0f", b"\xff", b"\x0a\x05a", b"\x00\x00"):
        error = ask(service, path, raw)
        assert error.code == Code.INTERNAL
        assert error.message.startswith("grpc: error unmarshalling request: ")
    assert service.calls == []


def test_golden_bytes_of_a_put_and_a_range():
    service = FakeService()
    put = ask(service, "/etcdserverpb.KV/Put", bytes.fromhex("0a03666f6f1203626172"))
    header = oracle.to_message(service.header()).SerializeToString()
    assert put == b"\x0a" + bytes([len(header)]) + header
    assert (
        put.hex()
        == ("0a1a08" + oracle.varint(CLUSTER_ID).hex() + "10" + oracle.varint(MEMBER_ID).hex())
        + "18022007"
    )
    found = ask(service, "/etcdserverpb.KV/Range", bytes.fromhex("0a03666f6f"))
    assert found == put + bytes.fromhex("12100a03666f6f1002180220012a036261722001")
    assert ask(service, "/etcdserverpb.KV/Range", b"\x0a\x01x") == put


def test_a_caller_whose_time_is_over_is_told_so_before_anything_is_done():
    service = FakeService()
    error = ask(service, "/etcdserverpb.KV/Put", b"\x0a\x01k", Caller(timeout_seconds=0.0))
    assert error == ErrorKind.DEADLINE_EXCEEDED.error()
    assert service.calls == []


def test_a_big_answer_is_handed_over_as_work_that_others_may_interrupt():
    service = FakeService()
    for n in range(1000):
        service.items[b"%04d" % n] = t.KeyValue(b"%04d" % n, n + 2, n + 2, 1, b"v" * 20)
    call = Face(service, 1000, lambda: CountedBudget(2)).calls["/etcdserverpb.KV/Range"]
    assert isinstance(call, Unary)
    outcomes: list[Any] = []
    call.begin(b"\x0a\x01\x00\x12\x01\x00", ANYBODY, outcomes.append)
    work, budget = outcomes[0]
    for _ in range(3):
        budget.renew()
        next(work)
    raw = finish(work, budget)
    answer = read("/etcdserverpb.KV/Range", raw)
    assert [len(answer.kvs), answer.count] == [1000, 1000]


def test_who_leaves_a_lock_is_heard_of():
    service = FakeService()
    service.held = []
    call = face(service).calls["/v3lockpb.Lock/Lock"]
    assert isinstance(call, Unary)
    leave = call.begin(b"\x0a\x01l", ANYBODY, lambda _: None)
    assert leave is not None
    leave()
    assert service.left == ["lock"]
