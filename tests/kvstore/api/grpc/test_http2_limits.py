"""What a client can make us do and hold has limits; each is tried at its edge."""

from typing import Any

import pytest

from kvstore.api.grpc.flow import (
    IDLE_BURST,
    IDLE_PER_SECOND,
    RESET_BURST,
    RESETS_PER_SECOND,
    UPDATE_BURST,
    UPDATES_PER_FRAME,
    Allowance,
)
from kvstore.api.grpc.frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    ErrorCode,
    frame,
)
from kvstore.api.grpc.header_blocks import (
    MEMO_BLOCK_BYTES_MAX,
    MEMO_BLOCKS_MAX,
    Field,
    HeaderBlocks,
)
from kvstore.api.grpc.http2 import BLOCK_BYTES_MAX, CONTINUATIONS_MAX
from kvstore.api.grpc.lifecycle import LATE_STREAMS_MAX
from tests.kvstore.api.grpc.raw import (
    REQUEST,
    Wire,
    continuation,
    data,
    goaways_in,
    reset,
    setting,
    update,
)


def test_an_allowance_is_a_burst_and_a_rate():
    allowance = Allowance(3, 2)
    assert [allowance.spend(10.0) for _ in range(4)] == [True, True, True, False]
    allowance = Allowance(3, 2)
    assert all(allowance.spend(10.0) for _ in range(3))
    assert [allowance.spend(11.0) for _ in range(3)] == [True, True, False]
    allowance = Allowance(3, 2)
    assert [allowance.spend(1e6) for _ in range(4)] == [True, True, True, False]


def calm(wire, words):
    ((_, code, said),) = goaways_in(wire.take())
    assert code is ErrorCode.ENHANCE_YOUR_CALM
    assert words in said
    assert wire.counters.floods == 1
    return True


def test_rapid_reset():
    wire = Wire()
    for number in range(RESET_BURST):
        stream_id = 2 * number + 1
        wire.say(wire.request(stream_id) + reset(stream_id))
    assert wire.fault is None
    after = 2 * RESET_BURST + 1
    wire.now += 1
    for number in range(RESETS_PER_SECOND):
        wire.say(wire.request(after + 2 * number) + reset(after + 2 * number))
    assert wire.fault is None
    after += 2 * RESETS_PER_SECOND
    wire.say(wire.request(after) + reset(after))
    assert calm(wire, "reset")
    assert wire.connection.streams == {}


def test_rapid_reset_by_mistakes_that_make_us_reset():
    # The same by a rule that the client breaks on each stream (CVE-2025-8671).
    wire = Wire()
    for number in range(RESET_BURST + 1):
        stream_id = 2 * number + 1
        assert wire.fault is None
        wire.say(wire.request(stream_id, flags=END_HEADERS | END_STREAM) + data(stream_id, b"x"))
    assert wire.fault is ErrorCode.ENHANCE_YOUR_CALM


def test_calls_beyond_the_limit_are_refused_only_so_often():
    wire = Wire(max_streams=1)
    wire.open(1)
    for number in range(RESET_BURST + 1):
        assert wire.fault is None
        wire.say(wire.request(2 * number + 3))
    assert wire.fault is ErrorCode.ENHANCE_YOUR_CALM


IDLE = {
    "empty data": data(1),
    "empty data with padding": frame(0, 8, 1, b"\3\0\0\0"),
    "priorities": frame(PRIORITY, 0, 1, bytes(5)),
    "settings": frame(SETTINGS, 0, 0),
    "acknowledged settings": frame(SETTINGS, ACK, 0),
    "acknowledged pings": frame(PING, ACK, 0, bytes(8)),
    "unknown frames": frame(0xEE, 0, 0, b"x" * 100),
    "farewells": frame(GOAWAY, 0, 0, bytes(8)),
    "late resets": reset(3),
    "late data": data(3, b"x"),
}


@pytest.mark.parametrize("raw", IDLE.values(), ids=list(IDLE))
def test_frames_that_bring_nothing(raw):
    wire = Wire()
    wire.open(1)
    wire.connection.reset(wire.open(3), ErrorCode.CANCEL)
    wire.take()
    for _ in range(IDLE_BURST):
        wire.say(raw)
        wire.take()
    assert wire.fault is None
    wire.now += 1
    for _ in range(IDLE_PER_SECOND):
        wire.say(raw)
        wire.take()
    assert wire.fault is None
    wire.say(raw)
    assert calm(wire, "without content")


