"""RFC 9113 frame by frame: what a client may do, and the code for what it may not."""

import pytest

from kvstore.api.grpc.flow import WINDOW_IN_BYTES
from kvstore.api.grpc.frames import (
    ACK,
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MAX,
    WINDOW_BYTES_DEFAULT,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from tests.kvstore.api.grpc.raw import (
    REQUEST,
    Wire,
    continuation,
    data,
    goaways_in,
    last_data,
    reset,
    resets_in,
    setting,
    update,
)


def test_any_number_of_streams_fits_into_settings():
    payload = Wire(greet=False, max_streams=2**32).hello[0][3]
    assert int.from_bytes(payload[2:6], "big") == STREAM_ID_MAX


def test_the_first_frame_is_settings_with_the_limits():
    wire = Wire(greet=False, max_streams=77)
    (kind, flags, stream_id, payload), window = wire.hello
    assert (kind, flags, stream_id) == (SETTINGS, 0, 0)
    values = {
        int.from_bytes(payload[at : at + 2], "big"): int.from_bytes(payload[at + 2 : at + 6], "big")
        for at in range(0, len(payload), 6)
    }
    assert values == {MAX_CONCURRENT_STREAMS: 77, MAX_HEADER_LIST_SIZE: 65536}
    gain = WINDOW_IN_BYTES - WINDOW_BYTES_DEFAULT
    assert window == (WINDOW_UPDATE, 0, 0, gain.to_bytes(4, "big"))


def test_bytes_may_be_cut_anywhere():
    wire = Wire(greet=False)
    raw = PREFACE + setting(ENABLE_PUSH, 0) + wire.request(1)
    raw += data(1, b"ab") + frame(PING, 0, 0, b"12345678") + last_data(1, b"cd")
    for position in range(len(raw)):
        wire.say(raw[position : position + 1])
    assert wire.take() == [(SETTINGS, ACK, 0, b""), (PING, ACK, 0, b"12345678")]
    assert (wire.heard[1].data, wire.heard[1].last) == (b"abcd", True)
    assert wire.heard[1].head == REQUEST


@pytest.mark.parametrize(
    "raw", [b"GET / HTTP/1.1\r\nHost: here\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nXX" * 2]
)
def test_what_is_not_the_preface_ends_the_connection(raw):
    wire = Wire(greet=False)
    assert goaways_in(wire.answers(raw)) == [(0, ErrorCode.PROTOCOL_ERROR, "not HTTP/2")]
    assert wire.connection.is_over


def test_settings_come_first():
    wire = Wire(greet=False)
    wire.say(PREFACE + frame(PING, 0, 0, bytes(8)))
    assert wire.fault is ErrorCode.PROTOCOL_ERROR


def test_padding_and_priority_are_taken_off():
    wire = Wire()
    payload = b"\3" + bytes(5) + wire.block() + bytes(3)
    wire.say(frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, payload))
    wire.say(frame(DATA, PADDED | END_STREAM, 1, b"\2abc\0\0"))
    assert (wire.heard[1].head, wire.heard[1].data) == (REQUEST, b"abc")


def test_a_header_block_may_come_in_pieces_with_nothing_between():
    wire = Wire()
    block = wire.block()
    wire.say(frame(HEADERS, END_STREAM, 1, block[:3]) + continuation(1, b""))
    assert wire.heard == {}
    wire.say(continuation(1, block[3:], END_HEADERS))
    assert (wire.heard[1].head, wire.heard[1].last) == (REQUEST, True)
    wire.say(frame(HEADERS, 0, 3, wire.block()) + data(1, b"x"))
    assert wire.fault is ErrorCode.PROTOCOL_ERROR


def test_trailers_end_a_request():
    wire = Wire()
    stream = wire.open(1)
    wire.say(data(1, b"ab") + wire.request(1, [(b"x", b"y")], END_HEADERS | END_STREAM))
    assert (stream.data, stream.last, wire.fault) == (b"ab", True, None)


