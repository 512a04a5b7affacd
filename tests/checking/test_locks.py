"""Locks and elections with one holder at a time are accepted, and all others are not."""

from __future__ import annotations

from typing import Any

import pytest

from kvstore.types import (
    CampaignRequest,
    CampaignResponse,
    CompactionRequest,
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    Event,
    EventType,
    KeyValue,
    LeaderKey,
    LeaderResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseRevokeRequest,
    LockRequest,
    LockResponse,
    ProclaimRequest,
    ProclaimResponse,
    PutRequest,
    PutResponse,
    RequestOp,
    ResignRequest,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
    UnlockRequest,
)
from tests.checking import locks
from tests.checking.history import History, Observation, Operation, Outcome
from tests.checking.violation import ViolationError

NAME = b"lock"
ONE, TWO = 0xA, 0xB


def head(revision: int) -> ResponseHeader:
    return ResponseHeader(revision=revision)


def ok(at: float, method: str, request: Any, response: Any = None) -> Operation:
    """A call that took a tenth of a second."""
    return Operation(1, method, request, 0, at, at + 0.1, Outcome.OK, response)


def grant(at: float, lease: int, seconds: int = 10) -> Operation:
    answer = LeaseGrantResponse(head(1), lease, seconds)
    return ok(at, "lease_grant", LeaseGrantRequest(seconds, lease), answer)


def renew(at: float, lease: int, seconds: int = 10) -> Operation:
    answer = LeaseKeepAliveResponse(head(1), lease, seconds)
    return ok(at, "lease_keep_alive", LeaseKeepAliveRequest(lease), answer)


def key(lease: int) -> bytes:
    return b"%b/%x" % (NAME, lease)


def lock(at: float, lease: int, revision: int = 2) -> Operation:
    answer = LockResponse(head(revision), key(lease))
    return ok(at, "lock", LockRequest(NAME, lease), answer)


def campaign(at: float, lease: int, revision: int = 2, created: int = 2) -> Operation:
    leader = LeaderKey(NAME, key(lease), created, lease)
    request = CampaignRequest(NAME, lease, b"me")
    return ok(at, "campaign", request, CampaignResponse(head(revision), leader))


def guarded(at: float, lease: int, fence: int, revision: int) -> Operation:
    mine = Compare(target=CompareTarget.CREATE, key=key(lease), create_revision=fence)
    put = RequestOp(request_put=PutRequest(b"guarded", b"%d" % revision))
    done = [ResponseOp(response_put=PutResponse())]
    return ok(at, "txn", TxnRequest([mine], [put]), TxnResponse(head(revision), True, done))


def proclaim(at: float, lease: int, created: int, revision: int) -> Operation:
    leader = LeaderKey(NAME, key(lease), created, lease)
    return ok(at, "proclaim", ProclaimRequest(leader, b"w"), ProclaimResponse(head(revision)))


def wrong(history: History, words: str, **arguments: Any) -> None:
    with pytest.raises(ViolationError, match=words) as caught:
        locks.check(history, **arguments)
    assert caught.value.checker == "mutual exclusion"


def history(*operations: Operation) -> History:
    """Two leases of ten seconds each, of which the second is renewed after five."""
    return History([grant(0.0, ONE), grant(0.0, TWO), renew(5.0, TWO), *operations])


# --- by the holders' clocks -----------------------------------------------------------------------


def test_a_lock_passes_on_once_its_holders_lease_has_run_out() -> None:
    locks.check(history(lock(1.0, ONE), lock(10.0, TWO)))
    wrong(history(lock(1.0, ONE), lock(9.0, TWO)), "two hold b'lock' at 9.1")
    locks.check(history(lock(1.0, ONE), lock(9.5, TWO)), drift_share=0.05)


def test_whoever_holds_it_longer_by_a_renewal_holds_it() -> None:
    wrong(history(renew(4.0, ONE), lock(1.0, ONE), lock(12.0, TWO)), "two hold")


