"""What is read in one turn of the loop: it ends between frames, and the rest is read later."""

import asyncio
import gzip
from functools import partial

import h2.errors
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from kvstore.api.grpc.frames import (
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from kvstore.api.grpc.turns import LOOK_BYTES, RESTS, Turns
from kvstore.budget import SLICES_A_TURN, CountedBudget
from kvstore.errors import Code
from tests.kvstore.api.grpc.peers import Answer, Place, in_virtual_time, prefixed
from tests.kvstore.api.grpc.raw import REQUEST, Wire, data, last_data, reset, update

CALLS = 20
SIZE = FRAME_BYTES_MAX
FULL = bytes(SIZE)
"""The budget is looked at before each frame of this size."""


# --- the connection -------------------------------------------------------------------------------


def test_the_budget_is_looked_at_every_so_many_bytes_and_frames():
    looks = []
    wire = Wire(is_spent=lambda: looks.append(1))
    wire.open(1)
    wire.say(data(1, bytes(LOOK_BYTES - 18)) + data(1))
    assert looks == []
    wire.say(data(1, bytes(LOOK_BYTES)) * 3)
    assert len(looks) == 3
    wire.say(data(1, b"x") * 2000)
    assert len(looks) == 5


def test_a_turn_ends_between_frames_and_the_rest_is_handled_when_it_goes_on():
    is_spent = True
    wire = Wire(is_spent=lambda: is_spent)
    stream = wire.open(1)
    connection = wire.connection
    wire.say(b"".join(data(1, bytes([n]) * SIZE) for n in range(5)) + last_data(1, b"end")[:5])
    assert (connection.is_behind, stream.data) == (True, b"")
    for n in range(4):
        connection.go_on(wire.now)
        assert connection.is_behind
        assert len(stream.data) == SIZE * (n + 1), "some of it, and no more than one"
    is_spent = False
    connection.go_on(wire.now)
    assert not connection.is_behind
    wire.say(last_data(1, b"end")[5:])
    assert stream.last
    assert stream.data == b"".join(bytes([n]) * SIZE for n in range(5)) + b"end"
    connection.go_on(wire.now)


def test_what_comes_in_while_something_is_kept_is_handled_behind_it():
    wire = Wire(is_spent=lambda: True)
    stream = wire.open(1)
    wire.say(data(1, b"a" * SIZE) + data(1, b"b" * SIZE)[:100])
    wire.say(data(1, b"b" * SIZE)[100:] + last_data(1, b"c"))
    for _ in range(3):
        wire.connection.go_on(wire.now)
    assert stream.data == b"a" * SIZE + b"b" * SIZE + b"c"
    assert not wire.connection.is_behind


def test_nobody_is_late_or_gone_while_something_is_kept():
    wire = Wire(is_spent=lambda: True, keepalive_interval_seconds=50.0)
    wire.open(1)
    wire.say(data(1, FULL) * 2 + data(1)[:3])
    connection = wire.connection
    wire.take()
    for _ in range(3):
        wire.now += 2000.0
        connection.tick(wire.now)
    assert wire.take() == []
    assert not connection.is_over
    connection.go_on(wire.now)
    connection.go_on(wire.now)
    assert not connection.is_behind
    connection.tick(wire.now)
    assert not connection.is_over
    wire.now += 10.0
    connection.tick(wire.now)
    assert connection.fault is not None, "the rest of the frame is late, from then on"


def test_pings_are_judged_by_when_they_came_in():
    is_spent = True
    wire = Wire(is_spent=lambda: is_spent, keepalive_min_seconds=5.0)
    wire.open(1)
    ping = frame(PING, 0, 0, bytes(8))
    for _ in range(6):
        is_spent = True
        wire.say(data(1, FULL) + ping)
        assert wire.connection.is_behind
        wire.now += 4.9
        is_spent = False
        wire.connection.go_on(wire.now)
        wire.now += 0.1
        wire.say(ping)
        wire.now += 5.0
    assert wire.fault is None


def test_calls_that_are_kept_are_taken_though_the_server_drains():
    wire = Wire(is_spent=lambda: True)
    wire.open(1)
    connection = wire.connection
    wire.say(data(1, FULL) + wire.request(3))
    connection.drain(wire.now)
    wire.now += 10.0
    connection.tick(wire.now)
    connection.go_on(wire.now)
    assert set(wire.heard) == {1, 3}
    assert not connection.is_behind
    connection.tick(wire.now)
    wire.say(wire.request(5))
    assert set(wire.heard) == {1, 3}


def test_what_is_kept_is_dropped_when_the_connection_is_lost_or_broken():
    for end in ("lose", "break"):
        wire = Wire(is_spent=lambda: True)
        stream = wire.open(1)
        connection = wire.connection
        wire.say(frame(SETTINGS, 0, 1) * (end == "break") + data(1, FULL) * 3)
        if end == "lose":
            connection.lose()
        connection.go_on(wire.now)
        assert (connection.is_over, connection.is_behind) == (True, False)
        assert (stream.data, stream.gone) == (b"", 1)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("data"), st.integers(0, 3), st.integers(0, FRAME_BYTES_MAX)),
        st.tuples(st.just("last"), st.integers(0, 3), st.integers(0, 3000)),
        st.tuples(st.just("reset"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("update"), st.integers(0, 3), st.integers(1, 9000)),
        st.tuples(st.just("ping"), st.just(0), st.integers(0, 255)),
        st.tuples(st.just("odd"), st.just(0), st.just(0)),
    ),
    max_size=30,
)


