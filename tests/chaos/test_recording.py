"""What a client may say of a call that failed: that nothing happened, or that nobody knows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
import pytest

from kvstore.api.error_map import http_status
from kvstore.client.transport import Endpoint
from kvstore.errors import ErrorKind
from kvstore.types import (
    CompactionRequest,
    DeleteRangeRequest,
    Event,
    EventType,
    KeyValue,
    LeaseGrantRequest,
    LeaseKeepAliveRequest,
    LeaseRevokeRequest,
    LockRequest,
    PutRequest,
    RangeRequest,
    Record,
    TxnRequest,
    UnlockRequest,
)
from tests.chaos import recording
from tests.chaos.judging import check_origins
from tests.chaos.recording import METHODS, Caller, Recorder
from tests.checking.history import Outcome
from tests.checking.violation import ViolationError
from tests.kvstore.client.conftest import Script, answer

A: Final = "http://a:1"
B: Final = "http://b:1"
WRITES: Final[dict[str, Record]] = {
    "put": PutRequest(b"k", b"v"),
    "delete_range": DeleteRangeRequest(b"k"),
    "txn": TxnRequest([], [], []),
    "compact": CompactionRequest(3),
    "lease_grant": LeaseGrantRequest(5, 7),
    "lease_revoke": LeaseRevokeRequest(7),
    "lease_keep_alive": LeaseKeepAliveRequest(7),
    "lock": LockRequest(b"l", 7),
    "unlock": UnlockRequest(b"l/7"),
}
AFTER_A_PROPOSAL: Final = (
    ErrorKind.LEADER_CHANGED,
    ErrorKind.STOPPED,
    ErrorKind.TIMEOUT,
    ErrorKind.TIMEOUT_LEADER_FAIL,
    ErrorKind.TIMEOUT_CONNECTION_LOST,
    ErrorKind.TIMEOUT_WAIT_APPLIED,
    ErrorKind.CANCELED,
    ErrorKind.DEADLINE_EXCEEDED,
)
"""What a member may say of a command that is in the log, and may be committed yet."""
INSTEAD_OF_A_PROPOSAL: Final = (
    ErrorKind.NO_LEADER,
    ErrorKind.TOO_MANY_REQUESTS,
    ErrorKind.NO_SPACE,
    ErrorKind.LEASE_NOT_FOUND,
    ErrorKind.REQUEST_TOO_LARGE,
    ErrorKind.EMPTY_KEY,
    ErrorKind.COMPACTED,
    ErrorKind.NOT_SUPPORTED_FOR_LEARNER,
    ErrorKind.PERMISSION_DENIED,
    ErrorKind.CORRUPT,
)
"""What is said before anything is proposed, or by every member alike when it changed nothing."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    found = Script()
    monkeypatch.setattr(Endpoint, "connect_anew", lambda *args: found.connect(*args))
    yield found
    found.finish()


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    monkeypatch.setattr(recording, "CALL_SECONDS", (0.2,))
    found = Caller(Recorder(), [A, B], "client")
    found.member = 0
    yield found
    found.close()


def _refusal(kind: ErrorKind) -> bytes:
    body = {"error": kind.message, "message": kind.message, "code": int(kind.code)}
    return answer(msgspec.json.encode(body), http_status(kind.code))


def _said(script: Script, *steps: Any) -> None:
    script.on(A, *steps)


@pytest.mark.parametrize("method", WRITES)
@pytest.mark.parametrize("kind", AFTER_A_PROPOSAL)
def test_what_may_be_in_the_log_is_unknown(
    script: Script, caller: Caller, kind: ErrorKind, method: str
) -> None:
    _said(script, _refusal(kind))
    number = caller.number
    done = caller.call(method, WRITES[method], wait_seconds=0.1)
    assert done.outcome is Outcome.UNKNOWN
    assert done.client == number
    # The old call may still happen: whoever goes on is somebody else.
    assert caller.number != number


@pytest.mark.parametrize("method", sorted(WRITES.keys() - {"lock", "lease_keep_alive"}))
@pytest.mark.parametrize("kind", INSTEAD_OF_A_PROPOSAL)
def test_what_was_never_proposed_or_changed_nothing_is_refused(
    script: Script, caller: Caller, kind: ErrorKind, method: str
) -> None:
    _said(script, _refusal(kind))
    assert caller.call(method, WRITES[method]).outcome is Outcome.REFUSED


@pytest.mark.parametrize("method", WRITES)
def test_a_write_that_its_client_gave_up_on_is_unknown(
    script: Script, caller: Caller, method: str
) -> None:
    _said(script, Script.silence)
    done = caller.call(method, WRITES[method], wait_seconds=0.1)
    assert done.outcome is Outcome.UNKNOWN
    assert done.returned_at == float("inf")


def test_a_write_that_was_given_up_on_may_be_committed_later(
    script: Script, caller: Caller
) -> None:
    recorder = Recorder()
    _said(script, Script.silence)
    patient = Caller(recorder, [A], "client")
    done = patient.call("put", PutRequest(b"k", b"v"))
    patient.close()
    history = recorder.history
    history.truth = {5: [Event(EventType.PUT, KeyValue(b"k", 5, 5, 1, b"v"))]}
    check_origins(history)
    done.outcome = Outcome.REFUSED
    with pytest.raises(ViolationError, match="durability"):
        check_origins(history)


def test_every_call_that_is_recorded_is_judged_here() -> None:
    assert set(METHODS) == {*WRITES, "range", "lease_time_to_live"}


def test_who_asks_in_vain_is_counted_from_the_first_call_to_the_next_answer(
    script: Script, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    client = Caller(recorder, [A], "reader")
    now = iter(range(100))
    monkeypatch.setattr("tests.chaos.recording.time.monotonic", lambda: float(next(now)))
    _said(script, _refusal(ErrorKind.TIMEOUT), _refusal(ErrorKind.LEASE_NOT_FOUND))
    put = WRITES["put"]
    first = client.call("put", put)
    assert not recorder.outages
    # A refusal that was asked for is an answer as good as any other.
    second = client.call("put", put)
    assert recorder.outages.keys() == {"reader"}
    assert recorder.outages["reader"] > second.returned_at - first.called_at
    client.close()
    caller.close()


def test_who_waits_for_a_lock_in_vain_is_served(script: Script, caller: Caller) -> None:
    recorder = Recorder()
    client = Caller(recorder, [A], "locker")
    _said(script, _refusal(ErrorKind.DEADLINE_EXCEEDED))
    client.call("lock", WRITES["lock"], wait_seconds=0.1)
    client.close()
    assert not recorder.outages


def test_who_was_never_served_again_is_counted_to_the_end(script: Script, caller: Caller) -> None:
    recorder = Recorder()
    client = Caller(recorder, [A], "reader")
    client.call("range", RangeRequest(b"k"))
    client.close()
    assert recorder.outages.keys() == {"reader"}
