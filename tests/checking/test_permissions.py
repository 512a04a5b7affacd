"""Who was let pass with a right is accepted, who without one is not, and the other way round."""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec
import pytest

from kvstore.errors import ErrorKind
from kvstore.types import (
    AuthDisableRequest,
    AuthEnableRequest,
    AuthenticateRequest,
    AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    Compare,
    DeleteRangeRequest,
    Event,
    EventType,
    KeyValue,
    Permission,
    PermissionType,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    TxnRequest,
    WatchCreateRequest,
    WatchResponse,
)
from kvstore.types import (
    AuthRoleGrantPermissionResponse as Answer,
)
from tests.checking import permissions
from tests.checking.history import History, Operation, Outcome, Watch
from tests.checking.violation import ViolationError

SECRET = "secret"
DENIED = ErrorKind.PERMISSION_DENIED.message


def call(at: float, method: str, request: Any, user: str = "root") -> Operation:
    """A call that took a tenth of a second, and was answered."""
    return Operation(1, method, request, 0, at, at + 0.1, Outcome.OK, "done", user=user)


def lost(operation: Operation) -> Operation:
    return msgspec.structs.replace(operation, outcome=Outcome.UNKNOWN, returned_at=inf)


def refused(operation: Operation) -> Operation:
    return msgspec.structs.replace(operation, outcome=Outcome.REFUSED, error=DENIED)


def allow(at: float, kind: PermissionType = PermissionType.READWRITE) -> Operation:
    permission = Permission(kind, b"a", b"c")
    return call(at, "role_grant_permission", AuthRoleGrantPermissionRequest("role", permission))


def forbid(at: float) -> Operation:
    request = AuthRoleRevokePermissionRequest("role", b"a", b"c")
    return call(at, "role_revoke_permission", request)


def enlist(at: float, user: str = "ann", role: str = "role") -> Operation:
    return call(at, "user_grant_role", AuthUserGrantRoleRequest(user, role))


def expel(at: float) -> Operation:
    return call(at, "user_revoke_role", AuthUserRevokeRoleRequest("ann", "role"))


def at_revision(operation: Operation, revision: int) -> Operation:
    kind = {"put": PutResponse, "range": RangeResponse}.get(operation.method, Answer)
    return msgspec.structs.replace(operation, response=kind(ResponseHeader(revision=revision)))


def set_up() -> list[Operation]:
    return [
        call(0.0, "user_add", AuthUserAddRequest("root", SECRET), ""),
        enlist(0.2, "root", "root"),
        call(0.4, "user_add", AuthUserAddRequest("ann", SECRET)),
        enlist(0.6),
        allow(0.8),
        at_revision(call(1.0, "auth_enable", AuthEnableRequest()), 1),
    ]


def put(at: float, user: str = "ann") -> Operation:
    return call(at, "put", PutRequest(b"b", b"v"), user)


def read(at: float, user: str = "ann") -> Operation:
    return call(at, "range", RangeRequest(b"a", b"c"), user)


def known(at: float) -> Operation:
    """The member shows that it knows what was there before."""
    return call(at, "range", RangeRequest(b"x"))


def accepted(*operations: Operation) -> None:
    permissions.check(History([*set_up(), *operations]))


def wrong(words: str, *operations: Operation) -> None:
    with pytest.raises(ViolationError, match=words) as caught:
        permissions.check(History([*set_up(), *operations]))
    assert caught.value.checker == "auth"


TAKE = {
    "the permission": lambda: [forbid(3.0)],
    "the role": lambda: [expel(3.0)],
    "the user": lambda: [call(3.0, "user_delete", AuthUserDeleteRequest("ann"))],
    "the role altogether": lambda: [call(3.0, "role_delete", AuthRoleDeleteRequest("role"))],
    "half of the permission, twice": lambda: [
        allow(2.5, PermissionType.READ),
        allow(3.0, PermissionType.WRITE),
        forbid(3.2),
    ],
}


