"""How much streaming calls hold for a client that does not read, or does not end what it sends."""

import asyncio

import pytest

from kvstore.api.grpc.streaming import ROOM_BYTES
from kvstore.errors import Code
from tests.kvstore.api.grpc.peers import Place, in_virtual_time, prefixed

KIB = 1024
WINDOW_BYTES = 65_535
EVENT_BYTES = 10_000


def pour(client, length=EVENT_BYTES):
    """Have a stream written to without end, in messages of this length."""
    stream_id = client.begin("/a.B/Pour")
    client.send(stream_id, prefixed(b"%d" % length))
    return stream_id


def outbox_of(client):
    return client.protocol._connection.outbox


def open_window(client, size, stream_id=None):
    client.h2.increment_flow_control_window(size, stream_id)
    client.flush()


# --- Answers that are not read --------------------------------------------------------------------


@in_virtual_time
async def test_nothing_is_made_for_a_stream_whose_window_never_was_open():
    place = Place()
    client = place.connect()
    client.h2.update_settings({4: 0})
    client.takes = False
    first, second = pour(client), pour(client)
    await client.settled()
    assert (place.table.claims, outbox_of(client).pending_bytes) == ([], 0)
    open_window(client, 5_000, second)
    await client.settled()
    assert len(place.table.claims) == 1
    assert client.answers[first].body == b""
    assert len(client.answers[second].body) == 5_000


@in_virtual_time
async def test_a_stream_that_is_not_read_holds_little_more_than_its_window():
    client = Place().connect()
    client.takes = False
    answer = client.answers[pour(client)]
    await client.settled(200)
    assert len(answer.body) == WINDOW_BYTES
    # What was made in one go for the window and beyond it, and no more.
    assert 0 < outbox_of(client).pending_bytes <= ROOM_BYTES + 2 * EVENT_BYTES
    assert outbox_of(client).claimed_bytes == 0


@in_virtual_time
async def test_a_stream_that_is_read_finds_its_window_full_again_and_again():
    client = Place().connect()
    client.h2.increment_flow_control_window(2**30)
    client.takes = False
    stream_id = pour(client)
    answer = client.answers[stream_id]
    await client.settled()
    for turn in range(2, 20):
        open_window(client, WINDOW_BYTES, stream_id)
        await client.settled(4)
        assert len(answer.body) == turn * WINDOW_BYTES


@in_virtual_time
async def test_a_small_window_makes_small_work():
    place = Place()
    client = place.connect()
    client.takes = False
    pour(client)
    await client.settled()
    assert max(place.table.claims) <= WINDOW_BYTES + ROOM_BYTES


@pytest.mark.parametrize("length", [100, EVENT_BYTES, 300_000])
@in_virtual_time
async def test_the_streams_of_a_connection_hold_no_more_than_its_limit(length):
    limit = 500 * KIB
    place = Place(stream_unsent_bytes_max=limit)
    client = place.connect()
    client.takes = False
    streams = [pour(client, length) for _ in range(20)]
    await client.settled(50)
    outbox = outbox_of(client)
    assert limit // 2 <= outbox.pending_bytes <= limit + length + 5
    assert outbox.claimed_bytes == 0
    # Whoever reads on is served on, and those that stand in line have their turn.
    client.h2.increment_flow_control_window(2**30)
    for _ in range(60):
        for stream_id in streams:
            client.h2.increment_flow_control_window(40_000, stream_id)
        await client.settled(10)
    assert min(len(client.answers[stream_id].body) for stream_id in streams) > 300_000
    assert outbox.pending_bytes + outbox.claimed_bytes <= limit + length + 5


