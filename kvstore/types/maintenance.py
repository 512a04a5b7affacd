"""The Maintenance service: alarms, status, hashes, snapshots, leadership."""

import enum
from typing import Annotated, TypeAlias

import msgspec

from kvstore.types.base import FrozenRecord, Int64, Record, ResponseHeader, Uint32, Uint64


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
AnyAlarmType: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": AlarmType})]
AnyAlarmAction: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": AlarmAction})]


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


class DefragmentRequest(Record):
    """Give unused room back: there is none to give, all data is in memory."""


class DefragmentResponse(Record):
    """Empty, without even a header, as in etcd."""


class HashRequest(Record):
    """The hash of this member's whole state."""


class HashResponse(Record):
    """Comparable between members at an equal applied index only."""

    header: ResponseHeader | None = None
    hash: Uint32 = 0


class HashKVRequest(Record):
    """The hash of the keys as of a revision; 0: the current one."""

    revision: Int64 = 0


class HashKVResponse(Record):
    """``compact_revision`` is -1 where nothing was ever compacted."""

    header: ResponseHeader | None = None
    hash: Uint32 = 0
    compact_revision: Int64 = 0
    hash_revision: Int64 = 0


class SnapshotRequest(Record):
    """Stream a snapshot of this member's state."""


class SnapshotResponse(Record):
    """One chunk; ``remaining_bytes`` is what follows it. The last carries the SHA-256 of all."""

    header: ResponseHeader | None = None
    remaining_bytes: Uint64 = 0
    blob: bytes = b""
    version: str = ""


class MoveLeaderRequest(Record):
    """Hand leadership to a voting member; sent to the leader."""

    targetID: Uint64 = 0


class MoveLeaderResponse(Record):
    """Empty, without even a header, as in etcd."""


class DowngradeAction(enum.IntEnum):
    """DowngradeRequest.DowngradeAction."""

    VALIDATE = 0
    ENABLE = 1
    CANCEL = 2


AnyDowngradeAction: TypeAlias = Annotated[int, msgspec.Meta(extra={"wire": DowngradeAction})]


class DowngradeRequest(Record):
    """Prepare the cluster for a version one minor lower."""

    action: AnyDowngradeAction = DowngradeAction.VALIDATE
    version: str = ""


class DowngradeResponse(Record):
    """The cluster's version, ``major.minor``."""

    header: ResponseHeader | None = None
    version: str = ""
