"""What the state costs, and what a request would add: the quota is held before proposing."""

from typing import Final

import msgspec

from kvstore.commands import Body
from kvstore.types import LeaseGrantRequest, PutRequest, RequestOp, TxnRequest

DEFAULT_QUOTA_BYTES: Final = 2 << 30

PUT_OVERHEAD_BYTES: Final = 256
LEASE_BYTES: Final = 64


class StateLimits(msgspec.Struct, frozen=True):
    """Limits of the state. They hold before proposing; nothing of them decides at apply, for
    members may differ in them.

    Attributes:
        quota_bytes: Size from which on writes that add are refused; 0 or less: never.
        watch_records_max: A revision of more versions is not handed to watchers record by record:
            they read it from the log.
    """

    quota_bytes: int = DEFAULT_QUOTA_BYTES
    watch_records_max: int = 256


def request_cost(request: Body) -> int:
    """Bytes that a request may add; 0 for those that the quota does not concern. A transaction
    costs its dearer branch.
    """
    if isinstance(request, PutRequest):
        return PUT_OVERHEAD_BYTES + len(request.key) + len(request.value)
    if isinstance(request, TxnRequest):
        return max(_branch_cost(request.success), _branch_cost(request.failure))
    return LEASE_BYTES if isinstance(request, LeaseGrantRequest) else 0


def _branch_cost(branch: list[RequestOp]) -> int:
    cost = 0
    for operation in branch:
        if operation.request_put is not None:
            cost += request_cost(operation.request_put)
        elif operation.request_txn is not None:
            cost += request_cost(operation.request_txn)
    return cost
