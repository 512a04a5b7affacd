"""Streaming calls: conversations, their flow control, and all the ways in which they end."""

import asyncio
import logging

import pytest

from kvstore.api.grpc.frames import GOAWAY, frame
from kvstore.api.grpc.streaming import ROOM_BYTES
from kvstore.errors import Code, ErrorKind
from tests.kvstore.api.grpc.peers import Place, in_virtual_time, prefixed

STOPPED = (ErrorKind.STOPPED.code, ErrorKind.STOPPED.message)


@in_virtual_time
async def test_a_conversation_goes_both_ways():
    place = Place()
    client = place.connect()
    stream_id = client.begin("/a.B/Chat", ("token", "secret"))
    answer = client.answers[stream_id]
    for number in range(3):
        client.send(stream_id, prefixed(b"%d" % number))
        await client.settled()
        assert answer.messages[-1] == b"%d" % number
    assert (answer.ended, place.counters.streams_open) == (False, 1)
    client.send(stream_id, b"", end=True)
    await client.settled()
    assert (answer.ended, answer.trailers) == (True, {"grpc-status": "0"})
    assert (place.table.ended, place.counters.streams_open) == (["chat"], 0)
    assert place.table.callers[0].token == "secret"


@in_virtual_time
async def test_empty_messages_are_messages():
    client = Place().connect()
    answer = client.call("/a.B/Chat", prefixed(b"") * 3)
    await client.settled()
    assert (answer.messages, answer.ended) == ([b"", b"", b""], True)


@in_virtual_time
async def test_a_stream_without_messages_has_a_head_and_trailers():
    client = Place().connect()
    answer = client.call("/a.B/Chat", b"")
    await client.settled()
    assert answer.headers[":status"] == "200"
    assert answer.trailers == {"grpc-status": "0"}


@in_virtual_time
async def test_messages_larger_than_any_window_come_in():
    client = Place().connect()
    stream_id = client.begin("/a.B/Collect")
    large = bytes(range(256)) * 4000
    for message in (b"small", large, b"small", large):
        raw = prefixed(message)
        while raw:
            room = min(client.h2.local_flow_control_window(stream_id), 16384, len(raw))
            if room:
                client.h2.send_data(stream_id, raw[:room])
                raw = raw[room:]
            await client.settled(3)
    client.send(stream_id, b"", end=True)
    await client.settled()
    await client.settled(100)
    assert client.answers[stream_id].messages == [b"small" + large + b"small" + large]
    assert client.protocol._connection.grants.granted_bytes == 0


@in_virtual_time
async def test_a_client_that_sends_more_than_is_received_is_held_by_its_window():
    place = Place()
    client = place.connect()
    stream_id = client.begin("/a.B/Hang")
    assert not client.send(stream_id, prefixed(b"x" * 995) * 100)
    await client.settled()
    stream = client.protocol._connection.streams[stream_id]
    assert stream.unconsumed_bytes <= 65_535
    assert client.h2.local_flow_control_window(stream_id) == 0


@in_virtual_time
async def test_a_slow_client_holds_the_sender_up():
    place = Place()
    client = place.connect()
    client.takes = False
    answer = client.call("/a.B/Count", prefixed(b"1000"))
    await client.settled(2000)
    stream = next(iter(client.protocol._connection.streams.values()))
    assert len(answer.body) == 65_535
    assert ROOM_BYTES < stream.pending_bytes < ROOM_BYTES + 2000
    client.takes = True
    while not answer.ended:
        client.h2.increment_flow_control_window(50_000)
        client.h2.increment_flow_control_window(50_000, 1)
        await client.settled(200)
    assert [row for row in answer.messages if len(row) < 1000] == [b"%d" % n for n in range(1000)]


@pytest.mark.parametrize("raw", [b"", prefixed(b"first")])
@in_virtual_time
async def test_an_error_ends_a_stream_before_or_after_messages(raw):
    client = Place().connect()
    answer = client.call("/a.B/Refuse", raw)
    await client.settled()
    assert answer.status == (Code.PERMISSION_DENIED, "not for you")
    assert answer.messages == ([b"first"] if raw else [])
    assert bool(answer.trailers) is bool(raw)
    assert answer.ended