C = ErrorCode
OF_CONNECTION = {
    "data on the connection": (data(0, b"x"), C.PROTOCOL_ERROR),
    "data on a stream that is not open": (data(9, b"x"), C.PROTOCOL_ERROR),
    "data on a stream of ours": (data(2, b"x"), C.PROTOCOL_ERROR),
    "data with more padding than room": (frame(DATA, PADDED, 1, b"\5abcd"), C.PROTOCOL_ERROR),
    "data without room for the padding": (frame(DATA, PADDED, 1, b""), C.FRAME_SIZE_ERROR),
    "a frame too long": (frame(DATA, 0, 1, bytes(16385)), C.FRAME_SIZE_ERROR),
    "headers on a stream of ours": (frame(HEADERS, END_HEADERS, 4, b"\x82"), C.PROTOCOL_ERROR),
    "headers on the connection": (frame(HEADERS, END_HEADERS, 0, b"\x82"), C.PROTOCOL_ERROR),
    "headers too short": (frame(HEADERS, 0x24, 5, b"\0\0"), C.FRAME_SIZE_ERROR),
    "headers that cannot be read": (frame(HEADERS, 4, 5, b"\xff\xff\xff"), C.COMPRESSION_ERROR),
    "an index of no table": (frame(HEADERS, 4, 5, b"\xfe"), C.COMPRESSION_ERROR),
    "a string that is not there": (frame(HEADERS, 4, 5, b"\x40"), C.COMPRESSION_ERROR),
    "a table larger than any": (frame(HEADERS, 4, 5, b"\x3f\xe1\xff\x03"), C.COMPRESSION_ERROR),
    "a continuation of nothing": (continuation(1, b"x"), C.PROTOCOL_ERROR),
    "a push": (frame(PUSH_PROMISE, 4, 1, bytes(8)), C.PROTOCOL_ERROR),
    "a reset of another length": (frame(RST_STREAM, 0, 1, bytes(3)), C.FRAME_SIZE_ERROR),
    "a reset of a stream that is not open": (reset(9), C.PROTOCOL_ERROR),
    "a reset of the connection": (reset(0), C.PROTOCOL_ERROR),
    "a ping of another length": (frame(PING, 0, 0, bytes(7)), C.FRAME_SIZE_ERROR),
    "a ping on a stream": (frame(PING, 0, 1, bytes(8)), C.PROTOCOL_ERROR),
    "settings of another length": (frame(SETTINGS, 0, 0, bytes(5)), C.FRAME_SIZE_ERROR),
    "settings on a stream": (frame(SETTINGS, 0, 1, b""), C.PROTOCOL_ERROR),
    "an acknowledgement with more": (frame(SETTINGS, ACK, 0, bytes(6)), C.FRAME_SIZE_ERROR),
    "a push of 2": (setting(ENABLE_PUSH, 2), C.PROTOCOL_ERROR),
    "a window too large": (setting(INITIAL_WINDOW_SIZE, 2**31), C.FLOW_CONTROL_ERROR),
    "windows that overflow": (
        update(1, 2**31 - 1 - 65535) + setting(INITIAL_WINDOW_SIZE, 65536),
        C.FLOW_CONTROL_ERROR,
    ),
    "frames too small": (setting(MAX_FRAME_SIZE, 16383), C.PROTOCOL_ERROR),
    "frames too large": (setting(MAX_FRAME_SIZE, 2**24), C.PROTOCOL_ERROR),
    "an update by nothing": (update(0, 0), C.PROTOCOL_ERROR),
    "an update that overflows": (update(0, 2**31 - 1), C.FLOW_CONTROL_ERROR),
    "an update of another length": (frame(WINDOW_UPDATE, 0, 0, bytes(5)), C.FRAME_SIZE_ERROR),
    "an update of a stream that is not open": (update(9, 1), C.PROTOCOL_ERROR),
    "a priority of nothing": (frame(PRIORITY, 0, 0, bytes(5)), C.PROTOCOL_ERROR),
    "a priority of another length": (frame(PRIORITY, 0, 1, bytes(4)), C.FRAME_SIZE_ERROR),
    "a goaway too short": (frame(GOAWAY, 0, 0, bytes(7)), C.FRAME_SIZE_ERROR),
    "a goaway on a stream": (frame(GOAWAY, 0, 1, bytes(8)), C.PROTOCOL_ERROR),
}


