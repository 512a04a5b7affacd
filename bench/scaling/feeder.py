"""How much does the replica do if it never waits for a worker? Batches from this process alone.

It takes the part of all workers: so many calls are under way, and for as many answers as come in
it sends as many new calls, as clients do who ask again as soon as they are answered. It parses no
HTTP, so that it costs less than the replica, and the replica's core is what limits.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Final

import msgspec

from bench.figures import BenchError
from bench.scaling.wire import (
    Answer,
    Call,
    Failure,
    Frames,
    Hello,
    PutCall,
    RangeCall,
    decode_answers,
    decode_hello,
    frame,
)
from bench.systems import KEYS, VALUE
from kvstore.types import PutRequest, RangeRequest

STRIDE: Final = 7919
"""As in load.lua: it shares no factor with the number of keys."""
ANSWER_SECONDS_MAX: Final = 10.0
LINES: Final = 4
"""Links to the replica, as of so many workers: it serves one while the others are read here."""
UNDER_WAY_MAX: Final = 1024
"""More might fill the sockets of both directions, with each side waiting for the other."""
_READ_BYTES: Final = 1 << 20


class Fed(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of it saw."""

    answers: int
    failures: int
    seconds: float
    batch: float
    """Calls in a batch, as the replica counted them."""

    @property
    def rate(self) -> float:
        """Successful answers a second."""
        return (self.answers - self.failures) / self.seconds


class Line:
    """A connection to the replica's socket for workers.

    Raises:
        BenchError: Nobody is there, or does not say who it is.
    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS_MAX)
        self._frames = Frames()
        self._payloads: list[bytes] = []
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise BenchError(f"no replica at {path}: {error}") from error
        self._fill()
        self.hello = decode_hello(self._payloads.pop(0))

    def _fill(self) -> None:
        while not self._payloads:
            try:
                data = self._socket.recv(_READ_BYTES)
            except TimeoutError as error:
                raise BenchError("the replica does not answer") from error
            if not data:
                raise BenchError("the replica has ended the link")
            self._payloads += self._frames.take(data)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, calls: list[Call]) -> None:
        self._socket.sendall(frame(calls))

    def answers(self) -> list[Answer]:
        """Wait for some; returns all that are there."""
        self._fill()
        payloads, self._payloads = self._payloads, []
        return [answer for payload in payloads for answer in decode_answers(payload)]

    def close(self) -> None:
        self._socket.close()


def calls(kind: str) -> Iterable[Call]:
    """Calls of one kind over all keys, for ever; their numbers are their places."""
    found: list[Call] = []
    for place in range(KEYS):
        key = b"key-%05d" % (place * STRIDE % KEYS)
        if kind == "put":
            found.append(PutCall(place, PutRequest(key=key, value=VALUE)))
        else:
            is_stale = kind == "serializable"
            found.append(RangeCall(place, RangeRequest(key=key, serializable=is_stale)))
    return cycle(found)


def hello(path: Path) -> Hello:
    """Who the replica is and what it has been asked until now.

    Raises:
        BenchError: Nobody is there.
    """
    line = Line(path)
    line.close()
    return line.hello


def feed(path: Path, kind: str, under_way: int, seconds: float) -> Fed:
    """Keep so many calls under way for so long; the last answers are waited for.

    Args:
        path: The socket at which the replica serves workers.
        kind: ``put``, ``get`` or ``serializable``.
        under_way: Calls, at most ``UNDER_WAY_MAX``; shared out among ``LINES`` links.
        seconds: How long.

    Raises:
        BenchError: The replica does not answer, or says that it was asked for something else.
    """
    assert under_way <= UNDER_WAY_MAX, "see there"
    lines = [Line(path) for _ in range(min(LINES, under_way))]
    before = lines[0].hello
    began = time.monotonic()
    try:
        answered, failures = _keep_busy(lines, iter(calls(kind)), under_way, began + seconds)
    finally:
        for line in lines:
            line.close()
    took = time.monotonic() - began
    after = hello(path)
    asked, batches = after.calls - before.calls, after.batches - before.batches
    if asked != answered:
        raise BenchError(f"the replica was asked {asked} times and answered {answered} times")
    return Fed(answers=answered, failures=failures, seconds=took, batch=asked / batches)


def _keep_busy(
    lines: list[Line], endless: Iterator[Call], under_way: int, ends: float
) -> tuple[int, int]:
    """Ask until ``ends``, on the monotonic clock; returns how many answers and failures came."""
    answered = failures = 0
    missing = under_way
    with selectors.DefaultSelector() as selector:
        for number, line in enumerate(lines):
            selector.register(line, selectors.EVENT_READ)
            share = under_way // len(lines) + (number < under_way % len(lines))
            line.send([next(endless) for _ in range(share)])
        while missing:
            ready = selector.select(ANSWER_SECONDS_MAX)
            if not ready:
                raise BenchError("the replica does not answer")
            for key, _ in ready:
                asked = key.fileobj
                assert isinstance(asked, Line), "nothing else is registered"
                answers = asked.answers()
                answered += len(answers)
                failures += sum(isinstance(answer, Failure) for answer in answers)
                missing -= len(answers)
                if answers and time.monotonic() < ends:
                    asked.send([next(endless) for _ in answers])
                    missing += len(answers)
    return answered, failures
