"""Reads of the past and compactions: what was forgotten is refused, and nothing else is.

A compaction has a place in the order as every call: that of its header's revision. So two things
tell that it came before a read: that it was answered before the read was called, and that it has an
earlier revision than the read's header.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvstore.errors import ErrorKind
from kvstore.types import CompactionRequest, RangeRequest, TxnRequest
from tests.checking.history import Outcome
from tests.checking.violation import ViolationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.checking.history import History, Operation

CHECKER = "linearizability"


def check(history: History, compacted: Iterable[int] | None = ()) -> None:
    """Judge a history.

    Args:
        history: What clients did and saw.
        compacted: Revisions to which the store was compacted without a call; None: not known.

    Raises:
        ViolationError: Something was read that was forgotten, or refused that was not.
    """
    done = [
        operation
        for operation in history.operations
        if isinstance(operation.request, CompactionRequest)
        and operation.outcome is not Outcome.REFUSED
    ]
    answered = [operation for operation in done if operation.outcome is Outcome.OK]
    unasked = None if compacted is None else max(compacted, default=-1)
    for operation in answered:
        _check_answered(operation, answered)
    for operation in history.operations:
        revision = _oldest_read(operation)
        if operation.outcome is Outcome.OK and revision:
            _check_read(operation, revision, answered)
        elif operation.outcome is Outcome.REFUSED:
            _check_refused(operation, revision, done, unasked)
            _check_future(operation, revision, history)


def _check_answered(compaction: Operation, answered: list[Operation]) -> None:
    header = compaction.response.header
    if header is not None and compaction.request.revision > header.revision:
        raise _violation("a revision that was yet to come was compacted", compaction)
    for other in answered:
        over = other.returned_at < compaction.called_at
        if over and other.request.revision >= compaction.request.revision:
            raise _violation("compacted twice to the same, or back", other, compaction)


def _check_read(read: Operation, revision: int, answered: list[Operation]) -> None:
    header = read.response.header
    for compaction in answered:
        if compaction.request.revision <= revision:
            continue
        local = _is_local(read.request)
        in_time = compaction.returned_at < read.called_at and not local
        place = compaction.response.header
        in_place = None not in (header, place) and place.revision < header.revision
        if in_time or in_place:
            words = f"revision {revision} was read after it was compacted"
            raise _violation(words, compaction, read)


def _check_refused(
    refused: Operation, revision: int, done: list[Operation], unasked: int | None
) -> None:
    """COMPACTED needs a compaction that may have come before."""
    if ErrorKind.COMPACTED.message not in refused.error or unasked is None:
        return
    request = refused.request
    if isinstance(request, CompactionRequest):
        if request.revision <= unasked or request.revision < 0:
            return
        needed = request.revision
    elif isinstance(request, RangeRequest | TxnRequest) and revision > 0:
        if revision < unasked:
            return
        needed = revision + 1
    else:
        return
    if not any(
        compaction.request.revision >= needed and compaction.called_at <= refused.returned_at
        for compaction in done
        if compaction is not refused
    ):
        raise _violation("refused as compacted, and nobody had compacted so far", refused)


def _check_future(refused: Operation, revision: int, history: History) -> None:
    """FUTURE_REVISION is wrong once somebody has been told of that revision before."""
    if ErrorKind.FUTURE_REVISION.message not in refused.error:
        return
    request = refused.request
    if isinstance(request, CompactionRequest):
        revision = request.revision
    if revision <= 0 or _is_local(request):
        return
    newest = _newest_read(request) if isinstance(request, TxnRequest) else revision
    for operation in history.operations:
        header = getattr(operation.response, "header", None)
        if header is None or operation.outcome is not Outcome.OK:
            continue
        if operation.returned_at < refused.called_at and header.revision >= newest:
            raise _violation(
                "refused as of the future, and it had been told of", operation, refused
            )


def _past(request: Any) -> Iterator[RangeRequest]:
    """The reads of the past in a request, in either branch."""
    if isinstance(request, RangeRequest):
        if request.revision > 0:
            yield request
    elif isinstance(request, TxnRequest):
        for operation in (*request.success, *request.failure):
            yield from _past(operation.request_range)
            yield from _past(operation.request_txn)


def _oldest_read(operation: Operation) -> int:
    """The oldest revision that was read; 0: none. Of a transaction, in the branch that ran."""
    request = operation.request
    if isinstance(request, TxnRequest) and operation.outcome is Outcome.OK:
        revisions = list(_past_that_ran(request, operation.response))
    else:
        revisions = [read.revision for read in _past(request)]
    return min(revisions, default=0)


def _past_that_ran(request: TxnRequest, response: Any) -> Iterator[int]:
    operations = request.success if response.succeeded else request.failure
    for asked, answered in zip(operations, response.responses, strict=False):
        if asked.request_txn is not None:
            yield from _past_that_ran(asked.request_txn, answered.response_txn)
        else:
            yield from (read.revision for read in _past(asked.request_range))


def _newest_read(request: TxnRequest) -> int:
    return max((read.revision for read in _past(request)), default=0)


def _is_local(request: Any) -> bool:
    """Whether the member that was asked answers by what it has, which may be the past."""
    if isinstance(request, RangeRequest):
        return request.serializable
    if not isinstance(request, TxnRequest):
        return False
    operations = [*request.success, *request.failure]
    return bool(operations) and all(
        operation.request_range is not None and operation.request_range.serializable
        for operation in operations
    )


def _violation(words: str, *operations: Operation) -> ViolationError:
    shown = [
        f"client {operation.client}, {operation.called_at:.6f} to {operation.returned_at:.6f}:"
        f" {operation.request} {operation.response or operation.error}"
        for operation in operations
    ]
    return ViolationError(CHECKER, "\n  ".join([words, *shown]))
