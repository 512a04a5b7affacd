"""Clients that read, write, compare and delete, each with a pace and a generator of its own."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final

from kvstore.client import prefix_end
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    Record,
    RequestOp,
    TxnRequest,
)
from tests.chaos.recording import Caller, Recorder
from tests.checking.history import Operation, Outcome

KEYS: Final = 5
LISTS: Final = 2
MOVE_EVERY: Final = 40
"""Calls after which a client goes to another member, though the one it asks is well."""


class Worker(ABC):
    """A thread of a client: calls at its pace until the round is over.

    Attributes:
        caller: Asks.
        rng: Decides.
        prefix: Of all its keys.
        over: Set when the round is over.
    """

    calls_per_second = 30.0

    def __init__(
        self,
        recorder: Recorder,
        urls: Sequence[str],
        prefix: bytes,
        rng: random.Random,
        over: threading.Event,
    ) -> None:
        self.recorder = recorder
        self.caller = Caller(recorder, urls, type(self).__name__.lower())
        self.prefix = prefix
        self.rng = rng
        self.over = over
        self.errors: list[BaseException] = []
        self._calls = 0
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for its last call; it raises what ended the client, if anything did."""
        self._thread.join()
        self.caller.close()
        for error in self.errors:
            raise error

    def _run(self) -> None:
        try:
            while not self.over.is_set():
                began = time.monotonic()
                self.turn()
                left = began + 1.0 / self.calls_per_second - time.monotonic()
                self.over.wait(max(left, 0.0) * self.rng.uniform(0.5, 1.5))
        except BaseException as error:  # noqa: BLE001 - a client that ends must not end unseen
            self.errors.append(error)

    @abstractmethod
    def turn(self) -> None:
        """Do the next thing."""

    def call(self, method: str, request: Record, *, wait_seconds: float = 0.0) -> Operation:
        """Call, and now and then go to another member."""
        self._calls += 1
        if self._calls % MOVE_EVERY == 0:
            self.caller.move()
        return self.caller.call(method, request, wait_seconds=wait_seconds)


class Reader(Worker):
    """Puts, reads of every kind, deletes and transactions on a few keys that all share."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._written = 0
        self._revision = 0
        kinds: list[tuple[Callable[[], Operation], int]] = [
            (self._put, 30),
            (self._get, 24),
            (self._get_serializable, 10),
            (self._get_all, 6),
            (self._get_past, 5),
            (self._delete, 8),
            (self._delete_all, 1),
            (self._swap, 10),
            (self._move, 6),
        ]
        self._kinds = [kind for kind, _ in kinds]
        self._weights = [weight for _, weight in kinds]

    def turn(self) -> None:
        """One call of any kind."""
        (kind,) = self.rng.choices(self._kinds, self._weights)
        done = kind()
        if done.outcome is Outcome.OK and done.response.header is not None:
            self._revision = max(self._revision, done.response.header.revision)

    def _key(self) -> bytes:
        return self.prefix + b"k/%d" % self.rng.randrange(KEYS)

    def _value(self) -> bytes:
        self._written += 1
        return b"%d.%d" % (self.caller.number, self._written)

    def _put(self) -> Operation:
        prev_kv = self.rng.random() < 0.3
        return self.call("put", PutRequest(self._key(), self._value(), prev_kv=prev_kv))

    def _get(self) -> Operation:
        return self.call("range", RangeRequest(self._key()))

    def _get_serializable(self) -> Operation:
        return self.call("range", RangeRequest(self._key(), serializable=True))

    def _get_all(self) -> Operation:
        prefix = self.prefix + b"k/"
        count_only = self.rng.random() < 0.3
        request = RangeRequest(prefix, prefix_end(prefix), count_only=count_only)
        return self.call("range", request)

    def _get_past(self) -> Operation:
        if not self._revision:
            return self._get()
        revision = max(self._revision - self.rng.randrange(60), 1)
        return self.call("range", RangeRequest(self._key(), revision=revision))

    def _delete(self) -> Operation:
        prev_kv = self.rng.random() < 0.5
        return self.call("delete_range", DeleteRangeRequest(self._key(), prev_kv=prev_kv))

    def _delete_all(self) -> Operation:
        prefix = self.prefix + b"k/"
        request = DeleteRangeRequest(prefix, prefix_end(prefix), prev_kv=True)
        return self.call("delete_range", request)

    def _swap(self) -> Operation:
        """Compare and set, by version or by value."""
        key = self._key()
        if self.rng.random() < 0.5:
            compare = Compare(
                self.rng.choice((CompareResult.EQUAL, CompareResult.GREATER, CompareResult.LESS)),
                CompareTarget.VERSION,
                key,
                version=self.rng.randrange(8),
            )
        else:
            compare = Compare(CompareResult.NOT_EQUAL, CompareTarget.VALUE, key, value=b"-")
        put = RequestOp(request_put=PutRequest(key, self._value()))
        get = RequestOp(request_range=RangeRequest(key))
        return self.call("txn", TxnRequest([compare], [put, get], [get]))

    def _move(self) -> Operation:
        """Two keys change together."""
        one, other = self.rng.sample(range(KEYS), 2)
        exists = Compare(
            CompareResult.GREATER,
            CompareTarget.CREATE,
            self.prefix + b"k/%d" % one,
            create_revision=0,
        )
        value = self._value()
        success = [
            RequestOp(request_delete_range=DeleteRangeRequest(self.prefix + b"k/%d" % one)),
            RequestOp(request_put=PutRequest(self.prefix + b"k/%d" % other, value)),
        ]
        failure = [RequestOp(request_put=PutRequest(self.prefix + b"k/%d" % one, value))]
        return self.call("txn", TxnRequest([exists], success, failure))


class Appender(Worker):
    """Appends words of its own to a list that all share, by comparing its last revision."""

    calls_per_second = 20.0

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._appended = 0
        self._known: dict[bytes, tuple[int, bytes]] = {}

    def turn(self) -> None:
        """Append, if what it knows of the list is still so; else look."""
        key = self.prefix + b"l/%d" % self.rng.randrange(LISTS)
        if key not in self._known:
            self._look(key)
            return
        revision, held = self._known.pop(key)
        self._appended += 1
        word = b"%d.%d" % (self.caller.number, self._appended)
        value = held + b" " + word if held else word
        compare = Compare(CompareResult.EQUAL, CompareTarget.MOD, key, mod_revision=revision)
        put = RequestOp(request_put=PutRequest(key, value))
        get = RequestOp(request_range=RangeRequest(key))
        done = self.call("txn", TxnRequest([compare], [put], [get]))
        if done.outcome is Outcome.OK and done.response.succeeded:
            self._known[key] = (done.response.header.revision, value)

    def _look(self, key: bytes) -> None:
        done = self.call("range", RangeRequest(key))
        if done.outcome is Outcome.OK:
            found = done.response.kvs
            self._known[key] = (found[0].mod_revision, found[0].value) if found else (0, b"")