@in_virtual_time
async def test_streams_that_leave_make_room_for_those_in_line():
    place = Place(stream_unsent_bytes_max=200 * KIB)
    client = place.connect()
    client.takes = False
    streams = [pour(client) for _ in range(30)]
    await client.settled(50)
    idle = [number for number in streams if not client.answers[number].headers]
    assert idle
    client.h2.increment_flow_control_window(2**30)
    for number in streams:
        if number not in idle:
            client.h2.reset_stream(number)
    # One of those in line goes away as well.
    client.h2.reset_stream(idle[0])
    client.flush()
    await client.settled(50)
    assert all(client.answers[number].body for number in idle[1:])
    client.close()
    await client.settled()
    outbox = outbox_of(client)
    assert (outbox.pending_bytes, outbox.claimed_bytes) == (0, 0)
    assert not outbox._in_line
    assert not outbox._called
    assert place.counters.streams_open == 0


@in_virtual_time
async def test_a_stream_that_has_nothing_to_write_keeps_no_room():
    place = Place()
    client = place.connect()
    outbox = outbox_of(client)
    ended = asyncio.Event()

    async def waver(exchange, caller):
        assert await exchange.claim(1000) == 1000
        assert outbox.claimed_bytes == 1000
        exchange.waive()
        assert outbox.claimed_bytes == 0
        assert await exchange.claim(10) == 10
        await exchange.claim(20)
        assert outbox.claimed_bytes == 20
        ended.set()

    place.table.calls["/a.B/Waver"] = waver
    client.call("/a.B/Waver", b"")
    await client.settled()
    assert ended.is_set()
    assert outbox.claimed_bytes == 0


@in_virtual_time
async def test_a_mistake_of_the_client_ends_a_stream_that_waits_for_it_to_read():
    client = Place().connect()
    client.takes = False
    stream_id = pour(client)
    await client.settled()
    client.send(stream_id, prefixed(b"x", 3))
    await client.settled()
    open_window(client, 2**20, stream_id)
    open_window(client, 2**20)
    await client.settled()
    code, words = client.answers[stream_id].status
    assert (code.name, words) == ("INTERNAL", "grpc: received unexpected payload format 3")


# --- Messages that are not ended ------------------------------------------------------------------

LATE = (Code.DEADLINE_EXCEEDED, "kvstore: the request did not come in in time")
PART_BYTES = 60_000
HELD_BYTES_MAX = 512 * KIB
HELD_MOST_BYTES = HELD_BYTES_MAX + 1024 * KIB + 16 * KIB
"""What is held, a window that was given before, and the frame that came as it was given."""


def send_parts(client, count, path="/a.B/Collect"):
    """Have so many streams begin a message that they do not end, as far as the windows allow."""
    sent = []
    for _ in range(count):
        stream_id = client.begin(path)
        room = client.h2.local_flow_control_window(stream_id)
        if room < PART_BYTES:
            client.h2.reset_stream(stream_id)
            break
        client.send(stream_id, prefixed(bytes(PART_BYTES))[:-5])
        sent.append(stream_id)
    client.flush()
    return sent


