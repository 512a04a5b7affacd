"""Frames on a stream of bytes, however it is cut."""

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.server.network import framed as framed_module
from kvstore.server.network.base import FrameError
from kvstore.server.network.framed import FRAME_BYTES_MAX, UNSENT_BYTES_MAX, FrameLink


class Wire:
    """A transport that keeps what is written, and a link on it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.written = bytearray()
        self.unsent = 0
        self.closed = False
        self.frames: list[bytes] = []
        self.lost: list[str] = []
        self.link = FrameLink(self.on_frame, lambda _, why: self.lost.append(why), self.clock)
        self.link.connection_made(self)

    def clock(self) -> float:
        return self.now

    def on_frame(self, frame: bytes) -> None:
        if frame == b"nonsense":
            raise FrameError("this means nothing")
        self.frames.append(frame)

    def write(self, data: bytes) -> None:
        assert not self.closed, "a write to a closed transport, which raises on uvloop"
        self.written += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self.link.connection_lost(None)


def framed(*frames: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)


def test_golden_bytes_of_a_frame() -> None:
    wire = Wire()
    assert wire.link.send(b"abc")
    wire.link.send_alive()
    assert wire.written == b"\x03\x00\x00\x00abc\x00\x00\x00\x00"


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_any_cutting_of_the_stream_gives_the_same_frames(
    frames: list[bytes], data: st.DataObject
) -> None:
    stream = framed(*frames)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12))
    wire = Wire()
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        wire.link.data_received(stream[start:end])
    # An empty frame says only that the other side lives.
    assert wire.frames == [frame for frame in frames if frame]
    assert wire.lost == []


def test_frames_are_bytes_of_their_own() -> None:
    wire = Wire()
    wire.link.data_received(framed(b"abc"))
    assert type(wire.frames[0]) is bytes


def test_a_frame_that_means_nothing_closes_the_connection_and_nothing_after_it_counts() -> None:
    wire = Wire()
    wire.link.data_received(framed(b"good", b"nonsense", b"later"))
    assert wire.frames == [b"good"]
    assert wire.lost == ["this means nothing"]


def test_a_length_beyond_the_limit_closes_the_connection_before_it_is_waited_for() -> None:
    wire = Wire()
    wire.link.data_received(struct.pack("<I", FRAME_BYTES_MAX + 1))
    assert len(wire.lost) == 1
    assert str(FRAME_BYTES_MAX + 1) in wire.lost[0]
    at_the_limit = Wire()
    at_the_limit.link.data_received(struct.pack("<I", FRAME_BYTES_MAX))
    assert at_the_limit.lost == []


def test_beyond_the_limit_of_unsent_bytes_frames_are_dropped() -> None:
    wire = Wire()
    wire.unsent = UNSENT_BYTES_MAX
    assert wire.link.send(b"abc")
    wire.unsent = UNSENT_BYTES_MAX + 1
    assert not wire.link.send(b"abc")
    assert wire.written == framed(b"abc")


def test_a_frame_that_the_other_side_would_not_take_is_not_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(framed_module, "FRAME_BYTES_MAX", 10)
    wire = Wire()
    assert wire.link.send(b"x" * 10)
    assert not wire.link.send(b"x" * 11)
    assert not wire.link.send(b"x" * 12)
    assert wire.written == framed(b"x" * 10)
    assert not wire.closed
    (record,) = caplog.records
    assert "a frame of 11 bytes is not sent" in record.getMessage()


def test_a_closed_link_takes_no_frame_and_says_why_once() -> None:
    wire = Wire()
    wire.link.close("no longer a member")
    wire.link.close("for another reason")
    assert wire.lost == ["no longer a member"]
    assert not wire.link.send(b"abc")
    wire.link.send_alive()
    assert wire.written == b""


def test_a_transport_that_is_closing_is_not_written_to() -> None:
    wire = Wire()
    wire.closed = True
    assert not wire.link.send(b"abc")
    wire.link.send_alive()
    wire.link.connection_lost(OSError("reset by peer"))
    assert wire.lost == ["reset by peer"]


def test_when_it_was_last_heard_is_known() -> None:
    wire = Wire()
    wire.now = 5.0
    wire.link.data_received(b"\x00")
    assert wire.link.heard_at == 5.0
