"""A connection without sockets, and a client that says whatever it wants, byte by byte."""

from struct import Struct

from hpack import Encoder

from kvstore.api.grpc.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    frame,
)
from kvstore.api.grpc.http2 import Http2Connection
from kvstore.api.grpc.stream import Stream
from kvstore.api.limits import ApiLimits, Http2Counters

HEADER = Struct(">IBI")
REQUEST = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a.B/C"),
    (b":authority", b"here"),
]


def frames_of(raw):
    """The frames in some bytes: (type, flags, stream, payload)."""
    found = []
    position = 0
    while position < len(raw):
        word, flags, stream_id = HEADER.unpack_from(raw, position)
        end = position + 9 + (word >> 8)
        assert end <= len(raw), "what leaves is cut at frames"
        found.append((word & 255, flags, stream_id, bytes(raw[position + 9 : end])))
        position = end
    return found


class Heard(Stream):
    """A stream that remembers what it was told, and takes in what comes."""

    __slots__ = ("data", "gone", "head", "last", "room", "sent")

    def __init__(self, connection, stream_id, head):
        length = dict(head).get(b"content-length")
        super().__init__(connection, stream_id, None if length is None else int(length))
        self.head = head
        self.data = b""
        self.last = False
        self.gone = 0
        self.room = 0

    def on_data(self, data, start, end, is_last):
        assert not self.last
        self.data += data[start:end]
        self.last = is_last
        self.connection.refill(self)

    def on_gone(self):
        self.gone += 1

    def on_room(self):
        self.room += 1


class Wire:
    """One connection and all that was said on it."""

    def __init__(self, greet=True, is_spent=lambda: False, **limits):
        self.now = 1000.0
        self.counters = Http2Counters()
        self.heard = {}
        self.encoder = Encoder()
        self.connection = Http2Connection(
            list, self._open, ApiLimits(**limits), self.counters, is_spent, self.now
        )
        self.hello = self.take()
        if greet:
            self.say(PREFACE + frame(SETTINGS, 0, 0))
            assert self.take() == [(SETTINGS, 1, 0, b"")]

    def _open(self, connection, stream_id, head):
        self.heard[stream_id] = Heard(connection, stream_id, head)
        return self.heard[stream_id]

    def say(self, raw):
        self.connection.receive(raw, self.now)

    def take(self):
        found = frames_of(self.connection.take(self.now))
        while self.connection.has_more:
            found += frames_of(self.connection.take(self.now))
        return found

    def answers(self, raw):
        """What is said in return."""
        self.say(raw)
        return self.take()

    def block(self, fields=REQUEST):
        return self.encoder.encode(fields)

    def request(self, stream_id, fields=REQUEST, flags=END_HEADERS):
        return frame(HEADERS, flags, stream_id, self.block(fields))

    def open(self, stream_id, fields=REQUEST):
        self.say(self.request(stream_id, fields))
        return self.heard[stream_id]

    @property
    def fault(self):
        fault = self.connection.fault
        return None if fault is None else fault.code


def data(stream_id, payload=b"", flags=0):
    return frame(DATA, flags, stream_id, payload)


def last_data(stream_id, payload=b""):
    return frame(DATA, END_STREAM, stream_id, payload)


def continuation(stream_id, payload, flags=0):
    return frame(CONTINUATION, flags, stream_id, payload)


def number(kind, stream_id, value):
    return frame(kind, 0, stream_id, value.to_bytes(4, "big"))


def update(stream_id, gain):
    return number(WINDOW_UPDATE, stream_id, gain)


def reset(stream_id, code=ErrorCode.CANCEL):
    return number(RST_STREAM, stream_id, code)


def setting(name, value):
    return frame(SETTINGS, 0, 0, name.to_bytes(2, "big") + value.to_bytes(4, "big"))


def resets_in(frames):
    """The streams that are reset, with the code."""
    return {
        stream_id: ErrorCode(int.from_bytes(payload, "big"))
        for kind, _, stream_id, payload in frames
        if kind == RST_STREAM
    }


def goaways_in(frames):
    """The ends of the connection: last stream, code, words."""
    return [
        (
            int.from_bytes(payload[:4], "big"),
            ErrorCode(int.from_bytes(payload[4:8], "big")),
            payload[8:].decode(),
        )
        for kind, _, _, payload in frames
        if kind == GOAWAY
    ]
