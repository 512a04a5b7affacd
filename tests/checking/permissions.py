"""Does a right end when it is taken away, and count from when it was given on?

Each thing that users and roles are made of (whether a user has a role, whether a role may read a
range, what the password is) is set and unset by calls. It *may* have held at some time of a call if
it was set by then, and no other call, which certainly came after that, certainly came before. It
*held* throughout if it was set before, and nothing that might unset it can have come in between.
Only what may not have held is wrong to allow, and only what held is wrong to refuse. What came
first is told by time and by the revisions in the answers, those of changes of rights among them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from kvstore.errors import ErrorKind
from kvstore.mvcc.keyrange import upper_bound
from kvstore.types import (
    DeleteRangeRequest,
    PermissionType,
    PutRequest,
    RangeRequest,
    TxnRequest,
)
from tests.checking.calls import has_written, is_serializable, puts_of
from tests.checking.history import Outcome, shown
from tests.checking.violation import ViolationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.checking.history import History, Operation, Watch

CHECKER = "auth"
ROOT = "root"
"""The role that may do everything."""
KNOWN_SECONDS = 0.25
"""A member that is cut off may refuse what was given meanwhile. Which rights it knows of is told by
its last answer that is not of the past, for so long: nobody starts it anew within that time."""
KEY_CALLS = ("put", "range", "delete_range", "txn")
ROOT_CALLS = (
    "compact",
    "user_add",
    "user_delete",
    "user_change_password",
    "user_grant_role",
    "user_revoke_role",
    "role_add",
    "role_delete",
    "role_grant_permission",
    "role_revoke_permission",
    "auth_enable",
    "auth_disable",
)

Fact: TypeAlias = tuple[str, ...] | tuple[str, str, bytes, bytes]
"""What may hold: ("on",), ("has", user, role), ("password", user, password), and ("read", role,
key, range end) or ("write", ...).
"""
Need: TypeAlias = tuple[str, bytes, bytes]
"""A right to "read" or "write", of which range."""


def check(history: History) -> None:
    """Judge a history.

    Args:
        history: What clients did and saw. There were no users before, and all that anybody did to
            users and roles is in it.

    Raises:
        ViolationError: Somebody was allowed what they had no right to, or refused what they had.
    """
    rights = _Rights(history)
    if not rights.was_ever_on:
        return
    knowing = _Knowing(history)
    for operation in history.operations:
        if operation.outcome is Outcome.OK:
            _check_allowed(operation, rights)
        elif operation.outcome is Outcome.REFUSED:
            known = knowing.since(operation.member, operation.called_at)
            _check_refused(operation, rights, known)
    for watch in history.watches:
        _check_watch(watch, history, rights)


# --- what holds when ------------------------------------------------------------------------------


class Moment(msgspec.Struct):
    """When something happened: between two times, and between two revisions of the store, by which
    changes of rights are placed too.

    Attributes:
        since: What was answered before came before.
        until: What was called afterwards came afterwards.
        revision: What was applied at an earlier one came before.
        revision_max: What was applied at a later one came afterwards.
    """

    since: float
    until: float
    revision: int = 0
    revision_max: float = inf


def _moment_of(operation: Operation) -> Moment:
    """When a call that was answered happened."""
    local = is_serializable(operation.request)
    # Who answers by what is here, be it of long ago, is judged by the revision of that alone.
    moment = Moment(-inf if local else operation.called_at, operation.returned_at)
    place = _revision(operation)
    if operation.method in KEY_CALLS and place is not None:
        moment.revision, moment.revision_max = place, place - has_written(operation)
    return moment


class _Changes(msgspec.Struct):
    """The calls that set one fact, and those that unset it."""

    sets: list[Operation] = []
    unsets: list[Operation] = []


class _Rights:
    def __init__(self, history: History) -> None:
        self._facts: dict[Fact, _Changes] = defaultdict(_Changes)
        self._roles: dict[str, set[str]] = defaultdict(set)
        self._ranges: dict[tuple[str, str], set[tuple[bytes, bytes]]] = defaultdict(set)
        changes = [each for each in history.operations if each.outcome is not Outcome.REFUSED]
        for operation in changes:
            self._note(operation)
        for operation in changes:
            self._unset_many(operation)
        self.was_ever_on = bool(self._facts[("on",)].sets)

    def _note(self, operation: Operation) -> None:
        request = operation.request
        match operation.method:
            case "auth_enable":
                self._facts["on",].sets.append(operation)
            case "auth_disable":
                self._facts["on",].unsets.append(operation)
            case "user_add" | "user_change_password":
                self._facts["password", request.name, request.password].sets.append(operation)
            case "user_grant_role":
                self._roles[request.user].add(request.role)
                self._facts["has", request.user, request.role].sets.append(operation)
            case "user_revoke_role":
                self._facts["has", request.name, request.role].unsets.append(operation)
            case "role_grant_permission":
                self._note_permission(operation)
            case "role_revoke_permission":
                for kind in ("read", "write"):
                    fact = (kind, request.role, request.key, request.range_end)
                    self._facts[fact].unsets.append(operation)

    def _note_permission(self, operation: Operation) -> None:
        request = operation.request
        given = request.perm
        for kind, without in (("read", PermissionType.WRITE), ("write", PermissionType.READ)):
            changes = self._facts[kind, request.name, given.key, given.range_end]
            if given.permType == without:
                # The same range replaces.
                changes.unsets.append(operation)
            else:
                self._ranges[kind, request.name].add((given.key, given.range_end))
                changes.sets.append(operation)

    def _unset_many(self, operation: Operation) -> None:
        """Calls that end whatever hangs on a user, a role or a password."""
        request = operation.request
        for fact, changes in self._facts.items():
            match operation.method:
                case "user_delete":
                    ended = fact[0] in ("has", "password") and fact[1] == request.name
                case "role_delete":
                    ended = fact[0] == "has" and fact[2] == request.role
                    ended = ended or (fact[0] in ("read", "write") and fact[1] == request.role)
                case "user_add" | "user_change_password":
                    ended = fact[:2] == ("password", request.name) and fact[2] != request.password
                case _:
                    return
            if ended:
                changes.unsets.append(operation)

    def may_hold(self, fact: Fact, moment: Moment) -> bool:
        """Whether it may have been so at some time of a moment."""
        changes = self._facts.get(fact, _Changes())
        return any(
            _may_precede(change, moment) and not _is_over(change, changes.unsets, moment)
            for change in changes.sets
        )

    def may_be_off(self, moment: Moment) -> bool:
        """Whether authentication may have been off at some time of a moment."""
        changes = self._facts["on",]
        return not _is_over(None, changes.sets, moment) or any(
            _may_precede(change, moment) and not _is_over(change, changes.sets, moment)
            for change in changes.unsets
        )

    def held(self, fact: Fact, since: float, until: float) -> bool:
        """Whether it was certainly so all the time between these two."""
        changes = self._facts.get(fact, _Changes())
        return any(
            change.outcome is Outcome.OK
            and change.returned_at < since
            and not any(
                unset.called_at <= until and unset.returned_at >= change.called_at
                for unset in changes.unsets
            )
            for change in changes.sets
        )

    def why_not(self, user: str, needs: list[Need], moment: Moment) -> str:
        """What a user certainly may not do, of all that is needed; "" if there is nothing."""
        if self.may_be_off(moment):
            return ""
        if not user:
            return "authentication was on, and nobody asked"
        roles = [
            role for role in sorted(self._roles[user]) if self.may_hold(("has", user, role), moment)
        ]
        if ROOT in roles:
            return ""
        for kind, key, range_end in needs:
            ranges = [
                each
                for role in roles
                for each in self._ranges[kind, role]
                if self.may_hold((kind, role, *each), moment)
            ]
            if not _covers(ranges, key, range_end):
                return f"{user} could not {kind} {key!r} to {range_end!r}, having {roles}"
        return ""

    def had(self, user: str, needs: list[Need], since: float, until: float) -> bool:
        """Whether a user certainly had every right that is needed, all the time."""
        return all(
            any(
                self.held(("has", user, role), since, until)
                and self.held((kind, role, *each), since, until)
                for role in self._roles[user]
                for each in self._ranges[kind, role]
                if _covers([each], key, range_end)
            )
            for kind, key, range_end in needs
        )


def _may_precede(change: Operation, moment: Moment) -> bool:
    """Whether a change may have come before the end of a moment."""
    return change.called_at <= moment.until and (_revision(change) or 0) <= moment.revision_max


def _is_over(change: Operation | None, unsets: list[Operation], moment: Moment) -> bool:
    """Whether what a change set (None: what was first) was certainly unset before a moment."""
    return any(
        (unset.returned_at < moment.since or (_revision(unset) or inf) < moment.revision)
        and (change is None or _is_after(unset, change))
        for unset in unsets
    )


def _is_after(later: Operation, earlier: Operation) -> bool:
    return earlier.returned_at < later.called_at or (
        (_revision(earlier) or inf) < (_revision(later) or 0)
    )


def _revision(operation: Operation) -> int | None:
    """The store's revision when a call was applied; None: nobody knows."""
    header = getattr(operation.response, "header", None)
    return None if header is None else int(header.revision)