@pytest.mark.parametrize(
    ("raw", "code", "words"),
    [
        (prefixed(b"cut")[:-1], Code.INTERNAL, "in the middle of a message"),
        (prefixed(b"x", 3), Code.INTERNAL, "unexpected payload format 3"),
        (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED, "larger than max (4294967295 vs. "),
        (prefixed(b"x", 1), Code.INTERNAL, "compressed flag set"),
    ],
)
@in_virtual_time
async def test_what_is_no_message_ends_the_stream_after_those_before_it(raw, code, words):
    client = Place().connect()
    answer = client.call("/a.B/Chat", prefixed(b"good") + raw)
    await client.settled()
    assert answer.messages == [b"good"]
    assert answer.status[0] is code
    assert words in answer.status[1]


@in_virtual_time
async def test_a_mistake_of_ours_is_an_internal_error(caplog):
    place = Place()
    client = place.connect()
    with caplog.at_level(logging.CRITICAL, "kvstore.api"):
        answer = client.call("/a.B/Crash", b"")
        await client.settled()
    assert answer.status == (Code.INTERNAL, "kvstore: internal error")
    assert place.counters.surprises == 1


@in_virtual_time
async def test_a_client_that_takes_a_stream_back_ends_its_task():
    place = Place()
    client = place.connect()
    stream_id = client.begin("/a.B/Hang")
    await client.settled()
    client.h2.reset_stream(stream_id)
    client.flush()
    await client.settled()
    assert (place.table.ended, place.counters.streams_open) == (["CancelledError"], 0)
    assert place.server.lane.streaming == {}


@in_virtual_time
async def test_a_lost_connection_ends_all_tasks():
    place = Place()
    client = place.connect()
    for _ in range(3):
        client.begin("/a.B/Hang")
    # One that never got to run.
    await asyncio.sleep(0)
    client.begin("/a.B/Chat")
    client.close()
    await client.settled()
    assert place.table.ended == ["CancelledError"] * 3
    assert (place.counters.streams_open, place.counters.http2.connections_open) == (0, 0)


@in_virtual_time
async def test_a_deadline_ends_a_stream():
    place = Place()
    client = place.connect()
    stream_id = client.begin("/a.B/Hang", ("grpc-timeout", "5S"))
    await asyncio.sleep(4.9)
    client.flush()
    assert not client.answers[stream_id].ended
    await asyncio.sleep(0.2)
    await client.settled()
    deadline = ErrorKind.DEADLINE_EXCEEDED
    assert client.answers[stream_id].status == (deadline.code, deadline.message)
    over = client.begin("/a.B/Hang", ("grpc-timeout", "0S"))
    assert client.answers[over].status == (deadline.code, deadline.message)


@in_virtual_time
async def test_a_deadline_does_not_wait_for_what_the_client_does_not_take():
    client = Place().connect()
    client.takes = False
    answer = client.call("/a.B/Count", prefixed(b"1000"), ("grpc-timeout", "5S"))
    await asyncio.sleep(5.1)
    await client.settled()
    assert answer.reset == 8
    assert client.protocol._connection.outbox.pending_bytes == 0


# --- The end of the server


@in_virtual_time
async def test_a_server_that_stops_ends_streams_and_lets_calls_finish():
    place = Place()
    client = place.connect()
    hanging = client.answers[client.begin("/a.B/Hang")]
    patient = client.call("/a.B/Patient", prefixed(b"patient"))
    ordinary = client.call("/a.B/Later", prefixed(b"ordinary"))
    idle = place.connect()
    await client.settled()
    closing = asyncio.ensure_future(place.server.close(3.0))
    await client.settled()
    idle.flush()
    assert (hanging.status, patient.status) == (STOPPED, STOPPED)
    assert place.table.left == [b"patient"]
    assert client.goaway == (0, b"")
    assert not ordinary.ended
    assert not closing.done()
    # Who has nothing under way is let go at once.
    assert idle.transport.eof
    place.table.replies[1](b"done")
    await client.settled()
    assert ordinary.messages == [b"done"]
    assert client.transport.eof
    client.close()
    idle.close()
    await closing


@in_virtual_time
async def test_whoever_comes_while_the_server_stops():
    place = Place()
    client = place.connect()
    client.call("/a.B/Later", prefixed(b"x"))
    closing = asyncio.ensure_future(place.server.close(3.0))
    # The client has not heard yet.
    await asyncio.sleep(0)
    for path in ("/a.B/Patient", "/a.B/Chat"):
        stream_id = client.h2.get_next_available_stream_id()
        assert stream_id
        answer = client.call(path, prefixed(b"x"))
        if answer.ended:
            assert answer.status == STOPPED
    place.table.replies[0](b"done")
    await client.settled()
    client.close()
    await closing


