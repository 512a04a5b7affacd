"""Streams over a fake exchange: order, ends, bounds, and who is told that there is no leader."""

import asyncio
from typing import Any

import pytest

from kvstore import types as t
from kvstore.api.grpc.calls import Unary
from kvstore.api.grpc.encode import encode
from kvstore.api.grpc.face import Face
from kvstore.api.grpc.stream_calls import (
    EVENTS_AT_ONCE,
    KEEP_ALIVES_MAX,
    WATCH_REQUESTS_AT_ONCE,
)
from kvstore.api.grpc.table import RPCS
from kvstore.budget import CountedBudget
from kvstore.errors import Code, ErrorKind, KvError
from kvstore.service.caller import ANYBODY, Caller
from tests.kvstore.api.fake_service import FakeService
from tests.kvstore.api.grpc import oracle

WATCH = "/etcdserverpb.Watch/Watch"
KEEP_ALIVE = "/etcdserverpb.Lease/LeaseKeepAlive"
SNAPSHOT = "/etcdserverpb.Maintenance/Snapshot"
OBSERVE = "/v3electionpb.Election/Observe"
RANGE_STREAM = "/etcdserverpb.KV/RangeStream"

DEMANDING = Caller(has_leader=True)
ALL = t.RangeRequest(b"\0", b"\0")


class FakeExchange:
    """A client whose messages come in as the test says and who reads when the test lets it."""

    def __init__(self, *messages, ends=True):
        self.coming: asyncio.Queue[Any] = asyncio.Queue()
        for message in messages:
            self.say(message)
        if ends:
            self.coming.put_nowait(None)
        self.sent = []
        self.room = asyncio.Event()
        self.room.set()
        self.claimed = False

    def say(self, message):
        self.coming.put_nowait(encode(message) if not isinstance(message, bytes) else message)

    async def receive(self):
        message = await self.coming.get()
        if isinstance(message, Exception):
            raise message
        return message

    async def send(self, messages):
        self.write(messages)
        await self.room.wait()

    async def claim(self, bytes_max, bytes_min=1):
        await self.room.wait()
        self.claimed = True
        return bytes_max

    def waive(self):
        self.claimed = False

    def write(self, messages):
        assert all(isinstance(message, bytes) for message in messages)
        self.sent += messages
        self.waive()

    def answers(self, path):
        record = RPCS[path].response
        return [oracle.to_record(record, oracle.class_of(record).FromString(m)) for m in self.sent]


def converse(service, path, exchange, caller=ANYBODY):
    return asyncio.create_task(call(service, path, 100)(exchange, caller))


def call(service, path, steps):
    found = Face(service, 500, lambda: CountedBudget(steps)).calls[path]
    assert not isinstance(found, Unary)
    return found


async def end(task):
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def raised(task):
    with pytest.raises(KvError) as caught:
        await asyncio.wait_for(task, 5)
    return caught.value


def create(**fields):
    return t.WatchRequest(create_request=t.WatchCreateRequest(**fields))


# --- watch ----------------------------------------------------------------------------------------


async def test_a_watch_outlives_what_its_client_says_and_ends_with_the_call(settle):
    service = FakeService()
    exchange = FakeExchange(create(key=b"a"))
    task = converse(service, WATCH, exchange)
    await settle()
    (watch,) = service.watches
    watch.event(b"a", b"1", 5)
    await settle()
    created, told = exchange.answers(WATCH)
    assert (created.created, told.events[0].kv.mod_revision) == (True, 5)
    assert not task.done()
    await end(task)
    assert watch.closed


async def test_many_requests_at_once_let_others_have_their_turn(settle):
    service = FakeService()
    count = 20 * WATCH_REQUESTS_AT_ONCE
    exchange = FakeExchange(*[create(key=b"a")] * count)
    task = converse(service, WATCH, exchange)
    await asyncio.sleep(0)
    (watch,) = service.watches
    while len(watch.requests) < count:
        before = len(watch.requests)
        await asyncio.sleep(0)
        assert 0 < len(watch.requests) - before <= WATCH_REQUESTS_AT_ONCE
    await settle(200)
    assert len(exchange.sent) == count
    await end(task)