@given(STEPS, st.lists(st.floats(0, 1), max_size=8), st.lists(st.booleans(), max_size=60))
@settings(max_examples=150, deadline=None)
def test_wherever_turns_end_and_bytes_are_cut_the_same_is_heard_and_said(steps, cuts, spent):
    whole, cut = Wire(), Wire(is_spent=lambda: bool(spent and spent.pop()))
    raw = b"".join(whole.request(1 + 2 * n) for n in range(4))
    for kind, number, size in steps:
        stream_id = 1 + 2 * number
        raw += {
            "data": data(stream_id, b"d" * size),
            "last": last_data(stream_id, b"l" * size),
            "reset": reset(stream_id),
            "update": update(stream_id, max(size, 1)),
            "ping": frame(PING, 0, 0, bytes([size % 256]) * 8),
            "odd": frame(WINDOW_UPDATE, 0, 0, b"odd"),
        }[kind]
    expected = whole.answers(raw)
    said = []
    before = 0
    for place in [*sorted(int(share * len(raw)) for share in cuts), len(raw)]:
        cut.say(raw[before:place])
        before = place
        said += cut.take()
        while cut.connection.is_behind:
            cut.connection.go_on(cut.now)
            said += cut.take()
    assert said == expected
    assert cut.fault == whole.fault
    for stream_id, heard in whole.heard.items():
        other = cut.heard[stream_id]
        assert (other.data, other.last, other.gone) == (heard.data, heard.last, heard.gone)
    assert cut.connection._held == whole.connection._held
    assert cut.connection.streams.keys() == whole.connection.streams.keys()


# --- the line -------------------------------------------------------------------------------------


class Soon:
    """What is to be done in the next turn."""

    def __init__(self):
        self.due = []

    def turn(self):
        due, self.due = self.due, []
        for work in due:
            work()


def test_the_line_goes_on_until_the_budget_is_spent():
    soon = Soon()
    done: list[int] = []
    turns = Turns(lambda work: soon.due.append(work), CountedBudget(3))
    for n in range(7):
        turns.call_soon(partial(done.append, n))
    for expected in (3, 6, 7):
        soon.turn()
        assert done == list(range(expected))
        for _ in range(RESTS if expected < 7 else 0):
            assert turns.is_spent(), "nor does anybody else get any of it meanwhile"
            soon.turn()
            assert done == list(range(expected))
    soon.turn()
    assert soon.due == [], "it rests when nobody waits"


def test_a_turn_has_an_end_even_if_its_budget_has_none():
    soon = Soon()
    done: list[int] = []
    turns = Turns(lambda work: soon.due.append(work), CountedBudget(10**6))
    for n in range(SLICES_A_TURN + 1):
        turns.call_soon(partial(done.append, n))
    soon.turn()
    assert len(done) == SLICES_A_TURN