@in_virtual_time
async def test_the_grace_is_all_that_is_waited():
    place = Place()
    client = place.connect()
    client.call("/a.B/Later", prefixed(b"x"))
    began = asyncio.get_running_loop().time()
    closing = asyncio.ensure_future(place.server.close(3.0))
    await client.settled()
    await closing
    assert 3.0 <= asyncio.get_running_loop().time() - began < 3.5
    assert client.transport.closed


# --- Sockets


@in_virtual_time
async def test_a_client_that_reads_nothing_is_not_read_either_and_cut_off_at_last():
    place = Place(stall_seconds=60.0)
    client = place.connect()
    client.h2.increment_flow_control_window(2**30)
    client.h2.update_settings({4: 2**30})
    client.flush()
    client.transport.stalled = True
    client.call("/a.B/Big", prefixed(b"1000000"))
    await client.settled()
    assert client.transport.paused_writing
    assert not client.transport.reading
    held = len(client.transport.unsent)
    assert held < 600_000
    # What else is to be said waits, and is not piled up at the socket.
    assert client.protocol._connection.outbox.pending_bytes > 400_000
    await asyncio.sleep(50.0)
    assert not client.transport.closed
    client.transport.written += client.transport.unsent[:10]
    del client.transport.unsent[:10]
    await asyncio.sleep(50.0)
    assert not client.transport.closed
    await asyncio.sleep(40.0)
    assert client.transport.closed
    assert place.counters.http2.untaken == 1


@in_virtual_time
async def test_a_client_that_catches_up_gets_the_rest():
    client = Place().connect()
    client.h2.increment_flow_control_window(2**30)
    client.h2.update_settings({4: 2**30})
    client.flush()
    client.transport.stalled = True
    answer = client.call("/a.B/Big", prefixed(b"1000000"))
    await client.settled()
    assert not answer.ended
    client.transport.drain()
    await client.settled(50)
    assert answer.messages == [bytes(1_000_000)]
    assert client.transport.reading


@in_virtual_time
async def test_an_answer_that_is_not_taken_is_dropped_and_the_connection_is_not():
    place = Place(stall_seconds=60.0)
    client = place.connect()
    client.takes = False
    answer = client.call("/a.B/Big", prefixed(b"100000"))
    chat = client.begin("/a.B/Chat")
    for _ in range(8):
        await asyncio.sleep(10.0)
        client.flush()
    assert (answer.ended, answer.reset) == (False, 8)
    assert client.protocol._connection.outbox.pending_bytes == 0
    assert not client.answers[chat].ended
    assert place.counters.http2.untaken == 1


@in_virtual_time
async def test_too_much_that_is_not_taken_is_answered_with_an_error():
    place = Place(unsent_bytes_max=300_000)
    client = place.connect()
    client.takes = False
    for _ in range(2):
        client.call("/a.B/Big", prefixed(b"200000"))
    outbox = client.protocol._connection.outbox
    assert outbox.pending_bytes == 400_010 - 65_535
    answer = client.call("/a.B/Big", prefixed(b"200000"))
    assert answer.status[0] is Code.RESOURCE_EXHAUSTED
    assert "wait to be read" in answer.status[1]
    assert outbox.pending_bytes == 400_010 - 65_535
    # A small one is given: it may tell of a write that was done.
    small = client.call("/a.B/Big", prefixed(b"60000"))
    assert small.headers[":status"] == "200"
    assert small.status is None


@in_virtual_time
async def test_a_broken_rule_is_told_before_the_connection_ends():
    place = Place(linger_seconds=2.0)
    client = place.connect()
    client.protocol.data_received(b"\0\0\1\6\0\0\0\0\0x")
    client.flush()
    assert client.goaway == (6, b"PING of another length")
    assert client.transport.eof
    assert not client.transport.closed
    await asyncio.sleep(2.1)
    assert client.transport.closed
    assert place.lost == 1


def leave_with_an_answer_unsent(place):
    """A client that asks for much, says that it leaves, and has read nothing yet."""
    client = place.connect()
    client.h2.increment_flow_control_window(2**20)
    client.h2.update_settings({4: 2**20})
    client.transport.stalled = True
    client.call("/a.B/Big", prefixed(b"200000"))
    client.protocol.data_received(frame(GOAWAY, 0, 0, bytes(8)))
    return client


def read_some(client, size=1000):
    client.transport.written += client.transport.unsent[:size]
    del client.transport.unsent[:size]


