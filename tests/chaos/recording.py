"""What clients did and saw: each call with its times and its outcome, as soon as it is known."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from kvstore.client import Client, UnreachableError, json_codec
from kvstore.client.calls import stream_line
from kvstore.errors import KvError, UnknownOutcomeError
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

    def open_watch(self, watch: Watch) -> None:
        """A watcher was created."""
        with self._lock:
            self.history.watches.append(watch)


class Caller:
    """One client of a cluster, in one thread: it asks whichever member it is told to.

    Each call goes to one member, once: what it says, or its silence, is the outcome.
    """

    def __init__(self, recorder: Recorder, urls: Sequence[str]) -> None:
        self._recorder = recorder
        self.number = recorder.new_client()
        seconds = CALL_SECONDS[self.number % len(CALL_SECONDS)]
        self._clients = [Client([url], seconds) for url in urls]
        self.member = self.number % len(urls)

    def close(self) -> None:
        """Close all connections."""
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
        try:
            response = self._send(method, request, wait_seconds)
        except UnknownOutcomeError as error:
            self._unknown(operation, error)
        except KvError as error:
            if method in ("lock", "lease_keep_alive"):
                # Waiting, and renewing twice, are done as reads are: silence looks like a refusal.
                self._unknown(operation, error)
            else:
                self._recorder.end(operation, Outcome.REFUSED, None, error.message)
                if isinstance(error, UnreachableError):
                    self.move()
        except BaseException as error:
            self._recorder.end(operation, Outcome.UNKNOWN, None, repr(error))
            raise
        else:
            self._recorder.end(operation, Outcome.OK, response)
        return operation

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