def test_window_updates_are_held_against_what_was_sent():
    wire = Wire()
    stream = wire.open(1)
    for _ in range(100):
        assert wire.connection.outbox.take_room(stream, 1)
    for _ in range(UPDATE_BURST + UPDATES_PER_FRAME * 100):
        wire.say(update(0, 1))
    assert wire.fault is None
    wire.say(update(0, 1))
    assert calm(wire, "WINDOW_UPDATE")


def test_a_settings_frame_moves_the_windows_once():
    wire = Wire()
    stream = wire.open(1)
    moves: list[int] = []
    widen = wire.connection.outbox.widen_all
    spy: Any = Spy(wire.connection.outbox, moves, widen)
    wire.connection.outbox = spy
    entries = setting(INITIAL_WINDOW_SIZE, 5)[9:] + setting(INITIAL_WINDOW_SIZE, 70_000)[9:]
    wire.connection.receive(frame(SETTINGS, 0, 0, entries * 1000), wire.now)
    assert moves == [70_000]
    assert stream.window_out == 70_000


class Spy:
    def __init__(self, outbox, moves, widen):
        self._outbox = outbox
        self._moves = moves
        self._widen = widen

    def widen_all(self, streams, initial_window):
        self._moves.append(initial_window)
        self._widen(streams, initial_window)

    def __getattr__(self, name):
        return getattr(self._outbox, name)


def test_a_header_block_in_too_many_pieces():
    wire = Wire()
    wire.say(frame(HEADERS, 0, 1, b""))
    for _ in range(CONTINUATIONS_MAX - 1):
        wire.say(continuation(1, b""))
    assert wire.fault is None
    wire.say(continuation(1, b""))
    assert calm(wire, "header block")


