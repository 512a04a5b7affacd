"""The HTTP head of a connection between members."""

import asyncio
import gc
import weakref
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.server.network.handshake import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    RAFT_PROTOCOL,
    REST_BYTES_MAX,
    Handshake,
)

REQUEST = (
    b"GET /raft HTTP/1.1\r\nHost: x:1\r\nConnection: Upgrade\r\n"
    b"Upgrade: kvstore-raft/1\r\nKvstore-Cluster: ab\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: kvstore-raft/1\r\nKvstore-Offset: 17\r\n\r\n"
)
REFUSED = (
    b"HTTP/1.1 412 Precondition Failed\r\nContent-Type: application/json\r\n"
    b"Content-Length: 15\r\nConnection: close\r\n\r\n"
    b'{"error":"why"}'
)
BEHIND = b"\x03\x00\x00\x00abc"


class Side:
    """A handshake and the transport under it."""

    def __init__(self, *, client: bool) -> None:
        self.heads: list[Handshake] = []
        self.lost: list[str] = []
        self.written = bytearray()
        self.closed = False
        self.reading = True
        self.protocol: Any = None
        self.handshake = Handshake(
            client=client, on_head=self.heads.append, on_lost=lambda _, why: self.lost.append(why)
        )
        self.handshake.connection_made(self)

    def feed(self, stream: bytes, cuts: list[int]) -> None:
        for start, end in pairwise([0, *sorted(cuts), len(stream)]):
            if start < end and not self.closed:
                self.handshake.data_received(stream[start:end])

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Next(asyncio.Protocol):
    """Whatever is spoken after the handshake."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.received = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data


cuts = st.lists(st.integers(0, len(REQUEST + BEHIND)), max_size=6)


@given(cuts)
def test_a_request_to_upgrade_is_understood_however_it_is_cut(cuts: list[int]) -> None:
    side = Side(client=False)
    side.feed(REQUEST + BEHIND, cuts)
    assert side.heads == [side.handshake]
    assert side.handshake.upgraded
    assert (side.handshake.method, side.handshake.path) == ("GET", "/raft")
    assert side.handshake.headers["upgrade"] == RAFT_PROTOCOL
    assert side.handshake.headers["kvstore-cluster"] == "ab"
    # What came behind the head belongs to whoever goes on, and none of it is lost.
    after = Next()
    side.handshake.take_over(after)
    assert side.protocol is after
    assert after.transport is side
    assert after.received == BEHIND


@given(cuts)
def test_an_answer_that_switches_is_understood_however_it_is_cut(cuts: list[int]) -> None:
    side = Side(client=True)
    side.feed(SWITCHED + BEHIND, cuts)
    assert side.heads == [side.handshake]
    assert side.handshake.upgraded
    assert side.handshake.status == 101
    assert side.handshake.headers["kvstore-offset"] == "17"
    assert side.handshake.rest == BEHIND


@given(st.lists(st.integers(0, len(REFUSED)), max_size=6))
def test_a_refusal_comes_with_its_text(cuts: list[int]) -> None:
    side = Side(client=True)
    side.feed(REFUSED, cuts)
    assert side.heads == [side.handshake]
    assert not side.handshake.upgraded
    assert (side.handshake.status, side.handshake.body) == (412, '{"error":"why"}')


def test_a_plain_request_is_answered_and_the_connection_closed() -> None:
    side = Side(client=False)
    side.feed(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n", [])
    assert side.heads == [side.handshake]
    assert not side.handshake.upgraded
    side.handshake.respond("200 OK", b"{}", ("X-Etcd-Cluster-ID: ab",))
    assert side.written == (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        b"Connection: close\r\nX-Etcd-Cluster-ID: ab\r\n\r\n{}"
    )
    assert side.closed


def test_golden_bytes_of_a_switch() -> None:
    side = Side(client=False)
    side.feed(REQUEST, [])
    side.handshake.switch(RAFT_PROTOCOL, ("Kvstore-Offset: 17",))
    assert side.written == SWITCHED
    assert not side.closed


@pytest.mark.parametrize("client", [False, True])
def test_what_is_not_http_is_dropped(client: bool) -> None:
    side = Side(client=client)
    side.feed(b"\x16\x03\x01\x00\xa5 hello, this is TLS\r\n\r\n", [])
    assert side.closed
    assert len(side.lost) == 1
    assert side.lost[0].startswith("not HTTP")
    assert side.heads == []


def test_a_head_without_end_is_dropped() -> None:
    side = Side(client=False)
    side.feed(b"GET / HTTP/1.1\r\n", [])
    sent = 0
    while not side.closed:
        side.feed(b"X-Name: " + bytes([97]) * 1000 + b"\r\n", [])
        sent += 1010
        assert sent < HEAD_BYTES_MAX + BODY_BYTES_MAX + 5000, "it goes on for ever"
    assert len(side.lost) == 1
    assert side.heads == []


def test_an_end_before_the_head_is_told_once() -> None:
    side = Side(client=False)
    side.feed(REQUEST[:20], [])
    side.handshake.abort("no whole head in time")
    side.handshake.connection_lost(None)
    assert side.lost == ["no whole head in time"]


def test_an_end_after_the_head_is_no_concern_of_the_handshake() -> None:
    side = Side(client=False)
    side.feed(REQUEST, [])
    side.handshake.abort("no whole head in time")
    side.handshake.connection_lost(None)
    assert side.lost == []
    assert not side.closed


def test_a_connection_that_was_given_up_before_it_was_there_is_closed() -> None:
    side = Side(client=False)
    lost: list[str] = []
    handshake = Handshake(
        client=False, on_head=side.heads.append, on_lost=lambda _, why: lost.append(why)
    )
    handshake.abort("too many connections")
    handshake.connection_made(side)
    assert side.closed
    handshake.connection_lost(None)
    assert lost == ["too many connections"]


PLAIN = b"GET /members HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("behind", [b"", PLAIN, REQUEST, b"\x00"], ids=["", "get", "call", "junk"])
def test_only_the_first_request_is_answered(behind: bytes) -> None:
    side = Side(client=False)
    side.feed(PLAIN + behind, [])
    assert side.heads == [side.handshake]
    assert not side.handshake.upgraded
    assert (side.handshake.method, side.lost) == ("GET", [])


@pytest.mark.parametrize(
    ("client", "stream", "end"),
    [
        (False, REQUEST, "take_over"),
        (False, PLAIN, "respond"),
        (False, REQUEST[:20], "connection_lost"),
        (False, b"\x00", "connection_lost"),
        (False, REQUEST[:20], "abort"),
        (True, SWITCHED, "take_over"),
        (True, REFUSED, "drop"),
        (True, SWITCHED[:20], "drop"),
        (True, b"", "drop"),
    ],
)
def test_a_handshake_that_is_over_is_in_no_cycle(client: bool, stream: bytes, end: str) -> None:
    arguments: dict[str, tuple[Any, ...]] = {
        "take_over": (Next(),),
        "respond": ("200 OK",),
        "connection_lost": (None,),
        "abort": ("no whole head in time",),
    }
    side = Side(client=client)
    # A server does not look for old cycles: whoever knocks would fill its memory.
    gc.disable()
    try:
        side.feed(stream, [])
        getattr(side.handshake, end)(*arguments.get(end, ()))
        watched = weakref.ref(side.handshake)
        side.heads.clear()
        del side.handshake
        assert watched() is None
    finally:
        gc.enable()


def test_what_arrives_behind_the_head_is_bounded_and_none_of_it_lost() -> None:
    side = Side(client=True)
    side.feed(SWITCHED, [])
    sent = b""
    while side.handshake.transport.reading:
        piece = b"%08d" % len(sent) * 1000
        side.handshake.data_received(piece)
        sent += piece
        assert len(sent) <= REST_BYTES_MAX + len(piece), "it is read without end"
    assert len(sent) > REST_BYTES_MAX
    after = Next()
    side.handshake.take_over(after)
    assert after.received == sent
    assert side.reading
    assert side.handshake.rest == b""


def test_whoever_takes_over_may_pause_at_once() -> None:
    side = Side(client=True)
    side.feed(SWITCHED, [])
    side.handshake.data_received(bytes(REST_BYTES_MAX + 1))

    class Full(Next):
        def data_received(self, data: bytes) -> None:
            self.transport.pause_reading()

    side.handshake.take_over(Full())
    assert not side.reading


@pytest.mark.parametrize("client", [False, True])
def test_what_comes_behind_what_is_no_upgrade_is_not_kept(client: bool) -> None:
    side = Side(client=client)
    side.feed(REFUSED if client else b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n", [])
    assert len(side.heads) == 1
    side.handshake.data_received(b"more")
    assert side.handshake.rest == b""


def test_a_connection_that_ended_is_not_written_to() -> None:
    side = Side(client=True)
    side.handshake.drop()
    assert side.closed
    side.handshake.write(b"GET /raft HTTP/1.1\r\n\r\n")
    assert side.written == b""
