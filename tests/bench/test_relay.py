"""Does the relay hand on every byte, in order, so much later, and no more than it can hold?"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

import click
import pytest

from bench.relay import HELD_BYTES_MAX, End, Lane, join, parse_pair


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self._timers: list[tuple[float, int, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], object], /) -> object:
        heapq.heappush(self._timers, (when, len(self._timers), callback))
        return None

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, callback = heapq.heappop(self._timers)
            self.now = max(self.now, when)
            callback()
        self.now = until


class Socket(asyncio.Transport):
    """Remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.writes = 0
        self.ended = False
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data
        self.writes += 1

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Pair:
    """Two joined sockets: what comes in at ``near`` goes out of ``far_socket``, and back."""

    def __init__(self, delay_seconds: float = 0.002) -> None:
        self.clock = Clock()
        self.near_socket, self.far_socket = Socket(), Socket()
        self.near, self.far = End(), End()
        near, far = (self.near_socket, self.near), (self.far_socket, self.far)
        join(self.clock, delay_seconds, near, far)


def test_bytes_arrive_after_the_delay_and_not_before() -> None:
    pair = Pair(delay_seconds=0.002)
    pair.near.data_received(b"one")
    pair.clock.advance(0.0019)
    assert pair.far_socket.written == b""
    pair.clock.advance(0.0002)
    assert pair.far_socket.written == b"one"
    assert pair.near_socket.written == b""


def test_each_piece_has_its_own_delay_and_all_stay_in_order() -> None:
    pair = Pair(delay_seconds=0.002)
    pair.near.data_received(b"one ")
    pair.clock.advance(0.001)
    pair.near.data_received(b"two")
    pair.clock.advance(0.0015)
    assert pair.far_socket.written == b"one "
    pair.clock.advance(0.001)
    assert pair.far_socket.written == b"one two"


def test_what_is_due_together_is_written_together() -> None:
    pair = Pair()
    for number in range(10):
        pair.far.data_received(b"%d" % number)
    pair.clock.advance(0.01)
    assert (pair.near_socket.written, pair.near_socket.writes) == (b"0123456789", 1)


def test_the_end_of_one_direction_is_passed_on_after_its_bytes() -> None:
    pair = Pair()
    pair.near.data_received(b"last")
    assert pair.near.eof_received(), "the socket stays open for the other direction"
    assert not pair.far_socket.ended
    pair.clock.advance(0.01)
    assert (pair.far_socket.written, pair.far_socket.ended) == (b"last", True)
    pair.far.data_received(b"answer")
    pair.clock.advance(0.01)
    assert pair.near_socket.written == b"answer"
    assert not pair.near_socket.is_closing()


def test_both_are_closed_when_both_directions_have_ended() -> None:
    pair = Pair()
    pair.near.eof_received()
    pair.clock.advance(0.01)
    pair.far.eof_received()
    pair.clock.advance(0.01)
    assert pair.near_socket.is_closing()
    assert pair.far_socket.is_closing()


def test_a_lost_socket_closes_the_other_after_the_delay() -> None:
    pair = Pair()
    pair.near.data_received(b"last words")
    pair.near_socket.closed = True
    pair.near.connection_lost(ConnectionResetError())
    assert not pair.far_socket.is_closing()
    pair.clock.advance(0.01)
    assert pair.far_socket.written == b"last words"
    assert pair.far_socket.is_closing()
    pair.far.data_received(b"nobody hears it")
    pair.clock.advance(0.01)
    assert pair.near_socket.written == b""


def test_a_target_that_takes_no_more_stops_what_comes_in() -> None:
    pair = Pair()
    pair.far.pause_writing()
    piece = b"x" * (HELD_BYTES_MAX // 4)
    for _ in range(4):
        pair.near.data_received(piece)
        pair.clock.advance(0.01)
    assert pair.near_socket.is_reading()
    assert pair.far_socket.written == b""
    pair.near.data_received(piece)
    assert not pair.near_socket.is_reading()
    pair.far.resume_writing()
    pair.clock.advance(0.01)
    assert pair.far_socket.written == piece * 5
    assert pair.near_socket.is_reading()


def test_a_lane_that_has_ended_holds_nothing() -> None:
    clock, source, target = Clock(), Socket(), Socket()
    lane = Lane(clock, 0.002, source, target)
    lane.take_end()
    lane.take_end()
    clock.advance(0.01)
    assert lane.ended
    lane.take(b"late")
    clock.advance(0.01)
    assert target.written == b""


def test_ports_are_read_as_pairs() -> None:
    assert parse_pair("12530:12480") == (12530, 12480)
    for wrong in ("12530", "a:1", ":1", "1:"):
        with pytest.raises(click.BadParameter, match="LISTEN:TARGET"):
            parse_pair(wrong)
