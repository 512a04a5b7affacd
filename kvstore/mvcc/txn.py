"""Executing writes and transactions: choose by the state before, check, then do all of it at one
revision.

A transaction runs in three steps. Its compares, nested ones too, are asked of the state before
it; that settles which operations run. Those are checked against the state before it (do leases
and keys exist, are revisions readable), while nothing has changed yet: an error changes nothing.
Then they run in order, writing at one unpublished revision, each seeing what the ones before it
did.

The caller publishes. All of it is sliced work, for a transaction may read or delete a million
keys; a small one never asks the budget.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import msgspec

from kvstore.budget import Budget, Sliced
from kvstore.errors import ErrorKind
from kvstore.mvcc.checks import TXN_DEPTH_MAX, check_operation
from kvstore.mvcc.keyrange import upper_bound
from kvstore.mvcc.store import Store
from kvstore.types import (
    OPEN_END,
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    DeleteRangeResponse,
    KeyValue,
    LeaseId,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RequestOp,
    ResponseHeader,
    ResponseOp,
    TxnRequest,
    TxnResponse,
)

STEP: Final = 64
"""Operations or keys between two questions to the budget."""

UNLIMITED_BYTES: Final = 1 << 62
"""Answers inside a replicated transaction: a limit that differs between members must not decide
what it does.
"""


class Leases(Protocol):
    """What writing needs of leases."""

    def exists(self, lease_id: LeaseId) -> bool:
        """Whether a key may be attached."""

    def attach(self, lease_id: LeaseId, key: bytes) -> None:
        """The key now lives as long as the lease."""

    def detach(self, lease_id: LeaseId, key: bytes) -> None:
        """The key no longer depends on the lease."""


# --- single writes
# ----------------------------------------------------------------------------------


def put(store: Store, leases: Leases, request: PutRequest) -> KeyValue | None:
    """Write one key, unpublished.

    Returns:
        The record before, if the key existed.

    Raises:
        KvError: LEASE_NOT_FOUND, KEY_NOT_FOUND (nothing to keep), EMPTY_KEY, VALUE_PROVIDED,
            LEASE_PROVIDED.
    """
    key = request.key
    lease = request.lease
    value = request.value
    if not key:
        raise ErrorKind.EMPTY_KEY.error()
    if lease and not leases.exists(LeaseId(lease)):
        raise ErrorKind.LEASE_NOT_FOUND.error()
    if request.ignore_value or request.ignore_lease:
        value, lease = _kept(store, request)
    previous = store.put(key, value, lease)
    held = previous.lease if previous is not None else 0
    if held != lease:
        if held:
            leases.detach(LeaseId(held), key)
        if lease:
            leases.attach(LeaseId(lease), key)
    return previous


def _kept(store: Store, request: PutRequest) -> tuple[bytes, int]:
    """Value and lease of a put that keeps one of them, or both."""
    check_operation(RequestOp(request_put=request))
    current = store.get_written(request.key)
    if current is None:
        raise ErrorKind.KEY_NOT_FOUND.error()
    return (
        current.value if request.ignore_value else request.value,
        current.lease if request.ignore_lease else request.lease,
    )


def delete_range(
    store: Store, leases: Leases, request: DeleteRangeRequest, budget: Budget
) -> Sliced[list[KeyValue]]:
    """Delete one key or the keys of a range, unpublished.

    Returns:
        The records that were, in key order.
    """
    deleted: list[KeyValue] = []
    if not request.range_end:
        _delete(store, leases, request.key, deleted)
        return deleted
    high = upper_bound(request.key, request.range_end)
    keys = store.known_keys(request.key, True, high, STEP)
    while keys:
        for key in keys:
            _delete(store, leases, key, deleted)
        if len(keys) < STEP:
            break
        if budget.spent():
            yield
        keys = store.known_keys(keys[-1], False, high, STEP)
    return deleted


def delete_keys(store: Store, leases: Leases, keys: list[bytes], budget: Budget) -> Sliced[None]:
    """Delete these keys, unpublished, in this order: those of a lease that ended."""
    deleted: list[KeyValue] = []
    for start in range(0, len(keys), STEP):
        for key in keys[start : start + STEP]:
            _delete(store, leases, key, deleted)
        deleted.clear()
        if start + STEP < len(keys) and budget.spent():
            yield


def _delete(store: Store, leases: Leases, key: bytes, deleted: list[KeyValue]) -> None:
    record = store.delete(key)
    if record is not None:
        deleted.append(record)
        if record.lease:
            leases.detach(LeaseId(record.lease), key)


# --- transactions
# -----------------------------------------------------------------------------------


class _Plan(msgspec.Struct):
    """Which branch of a transaction runs, and the plans of the transactions nested in it, in
    order.
    """

    succeeded: bool
    operations: list[RequestOp]
    nested: list["_Plan"]


def _operations(request: TxnRequest) -> Iterator[RequestOp]:
    """Every operation of both branches, nested ones too. No recursion: nothing has been checked
    yet.
    """
    open_requests = [request]
    while open_requests:
        current = open_requests.pop()
        for branch in (current.success, current.failure):
            for operation in branch:
                yield operation
                if operation.request_txn is not None:
                    open_requests.append(operation.request_txn)


def is_read_only(request: TxnRequest) -> bool:
    """Whether it has only ranges, in either branch: such a transaction needs no log entry."""
    for operation in _operations(request):
        if (
            operation.request_put is not None
            or operation.request_delete_range is not None
            or operation.request_txn is not None
        ):
            return False
    return True


def has_puts(request: TxnRequest) -> bool:
    """Whether there is a put in either branch, nested ones too."""
    return any(operation.request_put is not None for operation in _operations(request))


def has_writes(request: TxnRequest) -> bool:
    """Whether there is a put or a delete in either branch, nested ones too."""
    return any(
        operation.request_put is not None or operation.request_delete_range is not None
        for operation in _operations(request)
    )


def read_txn(
    store: Store, request: TxnRequest, budget: Budget, bytes_max: int
) -> Sliced[TxnResponse]:
    """Execute a transaction that only reads, as of the revision that is published when it starts.

    Raises:
        KvError: COMPACTED, FUTURE_REVISION, or RESPONSE_TOO_LARGE if a range's answer exceeds
            ``bytes_max``.
    """
    assert is_read_only(request), "a transaction that may write goes through the log"
    return (yield from _Execution(store, None, budget, bytes_max).run(request))


def execute_txn(
    store: Store, leases: Leases, request: TxnRequest, budget: Budget
) -> Sliced[TxnResponse]:
    """Execute a transaction; what it writes is left unpublished (``store.dirty`` tells whether it
    did).

    Raises:
        KvError: Nothing was changed: COMPACTED, FUTURE_REVISION, LEASE_NOT_FOUND, KEY_NOT_FOUND,
            EMPTY_KEY, …
    """
    return (yield from _Execution(store, leases, budget, UNLIMITED_BYTES).run(request))


class _Execution:
    """One transaction under way. Without ``leases`` it may only read, as of one published
    revision, while others write.
    """

    __slots__ = ("_budget", "_bytes_max", "_erased_from", "_leases", "_start", "_steps", "_store")

    def __init__(self, store: Store, leases: Leases | None, budget: Budget, bytes_max: int) -> None:
        self._store = store
        self._leases = leases
        self._budget = budget
        self._bytes_max = bytes_max
        self._start = store.revision
        self._steps = 0
        # The lowest key from which on an operation checked so far deletes everything.
        self._erased_from: bytes | None = None

    def run(self, request: TxnRequest) -> Sliced[TxnResponse]:
        """Choose, check, do."""
        self._store.pin()
        try:
            plan = yield from self._choose(request, TXN_DEPTH_MAX)
            yield from self._check(plan)
            return (yield from self._do(plan))
        finally:
            self._store.unpin()

    def _pause(self) -> bool:
        """Whether to end the slice here. Asked at each operation, it asks the budget at few."""
        self._steps += 1
        return not self._steps % STEP and self._budget.spent()

    # --- choose: compares see the state before
    # -------------------------------------------------------

    def _choose(self, request: TxnRequest, depth: int) -> Sliced[_Plan]:
        if not depth:
            raise ErrorKind.TOO_MANY_OPS.error()
        succeeded = True
        for compare in request.compare:
            if self._pause():
                yield
            if compare.range_end:
                succeeded = yield from self._range_holds(compare)
            else:
                succeeded = _holds(compare, self._store.get(compare.key, self._start))
            if not succeeded:
                break
        operations = request.success if succeeded else request.failure
        inner = [operation.request_txn for operation in operations]
        nested: list[_Plan] = []
        for request_txn in filter(None, inner):
            plan = yield from self._choose(request_txn, depth - 1)
            nested.append(plan)
        return _Plan(succeeded, operations, nested)

    def _range_holds(self, compare: Compare) -> Sliced[bool]:
        """Whether a compare holds for every key of its range; an empty one is a missing key."""
        store = self._store
        high = upper_bound(compare.key, compare.range_end)
        keys = store.known_keys(compare.key, True, high, STEP)
        empty = True
        while keys:
            for key in keys:
                record = store.get(key, self._start)
                if record is not None:
                    empty = False
                    if not _holds(compare, record):
                        return False
            if len(keys) < STEP:
                break
            if self._budget.spent():
                yield
            keys = store.known_keys(keys[-1], False, high, STEP)
        return not empty or _holds(compare, None)

    # --- check: nothing has changed yet
    # --------------------------------------------------------------

    def _check(self, plan: _Plan) -> Sliced[None]:
        nested = iter(plan.nested)
        for operation in plan.operations:
            if self._pause():
                yield
            if operation.request_txn is not None:
                yield from self._check(next(nested))
                continue
            check_operation(operation)
            if operation.request_put is not None:
                self._check_put(operation.request_put)
            elif operation.request_range is not None:
                self._check_range(operation.request_range)
            elif operation.request_delete_range is not None:
                self._note_delete(operation.request_delete_range)

    def _check_put(self, request: PutRequest) -> None:
        if request.ignore_value or request.ignore_lease:
            exists = self._store.get(request.key, self._start) is not None
            # An unbounded delete may stand before a put of the same key (the one overlap that is
            # allowed), and then there is nothing to keep. etcd dies of it.
            if not exists or (self._erased_from is not None and request.key >= self._erased_from):
                raise ErrorKind.KEY_NOT_FOUND.error()
        assert self._leases is not None, "a transaction that only reads has a put"
        if request.lease and not self._leases.exists(LeaseId(request.lease)):
            raise ErrorKind.LEASE_NOT_FOUND.error()

    def _check_range(self, request: RangeRequest) -> None:
        if request.revision > self._start:
            raise ErrorKind.FUTURE_REVISION.error()
        # Unlike in a plain range a negative revision is not "now": it counts as compacted, save
        # that -1 is not below the mark of a store that was never compacted.
        if request.revision and request.revision < self._store.compacted_revision:
            raise ErrorKind.COMPACTED.error()

    def _note_delete(self, request: DeleteRangeRequest) -> None:
        if request.range_end == OPEN_END and (
            self._erased_from is None or request.key < self._erased_from
        ):
            self._erased_from = request.key

    # --- do
    # --------------------------------------------------------------------------------------------

    def _do(self, plan: _Plan) -> Sliced[TxnResponse]:
        responses: list[ResponseOp] = []
        nested = iter(plan.nested)
        for operation in plan.operations:
            if self._pause():
                yield
            if operation.request_txn is not None:
                inner = yield from self._do(next(nested))
                inner.header = ResponseHeader()
                responses.append(ResponseOp(response_txn=inner))
            elif operation.request_put is not None:
                responses.append(ResponseOp(response_put=self._put(operation.request_put)))
            elif operation.request_range is not None:
                found = yield from self._range(operation.request_range)
                responses.append(ResponseOp(response_range=found))
            elif operation.request_delete_range is not None:
                deleted = yield from self._delete_range(operation.request_delete_range)
                responses.append(ResponseOp(response_delete_range=deleted))
        return TxnResponse(None, plan.succeeded, responses)

    def _header(self) -> ResponseHeader:
        return ResponseHeader(revision=self._revision())

    def _revision(self) -> int:
        """What the next operation sees: the state before, or what was written since."""
        wrote = self._leases is not None and self._store.dirty
        return self._start + 1 if wrote else self._start

    def _put(self, request: PutRequest) -> PutResponse:
        assert self._leases is not None, "a transaction that only reads has a put"
        previous = put(self._store, self._leases, request)
        return PutResponse(self._header(), previous if request.prev_kv else None)

    def _delete_range(self, request: DeleteRangeRequest) -> Sliced[DeleteRangeResponse]:
        assert self._leases is not None, "a transaction that only reads has a delete"
        deleted = yield from delete_range(self._store, self._leases, request, self._budget)
        return DeleteRangeResponse(self._header(), len(deleted), deleted if request.prev_kv else [])

    def _range(self, request: RangeRequest) -> Sliced[RangeResponse]:
        revision = request.revision if request.revision > 0 else self._revision()
        found = yield from self._store.range_at(request, revision, self._budget, self._bytes_max)
        found.header = self._header()
        return found


# --- compares
# ---------------------------------------------------------------------------------------

_ABSENT: Final = KeyValue()

# What a compare looks at, and what it holds against it: an operand of another kind counts as 0 or
# as empty.
_OPERANDS: Final[dict[int, Callable[[KeyValue, Compare], tuple[Any, Any]]]] = {
    CompareTarget.VERSION: lambda record, compare: (record.version, compare.version or 0),
    CompareTarget.CREATE: lambda record, compare: (
        record.create_revision,
        compare.create_revision or 0,
    ),
    CompareTarget.MOD: lambda record, compare: (record.mod_revision, compare.mod_revision or 0),
    CompareTarget.VALUE: lambda record, compare: (record.value, compare.value or b""),
    CompareTarget.LEASE: lambda record, compare: (record.lease, compare.lease or 0),
}


def _holds(compare: Compare, record: KeyValue | None) -> bool:
    """Whether a compare holds for a record.

    A missing key counts as zeros, but has no value: a compare of values is false whatever its
    operator. An unknown target compares as equal, an unknown operator is true.
    """
    if record is None:
        if compare.target == CompareTarget.VALUE:
            return False
        record = _ABSENT
    operands = _OPERANDS.get(compare.target)
    left, right = operands(record, compare) if operands is not None else (0, 0)
    result = compare.result
    if result == CompareResult.EQUAL:
        return bool(left == right)
    if result == CompareResult.NOT_EQUAL:
        return bool(left != right)
    if result == CompareResult.GREATER:
        return bool(left > right)
    return bool(left < right) if result == CompareResult.LESS else True