@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_a_right_ends_once_its_end_was_acknowledged(take: Any) -> None:
    taken = take()
    accepted(put(2.0), read(2.0), *taken)
    wrong("could not write", *taken, put(4.0))
    wrong("could not read", *taken, read(4.0))
    # Called before the answer: it may have been first.
    accepted(*taken, put(taken[-1].returned_at))
    # Whoever began before may be refused already.
    before = taken[-1].called_at - 0.05
    accepted(known(before - 0.15), *taken, refused(put(before)))
    accepted(*map(lost, taken), put(4.0))
    accepted(*map(lost, taken), known(3.85), refused(put(4.0)))


@pytest.mark.parametrize("take", TAKE.values(), ids=TAKE)
def test_a_right_that_is_given_again_counts_again(take: Any) -> None:
    given = [enlist(5.0), allow(5.2)]
    accepted(*take(), *given, put(6.0))
    accepted(*take(), *map(lost, given), put(6.0))
    wrong("had every right", *take(), *given, known(5.85), refused(put(6.0)))
    accepted(*take(), *map(lost, given), known(5.85), refused(put(6.0)))
    wrong("could not write", *take(), *map(refused, given), put(6.0))


def test_a_right_counts_from_when_it_was_given_on() -> None:
    wrong("had every right", known(1.85), refused(put(2.0)))
    wrong("had every right", known(1.85), refused(read(2.0)))
    accepted(known(1.85), refused(put(2.0, "bob")))


def test_a_member_that_may_be_cut_off_may_refuse_what_was_given_meanwhile() -> None:
    accepted(refused(put(2.0)))
    accepted(known(1.5), refused(put(2.0)))
    accepted(known(0.85), refused(put(1.0)))
    elsewhere = known(1.85)
    elsewhere.member = 1
    accepted(elsewhere, refused(put(2.0)))
    stale = call(1.85, "range", RangeRequest(b"x", serializable=True))
    accepted(stale, refused(put(2.0)))


def test_another_refusal_says_nothing_of_rights() -> None:
    other = refused(put(2.0))
    other.error = ErrorKind.TIMEOUT.message
    accepted(known(1.85), other)


def test_only_half_of_a_permission() -> None:
    accepted(allow(2.0, PermissionType.READ), read(3.0), refused(put(3.0)))
    wrong("could not write", allow(2.0, PermissionType.READ), put(3.0))
    wrong("could not read", allow(2.0, PermissionType.WRITE), read(3.0))
    wrong("had every right", allow(2.0, PermissionType.WRITE), known(2.85), refused(put(3.0)))


@pytest.mark.parametrize(
    "request_",
    [
        PutRequest(b"x"),
        PutRequest(b"c"),
        RangeRequest(b"a", b"d"),
        RangeRequest(b"a", b"\0"),
        DeleteRangeRequest(b"A", b"b"),
        TxnRequest(success=[RequestOp(request_put=PutRequest(b"x"))]),
        TxnRequest(failure=[RequestOp(request_range=RangeRequest(b"x"))]),
        TxnRequest(compare=[Compare(key=b"x")]),
        TxnRequest(
            success=[RequestOp(request_txn=TxnRequest(compare=[Compare(key=b"x")]))],
        ),
    ],
)
def test_everything_that_a_call_touches_needs_a_right(request_: Any) -> None:
    # Any of the calls with keys: what is asked decides.
    asked = call(2.0, "txn", request_, "ann")
    wrong("could not", asked)
    accepted(refused(asked))


def test_several_permissions_together_cover_a_range() -> None:
    more = Permission(PermissionType.READ, b"c", b"f")
    grant = call(2.0, "role_grant_permission", AuthRoleGrantPermissionRequest("role", more))
    whole = call(3.0, "range", RangeRequest(b"a", b"f"), "ann")
    accepted(grant, whole)
    wrong("could not read", whole)