@pytest.mark.parametrize(("raw", "code"), OF_CONNECTION.values(), ids=list(OF_CONNECTION))
def test_mistakes_that_end_the_connection(raw, code):
    wire = Wire()
    stream = wire.open(1)
    ((last, told, _),) = goaways_in(wire.answers(raw))
    assert (last, told) == (1, code)
    assert (wire.connection.is_over, stream.gone) == (True, 1)
    assert wire.counters.broken_connections == 1
    # Whatever comes after that means nothing.
    assert wire.answers(wire.request(7) + data(7, b"x")) == []


OF_STREAM = {
    "an update by nothing": (update(1, 0), C.PROTOCOL_ERROR),
    "an update that overflows": (update(1, 2**31 - 1), C.FLOW_CONTROL_ERROR),
    "more data than the window": (
        data(1, bytes(16384)) * 3 + data(1, bytes(16384)),
        C.FLOW_CONTROL_ERROR,
    ),
}


@pytest.mark.parametrize(("raw", "code"), OF_STREAM.values(), ids=list(OF_STREAM))
def test_mistakes_that_end_the_stream(raw, code):
    wire = Wire()
    stream = wire.open(1)
    # It holds what it gets.
    stream.unconsumed_bytes = WINDOW_BYTES_DEFAULT
    frames = wire.answers(raw)
    assert resets_in(frames) == {1: code}
    assert (stream.gone, wire.fault, wire.counters.stream_faults) == (1, None, 1)
    assert wire.open(3).gone == 0


@pytest.mark.parametrize(
    "fields",
    [
        REQUEST[1:],
        [*REQUEST, REQUEST[0]],
        [*REQUEST, (b"x", b"y"), (b":x", b"y")],
        [*REQUEST[:3], (b"x", b"y"), REQUEST[3]],
        [(b":status", b"200")],
        [*REQUEST, (b"X-Capital", b"y")],
        [*REQUEST, (b"connection", b"close")],
        [*REQUEST, (b"transfer-encoding", b"chunked")],
        [*REQUEST, (b"te", b"gzip")],
        [*REQUEST, (b"x", b"a\r\nb")],
        [*REQUEST, (b"x", b" a")],
        [*REQUEST, (b"", b"a")],
        [*REQUEST[:2], (b":path", b"")],
        [(b"only", b"trailers")],
    ],
)
def test_malformed_requests_are_refused_alone(fields):
    wire = Wire()
    for stream_id in (1, 3):
        assert resets_in(wire.answers(wire.request(stream_id, fields))) == {
            stream_id: ErrorCode.PROTOCOL_ERROR
        }
    assert (wire.heard, wire.fault) == ({}, None)
    wire.open(5)


def test_what_comes_after_the_end_is_stream_closed():
    wire = Wire()
    wire.say(wire.request(1, flags=END_HEADERS | END_STREAM))
    assert resets_in(wire.answers(data(1, b"x"))) == {1: ErrorCode.STREAM_CLOSED}
    wire.say(wire.request(3, flags=END_HEADERS | END_STREAM))
    trailers = wire.request(3, [(b"x", b"y")], END_HEADERS | END_STREAM)
    assert resets_in(wire.answers(trailers)) == {3: ErrorCode.STREAM_CLOSED}
    assert wire.fault is None
    # And on one that is closed on both sides, of the connection (RFC 9113 §5.1).
    wire.say(wire.request(3, [(b"x", b"y")]))
    assert wire.fault is ErrorCode.STREAM_CLOSED


def test_trailers_that_do_not_end_are_malformed():
    wire = Wire()
    wire.open(1)
    assert resets_in(wire.answers(wire.request(1, [(b"x", b"y")]))) == {1: C.PROTOCOL_ERROR}
    wire.open(3)
    again = wire.request(3, flags=END_HEADERS | END_STREAM)
    assert resets_in(wire.answers(again)) == {3: C.PROTOCOL_ERROR}


def test_the_length_that_was_announced_is_held():
    wire = Wire()
    for stream_id, raw, code in (
        (1, last_data(1, b"abc"), None),
        (3, last_data(3, b"ab"), C.PROTOCOL_ERROR),
        (5, data(5, b"abcd"), C.PROTOCOL_ERROR),
        (7, data(7, b"abc") + last_data(7), None),
    ):
        wire.open(stream_id, [*REQUEST, (b"content-length", b"3")])
        assert resets_in(wire.answers(raw)).get(stream_id) == code