def test_two_candidates_lead_at_once() -> None:
    wrong(history(campaign(1.0, ONE), campaign(9.0, TWO)), "two hold")


def test_an_answer_that_came_late_says_nothing_of_who_holds_it_now() -> None:
    late = lock(0.5, ONE)
    late.returned_at = 12.0
    locks.check(history(late, lock(11.0, TWO)))


@pytest.mark.parametrize(
    "end",
    [
        ok(5.0, "unlock", UnlockRequest(key(ONE))),
        Operation(1, "unlock", UnlockRequest(key(ONE)), 0, 5.0),
        ok(5.0, "resign", ResignRequest(LeaderKey(NAME, key(ONE), 2, ONE))),
        ok(5.0, "lease_revoke", LeaseRevokeRequest(ONE)),
        Operation(1, "lock", LockRequest(NAME, ONE), 0, 5.0),
        ok(5.0, "delete_range", DeleteRangeRequest(b"lock/", b"lock0")),
        ok(
            5.0,
            "txn",
            TxnRequest(
                success=[RequestOp(request_delete_range=DeleteRangeRequest(key(ONE)))],
            ),
            TxnResponse(head(4), True),
        ),
    ],
    ids=["unlocks", "may unlock", "resigns", "revokes", "gives up", "deletes", "in a transaction"],
)
def test_whoever_gives_it_up_holds_it_no_more(end: Operation) -> None:
    locks.check(history(lock(1.0, ONE), end, lock(6.0, TWO)))
    wrong(history(lock(1.0, ONE), end, lock(4.0, TWO)), "two hold")
    end = Operation(1, end.method, end.request, 0, 5.0, 5.1, Outcome.REFUSED)
    wrong(history(lock(1.0, ONE), end, lock(6.0, TWO)), "two hold")


def test_other_locks_and_the_same_key_are_no_overlap() -> None:
    other = LockResponse(head(2), b"other/b")
    locks.check(history(lock(1.0, ONE), ok(2.0, "lock", LockRequest(b"other", TWO), other)))
    locks.check(history(lock(1.0, ONE), lock(2.0, ONE)))


def test_a_lock_without_a_lease_has_one_of_a_minute() -> None:
    answer = LockResponse(head(2), b"lock/f")
    unleased = ok(1.0, "lock", LockRequest(NAME), answer)
    wrong(history(unleased, lock(9.0, TWO)), "two hold")
    locks.check(History([unleased, grant(60.0, TWO), lock(61.0, TWO)]))


def test_a_lease_that_was_granted_twice_promises_nobody_knows_what() -> None:
    locks.check(history(grant(3.0, ONE), lock(1.0, ONE), lock(9.0, TWO)))


# --- by the store ---------------------------------------------------------------------------------


def put(lease: int, revision: int) -> list[Event]:
    record = KeyValue(key(lease), revision, revision, 1, b"", lease)
    return [Event(EventType.PUT, record)]


def delete(lease: int, revision: int) -> list[Event]:
    return [Event(EventType.DELETE, KeyValue(key(lease), mod_revision=revision))]


def test_a_lock_is_its_whose_key_is_the_oldest() -> None:
    answered = history(lock(12.0, TWO, 4))
    answered.truth = {2: put(ONE, 2), 3: put(TWO, 3), 4: delete(ONE, 4)}
    locks.check(answered)
    answered.truth[5] = answered.truth.pop(4)
    wrong(answered, "is older, and was there until revision 5")
    answered.truth = {2: put(ONE, 2), 3: put(TWO, 3)}
    wrong(answered, "until revision None")
    answered.truth = {2: put(ONE, 2)}
    wrong(answered, "no such key")


def test_whose_key_was_gone_before_its_turn_never_had_one() -> None:
    answered = history(lock(12.0, TWO, 5))
    answered.truth = {2: put(ONE, 2), 3: put(TWO, 3), 4: delete(TWO, 4), 5: delete(ONE, 5)}
    wrong(answered, "is older")


