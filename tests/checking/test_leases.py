"""Leases that lived as promised are accepted, and all others are not."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from kvstore.errors import ErrorKind
from kvstore.types import (
    DeleteRangeRequest,
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseStatus,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    ResponseHeader,
)
from tests.checking import leases
from tests.checking.history import History, Operation, Outcome
from tests.checking.violation import ViolationError

LEASE = 7


def head(revision: int) -> ResponseHeader:
    return ResponseHeader(revision=revision)


def ok(at: float, method: str, request: Any, response: Any) -> Operation:
    """A call that took a tenth of a second."""
    return Operation(1, method, request, 0, at, at + 0.1, Outcome.OK, response)


def unknown(operation: Operation) -> Operation:
    return Operation(2, operation.method, operation.request, 0, operation.called_at)


def refused(operation: Operation, kind: ErrorKind) -> Operation:
    operation.outcome, operation.response = Outcome.REFUSED, None
    operation.error = kind.message
    return operation


def grant(at: float, seconds: int = 5, revision: int = 1) -> Operation:
    answer = LeaseGrantResponse(head(revision), LEASE, seconds)
    return ok(at, "lease_grant", LeaseGrantRequest(seconds, LEASE), answer)


def renew(at: float, seconds: int = 5, revision: int = 3) -> Operation:
    answer = LeaseKeepAliveResponse(head(revision), LEASE, seconds)
    return ok(at, "lease_keep_alive", LeaseKeepAliveRequest(LEASE), answer)


def left(at: float, seconds: int, revision: int = 3) -> Operation:
    answer = LeaseTimeToLiveResponse(head(revision), LEASE, seconds, 5)
    return ok(at, "lease_time_to_live", LeaseTimeToLiveRequest(LEASE), answer)


def revoke(at: float, revision: int) -> Operation:
    answer = LeaseRevokeResponse(head(revision))
    return ok(at, "lease_revoke", LeaseRevokeRequest(LEASE), answer)


def put(at: float, revision: int, key: bytes) -> Operation:
    return ok(at, "put", PutRequest(key, b"v", LEASE), PutResponse(head(revision)))


def read(at: float, revision: int, *kvs: KeyValue, serializable: bool = False) -> Operation:
    answer = RangeResponse(head(revision), list(kvs), count=len(kvs))
    return ok(at, "range", RangeRequest(b"a", b"c", serializable=serializable), answer)


def listed(at: float) -> Operation:
    answer = LeaseLeasesResponse(head(3), [LeaseStatus(LEASE)])
    return ok(at, "lease_leases", LeaseLeasesRequest(), answer)


A = KeyValue(b"a", 2, 2, 1, b"v", LEASE)
B = KeyValue(b"b", 3, 3, 1, b"v", LEASE)


def gone(revision: int, *keys: bytes) -> list[Event]:
    return [Event(EventType.DELETE, KeyValue(key, mod_revision=revision)) for key in keys]


def lived(*operations: Operation, end: float = 0.0, keys: tuple[bytes, ...] = ()) -> History:
    """A lease with two keys, which go at revision 4."""
    history = History([grant(0.0), put(0.2, 2, b"a"), put(0.4, 3, b"b"), *operations])
    history.truth = {2: [Event(EventType.PUT, A)], 3: [Event(EventType.PUT, B)]}
    history.truth_at = {2: 0.25, 3: 0.45}
    if end:
        history.truth[4] = gone(4, *(keys or (b"a", b"b")))
        history.truth_at[4] = end
    return history


def wrong(history: History, words: str, **arguments: Any) -> None:
    with pytest.raises(ViolationError, match=words) as caught:
        leases.check(history, **arguments)
    assert caught.value.checker == "lease"


# --- early ----------------------------------------------------------------------------------------


def test_a_lease_lives_as_long_as_its_grant_promised() -> None:
    leases.check(lived(end=5.0))
    wrong(lived(end=4.9), "ended before 5.0")


def test_a_clock_may_be_faster_by_as_much_as_is_known() -> None:
    wrong(lived(end=4.8), "ended before", drift_share=0.03)
    leases.check(lived(end=4.8), drift_share=0.05)


def test_a_renewal_promises_its_time_anew() -> None:
    leases.check(lived(renew(3.0), end=8.0))
    wrong(lived(renew(3.0), end=7.9), "ended before 8.0")


def test_what_is_left_of_a_lease_is_a_promise() -> None:
    leases.check(lived(left(3.0, 4), end=7.0))
    wrong(lived(left(3.0, 4), end=6.9), "ended before 7.0")


def test_a_renewal_that_is_under_way_promises_too() -> None:
    during = renew(4.95)
    wrong(lived(during, end=5.0), "ended before")


def test_whoever_revokes_ends_a_lease_at_any_time() -> None:
    leases.check(lived(revoke(1.0, 4), end=1.05))
    leases.check(lived(unknown(revoke(1.0, 4)), end=3.0))
    wrong(lived(unknown(revoke(3.5, 4)), end=3.0), "ended before")
    not_done = refused(revoke(1.0, 4), ErrorKind.TIMEOUT)
    wrong(lived(not_done, end=3.0), "ended before")


def test_a_revocation_ends_a_lease_where_it_says() -> None:
    elsewhere = lived(end=3.0)
    elsewhere.operations.append(revoke(6.0, 9))
    wrong(elsewhere, "ended before")


def test_an_end_that_only_an_answer_tells_of() -> None:
    wrong(History([grant(0.0), renew(3.0, 0)]), "ended before 5.0")
    wrong(History([grant(0.0), left(3.0, -1)]), "ended before 5.0")
    leases.check(History([grant(0.0), renew(5.0, 0)]))
    leases.check(History([grant(0.0), unknown(revoke(1.0, 2)), renew(3.0, 0)]))
    lost = refused(revoke(3.0, 2), ErrorKind.LEASE_NOT_FOUND)
    wrong(History([grant(0.0), lost]), "ended before 5.0")


def test_an_answer_from_before_a_grant_that_it_overlaps_ends_nothing() -> None:
    leases.check(History([grant(1.0), refused(revoke(1.05, 4), ErrorKind.LEASE_NOT_FOUND)]))
    leases.check(History([grant(1.0), left(1.05, -1)]))
    wrong(History([grant(1.0), left(1.15, -1)]), "ended before 6.0")


def test_a_promise_of_the_next_lease_does_not_bind_the_one_before() -> None:
    again = grant(5.0, revision=4)
    again.returned_at = 6.0
    leases.check(lived(again, end=5.5))
    leases.check(lived(unknown(grant(1.0)), renew(3.0), end=5.0))


# --- in part --------------------------------------------------------------------------------------


def test_a_lease_takes_all_its_keys_along() -> None:
    wrong(lived(end=6.0, keys=(b"a",)), "stayed")


def test_a_key_that_somebody_deleted_says_nothing_of_its_lease() -> None:
    answer = DeleteRangeResponse(head(4), 1)
    deleted = ok(1.0, "delete_range", DeleteRangeRequest(b"a"), answer)
    leases.check(lived(deleted, end=1.05, keys=(b"a",)))
    leases.check(lived(unknown(deleted), end=3.0, keys=(b"a",)))


def test_a_key_that_left_its_lease_stays() -> None:
    history = lived(end=5.0, keys=(b"b",))
    detached = KeyValue(b"a", 2, 4, 2, b"w")
    history.truth[5], history.truth_at[5] = gone(5, b"b"), 5.0
    history.truth[4], history.truth_at[4] = [Event(EventType.PUT, detached)], 1.0
    leases.check(history)


# --- revived --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "later",
    [
        renew(7.0),
        left(7.0, 3),
        left(7.0, 0),
        listed(7.0),
        put(7.0, 5, b"a"),
        read(7.0, 4, A),
        refused(grant(7.0), ErrorKind.LEASE_EXIST),
    ],
    ids=["renewed", "has time", "has none left", "listed", "attached", "read", "in the way"],
)
def test_what_is_gone_does_not_come_back(later: Operation) -> None:
    for end in (6.0, 0.0):
        over = [] if end else [renew(6.0, 0)]
        wrong(lived(*over, later, end=end), "came back")
        anew = grant(6.5, revision=4)
        leases.check(lived(*over, anew, later, end=end))
        leases.check(lived(*over, unknown(anew), later, end=end))


def test_a_grant_before_an_end_explains_nothing_behind_it() -> None:
    history = lived(renew(7.0), end=6.0)
    history.operations[0].returned_at = 6.5
    wrong(history, "came back")


def test_an_old_state_may_be_shown_to_who_asks_for_no_more() -> None:
    leases.check(lived(read(7.0, 3, A, B, serializable=True), end=6.0))


# --- late -----------------------------------------------------------------------------------------


def test_a_lease_ends_soon_after_its_time_while_all_is_well() -> None:
    history = lived()
    history.ended_at = 100.0
    leases.check(history)
    leases.check(history, calm_since=95.0)
    wrong(history, "should have ended before 14", calm_since=1.0)
    history.operations.append(renew(99.0))
    leases.check(history, calm_since=1.0)


def test_a_renewal_that_was_never_answered_may_have_renewed() -> None:
    history = lived(unknown(renew(90.0)))
    history.ended_at = 100.0
    leases.check(history, calm_since=1.0)
    history.operations[-1].called_at = 60.0
    wrong(history, "should have ended", calm_since=1.0)


def test_a_lease_without_keys_that_is_still_listed_is_late() -> None:
    history = History([grant(0.0), listed(50.0)], ended_at=60.0)
    leases.check(history)
    wrong(history, "should have ended", calm_since=1.0)


def test_a_lease_that_nobody_was_granted_is_somebody_elses() -> None:
    history = lived()
    del history.operations[0]
    history.ended_at = inf
    leases.check(history, calm_since=0.0)