async def test_many_answers_at_once_let_others_have_their_turn(settle):
    service = FakeService()
    exchange = FakeExchange(create(key=b"a"))
    task = converse(service, WATCH, exchange)
    await settle()
    exchange.sent.clear()
    (watch,) = service.watches
    watch.at_once = 3 * EVENTS_AT_ONCE
    watch.push(*[t.WatchResponse(service.header(), n, created=True) for n in range(watch.at_once)])
    await settle(3)
    assert exchange.sent == []
    await settle()
    assert [answer.watch_id for answer in exchange.answers(WATCH)] == list(range(watch.at_once))
    await end(task)


async def test_events_stay_in_the_feed_until_the_client_reads(settle):
    service = FakeService()
    exchange = FakeExchange(create(key=b"a"))
    task = converse(service, WATCH, exchange)
    await settle()
    (watch,) = service.watches
    exchange.room.clear()
    for revision in range(2, 40):
        watch.event(b"a", b"1", revision)
    await settle(100)
    # It was about to take some when the client ceased to read.
    assert len(watch.waiting) >= 38 - watch.at_once
    exchange.room.set()
    await settle(100)
    assert len(exchange.answers(WATCH)) == 39
    assert not exchange.claimed
    await end(task)


async def test_no_answer_is_asked_for_until_the_client_reads(settle):
    service = FakeService()
    asked = []

    async def snapshot(request, caller):
        for number in range(3):
            asked.append(number)
            yield t.SnapshotResponse(remaining_bytes=number)

    service.snapshot = snapshot  # type: ignore[method-assign]
    exchange = FakeExchange(t.SnapshotRequest())
    exchange.room.clear()
    task = converse(service, SNAPSHOT, exchange)
    await settle()
    assert asked == []
    exchange.room.set()
    await asyncio.wait_for(task, 5)
    assert (asked, len(exchange.sent)) == ([0, 1, 2], 3)


async def test_requests_are_read_while_answers_are_written(settle):
    service = FakeService()
    exchange = FakeExchange(create(key=b"a"), ends=False)
    exchange.room.clear()
    task = converse(service, WATCH, exchange)
    await settle()
    exchange.say(t.WatchRequest(cancel_request=t.WatchCancelRequest(3)))
    exchange.say(t.WatchRequest(progress_request=t.WatchProgressRequest()))
    await settle()
    assert len(service.watches[0].requests) == 3
    await end(task)


async def test_thousands_of_watches_share_a_stream_and_the_bytes_of_an_event(settle):
    service = FakeService()
    exchange = FakeExchange(*[create(key=b"k", watch_id=n) for n in range(1, 2001)])
    task = converse(service, WATCH, exchange)
    await settle(3000)
    (watch,) = service.watches
    assert len(exchange.sent) == 2000
    exchange.sent.clear()
    event = t.Event(t.EventType.PUT, t.KeyValue(b"k", 2, 2, 1, b"v"))
    watch.at_once = 2000
    watch.push(*[t.WatchResponse(service.header(), n, events=[event]) for n in range(1, 2001)])
    await settle(100)
    assert [answer.watch_id for answer in exchange.answers(WATCH)] == list(range(1, 2001))
    assert {answer.events[0] for answer in exchange.answers(WATCH)} == {event}
    await end(task)


async def test_a_long_response_is_one_message_and_encoded_in_turns_with_others(settle):
    service = FakeService()
    exchange = FakeExchange(create(key=b"k"))
    task = converse(service, WATCH, exchange)
    await settle()
    events = [
        t.Event(t.EventType.DELETE, t.KeyValue(b"%d" % n, mod_revision=2))
        for n in range(EVENTS_AT_ONCE * 5)
    ]
    exchange.sent.clear()
    service.watches[0].push(
        t.WatchResponse(service.header(), 1, events=events, fragment=True),
        t.WatchResponse(service.header(), -1),
    )
    await settle(4)
    assert exchange.sent == []
    await settle()
    assert exchange.answers(WATCH) == [
        t.WatchResponse(service.header(), 1, events=events, fragment=True),
        t.WatchResponse(service.header(), -1),
    ]
    await end(task)


async def test_a_watch_that_may_not_be_opened_is_an_error():
    service = FakeService()
    service.fails_with = ErrorKind.TOO_MANY_REQUESTS.error()
    task = converse(service, WATCH, FakeExchange(create()))
    assert await raised(task) is service.fails_with


