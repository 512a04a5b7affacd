"""The KV service: read, write, delete, transactions, compaction."""

import enum
from typing import Annotated, TypeAlias

import msgspec

from kvstore.types.base import Int64, KeyValue, Record, ResponseHeader


class SortOrder(enum.IntEnum):
    """RangeRequest.SortOrder."""

    NONE = 0
    ASCEND = 1
    DESCEND = 2


class SortTarget(enum.IntEnum):
    """RangeRequest.SortTarget."""

    KEY = 0
    VERSION = 1
    CREATE = 2
    MOD = 3
    VALUE = 4


class CompareResult(enum.IntEnum):
    """Compare.CompareResult."""

    EQUAL = 0
    GREATER = 1
    LESS = 2
    NOT_EQUAL = 3


class CompareTarget(enum.IntEnum):
    """Compare.CompareTarget."""

    VERSION = 0
    CREATE = 1
    MOD = 2
    VALUE = 3
    LEASE = 4


# Enums that clients send may hold any number (proto3 enums are open): the number is kept, and what
# it means is decided where it is used.
AnySortOrder: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": SortOrder})]
AnySortTarget: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": SortTarget})]
AnyCompareResult: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": CompareResult})]
AnyCompareTarget: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": CompareTarget})]


class RangeRequest(Record):
    """Read one key, or the keys of a range."""

    key: bytes = b""
    range_end: bytes = b""
    limit: Int64 = 0
    revision: Int64 = 0
    sort_order: AnySortOrder = SortOrder.NONE
    sort_target: AnySortTarget = SortTarget.KEY
    serializable: bool = False
    keys_only: bool = False
    count_only: bool = False
    min_mod_revision: Int64 = 0
    max_mod_revision: Int64 = 0
    min_create_revision: Int64 = 0
    max_create_revision: Int64 = 0


class RangeResponse(Record):
    """What a range found. ``count`` ignores limit and revision filters."""

    header: ResponseHeader | None = None
    kvs: list[KeyValue] = []
    more: bool = False
    count: Int64 = 0


class RangeStreamResponse(Record):
    """A piece of what a range found; header, more and count come with the last one."""

    range_response: RangeResponse | None = None


class PutRequest(Record):
    """Write one key."""

    key: bytes = b""
    value: bytes = b""
    lease: Int64 = 0
    prev_kv: bool = False
    ignore_value: bool = False
    ignore_lease: bool = False


class PutResponse(Record):
    """``prev_kv`` if asked for and there was one."""

    header: ResponseHeader | None = None
    prev_kv: KeyValue | None = None


class DeleteRangeRequest(Record):
    """Delete one key, or the keys of a range."""

    key: bytes = b""
    range_end: bytes = b""
    prev_kv: bool = False


class DeleteRangeResponse(Record):
    """How many were deleted, and what they were if asked for."""

    header: ResponseHeader | None = None
    deleted: Int64 = 0
    prev_kvs: list[KeyValue] = []


class Compare(Record):
    """One condition of a transaction. At most one of the five operands is set (None: not given)."""

    result: AnyCompareResult = CompareResult.EQUAL
    target: AnyCompareTarget = CompareTarget.VERSION
    key: bytes = b""
    version: Int64 | None = None
    create_revision: Int64 | None = None
    mod_revision: Int64 | None = None
    value: bytes | None = None
    lease: Int64 | None = None
    range_end: bytes = b""


class RequestOp(Record):
    """One operation of a transaction: at most one field is set."""

    request_range: RangeRequest | None = None
    request_put: PutRequest | None = None
    request_delete_range: DeleteRangeRequest | None = None
    request_txn: "TxnRequest | None" = None


class TxnRequest(Record):
    """If all of ``compare`` hold do ``success``, else ``failure``."""

    compare: list[Compare] = []
    success: list[RequestOp] = []
    failure: list[RequestOp] = []


class ResponseOp(Record):
    """The answer to one operation of a transaction."""

    response_range: RangeResponse | None = None
    response_put: PutResponse | None = None
    response_delete_range: DeleteRangeResponse | None = None
    response_txn: "TxnResponse | None" = None


class TxnResponse(Record):
    """Which branch ran, and its answers in order."""

    header: ResponseHeader | None = None
    succeeded: bool = False
    responses: list[ResponseOp] = []


class CompactionRequest(Record):
    """Forget history below a revision."""

    revision: Int64 = 0
    physical: bool = False


class CompactionResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None
