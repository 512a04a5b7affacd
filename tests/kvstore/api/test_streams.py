"""Watch and keep-alive over one request: order, ends, and what a broken body does not break."""

import asyncio
import json

import pytest

from kvstore.api.shared_events import SharedEvents
from kvstore.api.v3_json.encode import encode
from kvstore.api.v3_json.streams import (
    EVENTS_AT_ONCE,
    StreamLimits,
    Streams,
    encode_event,
    encode_line,
)
from kvstore.budget import CountedBudget
from kvstore.errors import ErrorKind, KvError
from kvstore.service.caller import ANYBODY
from kvstore.types import Event, EventType, KeyValue, LeaseKeepAliveRequest, WatchResponse
from tests.kvstore.api.fake_service import FakeService


class FakeExchange:
    """A client whose body comes in as the test says and who reads when the test lets it."""

    def __init__(self, *pieces, ends=True):
        self.pieces: asyncio.Queue[bytes] = asyncio.Queue()
        for piece in pieces:
            self.pieces.put_nowait(piece)
        if ends:
            self.pieces.put_nowait(b"")
        self.messages = []
        self.parts = []
        self.room = asyncio.Event()
        self.room.set()
        self.breaks_off = False

    async def receive(self):
        if self.breaks_off and self.pieces.empty():
            raise ConnectionResetError
        return await self.pieces.get()

    async def send(self, messages):
        self.messages += messages
        await self.room.wait()

    async def send_part(self, part, *, last):
        self.parts.append(part)
        if last:
            self.messages.append(b"".join(self.parts))
            self.parts.clear()
        await self.room.wait()

    def results(self):
        assert all(message.endswith(b"}\n") for message in self.messages)
        return [json.loads(message)["result"] for message in self.messages]


def streams(service):
    limits = StreamLimits(request_bytes_max=1000, watch_bytes_max=500)
    return Streams(service, limits, lambda: CountedBudget(100))


async def settle():
    for _ in range(30):
        await asyncio.sleep(0)


async def open_watch(service, *pieces, ends=True):
    exchange = FakeExchange(*pieces, ends=ends)
    task = asyncio.create_task(streams(service).watch(exchange, ANYBODY))
    await settle()
    return exchange, task, service.watches[-1]


