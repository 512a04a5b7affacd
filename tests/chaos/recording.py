"""What clients did and saw: each call with its times and its outcome, as soon as it is known."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kvstore.client import Client, UnreachableError, json_codec
from kvstore.client.calls import stream_line
from kvstore.errors import Code, KvError, UnknownOutcomeError
from kvstore.types import (
    CompactionResponse,
    DeleteRangeResponse,
    LeaseGrantResponse,
    LeaseKeepAliveResponse,
    LeaseRevokeResponse,
    LeaseTimeToLiveResponse,
    LockResponse,
    PutResponse,
    RangeResponse,
    Record,
    TxnResponse,
    UnlockResponse,
)
from tests.checking.history import History, Operation, Outcome, Watch

CALL_SECONDS: Final = (2.0, 9.0)
"""A client that got no answer for so long counts its call as unknown, and goes elsewhere. Some are
patient enough to hear how a member gives up by itself, which it does after seven seconds."""


AWAY: Final = frozenset(
    {Code.CANCELED, Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.UNAVAILABLE}
)
"""Codes of answers that are none: whoever gets them was not served. Others, such as that a lease
is not there, are what was asked for."""


class Method(NamedTuple):
    """How a call travels. ``reads``: doing it twice is the same as once."""

    path: str
    answer: type[Record]
    reads: bool = False


METHODS: Final = {
    "range": Method("/v3/kv/range", RangeResponse, reads=True),
    "put": Method("/v3/kv/put", PutResponse),
    "delete_range": Method("/v3/kv/deleterange", DeleteRangeResponse),
    "txn": Method("/v3/kv/txn", TxnResponse),
    "compact": Method("/v3/kv/compaction", CompactionResponse),
    "lease_grant": Method("/v3/lease/grant", LeaseGrantResponse),
    "lease_revoke": Method("/v3/lease/revoke", LeaseRevokeResponse),
    "lease_keep_alive": Method("/v3/lease/keepalive", LeaseKeepAliveResponse),
    "lease_time_to_live": Method("/v3/lease/timetolive", LeaseTimeToLiveResponse, reads=True),
    "lock": Method("/v3/lock/lock", LockResponse),
    "unlock": Method("/v3/lock/unlock", UnlockResponse),
}


class Recorder:
    """One round's history while it grows. For many threads."""

    def __init__(self, first_client: int = 0) -> None:
        self.history = History()
        self.counts: Counter[tuple[str, Outcome]] = Counter()
        self.outages: dict[str, float] = {}
        """By kind of client: the longest that one of them asked in vain, in seconds."""
        self._lock = threading.Lock()
        self._next_client = first_client

    def new_client(self) -> int:
        """A number that no client has had."""
        with self._lock:
            self._next_client += 1
            return self._next_client

    def begin(self, client: int, method: str, request: Record, member: int) -> Operation:
        """A call is about to be sent."""
        with self._lock:
            operation = Operation(client, method, request, member, time.monotonic())
            self.history.operations.append(operation)
            return operation

    def end(self, operation: Operation, outcome: Outcome, response: Any, error: str = "") -> None:
        """Its outcome is known, or will never be."""
        now = time.monotonic()
        with self._lock:
            operation.outcome = outcome
            if outcome is not Outcome.UNKNOWN:
                operation.returned_at = now
            operation.response = response
            operation.error = error
            self.counts[operation.method, outcome] += 1

    def was_away(self, name: str, seconds: float) -> None:
        """A client asked in vain for so long."""
        with self._lock:
            self.outages[name] = max(self.outages.get(name, 0.0), seconds)

    def open_watch(self, watch: Watch) -> None:
        """A watcher was created."""
        with self._lock:
            self.history.watches.append(watch)


class Caller:
    """One client of a cluster, in one thread: it asks whichever member it is told to.

    Each call goes to one member, once: what it says, or its silence, is the outcome.

    Args:
        recorder: Keeps what it did and saw.
        urls: Of all members.
        name: What kind of client it is.
    """

    def __init__(self, recorder: Recorder, urls: Sequence[str], name: str) -> None:
        self._recorder = recorder
        self._name = name
        self._in_vain_since: float | None = None
        self.number = recorder.new_client()
        seconds = CALL_SECONDS[self.number % len(CALL_SECONDS)]
        self._clients = [Client([url], seconds) for url in urls]
        self.member = self.number % len(urls)
        self._served = False

    def close(self) -> None:
        """Close all connections."""
        if self._in_vain_since is not None:
            self._recorder.was_away(self._name, time.monotonic() - self._in_vain_since)
        for client in self._clients:
            client.close()

    def move(self) -> None:
        """Ask the next member from now on."""
        self.member = (self.member + 1) % len(self._clients)

    def call(self, method: str, request: Record, *, wait_seconds: float = 0.0) -> Operation:
        """Call, and record what came of it.

        ``wait_seconds``: how long a lock may take.
        """
        operation = self._recorder.begin(self.number, method, request, self.member)
        self._call(operation, method, request, wait_seconds)
        if method != "lock":
            # Who waits for a lock in vain may wait for its holder.
            self._note_service(operation)
        return operation

    def _call(
        self, operation: Operation, method: str, request: Record, wait_seconds: float
    ) -> None:
        self._served = False
        try:
            response = self._send(method, request, wait_seconds)
        except UnknownOutcomeError as error:
            self._unknown(operation, error)
        except KvError as error:
            if method in ("lock", "lease_keep_alive"):
                # Waiting, and renewing twice, are done as reads are: silence looks like a refusal.
                self._unknown(operation, error)
            else:
                self._served = error.code not in AWAY
                self._recorder.end(operation, Outcome.REFUSED, None, error.message)
                if isinstance(error, UnreachableError):
                    self.move()
        except BaseException as error:
            self._recorder.end(operation, Outcome.UNKNOWN, None, repr(error))
            raise
        else:
            self._served = True
            self._recorder.end(operation, Outcome.OK, response)

    def _note_service(self, operation: Operation) -> None:
        """How long this client has been asking in vain, once it is served again."""
        if not self._served:
            if self._in_vain_since is None:
                self._in_vain_since = operation.called_at
        elif self._in_vain_since is not None:
            self._recorder.was_away(self._name, time.monotonic() - self._in_vain_since)
            self._in_vain_since = None

    def _unknown(self, operation: Operation, error: KvError) -> None:
        self._recorder.end(operation, Outcome.UNKNOWN, None, error.message)
        # The old call may still happen, so it is another client that goes on.
        self.number = self._recorder.new_client()
        self.move()

    def _send(self, method: str, request: Record, wait_seconds: float) -> Record:
        how = METHODS[method]
        client = self._clients[self.member]
        if method == "lock":
            assert hasattr(request, "name")
            assert hasattr(request, "lease")
            return client.lock(request.name, request.lease, wait_seconds=wait_seconds)
        body = json_codec.encode(request)
        if method == "lease_keep_alive":
            line = client.transport.call(how.path, body, safe=True).split(b"\n", 1)[0]
            return json_codec.from_object(LeaseKeepAliveResponse, stream_line(line))
        answer = client.transport.call(how.path, body, safe=how.reads)
        return json_codec.decode(how.answer, answer)