def test_root_may_everything_and_nobody_else_may_what_root_does() -> None:
    accepted(put(2.0, "root"), call(3.0, "role_delete", AuthRoleDeleteRequest("role")))
    wrong("ann is not root", call(3.0, "role_delete", AuthRoleDeleteRequest("role"), "ann"))
    accepted(enlist(2.0, "ann", "root"), call(3.0, "auth_disable", AuthDisableRequest(), "ann"))


def test_nobody_may_anything_while_authentication_is_on() -> None:
    wrong("nobody asked", put(2.0, ""))
    accepted(put(0.5, ""), put(1.05, ""))
    accepted(call(2.0, "auth_disable", AuthDisableRequest()), put(3.0, ""), put(3.0, "bob"))
    accepted(lost(call(2.0, "auth_disable", AuthDisableRequest())), put(3.0, ""))
    wrong(
        "nobody asked",
        call(2.0, "auth_disable", AuthDisableRequest()),
        call(2.5, "auth_enable", AuthEnableRequest()),
        put(3.0, ""),
    )


def test_whoever_asks_for_what_a_member_has_may_be_shown_the_past() -> None:
    stale = call(4.0, "range", RangeRequest(b"a", b"c", serializable=True), "ann")
    accepted(forbid(3.0), stale)


def test_revisions_tell_what_time_does_not() -> None:
    forbidden = at_revision(forbid(3.0), 7)
    during = put(3.05)
    accepted(forbidden, at_revision(during, 7))
    wrong("could not write", forbidden, at_revision(during, 8))
    stale = call(4.0, "range", RangeRequest(b"a", b"c", serializable=True), "ann")
    accepted(forbidden, at_revision(stale, 7))
    wrong("could not read", forbidden, at_revision(stale, 8))
    again = at_revision(allow(4.0), 9)
    wrong("could not read", forbidden, again, at_revision(read(4.05), 8))
    accepted(forbidden, again, at_revision(read(4.05), 9))
    wrong("could not write", forbidden, again, at_revision(put(4.05), 9))
    accepted(forbidden, again, at_revision(put(4.05), 10))


def test_changes_that_met_are_told_apart_by_their_revisions() -> None:
    accepted(allow(3.0), forbid(3.05), put(4.0))
    wrong("could not write", at_revision(allow(3.0), 6), at_revision(forbid(3.05), 7), put(4.0))
    accepted(at_revision(allow(3.0), 7), at_revision(forbid(3.05), 6), put(4.0))


def test_a_password_counts_until_it_is_changed() -> None:
    def log_in(at: float, password: str = SECRET) -> Operation:
        return call(at, "authenticate", AuthenticateRequest("ann", password), "")

    change = call(3.0, "user_change_password", AuthUserChangePasswordRequest("ann", "other"))
    accepted(log_in(2.0), change, log_in(3.05), log_in(4.0, "other"))
    wrong("password was another", change, log_in(4.0))
    wrong("password was another", log_in(4.0, "other"))
    deleted = call(3.0, "user_delete", AuthUserDeleteRequest("ann"))
    wrong("password was another", deleted, log_in(4.0))


def test_a_watch_hears_nothing_that_was_committed_after_its_right_was_gone() -> None:
    event = Event(EventType.PUT, KeyValue(b"b", 5, 5, 1, b"v"))
    told = [(6.0, WatchResponse(ResponseHeader(revision=5), events=[event]))]
    request = WatchCreateRequest(b"a", b"c")
    history = History([*set_up(), forbid(3.0)], [Watch(1, 0, request, 2.0, told, user="ann")])
    history.truth_at = {5: 2.9}
    permissions.check(history)
    history.truth_at = {5: 4.0}
    with pytest.raises(ViolationError, match="could not read"):
        permissions.check(history)
    history.operations.append(allow(5.0))
    permissions.check(history)