async def close(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_watch_outlives_its_body_and_ends_with_the_connection():
    service = FakeService()
    exchange, task, watch = await open_watch(service, b'{"create_request":{"key":"YQ=="}}')
    assert [result.get("created") for result in exchange.results()] == [True]
    watch.event(b"a", b"1", 5)
    await settle()
    assert exchange.results()[1]["events"][0]["kv"]["mod_revision"] == "5"
    assert not task.done()
    await close(task)
    assert watch.closed


async def test_requests_are_read_while_answers_are_written():
    service = FakeService()
    exchange, task, watch = await open_watch(service, b'{"create_requ', ends=False)
    assert exchange.messages == []
    exchange.pieces.put_nowait(b'est":{"watch_id":3}} {"cancel_request":{"watch_id":"3"}}')
    await settle()
    assert [request.cancel_request is None for request in watch.requests] == [True, False]
    assert exchange.results()[0]["watch_id"] == "3"
    exchange.pieces.put_nowait(b'{"progressRequest":{}}')
    await settle()
    assert watch.requests[2].progress_request is not None
    await close(task)


async def test_a_bad_object_stops_the_reading_and_not_the_watch():
    service = FakeService()
    body = b'{"create_request":{}}{"cancel_request":5}{"cancel_request":{}}'
    exchange, task, watch = await open_watch(service, body)
    assert len(watch.requests) == 1
    watch.event(b"a", b"1", 5)
    await settle()
    assert len(exchange.results()) == 2
    await close(task)


async def test_a_request_that_is_refused_ends_the_stream_after_what_was_said():
    service = FakeService()
    exchange, task, watch = await open_watch(service, b'{"create_request":{}}', ends=False)

    def refuse(request):
        raise ErrorKind.TOO_MANY_REQUESTS.error()

    watch.request = refuse
    watch.event(b"a", b"1", 5)
    exchange.pieces.put_nowait(b'{"cancel_request":{}}{"cancel_request":{}}')
    with pytest.raises(KvError, match="too many requests"):
        await asyncio.wait_for(task, 1.0)
    assert len(exchange.results()) == 2
    assert watch.closed


async def test_a_body_that_breaks_off_leaves_the_watch_to_the_connection():
    service = FakeService()
    exchange = FakeExchange(b'{"create_request":{}}', ends=False)
    exchange.breaks_off = True
    task = asyncio.create_task(streams(service).watch(exchange, ANYBODY))
    await settle()
    assert len(exchange.results()) == 1
    await close(task)


async def test_nothing_is_taken_for_a_client_that_does_not_read():
    service = FakeService()
    exchange, task, watch = await open_watch(service, b'{"create_request":{}}')
    exchange.room.clear()
    watch.at_once = 1
    for revision in range(10):
        watch.event(b"a", b"1", revision + 5)
    await settle()
    assert len(watch.waiting) == 9
    exchange.room.set()
    await settle()
    assert len(exchange.results()) == 11
    await close(task)


async def test_a_response_with_many_events_leaves_in_parts_and_is_one_line():
    service = FakeService()
    exchange, task, watch = await open_watch(service, b'{"create_request":{}}')
    items = [KeyValue(b"%d" % n, 5, 5, 1, b"v") for n in range(3 * EVENTS_AT_ONCE)]
    big = WatchResponse(service.header(), events=[Event(EventType.PUT, item) for item in items])
    watch.push(big, WatchResponse(service.header(), watch_id=4, canceled=True))
    for _ in range(10):
        await settle()
    assert exchange.messages[1] == b'{"result":' + encode(big) + b"}\n"
    assert exchange.results()[2]["canceled"] is True
    await close(task)


async def test_too_many_streams_is_an_error_before_anything_is_sent():
    service = FakeService()
    service.fails_with = ErrorKind.TOO_MANY_REQUESTS.error()
    exchange = FakeExchange(b"{}")
    with pytest.raises(KvError, match="too many requests"):
        await streams(service).watch(exchange, ANYBODY)
    assert exchange.messages == []


def test_shared_events_are_the_bytes_of_any_other_and_bounded(monkeypatch):
    monkeypatch.setattr("kvstore.api.shared_events.EVENTS_MAX", 3)
    shared = SharedEvents(encode_event)
    header = FakeService().header()
    for number in range(10):
        item = KeyValue(b"k%d" % number, 1, 2, 3, b"v" * 10 * number)
        events = [Event(EventType.PUT, item), Event(EventType.PUT, item, item)]
        events.append(Event(EventType.DELETE, KeyValue(b"k", 0, 7)))
        for watch_id in (0, 5, -1):
            response = WatchResponse(header, watch_id, events=events)
            assert encode_line(response, shared) == b'{"result":' + encode(response) + b"}\n"
        assert len(shared._encoded) <= 3
    # A freed record's id may be the next one's: what is remembered keeps its record.
    for number in range(100):
        response = WatchResponse(
            header, events=[Event(EventType.PUT, KeyValue(b"x", 1, number + 1, 1, b"v"))]
        )
        assert b'"mod_revision":"%d"' % (number + 1) in encode_line(response, shared)


def test_responses_about_a_watcher_keep_all_their_fields():
    response = WatchResponse(None, 5, canceled=True, compact_revision=49)
    assert encode_line(response, SharedEvents(encode_event)) == (
        b'{"result":{"watch_id":"5","canceled":true,"compact_revision":"49"}}\n'
    )
    events = [Event(EventType.PUT, KeyValue(b"a", 1, 1, 1, b"v"))]
    response = WatchResponse(None, 5, fragment=True, events=events)
    piece = encode_line(response, SharedEvents(encode_event))
    assert json.loads(piece)["result"]["fragment"] is True


async def keep_alive(service, *pieces):
    exchange = FakeExchange(*pieces)
    await streams(service).keep_alive(exchange, ANYBODY)
    return exchange


async def test_keep_alive_answers_each_request_in_turn_and_ends_with_the_body():
    service = FakeService()
    exchange = await keep_alive(service, b'{"ID":"5"}{"I', b'D":6}\n')
    assert [(result["ID"], result["TTL"]) for result in exchange.results()] == [
        ("5", "10"),
        ("6", "10"),
    ]
    assert [request for _, request in service.calls] == [
        LeaseKeepAliveRequest(5),
        LeaseKeepAliveRequest(6),
    ]


async def test_keep_alive_without_requests_says_nothing():
    assert (await keep_alive(FakeService())).messages == []
    assert (await keep_alive(FakeService(), b"null")).messages == []


async def test_keep_alive_waits_for_its_answer_and_ends_with_an_error():
    service = FakeService()
    service.held = []
    exchange = FakeExchange(b'{"ID":"5"}{"ID":"6"}')
    task = asyncio.create_task(streams(service).keep_alive(exchange, ANYBODY))
    await settle()
    assert len(service.calls) == 1
    service.held.pop()()
    await settle()
    assert len(exchange.messages) == 1
    service.held.clear()
    service.held = None
    task.cancel()
    await asyncio.wait([task])
    service.fails_with = ErrorKind.NO_LEADER.error()
    with pytest.raises(KvError, match="no leader"):
        await keep_alive(service, b'{"ID":"5"}')