async def pass_time(client, seconds):
    for _ in range(seconds // 5):
        await asyncio.sleep(5.0)
        await client.settled()


@pytest.mark.parametrize("before", [b"", prefixed(b"whole")])
@pytest.mark.parametrize("size", [1, 8, PART_BYTES])
@in_virtual_time
async def test_a_message_that_is_not_ended_ends_its_stream(before, size):
    client = Place(body_seconds=30.0).connect()
    stream_id = client.begin("/a.B/Chat")
    client.send(stream_id, before + prefixed(bytes(PART_BYTES + 1))[:size])
    await pass_time(client, 25)
    answer = client.answers[stream_id]
    assert not answer.ended
    await pass_time(client, 15)
    assert answer.status == LATE
    assert len(answer.messages) == bool(before)
    assert client.protocol._connection.held_bytes == 0


@in_virtual_time
async def test_each_message_has_its_own_time():
    client = Place(body_seconds=30.0).connect()
    stream_id = client.begin("/a.B/Chat")
    raw = prefixed(b"slow")
    client.send(stream_id, raw[:3])
    for _ in range(5):
        await pass_time(client, 20)
        # The end of one and the beginning of the next.
        client.send(stream_id, raw[3:] + raw[:3])
    await client.settled()
    assert client.answers[stream_id].messages == [b"slow"] * 5
    client.send(stream_id, raw[3:])
    await pass_time(client, 100)
    assert not client.answers[stream_id].ended


@in_virtual_time
async def test_the_parts_of_a_connection_are_held_to_its_limit_until_they_are_late():
    client = Place(body_seconds=30.0, stream_held_bytes_max=HELD_BYTES_MAX).connect()
    connection = client.protocol._connection
    parts = send_parts(client, 100)
    held = connection.held_bytes
    assert HELD_BYTES_MAX <= held == len(parts) * PART_BYTES <= HELD_MOST_BYTES
    await pass_time(client, 45)
    assert {client.answers[stream_id].status for stream_id in parts} == {LATE}
    assert connection.held_bytes == 0
    # It goes on as if nothing had been.
    assert len(send_parts(client, 100)) == len(parts)


@pytest.mark.parametrize("way", ["completed", "reset"])
@in_virtual_time
async def test_the_connection_goes_on_once_parts_are_whole_or_given_up(way):
    client = Place(stream_held_bytes_max=HELD_BYTES_MAX).connect()
    parts = send_parts(client, 100)
    for stream_id in parts:
        if way == "reset":
            client.h2.reset_stream(stream_id)
        else:
            assert client.send(stream_id, bytes(5), end=True)
    client.flush()
    await client.settled()
    assert client.protocol._connection.held_bytes == 0
    if way == "completed":
        assert {len(client.answers[number].messages[0]) for number in parts} == {PART_BYTES}
    assert len(send_parts(client, 100)) == len(parts)


@in_virtual_time
async def test_messages_that_nobody_receives_are_held_to_the_limit_as_well():
    client = Place(stream_held_bytes_max=HELD_BYTES_MAX).connect()
    connection = client.protocol._connection
    for _ in range(100):
        stream_id = client.begin("/a.B/Hang")
        await client.settled(2)
        if not client.send(stream_id, prefixed(b"received") + prefixed(bytes(10_000)) * 5):
            break
    assert HELD_BYTES_MAX <= connection.held_bytes <= HELD_MOST_BYTES
    for stream_id in list(connection.streams):
        client.h2.reset_stream(stream_id)
    client.flush()
    await client.settled()
    assert connection.held_bytes == 0
    assert client.h2.outbound_flow_control_window > 512 * KIB


@in_virtual_time
async def test_what_comes_after_the_end_of_a_stream_is_not_held():
    client = Place().connect()
    client.takes = False
    # What it is answered fills the connection's window.
    client.call("/a.B/Collect", prefixed(bytes(65_000)))
    await client.settled()
    refused = client.begin("/a.B/Refuse")
    client.send(refused, prefixed(bytes(65_000)))
    await client.settled()
    # Its end waits behind what the client does not take.
    assert client.answers[refused].reset is None
    client.h2.send_data(refused, b"\0\0\0")
    client.flush()
    connection = client.protocol._connection
    assert (connection.held_bytes, connection.streams[refused].unconsumed_bytes) == (0, 0)


@in_virtual_time
async def test_large_messages_are_counted_apart_once_they_may_come():
    client = Place(stream_held_bytes_max=HELD_BYTES_MAX).connect()
    connection = client.protocol._connection
    stream_id = client.begin("/a.B/Collect")
    raw = prefixed(bytes(1_500_000))
    client.send(stream_id, raw[:-1])
    assert (connection.grants.granted_bytes, connection.held_bytes) == (len(raw), 0)
    client.send(stream_id, raw[-1:], end=True)
    await client.settled(100)
    assert len(client.answers[stream_id].messages[0]) == 1_500_000
    assert (connection.grants.granted_bytes, connection.held_bytes) == (0, 0)