def _covers(ranges: list[tuple[bytes, bytes]], key: bytes, range_end: bytes) -> bool:
    """Whether ranges together have every key of another one."""
    high = upper_bound(key, range_end)
    if high is not None and high <= key:
        return True
    low = key
    for first, end in sorted(ranges):
        last = upper_bound(first, end)
        if first > low:
            return False
        if last is None:
            return True
        low = max(low, last)
        if high is not None and low >= high:
            return True
    return False


# --- what was allowed, and what was refused -------------------------------------------------------


def _check_allowed(operation: Operation, rights: _Rights) -> None:
    method, request, user = operation.method, operation.request, operation.user
    moment = _moment_of(operation)
    why = ""
    if method in KEY_CALLS:
        why = rights.why_not(user, list(_needs(request)), moment)
    elif method in ROOT_CALLS:
        if not rights.may_be_off(moment) and not rights.may_hold(("has", user, ROOT), moment):
            why = f"{user or 'nobody'} is not root"
    elif method == "authenticate":
        fact = ("password", request.name, request.password)
        why = "" if rights.may_hold(fact, moment) else "the password was another one"
    if why:
        raise _wrong("was allowed", operation, why)


def _check_refused(operation: Operation, rights: _Rights, known: float) -> None:
    """``known``: since when at least the member is known to know of all rights."""
    if ErrorKind.PERMISSION_DENIED.message not in operation.error:
        return
    if operation.method not in KEY_CALLS or any(put.lease for put in puts_of(operation.request)):
        return
    needs = list(_needs(operation.request))
    if rights.had(operation.user, needs, known, operation.returned_at):
        raise _wrong("was refused", operation, f"{operation.user} had every right to it")