def test_the_line_goes_on_behind_one_who_fails():
    soon, done = Soon(), []
    turns = Turns(lambda work: soon.due.append(work), CountedBudget(100))
    turns.call_soon(lambda: done.append(1 // 0))
    turns.call_soon(lambda: done.append(2))
    with pytest.raises(ZeroDivisionError):
        soon.turn()
    soon.turn()
    assert done == [2]


def test_all_who_ask_in_a_turn_share_its_budget():
    soon = Soon()
    turns = Turns(lambda work: soon.due.append(work), CountedBudget(3))
    assert [turns.is_spent() for _ in range(4)] == [False, False, True, True]
    soon.turn()
    assert [turns.is_spent() for _ in range(3)] == [False, False, True]
    soon.turn()
    assert turns.has_room(10**6, is_compressed=False)
    turns.call_soon(lambda: turns.end())
    soon.turn()
    assert turns.is_spent()
    assert not turns.has_room(1, is_compressed=True)
    assert turns.has_room(1, is_compressed=False), "what is short is counted together"


# --- calls ----------------------------------------------------------------------------------------


def packed(message):
    return prefixed(gzip.compress(message), 1)


def say(client, messages, path="/a.B/Echo"):
    """Calls in one read; their streams."""
    streams = []
    head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "here"),
        ("content-type", "application/grpc"),
        ("grpc-encoding", "gzip"),
        ("te", "trailers"),
    ]
    for message in messages:
        stream_id = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream_id, head)
        client.h2.send_data(stream_id, message, end_stream=True)
        client.answers[stream_id] = Answer()
        streams.append(stream_id)
    client.protocol.data_received(client.h2.data_to_send())
    client.flush()
    return streams


def answered(client, streams):
    """How many of the first are answered; none behind them is."""
    ended = [client.answers[stream_id].ended for stream_id in streams]
    assert ended == sorted(ended, reverse=True), "in order"
    return sum(ended)


async def turn(*clients):
    await asyncio.sleep(0)
    for client in clients:
        client.flush()


@in_virtual_time
async def test_packed_calls_are_done_a_turn_at_a_time_and_in_order():
    place = Place(steps=1)
    client = place.connect()
    streams = say(client, [packed(b"%d" % n) for n in range(CALLS)])
    counts = [answered(client, streams)]
    while counts[-1] < CALLS:
        assert not client.transport.reading, "what is kept does not grow"
        await turn(client)
        counts.append(answered(client, streams))
        assert counts[-1] - counts[-2] <= 1
        assert len(counts) < 5 * CALLS * RESTS
    for _ in range(9 * RESTS):
        await turn(client)
    assert client.transport.reading
    assert [client.answers[it].messages for it in streams] == [[b"%d" % n] for n in range(CALLS)]


@in_virtual_time
async def test_many_connections_take_turns_and_short_calls_of_others_pass():
    place = Place(steps=1)
    busy = [place.connect() for _ in range(5)]
    streams = [say(client, [packed(b"x")] * CALLS) for client in busy]
    other = place.connect()
    seen = 0
    while seen < 5 * CALLS:
        counts = [answered(client, its) for client, its in zip(busy, streams, strict=True)]
        assert max(counts) - min(counts) <= 1
        assert sum(counts) - seen <= 1, "all of them together have one budget a turn"
        seen = sum(counts)
        (short,) = say(other, [prefixed(b"short")])
        assert other.answers[short].ended, "it waits for nobody"
        await turn(*busy, other)


@in_virtual_time
async def test_a_long_message_in_pieces_waits_for_a_turn_before_it_is_read():
    place = Place(steps=1)
    client = place.connect()
    message = prefixed(b"m" * 30_000)
    first, second = client.begin("/a.B/Echo"), client.begin("/a.B/Echo")
    for stream_id in (first, second):
        client.h2.send_data(stream_id, message[:15_000])
        client.h2.send_data(stream_id, message[15_000:], end_stream=True)
    client.protocol.data_received(client.h2.data_to_send())
    for _ in range(9 * RESTS):
        await turn(client)
    assert [client.answers[it].messages for it in (first, second)] == [[b"m" * 30_000]] * 2


@in_virtual_time
async def test_a_call_that_is_put_off_may_be_taken_back_fail_or_run_out_of_time():
    place = Place(steps=1)
    client = place.connect()
    first, broken, late, last = say(
        client, [packed(b"1"), prefixed(b"no gzip", 1), packed(b"3"), packed(b"4")]
    )
    put_off = place.server.lane.protocols[0]._connection._put_off
    assert put_off is not None
    assert put_off.id == first
    put_off.connection.reset(put_off, ErrorCode.CANCEL)
    for _ in range(9 * RESTS):
        await turn(client)
    assert client.answers[first].reset == h2.errors.ErrorCodes.CANCEL
    assert client.answers[broken].status[0] == Code.INTERNAL
    assert [client.answers[it].messages for it in (late, last)] == [[b"3"], [b"4"]]


