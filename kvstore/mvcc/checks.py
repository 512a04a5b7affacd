"""What a request must look like before anything is looked up: checked before proposing.

The rules and their order are etcd's (its clients test for the texts). The state decides nothing
here, so that a member may refuse a request without asking anybody.
"""

from typing import Final

from kvstore.errors import ErrorKind
from kvstore.mvcc.keyrange import KeyRanges
from kvstore.types import (
    OPEN_END,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    RequestOp,
    SortOrder,
    SortTarget,
    TxnRequest,
)

TXN_DEPTH_MAX: Final = 64
"""Transactions nested deeper than this are refused as too many operations: the limit on
operations alone
would let a nest use up the interpreter's stack where that limit was raised."""

_SORT_ORDERS: Final = frozenset(int(order) for order in SortOrder)
_SORT_TARGETS: Final = frozenset(int(target) for target in SortTarget)


def check_range(request: RangeRequest) -> None:
    """Whether a range can be asked for.

    Raises:
        KvError: EMPTY_KEY or INVALID_SORT_OPTION.
    """
    if not request.key:
        raise ErrorKind.EMPTY_KEY.error()
    if request.sort_order not in _SORT_ORDERS or request.sort_target not in _SORT_TARGETS:
        raise ErrorKind.INVALID_SORT_OPTION.error()


def check_put(request: PutRequest) -> None:
    """Whether a put can be asked for.

    Raises:
        KvError: EMPTY_KEY, VALUE_PROVIDED or LEASE_PROVIDED.
    """
    if not request.key:
        raise ErrorKind.EMPTY_KEY.error()
    if request.ignore_value and request.value:
        raise ErrorKind.VALUE_PROVIDED.error()
    if request.ignore_lease and request.lease:
        raise ErrorKind.LEASE_PROVIDED.error()


def check_delete_range(request: DeleteRangeRequest) -> None:
    """Whether a delete can be asked for.

    Raises:
        KvError: EMPTY_KEY.
    """
    if not request.key:
        raise ErrorKind.EMPTY_KEY.error()


def check_txn(request: TxnRequest, ops_max: int) -> None:
    """Whether a transaction can be asked for: both branches, nested ones too.

    Args:
        request: The transaction.
        ops_max: The longest that the list of compares or a branch may be. A nested transaction
            has what the one around it left.

    Raises:
        KvError: TOO_MANY_OPS, EMPTY_KEY, KEY_NOT_FOUND (an operation that asks for nothing),
            DUPLICATE_KEY, or what is wrong with an operation.
    """
    _check_shape(request, ops_max, TXN_DEPTH_MAX)
    _check_branch(request.success)
    _check_branch(request.failure)


def check_operation(operation: RequestOp) -> None:
    """Whether an operation of a transaction, itself not nested, can be asked for.

    Raises:
        KvError: KEY_NOT_FOUND if it asks for nothing, or what is wrong with it.
    """
    if operation.request_put is not None:
        check_put(operation.request_put)
    elif operation.request_range is not None:
        check_range(operation.request_range)
    elif operation.request_delete_range is not None:
        check_delete_range(operation.request_delete_range)
    else:
        raise ErrorKind.KEY_NOT_FOUND.error()


def _check_shape(request: TxnRequest, ops_max: int, depth: int) -> None:
    ops = max(len(request.compare), len(request.success), len(request.failure))
    if ops > ops_max or not depth:
        raise ErrorKind.TOO_MANY_OPS.error()
    for compare in request.compare:
        if not compare.key:
            raise ErrorKind.EMPTY_KEY.error()
    for branch in (request.success, request.failure):
        for operation in branch:
            if operation.request_txn is not None:
                _check_shape(operation.request_txn, ops_max - ops, depth - 1)
            else:
                check_operation(operation)


def _check_branch(branch: list[RequestOp]) -> tuple[set[bytes], KeyRanges]:
    """No key may be put twice, nor be put and deleted: one revision holds one outcome a key.

    The branches of a nested transaction exclude each other, so the same key may be put in both.
    As in etcd, a delete without an upper bound is not looked at, nor is a nested delete held
    against the puts of a nested transaction before it; both run in order.

    Returns:
        The keys that are put and the ranges that are deleted, nested ones included.
    """
    deletes = KeyRanges()
    puts: set[bytes] = set()
    for operation in branch:
        delete = operation.request_delete_range
        if delete is not None and delete.range_end != OPEN_END:
            deletes.add(delete.key, delete.range_end or delete.key + b"\0")
    for operation in branch:
        nested = operation.request_txn
        if nested is None:
            continue
        puts_then, deletes_then = _check_branch(nested.success)
        puts_else, deletes_else = _check_branch(nested.failure)
        for key in puts_then | puts_else:
            if key in puts or key in deletes:
                raise ErrorKind.DUPLICATE_KEY.error()
        puts |= puts_then
        puts |= puts_else
        deletes.update(deletes_then)
        deletes.update(deletes_else)
    for operation in branch:
        put = operation.request_put
        if put is not None:
            if put.key in puts or put.key in deletes:
                raise ErrorKind.DUPLICATE_KEY.error()
            puts.add(put.key)
    return puts, deletes