class _Knowing:
    """Which rights each member certainly knows of: those that were there when a call began that it
    answered by what is current.
    """

    def __init__(self, history: History) -> None:
        self._answers: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for operation in history.operations:
            local = operation.method not in KEY_CALLS or is_serializable(operation.request)
            if operation.outcome is Outcome.OK and not local:
                times = (operation.returned_at, operation.called_at)
                self._answers[operation.member].append(times)
        for answers in self._answers.values():
            answers.sort()

    def since(self, member: int, at: float) -> float:
        """Of which time a member knows everything at ``at``; -inf: it may know nothing."""
        answers = self._answers[member]
        first = bisect_left(answers, (at - KNOWN_SECONDS, -inf))
        last = bisect_left(answers, (at, -inf))
        return max((called_at for _, called_at in answers[first:last]), default=-inf)


def _check_watch(watch: Watch, history: History, rights: _Rights) -> None:
    """No event comes that was committed after the right to see it was gone."""
    request = watch.request
    needs: list[Need] = [("read", request.key or b"\0", request.range_end)]
    for at, response in watch.responses:
        for event in response.events:
            assert event.kv is not None, "an event has a key"
            committed_at = history.truth_at.get(event.kv.mod_revision)
            if committed_at is None:
                continue
            moment = Moment(committed_at, max(at, committed_at), event.kv.mod_revision)
            why = rights.why_not(watch.user, needs, moment)
            if why:
                raise ViolationError(
                    CHECKER,
                    f"a watch on member {watch.member}, since {watch.opened_at:.6f}, was told "
                    f"{event} of {committed_at:.6f} at {at:.6f}; {why}\n  {request}",
                )


def _needs(request: Any) -> Iterator[Need]:
    """Which rights a call needs: of a transaction those of both branches."""
    match request:
        case RangeRequest():
            yield "read", request.key, request.range_end
        case PutRequest():
            yield "write", request.key, b""
            if request.prev_kv:
                yield "read", request.key, b""
        case DeleteRangeRequest():
            yield "write", request.key, request.range_end
            if request.prev_kv:
                yield "read", request.key, request.range_end
        case TxnRequest():
            for compare in request.compare:
                yield "read", compare.key, compare.range_end
            for inner in _inner(request):
                yield from _needs(inner)


def _inner(request: TxnRequest) -> Iterator[Any]:
    for operation in (*request.success, *request.failure):
        yield operation.request_range
        yield operation.request_put
        yield operation.request_delete_range
        yield operation.request_txn


def _wrong(words: str, operation: Operation, why: str) -> ViolationError:
    return ViolationError(CHECKER, f"{words}, {why}:\n  {shown(operation)}")