@in_virtual_time
async def test_a_stop_in_the_middle_lets_what_is_kept_be_answered():
    place = Place(steps=1)
    client = place.connect()
    streams = say(client, [packed(b"x")] * CALLS)
    await turn(client)
    stopping = asyncio.ensure_future(place.server.close(3.0))
    for _ in range(5 * CALLS * RESTS):
        await turn(client)
    assert answered(client, streams) == CALLS
    await stopping
    assert client.transport.closed


@in_virtual_time
async def test_a_connection_that_is_lost_in_the_middle_leaves_the_line():
    place = Place(steps=1)
    one, other = place.connect(), place.connect()
    its = say(one, [packed(b"x")] * CALLS)
    others = say(other, [packed(b"x")] * CALLS)
    await turn(one, other)
    one.close()
    for _ in range(5 * CALLS * RESTS):
        await turn(other)
    assert answered(other, others) == CALLS
    assert answered(one, its) < 3
    assert place.lost == 1
    assert place.counters.http2.connections_open == 1


@in_virtual_time
async def test_nothing_is_done_for_a_client_that_does_not_read():
    place = Place(steps=1)
    client = place.connect()
    streams = say(client, [packed(b"x")] * CALLS)
    client.protocol.pause_writing()
    before = len(place.table.callers)
    for _ in range(9 * RESTS):
        await turn(client)
    assert len(place.table.callers) == before
    assert not client.transport.reading
    client.protocol.resume_writing()
    client.protocol.resume_writing()
    for _ in range(5 * CALLS * RESTS):
        await turn(client)
    assert answered(client, streams) == CALLS
    assert client.transport.reading


@in_virtual_time
async def test_a_client_that_breaks_a_rule_in_what_is_kept_is_told_and_heard_to_the_end():
    place = Place(steps=1)
    client = place.connect()
    say(client, [packed(b"x")] * 2)
    client.protocol.data_received(frame(WINDOW_UPDATE, 0, 0, b"odd"))
    for _ in range(9 * RESTS):
        await turn(client)
    assert client.goaway is not None
    assert client.transport.eof
    assert client.transport.reading, "an unread rest would take the words back"
    await asyncio.sleep(10)
    assert client.transport.closed


@pytest.mark.parametrize("message", [packed(b"m"), prefixed(b"m" * 500)])
@in_virtual_time
async def test_messages_of_streams_wait_for_turns_as_well(message):
    place = Place(steps=1)
    client = place.connect()
    streams = [client.begin("/a.B/Collect", ("grpc-encoding", "gzip")) for _ in range(4)]
    for stream_id in streams:
        client.send(stream_id, message * CALLS, end=True)
    for _ in range(20 * CALLS * RESTS):
        await turn(client)
    parts = [b"".join(client.answers[stream_id].messages) for stream_id in streams]
    size = 1 if len(message) < 100 else 500
    assert parts == [b"m" * size * CALLS] * 4


@in_virtual_time
async def test_a_stream_that_waits_for_a_turn_may_be_taken_back():
    place = Place(steps=1)
    client = place.connect()
    hang = client.begin("/a.B/Hang", ("grpc-encoding", "gzip"))
    chat = client.begin("/a.B/Chat", ("grpc-encoding", "gzip"))
    await turn(client)
    client.send(hang, packed(b"m"))
    client.send(chat, packed(b"m"))
    await turn(client)
    assert len(place.server.lane.turns._waiting) == 2
    client.h2.reset_stream(hang, h2.errors.ErrorCodes.CANCEL)
    client.flush()
    for _ in range(9 * RESTS):
        await turn(client)
    assert place.table.ended == ["CancelledError"]
    assert client.answers[chat].messages == [b"m"]


def test_a_request_is_opened_by_a_frame_that_is_kept():
    wire = Wire(is_spent=lambda: True)
    wire.open(1)
    flags = END_HEADERS | END_STREAM
    wire.say(data(1, FULL) + wire.request(3, REQUEST, flags))
    assert set(wire.heard) == {1}
    wire.connection.go_on(wire.now)
    assert wire.heard[3].last
