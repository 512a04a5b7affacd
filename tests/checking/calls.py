"""What a history says to the search for an order: who has which place, and who may have one.

The answer to a write tells its revision, and the answer to a read the revision that it saw. So a
call that was answered has its place in the order; what is left to search are those whose outcome
nobody knows, and the ends of leases, which nobody calls.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

import msgspec

from kvstore.types import (
    CampaignRequest,
    Compare,
    CompareTarget,
    DeleteRangeRequest,
    LeaderRequest,
    LockRequest,
    ProclaimRequest,
    PutRequest,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResignRequest,
    SortOrder,
    SortTarget,
    TxnRequest,
    TxnResponse,
)
from tests.checking.history import Outcome
from tests.checking.model import LeaseEnd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvstore.types import KeyValue
    from tests.checking.history import History, Operation
    from tests.checking.model import Request

LOCK_LEASE_SECONDS = 60
"""What a lock or a campaign without a lease is granted."""

_WRITES = ("put", "delete_range", "txn")


class Placed(msgspec.Struct):
    """A call that was answered.

    Attributes:
        number: Its place in the history.
        request: What it does to the model; None: nothing that the model knows of.
        response: Its answer; None: it says no more than the revision.
        place: The revision that it wrote, or that it saw.
        changes: Whether it wrote; None: its answer does not tell.
        called_at: When. A serializable read may show the past: it was called before everything.
        returned_at: When it was answered.
    """

    number: int
    request: Request | None
    response: Any
    place: int
    changes: bool | None
    called_at: float
    returned_at: float


class Possible(msgspec.Struct):
    """What may have happened, once, at any time after its call, or never."""

    number: int
    request: Request
    called_at: float
    says: str


class Seen(msgspec.Struct):
    """What some call saw of the state at a revision."""

    number: int
    revision: int
    request: RangeRequest
    response: RangeResponse


class Calls(msgspec.Struct):
    """A history, made ready."""

    placed: list[Placed] = []
    possible: list[Possible] = []
    seen: list[Seen] = []
    unplaced: list[int] = []
    """Operations that were answered without a revision."""
    unnamed: list[int] = []
    """Locks and campaigns that may have left a key whose name nobody knows: the member granted the
    lease, and never said which. Where the truth is known it names them.
    """


def read(history: History, drift_share: float) -> Calls:
    """Make a history ready.

    Args:
        history: What clients did and saw.
        drift_share: How much faster than the clients' clock a member's may run.
    """
    calls = Calls()
    for number, operation in enumerate(history.operations):
        if operation.outcome is Outcome.OK:
            _read_answered(calls, number, operation)
        elif operation.outcome is Outcome.UNKNOWN:
            _read_unknown(calls, number, operation)
        if isinstance(operation.request, LockRequest | CampaignRequest):
            _read_candidate(calls, number, operation)
    if history.truth:
        _name(calls, history)
    calls.possible += _lease_ends(history, drift_share)
    return calls


# --- answered
# --------------------------------------------------------------------------------------------


def _read_answered(calls: Calls, number: int, operation: Operation) -> None:
    meaning = _meaning(operation)
    if meaning is None:
        return
    request, response, changes = meaning
    header = operation.response.header
    if header is None or header.revision < 1:
        calls.unplaced.append(number)
        return
    called_at = -inf if is_serializable(operation.request) else operation.called_at
    place = header.revision
    if isinstance(request, RangeRequest):
        assert isinstance(response, RangeResponse), f"operation {number}: a range's answer"
        revision = request.revision if request.revision > 0 else place
        calls.seen.append(Seen(number, revision, request, response))
        request = response = None
    elif isinstance(request, TxnRequest) and isinstance(response, TxnResponse):
        calls.seen += _past_ranges(number, request, response)
    calls.placed.append(
        Placed(number, request, response, place, changes, called_at, operation.returned_at)
    )


def _meaning(operation: Operation) -> tuple[Request | None, Any, bool | None] | None:
    """What an answered call means to the model, its answer there, and whether it wrote."""
    request, response = operation.request, operation.response
    match operation.method:
        case "put":
            return request, response, True
        case "delete_range":
            return request, response, response.deleted > 0
        case "txn":
            return request, response, has_changed(response)
        case "range":
            return request, response, False
        case "lease_revoke":
            return LeaseEnd(request.ID), None, None
        case "unlock":
            return DeleteRangeRequest(request.key), None, None
        case "resign":
            return _resignation(request), None, None
        case "proclaim":
            return _proclamation(request), None, True
        case "leader":
            found = RangeResponse(kvs=[response.kv], count=-1)
            return _first_of(request), found, False
        case "lock" | "campaign" | "lease_grant" | "compact":
            return None, None, False
    return None


def has_changed(response: TxnResponse) -> bool:
    """Whether a transaction wrote, by its answer."""
    for done in response.responses:
        if done.response_put is not None:
            return True
        if done.response_delete_range is not None and done.response_delete_range.deleted:
            return True
        if done.response_txn is not None and has_changed(done.response_txn):
            return True
    return False


def has_written(operation: Operation) -> bool:
    """Whether the revision of an answer is the call's own."""
    match operation.method:
        case "put":
            return True
        case "delete_range":
            return bool(operation.response.deleted)
        case "txn":
            return has_changed(operation.response)
    return False