def test_a_leaders_key_is_of_the_revision_that_it_was_told() -> None:
    answered = history(campaign(1.0, ONE, 2, created=2))
    answered.truth = {2: put(ONE, 2)}
    locks.check(answered)
    answered.operations[-1] = campaign(1.0, ONE, 2, created=1)
    wrong(answered, "its key is of revision 2")


def test_a_fence_never_holds_after_a_later_one() -> None:
    held = (lock(1.0, ONE), lock(12.0, TWO))
    locks.check(history(*held, guarded(2.0, ONE, 2, 5), guarded(13.0, TWO, 4, 6)))
    wrong(history(*held, guarded(13.0, TWO, 4, 6), guarded(14.0, ONE, 2, 7)), "after fence 4")
    # Who was not told yet that it holds the lock knows nothing of a fence.
    locks.check(history(*held, guarded(2.0, TWO, 4, 6), guarded(14.0, ONE, 2, 7)))
    failed = guarded(14.0, ONE, 2, 7)
    failed.response = TxnResponse(head(7), False)
    locks.check(history(*held, guarded(13.0, TWO, 4, 6), failed))


def test_nobody_proclaims_after_the_next_leader_has() -> None:
    held = (campaign(1.0, ONE), campaign(12.0, TWO))
    locks.check(history(*held, proclaim(2.0, ONE, 2, 5), proclaim(13.0, TWO, 4, 6)))
    wrong(history(*held, proclaim(13.0, TWO, 4, 6), proclaim(14.0, ONE, 2, 7)), "after fence 4")


# --- observers ------------------------------------------------------------------------------------


def shown(revision: int, created: int, modified: int, value: bytes = b"") -> LeaderResponse:
    version = modified - created + 1
    return LeaderResponse(head(revision), KeyValue(NAME, created, modified, version, value))


@pytest.mark.parametrize(
    ("responses", "words"),
    [
        ([shown(2, 2, 2), shown(4, 4, 4), shown(5, 4, 5)], ""),
        ([shown(4, 4, 4), shown(4, 2, 2)], "had led before"),
        ([shown(5, 4, 5), shown(5, 4, 4)], "had led before"),
        ([shown(9, 4, 8), shown(9, 5, 5)], ""),
        ([shown(4, 4, 4), shown(5, 4, 4)], "the same again"),
        ([shown(5, 4, 4), shown(4, 4, 4, b"w")], "went back to 4"),
        ([shown(3, 4, 4)], "revision 4 at 3"),
        ([LeaderResponse(head(3))], "nobody"),
    ],
)
def test_observers_see_each_leader_once_and_in_order(
    responses: list[LeaderResponse], words: str
) -> None:
    seen = History(observations=[Observation(0, NAME, responses)])
    if words:
        wrong(seen, words)
    else:
        locks.check(seen)


def test_observers_see_who_led_and_each_of_them() -> None:
    led = [
        KeyValue(NAME + b"/a", 2, 2, 1, b"one"),
        KeyValue(NAME + b"/b", 3, 3, 1, b"two"),
        KeyValue(NAME + b"/b", 3, 5, 2, b"three"),
    ]
    one, two, three = (LeaderResponse(head(kv.mod_revision + 1), kv) for kv in led)
    seen = History(
        truth={
            2: [Event(EventType.PUT, led[0])],
            3: [Event(EventType.PUT, led[1])],
            4: [Event(EventType.DELETE, KeyValue(NAME + b"/a", mod_revision=4))],
            5: [Event(EventType.PUT, led[2])],
        }
    )

    def observe(*responses: LeaderResponse) -> History:
        seen.observations = [Observation(0, NAME, list(responses))]
        return seen

    for right in ((), (one,), (one, two, three), (two, three), (three,)):
        locks.check(observe(*right))
    wrong(observe(one, three), "was not shown")
    wrong(observe(LeaderResponse(head(5), KeyValue(NAME + b"/c", 2, 2, 1))), "did not lead")
    # After a compaction the past cannot be read.
    seen.operations = [ok(1.0, "compact", CompactionRequest(3))]
    locks.check(observe(one, three))