def test_a_header_block_too_long():
    wire = Wire()
    wire.say(frame(HEADERS, 0, 1, bytes(16_384)))
    for _ in range(BLOCK_BYTES_MAX // 16_384 - 1):
        wire.say(continuation(1, bytes(16_384)))
    assert wire.fault is None
    wire.say(continuation(1, b"\0"))
    assert calm(wire, "header block")


def test_a_header_list_too_long_though_its_block_is_short():
    wire = Wire()
    wire.open(1, [*REQUEST, (b"x", b"y" * 3000)])
    # One byte each, that stands for 3000: the "HPACK bomb".
    bomb = wire.block() + b"\xbe" * 19
    wire.say(frame(HEADERS, END_HEADERS, 3, bomb))
    assert wire.fault is None
    bomb = wire.block() + b"\xbe" * 30
    ((_, code, words),) = goaways_in(wire.answers(frame(HEADERS, END_HEADERS, 5, bomb)))
    assert (code, words) == (ErrorCode.ENHANCE_YOUR_CALM, "header list too long")


def test_closed_streams_are_remembered_within_bounds():
    wire = Wire()
    for number in range(LATE_STREAMS_MAX + 10):
        wire.now += 1
        wire.connection.reset(wire.open(2 * number + 1), ErrorCode.CANCEL)
    assert len(wire.connection._late) == LATE_STREAMS_MAX


def test_the_memo_is_bounded_and_goes_with_the_table():
    read: list[list[Field]] = []

    def digest(fields):
        read.append(fields)
        return len(read)

    blocks = HeaderBlocks(digest)
    wire = Wire()
    first = wire.encoder.encode(REQUEST)
    again = wire.encoder.encode(REQUEST)
    assert blocks.read(first) == 1
    assert blocks.memo == {}
    assert blocks.read(again) == 2
    assert blocks.memo == {again: 2}
    # A field that is not put into the table changes nothing.
    for number in range(MEMO_BLOCKS_MAX - 1):
        blocks.read(again + b"\0\1x\1" + bytes([48 + number]))
    assert len(blocks.memo) == MEMO_BLOCKS_MAX
    blocks.read(again + b"\0\1x\2no")
    assert len(blocks.memo) == 1
    long = again + b"\0\1x\x7f\x81\x07" + b"y" * 1024
    assert len(long) > MEMO_BLOCK_BYTES_MAX
    blocks.read(long)
    assert long not in blocks.memo
    # The same bytes mean something else once the table has moved.
    blocks.read(again)
    moved = wire.encoder.encode([*REQUEST, (b"new", b"entry")])
    blocks.read(moved)
    assert blocks.memo == {}
    blocks.read(again)
    assert read[-1] != read[1]


def test_the_memo_goes_when_the_table_shrinks():
    blocks = HeaderBlocks(list)
    wire = Wire()
    blocks.read(wire.encoder.encode(REQUEST))
    blocks.read(wire.encoder.encode(REQUEST))
    assert len(blocks.memo) == 1
    wire.encoder.header_table_size = 0
    blocks.read(wire.encoder.encode([(b":method", b"POST")]))
    assert list(blocks.memo) == []


def ping(wire):
    wire.say(frame(PING, 0, 0, b"abcdefgh"))


def test_pings_with_a_call_under_way_may_come_every_five_seconds():
    wire = Wire()
    wire.open(1)
    for _ in range(20):
        ping(wire)
        wire.now += 5.0
    assert wire.fault is None
    wire.now -= 0.5
    for _ in range(3):
        assert wire.fault is None
        ping(wire)
        wire.now += 4.5
    assert calm(wire, "too_many_pings")


def test_pings_without_a_call_may_come_every_two_hours():
    wire = Wire()
    for _ in range(3):
        ping(wire)
        wire.now += 7199.0
    assert wire.fault is None
    ping(wire)
    assert calm(wire, "too_many_pings")


def test_pings_that_measure_answers_are_no_strikes():
    wire = Wire()
    stream = wire.open(1)
    for _ in range(50):
        assert wire.connection.outbox.take_room(stream, 1)
        ping(wire)
    assert wire.fault is None


def test_a_silent_client_is_pinged_and_then_given_up():
    wire = Wire(keepalive_interval_seconds=100.0, keepalive_timeout_seconds=20.0)
    wire.now += 99.0
    wire.connection.tick(wire.now)
    assert wire.take() == []
    wire.now += 1.0
    wire.connection.tick(wire.now)
    ((kind, flags, _, payload),) = wire.take()
    assert (kind, flags) == (PING, 0)
    wire.say(frame(PING, ACK, 0, payload))
    wire.now += 50.0
    wire.connection.tick(wire.now)
    assert (wire.take(), wire.connection.is_over) == ([], False)
    wire.now += 50.0
    wire.connection.tick(wire.now)
    wire.now += 19.0
    wire.connection.tick(wire.now)
    assert not wire.connection.is_over
    wire.now += 1.0
    wire.connection.tick(wire.now)
    assert wire.connection.is_over


def test_a_connection_without_calls_is_drained_at_last():
    wire = Wire(idle_connection_seconds=600.0, keepalive_interval_seconds=1e9)
    wire.open(1)
    wire.now += 10_000.0
    wire.connection.tick(wire.now)
    assert not wire.connection.is_draining
    wire.say(reset(1))
    wire.now += 599.0
    wire.connection.tick(wire.now)
    assert not wire.connection.is_draining
    wire.now += 1.0
    wire.connection.tick(wire.now)
    assert wire.connection.is_draining


@pytest.mark.parametrize(
    "raw",
    [PREFACE[:10], PREFACE, PREFACE + frame(SETTINGS, 0, 0)[:8]],
    ids=["half a preface", "no settings", "half a frame"],
)
def test_a_client_that_does_not_finish_what_it_began_is_cut_off(raw):
    wire = Wire(greet=False, head_seconds=10.0)
    for position in range(len(raw)):
        wire.now += 0.1
        wire.say(raw[position : position + 1])
    wire.now = 1009.9
    wire.connection.tick(wire.now)
    assert wire.fault is None
    wire.now = 1014.0
    wire.connection.tick(wire.now)
    assert wire.fault is ErrorCode.ENHANCE_YOUR_CALM


def test_a_header_block_that_does_not_end_is_cut_off():
    wire = Wire(head_seconds=10.0)
    wire.say(frame(HEADERS, 0, 1, b""))
    wire.now += 9.0
    wire.say(continuation(1, b""))
    wire.connection.tick(wire.now)
    assert wire.fault is None
    wire.now += 1.0
    wire.connection.tick(wire.now)
    assert wire.fault is ErrorCode.ENHANCE_YOUR_CALM


def test_nobody_is_blamed_for_what_we_do_not_read():
    wire = Wire(head_seconds=10.0)
    wire.say(frame(HEADERS, 4, 1, wire.block())[:8])
    wire.connection.set_writable(wire.now, is_writable=False)
    wire.now += 100.0
    wire.connection.tick(wire.now)
    assert wire.fault is None
    wire.connection.set_writable(wire.now, is_writable=True)
    wire.connection.tick(wire.now)
    assert wire.fault is None


def test_resets_within_bounds_leave_no_trace():
    wire = Wire()
    for number in range(100):
        wire.say(wire.request(2 * number + 1) + reset(2 * number + 1))
    assert (wire.connection.streams, wire.take()) == ({}, [])
    assert wire.answers(frame(RST_STREAM, 0, 201, bytes(4)))[0][0] == GOAWAY