def _past_ranges(number: int, request: TxnRequest, response: TxnResponse) -> Iterator[Seen]:
    operations = request.success if response.succeeded else request.failure
    for asked, done in zip(operations, response.responses, strict=False):
        if asked.request_txn is not None and done.response_txn is not None:
            yield from _past_ranges(number, asked.request_txn, done.response_txn)
        elif (
            asked.request_range is not None
            and done.response_range is not None
            and asked.request_range.revision > 0
        ):
            revision = asked.request_range.revision
            yield Seen(number, revision, asked.request_range, done.response_range)


def is_serializable(request: Any) -> bool:
    """Whether a member answers by what it has, be it of long ago."""
    if isinstance(request, RangeRequest):
        return request.serializable
    if isinstance(request, TxnRequest):
        operations = [*request.success, *request.failure]
        return bool(operations) and all(
            operation.request_range is not None and operation.request_range.serializable
            for operation in operations
        )
    return False


# --- not answered
# --------------------------------------------------------------------------------------------


def _read_unknown(calls: Calls, number: int, operation: Operation) -> None:
    request = operation.request
    meaning: Request | None = None
    if operation.method in _WRITES:
        meaning = request
    elif operation.method == "lease_revoke":
        meaning = LeaseEnd(request.ID)
    elif operation.method == "unlock":
        meaning = DeleteRangeRequest(request.key)
    elif operation.method == "resign":
        meaning = _resignation(request)
    elif operation.method == "proclaim":
        meaning = _proclamation(request)
    if meaning is not None:
        says = f"{operation.method} of unknown outcome"
        calls.possible.append(Possible(number, meaning, operation.called_at, says))


def _read_candidate(calls: Calls, number: int, operation: Operation) -> None:
    """A lock or campaign has entered at some time, and, if it was not answered, may have left."""
    request = operation.request
    key = _candidates_key(operation)
    if not key:
        if operation.outcome is Outcome.UNKNOWN:
            calls.unnamed.append(number)
        return
    lease = request.lease or int(key.rpartition(b"/")[2], 16)
    value = b"" if isinstance(request, LockRequest) else request.value
    put = RequestOp(request_put=PutRequest(key, value, lease))
    absent = Compare(target=CompareTarget.CREATE, key=key, create_revision=0)
    enter = TxnRequest(compare=[absent], success=[put])
    at, method = operation.called_at, operation.method
    calls.possible.append(Possible(number, enter, at, f"{method} enters"))
    if isinstance(request, CampaignRequest):
        proclaim = TxnRequest(compare=[absent], failure=[put])
        calls.possible.append(Possible(number, proclaim, at, f"{method} proclaims"))
    if operation.outcome is not Outcome.OK:
        leave = DeleteRangeRequest(key)
        calls.possible.append(Possible(number, leave, at, f"{method} leaves"))


def _candidates_key(operation: Operation) -> bytes:
    """The key of a lock or campaign; b"" if nobody was told."""
    if operation.outcome is Outcome.OK:
        return key_of(operation)
    request = operation.request
    return b"%b/%x" % (request.name, request.lease) if request.lease else b""


def key_of(operation: Operation) -> bytes:
    """What stands for whoever was told that it holds a lock, or leads."""
    response = operation.response
    key = response.key if isinstance(operation.request, LockRequest) else response.leader.key
    assert isinstance(key, bytes), "a key is bytes"
    return key


def _name(calls: Calls, history: History) -> None:
    """Give the locks and campaigns that nobody could name the keys that came up and are nobody's.

    Which of several got which key makes no difference to what the store held. So a key is entered
    for once by the first of them that may have, left once, and its lease ends once.
    """
    unnamed, calls.unnamed = calls.unnamed, []
    known = {
        _candidates_key(operation)
        for operation in history.operations
        if isinstance(operation.request, LockRequest | CampaignRequest)
    }
    for events in history.truth.values():
        for event in events:
            record = event.kv
            if record is None or record.version != 1 or record.key in known:
                continue
            for number in unnamed:
                operation = history.operations[number]
                request = operation.request
                value = b"" if isinstance(request, LockRequest) else request.value
                if (record.key, record.value) == (b"%b/%x" % (request.name, record.lease), value):
                    known.add(record.key)
                    calls.possible += _stranger(number, operation, record)
                    break