def test_frames_that_cross_with_our_end_of_a_stream_are_let_pass():
    wire = Wire()
    stream = wire.open(1)
    wire.connection.reset(stream, ErrorCode.CANCEL)
    assert resets_in(wire.take()) == {1: ErrorCode.CANCEL}
    late = data(1, b"x") + update(1, 5) + frame(PRIORITY, 0, 1, bytes(5))
    late += wire.request(1, [(b"x", b"y")], END_HEADERS | END_STREAM) + reset(1)
    assert wire.answers(late) == []
    assert wire.fault is None


def test_an_end_before_the_requests_end_asks_for_no_more():
    wire = Wire()
    stream = wire.open(1)
    wire.connection.outbox.finish(stream, frame(HEADERS, 5, 1, b"\x88"))
    assert wire.take() == [(HEADERS, 5, 1, b"\x88"), (RST_STREAM, 0, 1, bytes(4))]
    assert wire.connection.streams == {}
    assert stream.gone == 0


def test_a_stream_that_the_client_takes_back_is_gone():
    wire = Wire()
    stream = wire.open(1)
    assert wire.answers(reset(1)) == []
    assert (stream.gone, wire.connection.streams) == (1, {})
    assert wire.counters.client_resets == 1


def test_unknown_frames_and_settings_mean_nothing():
    wire = Wire()
    wire.say(frame(0xFA, 255, 1, b"whatever") + frame(0xFB, 0, 0, b""))
    assert wire.answers(setting(0xABCD, 5)) == [(SETTINGS, ACK, 0, b"")]
    assert wire.fault is None


def test_one_stream_too_many_is_refused_and_may_be_tried_again():
    wire = Wire(max_streams=2)
    wire.open(1)
    wire.open(3)
    assert resets_in(wire.answers(wire.request(5) + data(5, b"x"))) == {5: C.REFUSED_STREAM}
    assert wire.counters.refused_streams == 1
    wire.say(reset(1))
    assert wire.open(7).gone == 0
    assert wire.fault is None


def test_a_client_that_leaves_gets_the_answers_that_are_due():
    wire = Wire()
    stream = wire.open(1)
    wire.say(frame(GOAWAY, 0, 0, bytes(8)))
    assert not wire.connection.is_over
    wire.connection.outbox.finish(stream, frame(HEADERS, 5, 1, b"\x88"))
    assert wire.connection.is_over


def test_a_drain_lets_calls_end_that_were_under_way_or_on_their_way():
    wire = Wire()
    first = wire.open(1)
    wire.connection.drain(wire.now)
    frames = wire.take()
    assert goaways_in(frames) == [(STREAM_ID_MAX, ErrorCode.NO_ERROR, "")]
    ((_, _, _, payload),) = [row for row in frames if row[0] == PING]
    second = wire.open(3)
    assert goaways_in(wire.answers(frame(PING, ACK, 0, payload))) == [(3, ErrorCode.NO_ERROR, "")]
    # What it sends now, it was told that nobody looks at.
    assert wire.answers(wire.request(5) + last_data(5, b"x")) == []
    assert set(wire.heard) == {1, 3}
    for stream in (first, second):
        assert not wire.connection.is_over
        wire.connection.outbox.finish(stream, frame(HEADERS, 5, stream.id, b"\x88"))
    assert wire.connection.is_over
    assert wire.fault is None


def test_a_drain_does_not_wait_for_a_client_that_does_not_answer():
    wire = Wire()
    wire.connection.drain(wire.now)
    wire.take()
    wire.now += 1.0
    wire.connection.tick(wire.now)
    assert goaways_in(wire.take()) == [(0, ErrorCode.NO_ERROR, "")]
    assert wire.connection.is_over


def test_a_lost_connection_is_the_end_of_its_streams():
    wire = Wire()
    streams = [wire.open(1), wire.open(3)]
    wire.connection.lose()
    assert [stream.gone for stream in streams] == [1, 1]
    assert wire.connection.streams == {}


@pytest.mark.parametrize("kind", [CONTINUATION, RST_STREAM])
def test_a_block_is_not_interrupted(kind):
    wire = Wire()
    wire.open(1)
    wire.say(frame(HEADERS, 0, 3, wire.block()) + frame(kind, 4, 1, bytes(4)))
    assert wire.fault is ErrorCode.PROTOCOL_ERROR
