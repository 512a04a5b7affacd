"""Flow control (RFC 9113 §5.2): windows are kept in both directions, whatever the client does."""

import pytest

from kvstore.api.grpc.flow import WINDOW_IN_BYTES, Grants
from kvstore.api.grpc.frames import (
    DATA,
    FRAME_BYTES_MAX,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    WINDOW_BYTES_DEFAULT,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from kvstore.api.grpc.outbox import WRITE_BYTES
from tests.kvstore.api.grpc.raw import Wire, data, frames_of, reset, setting, update

ENDING = frame(HEADERS, 5, 1, b"\x88")


def send(wire, stream, size, piece=b"x"):
    wire.connection.outbox.send(stream, [piece * size], size, wire.now)


def data_in(frames):
    sizes: dict[int, list[int]] = {}
    for kind, _, stream_id, payload in frames:
        if kind == DATA:
            sizes.setdefault(stream_id, []).append(len(payload))
    return sizes


def test_data_waits_for_the_window_of_its_stream_and_then_for_the_end():
    wire = Wire()
    stream = wire.open(1)
    send(wire, stream, 65_535 + 100)
    wire.connection.outbox.finish(stream, ENDING)
    sizes = data_in(wire.take())[1]
    assert (sum(sizes), max(sizes)) == (65_535, FRAME_BYTES_MAX)
    assert data_in(wire.answers(update(0, 1000))) == {}
    assert data_in(wire.answers(update(1, 40))) == {1: [40]}
    frames = wire.answers(update(1, 1000))
    assert [row[0] for row in frames] == [DATA, HEADERS, 3]
    assert (wire.connection.outbox.pending_bytes, wire.connection.streams) == (0, {})


def test_data_waits_for_the_window_of_the_connection():
    wire = Wire()
    streams = [wire.open(number) for number in (1, 3)]
    wire.say(update(1, 100_000) + update(3, 100_000))
    for stream in streams:
        send(wire, stream, 60_000)
    sizes = data_in(wire.take())
    # They take turns.
    assert {number: len(row) for number, row in sizes.items()} == {1: 2, 3: 2}
    assert sum(map(sum, sizes.values())) == 65_535
    assert data_in(wire.answers(update(0, 1))) == {1: [1]}


def test_windows_may_become_negative_and_are_paid_back():
    wire = Wire()
    stream = wire.open(1)
    wire.say(update(0, 1_000_000))
    send(wire, stream, 60_000)
    wire.take()
    wire.say(setting(INITIAL_WINDOW_SIZE, 1_000))
    assert stream.window_out == 1_000 - 60_000
    send(wire, stream, 10)
    assert data_in(wire.answers(update(1, 59_000))) == {}
    assert data_in(wire.answers(update(1, 4))) == {1: [4]}
    assert data_in(wire.answers(setting(INITIAL_WINDOW_SIZE, 1_100))) == {1: [6]}
    assert wire.open(3).window_out == 1_100


def test_a_window_of_nothing_holds_data_back_and_heads_not():
    wire = Wire()
    wire.say(setting(INITIAL_WINDOW_SIZE, 0))
    stream = wire.open(1)
    assert not wire.connection.outbox.take_room(stream, 1)
    send(wire, stream, 1)
    wire.connection.outbox.frames.append(frame(HEADERS, 4, 1, b"\x88"))
    assert [row[0] for row in wire.take()[1:]] == [HEADERS]
    assert data_in(wire.answers(update(1, 1))) == {1: [1]}


def test_what_leaves_at_once_counts():
    wire = Wire()
    stream = wire.open(1)
    outbox = wire.connection.outbox
    assert outbox.take_room(stream, 16_384)
    assert outbox.window == 65_535 - 16_384
    assert not outbox.take_room(stream, 16_385)
    outbox.is_writable = False
    assert not outbox.take_room(stream, 1)


def test_a_socket_that_takes_nothing_gets_nothing():
    wire = Wire()
    stream = wire.open(1)
    wire.connection.set_writable(wire.now, is_writable=False)
    send(wire, stream, 1000)
    assert wire.take() == []
    wire.connection.set_writable(wire.now, is_writable=True)
    assert data_in(wire.take()) == {1: [1000]}


def test_much_data_leaves_in_several_goes():
    wire = Wire()
    wire.say(setting(INITIAL_WINDOW_SIZE, 2**20) + update(0, 2**20))
    send(wire, wire.open(1), 2**20)
    raw = wire.connection.take(wire.now)
    assert wire.connection.has_more
    assert sum(data_in(frames_of(raw))[1]) == WRITE_BYTES
    assert sum(data_in(wire.take())[1]) == 2**20 - WRITE_BYTES


def test_pieces_of_any_size_leave_in_their_order():
    wire = Wire()
    wire.say(setting(INITIAL_WINDOW_SIZE, 2**20) + update(0, 2**20))
    stream = wire.open(1)
    pieces = [bytes([number]) * size for number, size in enumerate((1, 20_000, 16_384, 3, 40_000))]
    wire.connection.outbox.send(stream, pieces, sum(map(len, pieces)), wire.now)
    frames = [row for row in wire.take() if row[0] == DATA]
    assert b"".join(row[3] for row in frames) == b"".join(pieces)
    assert stream.room == len(frames)


def test_what_nobody_wants_is_dropped():
    wire = Wire()
    stream = wire.open(1)
    send(wire, stream, 100_000)
    wire.take()
    wire.say(reset(1))
    assert wire.connection.outbox.pending_bytes == 0
    assert wire.answers(update(0, 100_000)) == []


def test_the_window_of_the_connection_opens_as_bytes_come_in():
    wire = Wire()
    wire.open(1)
    gained = 0
    for _ in range(3 * WINDOW_IN_BYTES // 16_384):
        for kind, _, stream_id, payload in wire.answers(data(1, bytes(16_384))):
            if (kind, stream_id) == (WINDOW_UPDATE, 0):
                gained += int.from_bytes(payload, "big")
    assert 2 * WINDOW_IN_BYTES <= gained <= 3 * WINDOW_IN_BYTES
    assert wire.fault is None


def test_a_client_that_sends_more_than_the_connections_window_is_cut_off():
    wire = Wire()
    wire.connection._window_in = 10
    wire.open(1)
    wire.say(data(1, bytes(11)))
    assert wire.fault is ErrorCode.FLOW_CONTROL_ERROR


def test_padding_is_paid_back_too():
    wire = Wire()
    stream = wire.open(1)
    frames = []
    for _ in range(300):
        frames += wire.answers(frame(DATA, 8, 1, b"\xff" + bytes(1 + 255)))
    assert wire.fault is None
    assert stream.gone == 0
    assert any(row[0] == WINDOW_UPDATE and row[2] == 1 for row in frames)


class Waiting:
    def __init__(self):
        self.granted = 0

    def on_grant(self, size_bytes):
        self.granted += size_bytes


def test_large_messages_come_in_one_after_the_other():
    grants = Grants(100)
    first, second, third, fourth = (Waiting() for _ in range(4))
    grants.ask(first, 60)
    grants.ask(second, 60)
    grants.ask(third, 10)
    # Nobody overtakes: the one in front would else wait for ever.
    assert [each.granted for each in (first, second, third)] == [60, 0, 0]
    grants.release(first)
    assert [each.granted for each in (second, third)] == [60, 10]
    grants.ask(fourth, 1000)
    grants.release(second)
    assert fourth.granted == 0
    grants.release(third)
    assert (fourth.granted, grants.granted_bytes) == (1000, 1000)
    grants.release(fourth)
    grants.release(fourth)
    assert grants.granted_bytes == 0


def test_whoever_leaves_the_queue_holds_nobody_up():
    grants = Grants(100)
    first, second, third = (Waiting() for _ in range(3))
    grants.ask(first, 90)
    grants.ask(second, 90)
    grants.ask(third, 10)
    grants.release(second)
    assert (second.granted, third.granted) == (0, 10)


@pytest.mark.parametrize("held", [0, 40_000])
def test_a_stream_that_is_read_gets_its_window_back(held):
    wire = Wire()
    stream = wire.open(1)
    stream.unconsumed_bytes = held
    gained = 0
    for _ in range(20):
        for kind, _, stream_id, payload in wire.answers(data(1, bytes(4_000))):
            if (kind, stream_id) == (WINDOW_UPDATE, 1):
                gained += int.from_bytes(payload, "big")
        assert stream.window_in + held <= WINDOW_BYTES_DEFAULT or not gained
        if stream.window_in < 4_000:
            break
    assert bool(gained) is (held == 0)
