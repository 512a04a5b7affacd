"""gRPC's health checks, and what the server tells of itself."""

import asyncio
from typing import Any

import pytest
from google.protobuf import descriptor_pb2

from kvstore.api.grpc import health
from kvstore.api.grpc.calls import Unary
from kvstore.api.grpc.face import Face
from kvstore.api.grpc.pb.descriptors import FILES, SERVICES
from kvstore.api.grpc.reflection import VERSIONS
from kvstore.budget import CountedBudget
from kvstore.errors import Code, KvError
from kvstore.service.caller import ANYBODY
from tests.kvstore.api.fake_service import FakeService
from tests.kvstore.api.grpc.oracle import message_class
from tests.kvstore.api.grpc.test_stream_calls import FakeExchange, end

Request = message_class("grpc.health.v1.HealthCheckRequest")
Response = message_class("grpc.health.v1.HealthCheckResponse")
SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3


def face(service):
    return Face(service, 500, lambda: CountedBudget(100))


def check(found, name=""):
    call = found.calls["/grpc.health.v1.Health/Check"]
    assert isinstance(call, Unary)
    outcomes: list[Any] = []
    call.begin(Request(service=name).SerializeToString(), ANYBODY, outcomes.append)
    (outcome,) = outcomes
    if isinstance(outcome, KvError):
        return outcome
    return Response.FromString(call.encode(outcome)).status


def watch(found, exchange):
    call = found.calls["/grpc.health.v1.Health/Watch"]
    assert not isinstance(call, Unary)
    return asyncio.create_task(call(exchange, ANYBODY))


def told(exchange):
    return [Response.FromString(message).status for message in exchange.sent]


async def test_the_member_and_each_service_are_as_well_as_health_says():
    service = FakeService()
    found = face(service)
    for name in ("", *SERVICES):
        assert check(found, name) == SERVING
    assert service.health_asked == (False, frozenset())
    service.sick = "RAFT NO LEADER"
    for name in ("", *SERVICES):
        assert check(found, name) == NOT_SERVING


async def test_an_unknown_service_is_not_found_and_bad_bytes_are_none():
    found = face(FakeService())
    assert check(found, "x") == KvError(Code.NOT_FOUND, "unknown service")
    outcomes: list[Any] = []
    call = found.calls["/grpc.health.v1.Health/Check"]
    assert isinstance(call, Unary)
    call.begin(b"\xff", ANYBODY, outcomes.append)
    assert outcomes[0].code == Code.INTERNAL


async def test_a_server_that_stops_does_not_serve():
    service = FakeService()
    found = face(service)
    found.drain()
    assert check(found) == NOT_SERVING
    assert service.health_asked is None


async def test_who_watches_hears_of_each_change_once_and_of_the_end(monkeypatch, settle):
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.0)
    service = FakeService()
    found = face(service)
    exchange = FakeExchange(Request().SerializeToString())
    task = watch(found, exchange)
    await settle()
    assert told(exchange) == [SERVING]
    service.sick = "ALARM NOSPACE"
    await settle()
    assert told(exchange) == [SERVING, NOT_SERVING]
    service.sick = ""
    await settle()
    found.drain()
    await asyncio.wait_for(task, 5)
    assert told(exchange) == [SERVING, NOT_SERVING, SERVING, NOT_SERVING]


async def test_all_who_watch_share_one_look_at_the_member(settle):
    service: Any = FakeService()
    looks: list[Any] = []
    service.health = lambda serializable, exclude, reply: looks.append(reply)
    found = face(service)
    exchanges = [FakeExchange(Request().SerializeToString()) for _ in range(20)]
    tasks = [watch(found, exchange) for exchange in exchanges]
    await settle()
    # One who leaves takes nothing from the others.
    await end(tasks.pop())
    (reply,) = looks
    reply("")
    await settle()
    assert [told(exchange) for exchange in exchanges] == [[SERVING]] * 19 + [[]]
    for task in tasks:
        await end(task)


async def test_who_watches_an_unknown_service_is_told_so_and_waits(settle):
    found = face(FakeService())
    exchange = FakeExchange(Request(service="x").SerializeToString())
    task = watch(found, exchange)
    await settle()
    assert told(exchange) == [SERVICE_UNKNOWN]
    assert not task.done()
    found.drain()
    await asyncio.wait_for(task, 5)


# --- reflection -----------------------------------------------------------------------------------


async def reflect(version, *requests):
    package = f"grpc.reflection.{version}"
    request = message_class(f"{package}.ServerReflectionRequest")
    response = message_class(f"{package}.ServerReflectionResponse")
    exchange = FakeExchange(*[request(**fields).SerializeToString() for fields in requests])
    path = f"/{package}.ServerReflection/ServerReflectionInfo"
    call = face(FakeService()).calls[path]
    assert not isinstance(call, Unary)
    await call(exchange, ANYBODY)
    answers = [response.FromString(message) for message in exchange.sent]
    assert [answer.original_request for answer in answers] == [request(**it) for it in requests]
    return answers


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_server_tells_its_services_files_and_symbols(version):
    answers = await reflect(
        version,
        {"host": "h", "list_services": "*"},
        {"file_by_filename": "kvstore/v3electionpb.proto"},
        {"file_containing_symbol": "etcdserverpb.KV"},
        {"file_containing_symbol": "etcdserverpb.KV.Put"},
        {"file_containing_symbol": "mvccpb.Event.EventType"},
        {"file_containing_symbol": "etcdserverpb.PutRequest.key"},
        {"all_extension_numbers_of_type": "etcdserverpb.PutRequest"},
    )
    assert answers[0].valid_host == "h"
    names = [service.name for service in answers[0].list_services_response.service]
    assert names == sorted(SERVICES)
    expected = [
        ["v3electionpb", "etcdserverpb", "mvccpb", "authpb"],
        ["etcdserverpb", "authpb", "mvccpb"],
        ["etcdserverpb", "authpb", "mvccpb"],
        ["mvccpb"],
        ["etcdserverpb", "authpb", "mvccpb"],
    ]
    for answer, packages in zip(answers[1:6], expected, strict=True):
        raw = answer.file_descriptor_response.file_descriptor_proto
        shown = [descriptor_pb2.FileDescriptorProto.FromString(it).name for it in raw]
        assert shown == [f"kvstore/{package}.proto" for package in packages]
        assert all(it in FILES.values() for it in raw)
    extensions = answers[6].all_extension_numbers_response
    assert (extensions.base_type_name, list(extensions.extension_number)) == (
        "etcdserverpb.PutRequest",
        [],
    )


async def test_what_is_not_known_or_not_asked_for_is_an_error_in_its_place():
    answers = await reflect(
        "v1",
        {"file_by_filename": "nope.proto"},
        {"file_containing_symbol": "etcdserverpb.Nope"},
        {"file_containing_symbol": "etcdserverpb.PutRequest.nope"},
        {"file_containing_symbol": ""},
        {"all_extension_numbers_of_type": "Nope"},
        {"file_containing_extension": {"containing_type": "Nope", "extension_number": 5}},
        {"host": "h"},
    )
    codes = [answer.error_response.error_code for answer in answers]
    assert codes == [Code.NOT_FOUND] * 6 + [Code.INVALID_ARGUMENT]
    assert answers[1].error_response.error_message == "etcdserverpb.Nope is not known here"
