"""What members say to each other: raft's messages, calls and their answers."""

import asyncio
from collections import deque
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.errors import Code, ErrorKind, KvError
from kvstore.server import peers as peers_module
from kvstore.server.network.base import FrameError
from kvstore.server.peers import Peers
from raft.messages import AppendEntries, Heartbeat, Message
from raft.types import Index, NodeId, Term
from tests.support.virtual_loop import VirtualLoop

ONE, OTHER = 1, 2
HEARTBEAT = Heartbeat(NodeId(ONE), NodeId(OTHER), Term(3), Index(7), 1)
APPEND = AppendEntries(NodeId(ONE), NodeId(OTHER), Term(3), Index(0), Term(0), Index(0), ())


class Side:
    """One member's ``Peers`` on a network that is a list."""

    def __init__(self, loop: VirtualLoop, member: int, first_call: int = 1000) -> None:
        self.up = True
        self.sent: deque[tuple[int, bytes]] = deque()
        self.messages: list[Message] = []
        self.unreachable: list[int] = []
        network: Any = self
        self.peers = Peers(
            network, loop, member, self.messages.append, self.unreachable.append, first_call
        )

    def send(self, member: int, frame: bytes) -> bool:
        if self.up:
            self.sent.append((member, frame))
        return self.up


class Two:
    """Two sides, and the time between them."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.one = Side(self.loop, ONE)
        self.other = Side(self.loop, OTHER)
        self.answers: list[Any] = []

    def exchange(self) -> None:
        while self.one.sent or self.other.sent:
            while self.one.sent:
                self.other.peers.on_frame(ONE, self.one.sent.popleft()[1])
            while self.other.sent:
                self.one.peers.on_frame(OTHER, self.other.sent.popleft()[1])

    def call(self, method: str, body: bytes = b"", seconds: float = 5.0) -> None:
        self.one.peers.call(OTHER, method, body, seconds, self.answers.append)

    def sleep(self, seconds: float) -> None:
        async def wait() -> None:
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(wait())


@pytest.fixture
def two():
    two = Two()
    yield two
    two.loop.close()


def test_a_message_arrives_as_it_was_sent(two: Two) -> None:
    two.one.peers.send(HEARTBEAT)
    two.exchange()
    assert two.other.messages == [HEARTBEAT]
    sent = two.one.peers.sent_bytes_total
    assert sent == {OTHER: two.other.peers.received_bytes_total[ONE]}


def test_an_append_that_could_not_leave_is_told_and_a_heartbeat_is_not(two: Two) -> None:
    two.one.up = False
    two.one.peers.send(HEARTBEAT)
    assert two.one.unreachable == []
    two.one.peers.send(APPEND)
    assert two.one.unreachable == [OTHER]
    assert two.one.peers.send_failures_total == {OTHER: 2}


def test_a_message_that_speaks_for_another_is_refused(two: Two) -> None:
    two.one.peers.send(HEARTBEAT)
    frame = two.one.sent.popleft()[1]
    with pytest.raises(FrameError, match="another sender"):
        two.other.peers.on_frame(3, frame)
    with pytest.raises(FrameError, match="another sender or receiver"):
        two.one.peers.on_frame(ONE, frame)
    assert two.other.messages == two.one.messages == []


@given(st.binary(min_size=1, max_size=60))
def test_bytes_that_mean_nothing_raise_frame_error_and_nothing_else(frame: bytes) -> None:
    two = Two()
    two.other.peers.serve("known", lambda body, reply: reply(body))
    try:
        two.other.peers.on_frame(ONE, frame)
    except FrameError:
        pass
    finally:
        two.loop.close()
    assert all(message.receiver == OTHER for message in two.other.messages)


def test_a_call_is_answered(two: Two) -> None:
    two.other.peers.serve("double", lambda body, reply: reply(body + body))
    two.call("double", b"ab")
    two.call("double", b"c")
    two.exchange()
    assert two.answers == [b"abab", b"cc"]
    two.sleep(10.0)
    assert len(two.answers) == 2


def test_an_error_crosses_with_code_text_and_whether_to_try_again(two: Two) -> None:
    error = ErrorKind.LEADER_CHANGED.error()
    two.other.peers.serve("fails", lambda _body, reply: reply(error))
    two.call("fails")
    two.exchange()
    assert two.answers == [error]
    assert two.answers[0].retryable


def test_an_unknown_call_is_answered_so(two: Two) -> None:
    two.call("from.the.future")
    two.exchange()
    (answer,) = two.answers
    assert answer.code == Code.UNIMPLEMENTED


def test_a_call_without_an_answer_times_out(two: Two) -> None:
    kept: list[Any] = []
    two.other.peers.serve("silent", lambda _body, reply: kept.append(reply))
    two.call("silent", seconds=2.0)
    two.exchange()
    two.sleep(1.9)
    assert two.answers == []
    two.sleep(0.2)
    assert two.answers == [ErrorKind.TIMEOUT.error()]
    kept[0](b"too late")
    two.exchange()
    assert len(two.answers) == 1


def test_a_broken_link_ends_the_calls_over_it_only(two: Two) -> None:
    two.call("silent")
    two.one.peers.call(3, "silent", b"", 5.0, two.answers.append)
    two.one.peers.on_link(OTHER, up=False)
    assert two.answers == [ErrorKind.TIMEOUT_CONNECTION_LOST.error()]
    assert two.one.unreachable == [OTHER]
    two.one.peers.on_link(OTHER, up=True)
    assert len(two.answers) == 1


def test_without_a_link_a_call_is_refused_at_once(two: Two) -> None:
    two.one.up = False
    two.call("any")
    assert two.answers == [ErrorKind.NO_LEADER.error()]


def test_too_many_calls_are_refused_as_retryable(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "CALLS_MAX", 3)
    for _ in range(4):
        two.call("silent")
    (answer,) = two.answers
    assert isinstance(answer, KvError)
    assert answer == ErrorKind.TOO_MANY_REQUESTS.error()


def test_an_answer_to_a_former_life_answers_no_call_of_this_one(two: Two) -> None:
    two.other.peers.serve("who", lambda body, reply: reply(body))
    two.call("who", b"former")
    two.other.peers.on_frame(ONE, two.one.sent.popleft()[1])
    late = two.other.sent.popleft()[1]
    two.one = Side(two.loop, ONE, first_call=2**61)
    two.call("who", b"present")
    two.one.peers.on_frame(OTHER, late)
    assert two.answers == []
    two.exchange()
    assert two.answers == [b"present"]


def test_calls_are_numbered_from_where_the_member_is_told(two: Two) -> None:
    two.one = Side(two.loop, ONE, first_call=2**62 - 1)
    two.call("any")
    two.call("any")
    calls = [msgspec.msgpack.decode(frame[1:])[0] for _, frame in two.one.sent]
    assert calls == [2**62 - 1, 2**62]


def test_only_the_member_that_was_called_can_answer(two: Two) -> None:
    two.other.peers.serve("who", lambda _body, reply: reply(b"the one that was asked"))
    two.call("who")
    frame = b"\x03" + msgspec.msgpack.encode((1000, True, b"somebody else"))
    two.one.peers.on_frame(3, frame)
    assert two.answers == []
    two.exchange()
    assert two.answers == [b"the one that was asked"]


def test_a_call_that_is_too_large_fails_at_once(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_module, "CALL_BYTES_MAX", 10)
    two.call("any", b"x" * 11)
    assert two.answers == [ErrorKind.REQUEST_TOO_LARGE.error()]
    assert not two.one.sent
    two.call("any", b"x" * 10)
    assert len(two.one.sent) == 1


def test_an_answer_that_is_too_large_is_told_at_once(
    two: Two, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "CALL_BYTES_MAX", 10)
    two.other.peers.serve("repeat", lambda body, reply: reply(body * 2))
    two.call("repeat", b"x" * 5)
    two.call("repeat", b"x" * 6)
    two.exchange()
    assert two.answers == [b"x" * 10, ErrorKind.RESPONSE_TOO_LARGE.error()]


def test_a_call_with_a_broken_body_costs_the_connection(two: Two) -> None:
    def handler(body: bytes, reply: Any) -> None:
        msgspec.msgpack.decode(body, type=int)

    two.other.peers.serve("number", handler)
    two.call("number", b"\xc1")
    with pytest.raises(FrameError, match="broken body"):
        two.exchange()


@pytest.mark.parametrize("frame", [b"\x03\x93\x01\xc2\xc4\x00", b"\x03", b"\x02\x90", b"\x09x"])
def test_frames_of_no_kind_are_refused(two: Two, frame: bytes) -> None:
    with pytest.raises(FrameError):
        two.one.peers.on_frame(OTHER, frame)
