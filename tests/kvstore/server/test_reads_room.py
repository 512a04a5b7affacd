"""Reads that wait for a round of leadership together."""

from typing import Any

from kvstore.errors import ErrorKind, KvError
from kvstore.server.reads import Reads

ELECTION_TICKS = 10
FAR = 1000.0


class Room:
    def __init__(self, count_max: int = 100) -> None:
        self.wakes = 0
        self.answers: list[tuple[int, Any]] = []
        self.reads = Reads(wake=self._wake, election_ticks=ELECTION_TICKS, count_max=count_max)

    def _wake(self) -> None:
        self.wakes += 1

    def submit(self, number: int, deadline: float = FAR) -> None:
        self.reads.submit(lambda error: self.answers.append((number, error)), deadline)


def test_reads_of_one_turn_share_a_context_and_later_ones_do_not() -> None:
    room = Room()
    room.submit(1)
    room.submit(2)
    assert room.wakes == 1
    first = room.reads.take_context()
    assert first is not None
    assert room.reads.take_context() is None
    room.submit(3)
    second = room.reads.take_context()
    assert second is not None
    assert second != first
    room.reads.answer(first)
    # The third began after the first round did: that round proves nothing to it.
    assert room.answers == [(1, None), (2, None)]
    room.reads.answer(first)
    room.reads.answer(second)
    assert room.answers[2:] == [(3, None)]
    assert len(room.reads) == 0


def test_a_lost_round_is_asked_for_again() -> None:
    room = Room()
    room.submit(1)
    lost = room.reads.take_context()
    assert lost is not None
    for _ in range(ELECTION_TICKS - 1):
        room.reads.tick(0.0)
    assert room.reads.take_context() is None
    room.reads.tick(0.0)
    again = room.reads.take_context()
    assert again not in (None, lost)
    assert again is not None
    room.reads.answer(lost)
    assert room.answers == []
    room.reads.answer(again)
    assert room.answers == [(1, None)]


def test_a_rejected_round_is_asked_for_again_at_the_next_tick() -> None:
    room = Room()
    room.submit(1)
    context = room.reads.take_context()
    assert context is not None
    room.reads.reject(context)
    assert room.reads.take_context() is None
    room.reads.tick(0.0)
    assert room.reads.take_context() is not None
    room.reads.reject(context)
    assert room.answers == []


def test_a_read_is_given_up_at_its_deadline_wherever_it_waits() -> None:
    room = Room()
    room.submit(1, deadline=5.0)
    context = room.reads.take_context()
    assert context is not None
    room.submit(2, deadline=5.0)
    room.submit(3, deadline=6.0)
    room.reads.tick(4.9)
    assert room.answers == []
    room.reads.tick(5.0)
    assert room.answers == [(2, ErrorKind.TIMEOUT.error()), (1, ErrorKind.TIMEOUT.error())]
    assert len(room.reads) == 1
    assert room.reads.failed_total == 2
    room.reads.answer(context)
    assert len(room.answers) == 2


def test_too_many_reads_are_refused_as_retryable() -> None:
    room = Room(count_max=2)
    for number in (1, 2, 3):
        room.submit(number)
    ((number, error),) = room.answers
    assert number == 3
    assert isinstance(error, KvError)
    assert error == ErrorKind.TOO_MANY_REQUESTS.error()
    assert error.retryable
    assert room.reads.refused_total == 1


def test_a_member_that_stops_answers_all() -> None:
    room = Room()
    room.submit(1)
    room.reads.take_context()
    room.submit(2)
    room.reads.fail_all(ErrorKind.STOPPED)
    assert sorted(number for number, _ in room.answers) == [1, 2]
    assert {error for _, error in room.answers} == {ErrorKind.STOPPED.error()}
    assert len(room.reads) == 0
    assert room.reads.take_context() is None