@in_virtual_time
async def test_the_end_waits_for_a_client_that_reads_slowly():
    client = leave_with_an_answer_unsent(Place(linger_seconds=2.0, stall_seconds=60.0))
    await client.settled(1)
    assert client.transport.eof
    while client.transport.unsent:
        await asyncio.sleep(1.5)
        assert not client.transport.closed
        read_some(client)
    # The last of it is in the socket, and has time as well.
    await asyncio.sleep(2.0)
    assert not client.transport.closed
    await asyncio.sleep(2.5)
    assert client.transport.closed


@in_virtual_time
async def test_the_end_does_not_wait_for_ever_for_a_client_that_reads_nothing():
    client = leave_with_an_answer_unsent(Place(linger_seconds=2.0, stall_seconds=60.0))
    await client.settled(1)
    await asyncio.sleep(50.0)
    read_some(client)
    await asyncio.sleep(50.0)
    assert not client.transport.closed
    await asyncio.sleep(20.0)
    assert client.transport.closed
    assert client.transport.unsent


@in_virtual_time
async def test_who_breaks_a_rule_is_waited_for_only_while_it_reads():
    client = Place(linger_seconds=2.0).connect()
    client.transport.stalled = True
    client.protocol.data_received(b"\0\0\1\6\0\0\0\0\0x")
    await client.settled(1)
    assert client.transport.unsent
    await asyncio.sleep(1.5)
    read_some(client, 1)
    await asyncio.sleep(2.0)
    assert not client.transport.closed
    await asyncio.sleep(1.0)
    assert client.transport.closed


@in_virtual_time
async def test_a_silent_client_is_pinged_and_cut_off():
    place = Place(keepalive_interval_seconds=30.0, keepalive_timeout_seconds=5.0)
    client = place.connect()
    for _ in range(10):
        await asyncio.sleep(10.0)
        client.flush()
    assert not client.transport.closed
    await asyncio.sleep(50.0)
    assert client.transport.closed


@in_virtual_time
async def test_nothing_is_left_of_connections_that_are_gone():
    place = Place()
    for _ in range(3):
        client = place.connect()
        client.call("/a.B/Echo", prefixed(b"x"))
        client.begin("/a.B/Hang")
        client.call("/a.B/Patient", prefixed(b"x"))
        await client.settled()
        client.close()
        await client.settled()
    lane = place.server.lane
    assert (lane.protocols, lane.patient, lane.streaming) == ([], {}, {})
    assert (place.lost, place.counters.http2.connections_open) == (3, 0)


@in_virtual_time
async def test_a_large_message_that_does_not_come_holds_up_no_others():
    place = Place(body_seconds=30.0)
    client = place.connect()
    stuck = client.begin("/a.B/Chat")
    client.send(stuck, prefixed(bytes(2_000_000))[:100_000])
    assert client.protocol._connection.grants.granted_bytes == 2_000_005
    for _ in range(5):
        await asyncio.sleep(10.0)
        await client.settled()
    assert client.answers[stuck].status == (
        Code.DEADLINE_EXCEEDED,
        "kvstore: the request did not come in in time",
    )
    assert client.protocol._connection.grants.granted_bytes == 0


@in_virtual_time
async def test_a_stream_may_be_silent_and_its_end_may_not_wait_for_ever():
    place = Place(stall_seconds=60.0)
    client = place.connect()
    silent = client.begin("/a.B/Chat")
    client.send(silent, prefixed(b"a little"))
    client.takes = False
    collected = client.begin("/a.B/Collect")
    for number in range(4):
        assert client.send(collected, prefixed(bytes(30_000)), end=number == 3)
        await client.settled()
    for _ in range(5):
        await asyncio.sleep(10.0)
        await client.settled()
    assert client.answers[collected].reset is None
    for _ in range(5):
        await asyncio.sleep(10.0)
        await client.settled()
    assert client.answers[collected].reset == 8
    assert (client.answers[silent].ended, client.answers[silent].reset) == (False, None)
    assert place.counters.http2.untaken == 1


@in_virtual_time
async def test_large_messages_that_nobody_receives_are_held_to_one_or_two():
    client = Place().connect()
    stream_id = client.begin("/a.B/Hang")
    await client.settled()
    raw = prefixed(bytes(500_000)) * 20
    sent = 0
    while room := min(client.h2.local_flow_control_window(stream_id), 16384, len(raw) - sent):
        client.h2.send_data(stream_id, raw[sent : sent + room])
        sent += room
        await client.settled(2)
    # One is received; one more may be whole, and another begun.
    assert 500_000 < sent < 3 * 500_005
    stream = client.protocol._connection.streams[stream_id]
    assert stream.unconsumed_bytes <= 2 * 500_005