@pytest.mark.parametrize("path", [WATCH, KEEP_ALIVE, SNAPSHOT, OBSERVE, RANGE_STREAM])
async def test_bytes_that_are_no_message_end_a_stream_in_grpcs_words(path):
    service = FakeService()
    error = await raised(converse(service, path, FakeExchange(b"\x0a\x05a")))
    assert error.code == Code.INTERNAL
    assert error.message.startswith("grpc: failed to unmarshal the received message: ")
    assert all(watch.closed for watch in service.watches)


async def test_what_a_watch_refuses_ends_its_stream():
    service = FakeService()
    exchange = FakeExchange(create(), create(), ends=False)

    def refuse(request):
        raise ErrorKind.TOO_MANY_REQUESTS.error()

    task = converse(service, WATCH, exchange)
    await asyncio.sleep(0)
    service.watches[0].request = refuse
    assert await raised(task) == ErrorKind.TOO_MANY_REQUESTS.error()


@pytest.mark.parametrize("path", [WATCH, KEEP_ALIVE])
async def test_a_client_that_is_gone_is_no_mistake_of_ours(path):
    service = FakeService()
    exchange = FakeExchange(ends=False)
    exchange.coming.put_nowait(ConnectionResetError())
    task = converse(service, path, exchange)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(task, 5)
    assert all(watch.closed for watch in service.watches)


# --- keep-alive -----------------------------------------------------------------------------------


async def test_keep_alives_are_answered_in_order_until_the_client_has_said_all():
    service = FakeService()
    exchange = FakeExchange(*[t.LeaseKeepAliveRequest(n) for n in (7, -1, 7)])
    await converse(service, KEEP_ALIVE, exchange)
    assert [(it.ID, it.TTL) for it in exchange.answers(KEEP_ALIVE)] == [(7, 10), (-1, 10), (7, 10)]


async def test_no_keep_alive_waits_for_another_but_answers_keep_their_order(settle):
    service = FakeService()
    service.held = []
    exchange = FakeExchange(*[t.LeaseKeepAliveRequest(n) for n in (1, 2, 3)])
    task = converse(service, KEEP_ALIVE, exchange)
    await settle()
    first, second, third = service.held
    third()
    second()
    await settle()
    assert exchange.sent == []
    first()
    await task
    assert [it.ID for it in exchange.answers(KEEP_ALIVE)] == [1, 2, 3]


async def test_an_answer_that_is_there_waits_for_the_one_before_it(settle):
    service = FakeService()
    service.held = []
    exchange = FakeExchange(*[t.LeaseKeepAliveRequest(n) for n in (1, 2, 3)])
    task = converse(service, KEEP_ALIVE, exchange)
    await settle()
    first, second, third = service.held
    first()
    third()
    await settle()
    assert [it.ID for it in exchange.answers(KEEP_ALIVE)] == [1]
    second()
    await task
    assert [it.ID for it in exchange.answers(KEEP_ALIVE)] == [1, 2, 3]


async def test_keep_alives_under_way_are_bounded(settle):
    service = FakeService()
    service.held = []
    count = KEEP_ALIVES_MAX + 5
    exchange = FakeExchange(*[t.LeaseKeepAliveRequest(n) for n in range(1, count + 1)])
    task = converse(service, KEEP_ALIVE, exchange)
    await settle(count)
    assert len(service.held) == KEEP_ALIVES_MAX
    service.held[0]()
    await settle()
    assert len(service.held) == KEEP_ALIVES_MAX + 1
    for answer in service.held[1:]:
        answer()
    await settle()
    for answer in service.held[KEEP_ALIVES_MAX + 1 :]:
        answer()
    await task
    assert [it.ID for it in exchange.answers(KEEP_ALIVE)] == list(range(1, count + 1))


async def test_a_keep_alive_that_fails_ends_the_stream_behind_those_before_it(settle):
    service = FakeService()
    service.held = []
    exchange = FakeExchange(*[t.LeaseKeepAliveRequest(n) for n in (1, 2)], ends=False)
    task = converse(service, KEEP_ALIVE, exchange)
    await settle()
    first, _ = service.held
    service.fails_with = ErrorKind.NO_LEADER.error()
    exchange.say(t.LeaseKeepAliveRequest(3))
    await settle()
    first()
    service.held[1]()
    assert await raised(task) is service.fails_with
    assert [it.ID for it in exchange.answers(KEEP_ALIVE)] == [1, 2]


