"""The messages of etcd's v3 API as typed records.

Every face, the service, the replicated commands and the client use them.

Field order is protobuf field order, names are the proto names. All are ``array_like``: as
MessagePack (commands, snapshots) they are arrays in this order, so **a field may be added at the
end, never moved or removed**. JSON is the business of ``kvstore/api/v3_json``, which reads the
integer widths from the annotations.
"""

import enum
from typing import Annotated, Final, NewType, TypeAlias

import msgspec

Revision = NewType("Revision", int)
LeaseId = NewType("LeaseId", int)
MemberId = NewType("MemberId", int)

Int64: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": "int64"})]
Uint64: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": "uint64"})]
Uint32: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": "uint32"})]

OPEN_END: Final = b"\0"
"""As ``range_end``: every key from ``key`` on."""


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


class FilterType(enum.IntEnum):
    """WatchCreateRequest.FilterType."""

    NOPUT = 0
    NODELETE = 1


class EventType(enum.IntEnum):
    """Event.EventType."""

    PUT = 0
    DELETE = 1


class AlarmType(enum.IntEnum):
    """AlarmType."""

    NONE = 0
    NOSPACE = 1
    CORRUPT = 2


class AlarmAction(enum.IntEnum):
    """AlarmRequest.AlarmAction."""

    GET = 0
    ACTIVATE = 1
    DEACTIVATE = 2


# Enums that clients send may hold any number (proto3 enums are open): the number is kept, and what
# it means is decided where it is used.
AnySortOrder: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": SortOrder})]
AnySortTarget: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": SortTarget})]
AnyCompareResult: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": CompareResult})]
AnyCompareTarget: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": CompareTarget})]
AnyFilterType: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": FilterType})]
AnyAlarmType: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": AlarmType})]
AnyAlarmAction: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": AlarmAction})]


class Record(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages.

    An array on the wire, invisible to the cyclic collector (records never form cycles).
    """


class FrozenRecord(msgspec.Struct, array_like=True, gc=False, frozen=True):
    """Base of what is shared by many holders, and so never changed."""


class KeyValue(FrozenRecord, frozen=True):
    """One version of one key.

    A tombstone (internal, and in DELETE events) has version 0, only key and mod_revision set.
    """

    key: bytes = b""
    create_revision: Int64 = 0
    mod_revision: Int64 = 0
    version: Int64 = 0
    value: bytes = b""
    lease: Int64 = 0


class ResponseHeader(Record):
    """Who answered, at which store revision and raft term."""

    cluster_id: Uint64 = 0
    member_id: Uint64 = 0
    revision: Int64 = 0
    raft_term: Uint64 = 0


# --- KV -------------------------------------------------------------------------------------------


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


# --- Watch ----------------------------------------------------------------------------------------


class Event(FrozenRecord, frozen=True):
    """One change, as watchers see it."""

    type: EventType = EventType.PUT
    kv: KeyValue | None = None
    prev_kv: KeyValue | None = None


class WatchCreateRequest(Record):
    """Open a watcher on a stream."""

    key: bytes = b""
    range_end: bytes = b""
    start_revision: Int64 = 0
    progress_notify: bool = False
    filters: list[AnyFilterType] = []
    prev_kv: bool = False
    watch_id: Int64 = 0
    fragment: bool = False


class WatchCancelRequest(Record):
    """Close a watcher."""

    watch_id: Int64 = 0


class WatchProgressRequest(Record):
    """Ask for the stream's progress."""


class WatchRequest(Record):
    """One of three, or none."""

    create_request: WatchCreateRequest | None = None
    cancel_request: WatchCancelRequest | None = None
    progress_request: WatchProgressRequest | None = None


class WatchResponse(Record):
    """Events of one watcher, or word about it."""

    header: ResponseHeader | None = None
    watch_id: Int64 = 0
    created: bool = False
    canceled: bool = False
    compact_revision: Int64 = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: list[Event] = []


# --- Lease ----------------------------------------------------------------------------------------


class LeaseGrantRequest(Record):
    """Grant a lease of ``TTL`` seconds; ``ID`` 0 lets the server choose."""

    TTL: Int64 = 0
    ID: Int64 = 0


class LeaseGrantResponse(Record):
    """What was granted."""

    header: ResponseHeader | None = None
    ID: Int64 = 0
    TTL: Int64 = 0
    error: str = ""


class LeaseRevokeRequest(Record):
    """End a lease and delete its keys."""

    ID: Int64 = 0


class LeaseRevokeResponse(Record):
    """Header only."""

    header: ResponseHeader | None = None


class LeaseKeepAliveRequest(Record):
    """Start a lease's time anew."""

    ID: Int64 = 0


class LeaseKeepAliveResponse(Record):
    """``TTL`` 0: no such lease."""

    header: ResponseHeader | None = None
    ID: Int64 = 0
    TTL: Int64 = 0


class LeaseTimeToLiveRequest(Record):
    """Ask after a lease."""

    ID: Int64 = 0
    keys: bool = False


class LeaseTimeToLiveResponse(Record):
    """``TTL`` is what remains, in whole seconds; -1: no such lease."""

    header: ResponseHeader | None = None
    ID: Int64 = 0
    TTL: Int64 = 0
    grantedTTL: Int64 = 0
    keys: list[bytes] = []


class LeaseLeasesRequest(Record):
    """List all leases."""


class LeaseStatus(Record):
    """One lease in a list."""

    ID: Int64 = 0


class LeaseLeasesResponse(Record):
    """Soonest expiry first."""

    header: ResponseHeader | None = None
    leases: list[LeaseStatus] = []


# --- Cluster, Maintenance -------------------------------------------------------------------------


class Member(FrozenRecord, frozen=True):
    """One member of the cluster. Name and client URLs are empty until it has started."""

    ID: Uint64 = 0
    name: str = ""
    peerURLs: tuple[str, ...] = ()
    clientURLs: tuple[str, ...] = ()
    isLearner: bool = False


class MemberListRequest(Record):
    """List the members; linearizable on request."""

    linearizable: bool = False


class MemberListResponse(Record):
    """Sorted by id."""

    header: ResponseHeader | None = None
    members: list[Member] = []


class AlarmMember(FrozenRecord, frozen=True):
    """One raised alarm."""

    memberID: Uint64 = 0
    alarm: AnyAlarmType = AlarmType.NONE


class AlarmRequest(Record):
    """Raise, clear or list alarms."""

    action: AnyAlarmAction = AlarmAction.GET
    memberID: Uint64 = 0
    alarm: AnyAlarmType = AlarmType.NONE


class AlarmResponse(Record):
    """The alarms concerned."""

    header: ResponseHeader | None = None
    alarms: list[AlarmMember] = []


class StatusRequest(Record):
    """How is this member?"""


class DowngradeInfo(Record):
    """No downgrade is ever running here."""

    enabled: bool = False
    targetVersion: str = ""


class StatusResponse(Record):
    """The answering member's own view."""

    header: ResponseHeader | None = None
    version: str = ""
    dbSize: Int64 = 0
    leader: Uint64 = 0
    raftIndex: Uint64 = 0
    raftTerm: Uint64 = 0
    raftAppliedIndex: Uint64 = 0
    errors: list[str] = []
    dbSizeInUse: Int64 = 0
    isLearner: bool = False
    storageVersion: str = ""
    dbSizeQuota: Int64 = 0
    downgradeInfo: DowngradeInfo | None = None