def _stranger(number: int, operation: Operation, record: KeyValue) -> Iterator[Possible]:
    put = RequestOp(request_put=PutRequest(record.key, record.value, record.lease))
    absent = Compare(target=CompareTarget.CREATE, key=record.key, create_revision=0)
    at, method = operation.called_at, operation.method
    enter = TxnRequest(compare=[absent], success=[put])
    yield Possible(number, enter, at, f"some {method} enters")
    yield Possible(number, DeleteRangeRequest(record.key), at, f"some {method} leaves")
    yield Possible(number, LeaseEnd(record.lease), at, f"lease {record.lease} ends")


def _resignation(request: ResignRequest) -> TxnRequest:
    assert request.leader is not None, "an answered resignation named no leader"
    leader = request.leader
    delete = RequestOp(request_delete_range=DeleteRangeRequest(leader.key))
    return TxnRequest(compare=[_created_at(leader.key, leader.rev)], success=[delete])


def _proclamation(request: ProclaimRequest) -> TxnRequest:
    assert request.leader is not None, "an answered proclamation named no leader"
    leader = request.leader
    put = RequestOp(request_put=PutRequest(leader.key, request.value, leader.lease))
    return TxnRequest(compare=[_created_at(leader.key, leader.rev)], success=[put])


def _created_at(key: bytes, revision: int) -> Compare:
    return Compare(target=CompareTarget.CREATE, key=key, create_revision=revision)


def _first_of(request: LeaderRequest) -> RangeRequest:
    return RangeRequest(
        request.name + b"/",
        request.name + b"0",
        limit=1,
        sort_order=SortOrder.ASCEND,
        sort_target=SortTarget.CREATE,
    )


# --- leases
# --------------------------------------------------------------------------------------------


def _lease_ends(history: History, drift_share: float) -> list[Possible]:
    """Each lease may run out once a grant, not before its time.

    A lease that somebody holds keys of and nobody was granted may have been granted by others.
    """
    ends: list[Possible] = []
    granted: set[int] = set()
    named: dict[int, int] = {}
    for number, operation in enumerate(history.operations):
        request = operation.request
        for lease in _leases_named(operation):
            named.setdefault(lease, number)
        if operation.method != "lease_grant" or operation.outcome is Outcome.REFUSED:
            continue
        response = operation.response
        lease = request.ID if response is None else response.ID
        seconds = request.TTL if response is None else response.TTL
        granted.add(lease)
        earliest = operation.called_at + max(seconds, 0) * (1 - drift_share)
        ends.append(Possible(number, LeaseEnd(lease), earliest, f"lease {lease} runs out"))
    for lease, number in named.items():
        if lease not in granted:
            says = f"lease {lease}, which no call here granted, ends"
            ends.append(Possible(number, LeaseEnd(lease), -inf, says))
    return ends


def _leases_named(operation: Operation) -> Iterator[int]:
    request = operation.request
    if operation.outcome is Outcome.REFUSED:
        return
    if isinstance(request, PutRequest) and request.lease:
        yield request.lease
    elif isinstance(request, TxnRequest):
        for put in puts_of(request):
            if put.lease:
                yield put.lease
    elif isinstance(request, LockRequest | CampaignRequest):
        if request.lease:
            yield request.lease
        elif operation.outcome is Outcome.OK and isinstance(request, LockRequest):
            yield int(operation.response.key.rpartition(b"/")[2], 16)
        elif operation.outcome is Outcome.OK:
            yield operation.response.leader.lease
    elif (
        isinstance(request, ProclaimRequest) and request.leader is not None and request.leader.lease
    ):
        yield request.leader.lease


def puts_of(request: Any) -> Iterator[PutRequest]:
    """Every put of a request, as ``leaves``."""
    return (leaf for leaf in leaves(request) if isinstance(leaf, PutRequest))


def leaves(request: Any) -> Iterator[PutRequest | DeleteRangeRequest]:
    """A put or a delete itself; of a transaction those of both branches, nested ones too."""
    if isinstance(request, PutRequest | DeleteRangeRequest):
        yield request
    elif isinstance(request, TxnRequest):
        for operation in (*request.success, *request.failure):
            yield from leaves(
                operation.request_put or operation.request_delete_range or operation.request_txn
            )