async def test_what_came_before_bad_bytes_is_answered():
    service = FakeService()
    exchange = FakeExchange(t.LeaseKeepAliveRequest(1), b"\xff")
    error = await raised(converse(service, KEEP_ALIVE, exchange))
    assert error.code == Code.INTERNAL
    assert len(exchange.sent) == 1


# --- one request, many answers --------------------------------------------------------------------


async def test_a_snapshot_comes_in_chunks_with_what_remains():
    exchange = FakeExchange(t.SnapshotRequest())
    await converse(FakeService(), SNAPSHOT, exchange)
    assert exchange.answers(SNAPSHOT) == [
        t.SnapshotResponse(None, left, bytes([left]), "3.7.0") for left in (2, 1, 0)
    ]


async def test_a_range_in_pieces_merges_to_the_whole():
    service = FakeService()
    for n in range(4):
        service.items[b"%d" % n] = t.KeyValue(b"%d" % n, n + 2, n + 2, 1, b"v")
    exchange = FakeExchange(ALL)
    await converse(service, RANGE_STREAM, exchange)
    # Merging messages is joining their bytes.
    merged = oracle.class_of(t.RangeStreamResponse).FromString(b"".join(exchange.sent))
    found = oracle.to_record(t.RangeStreamResponse, merged).range_response
    assert found == t.RangeResponse(service.header(), list(service.items.values()), False, 4)
    assert len(exchange.sent) == 4


async def test_long_pieces_are_encoded_in_turns_with_others(settle):
    service: Any = FakeService()
    kvs = [t.KeyValue(b"%d" % n, 2, 2, 1, b"v") for n in range(2000)]
    piece = t.RangeStreamResponse(t.RangeResponse(service.header(), kvs))

    async def pieces(request, caller):
        yield piece

    service.range_stream = pieces
    exchange = FakeExchange(ALL)
    task = asyncio.create_task(call(service, RANGE_STREAM, 1)(exchange, ANYBODY))
    await settle(10)
    assert exchange.sent == []
    await settle()
    assert exchange.answers(RANGE_STREAM) == [piece]
    await task


async def test_who_observes_hears_until_the_call_ends(settle):
    service = FakeService()
    service.held = []
    exchange = FakeExchange(t.LeaderRequest(b"e"))
    task = converse(service, OBSERVE, exchange)
    await settle()
    assert [it.kv.value for it in exchange.answers(OBSERVE)] == [b"one", b"two"]
    await end(task)
    assert service.left == ["observe"]


@pytest.mark.parametrize("path", [SNAPSHOT, OBSERVE, RANGE_STREAM])
async def test_a_call_without_its_request_is_an_error(path):
    error = await raised(converse(FakeService(), path, FakeExchange()))
    assert error == KvError(Code.INTERNAL, "kvstore: the call ended without its request")


@pytest.mark.parametrize("path", [OBSERVE, RANGE_STREAM])
async def test_an_error_of_the_service_ends_the_stream(path):
    service = FakeService()
    service.fails_with = ErrorKind.COMPACTED.error()
    exchange = FakeExchange(ALL if path == RANGE_STREAM else t.LeaderRequest(b"e"))
    assert await raised(converse(service, path, exchange)) is service.fails_with


# --- hasleader ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [KEEP_ALIVE, OBSERVE])
async def test_a_stream_that_wants_a_leader_ends_without_one(path, settle):
    service = FakeService()
    service.held = []
    exchange = FakeExchange(RPCS[path].request(), ends=False)
    task = converse(service, path, exchange, DEMANDING)
    await settle()
    assert not task.done()
    (lost,) = service.waiting_for_leader
    lost(ErrorKind.NO_LEADER.error())
    assert await raised(task) == ErrorKind.NO_LEADER.error()
    assert service.waiting_for_leader == []
    assert service.left == (["observe"] if path == OBSERVE else [])


async def test_a_stream_that_wants_a_leader_and_ends_waits_for_none_any_more():
    service = FakeService()
    exchange = FakeExchange(t.LeaseKeepAliveRequest(1))
    await converse(service, KEEP_ALIVE, exchange, DEMANDING)
    assert len(exchange.sent) == 1
    assert service.waiting_for_leader == []
    service.fails_with = ErrorKind.COMPACTED.error()
    task = converse(service, RANGE_STREAM, FakeExchange(ALL), DEMANDING)
    assert await raised(task) is service.fails_with
    await converse(service, KEEP_ALIVE, FakeExchange(), ANYBODY)
    assert service.waiting_for_leader == []
