"""The replicated commands and their bytes: the single source.

Format 1, a MessagePack array::

    [ format=1, member u64, incarnation u64, sequence u64, low_watermark u64, kind u8, user str,
    auth_revision i64, body ]

- ``member, incarnation, sequence`` name the proposal: a member's process number and a counter in
  it. A proposal may be sent, and may enter the log, more than once; apply lets it count once.
- ``low_watermark``: the origin will never send again any sequence below it, so apply may forget
  those.
- ``kind`` tells what the body is: a row of ``BODIES``. An unknown kind stops the node: skipping it
  would let members differ.
- ``user`` and ``auth_revision`` are checked again at apply ("" and 0 while authentication is off).
  The members' own commands carry the revision ``SYSTEM_AUTH_REVISION``, which no caller gets.
- ``body`` is the array form of the kind's message. Nothing in it is left to chance or to a clock:
  ids, times and random values are chosen before proposing.
"""

import enum
from typing import Final, TypeAlias

import msgspec

from kvstore.errors import CommandError
from kvstore.types import (
    AlarmRequest,
    AuthDisableRequest,
    AuthEnableRequest,
    AuthRoleAddRequest,
    AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest,
    AuthRoleRevokePermissionRequest,
    AuthUserAddRequest,
    AuthUserChangePasswordRequest,
    AuthUserDeleteRequest,
    AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest,
    CompactionRequest,
    DeleteRangeRequest,
    Int64,
    LeaseGrantRequest,
    LeaseRevokeRequest,
    PutRequest,
    Record,
    TxnRequest,
    Uint64,
)
from kvstore.types.base import masked

FORMAT: Final = 1

SYSTEM_AUTH_REVISION: Final = -1
"""In the envelope of what a member proposes by itself: no permission is asked for."""


class Kind(enum.IntEnum):
    """What a command does.

    Numbers are on disk for ever; 32 and above are authentication.
    """

    PUT = 1
    DELETE_RANGE = 2
    TXN = 3
    COMPACT = 4
    LEASE_GRANT = 5
    LEASE_REVOKE = 6
    LEASE_EXPIRE = 7
    LEASE_CHECKPOINT = 8
    ALARM = 9
    PUBLISH_MEMBER = 10
    CLUSTER_VERSION = 11
    MEMBERSHIP = 12
    DOWNGRADE = 13
    AUTH_ENABLE = 32
    AUTH_DISABLE = 33
    AUTH_TOKEN = 34
    USER_ADD = 35
    USER_DELETE = 36
    USER_CHANGE_PASSWORD = 37
    USER_GRANT_ROLE = 38
    USER_REVOKE_ROLE = 39
    ROLE_ADD = 40
    ROLE_DELETE = 41
    ROLE_GRANT_PERMISSION = 42
    ROLE_REVOKE_PERMISSION = 43


class LeaseExpire(Record):
    """The leader of ``term`` found these leases run out.

    Refused at apply if the entry carries another term: a leader that was paused must not end a
    lease that its successor has renewed. ``granted`` are the indexes of the grants, in the order of
    ``ids``: a lease that was revoked and granted anew under its id meanwhile is another lease.
    """

    term: Uint64
    ids: list[Int64]
    granted: list[Uint64] = msgspec.field(default_factory=list)


class LeaseCheckpoint(Record):
    """Remaining seconds of leases as the leader of ``term`` measured them.

    So that a new leader does not start them anew.

    A remaining time of 0 clears the checkpoint (the lease was renewed). ``granted`` is as in
    ``LeaseExpire``.
    """

    term: Uint64
    ids: list[Int64]
    remaining_seconds: list[Int64]
    granted: list[Uint64] = msgspec.field(default_factory=list)


class PublishMember(Record):
    """A member says its name, where clients reach it, and which log it keeps.

    ``log_id`` is drawn at random when a log is made: a member that comes with another one has lost
    what it acknowledged. 0: not said.
    """

    member_id: Uint64
    name: str
    client_urls: list[str]
    log_id: Uint64 = 0


class ClusterVersion(Record):
    """The lowest version that all members speak, ``major.minor.0``."""

    version: str


class MembershipAction(enum.IntEnum):
    """What a change of membership does."""

    ADD = 1
    REMOVE = 2
    UPDATE = 3
    PROMOTE = 4
    REPLACE = 5


class MembershipChange(Record):
    """One member comes, goes, moves, gets a vote, or gives its place to another.

    Refused at apply unless the roster is still the one that it was checked against: ``based_on`` is
    the roster's version. ``peer_urls`` and ``is_learner`` mean something where they apply;
    ``replaces`` is who gives its place and its peer URLs to ``member_id``, which learns at first.
    """

    based_on: Uint64
    action: MembershipAction
    member_id: Uint64
    peer_urls: list[str]
    is_learner: bool = False
    replaces: Uint64 = 0


class Downgrade(Record):
    """A downgrade is prepared, or (``enabled`` false) no longer."""

    enabled: bool
    target_version: str = ""


class AuthToken(Record):
    """Whoever knows this token is that user, until it runs out.

    The password was checked at ``auth_revision``: refused if users have changed since.
    """

    name: str
    token: str
    auth_revision: Uint64

    def __repr__(self) -> str:
        return masked(self, "token")


Body: TypeAlias = (
    PutRequest
    | DeleteRangeRequest
    | TxnRequest
    | CompactionRequest
    | LeaseGrantRequest
    | LeaseRevokeRequest
    | LeaseExpire
    | LeaseCheckpoint
    | AlarmRequest
    | PublishMember
    | ClusterVersion
    | MembershipChange
    | Downgrade
    | AuthEnableRequest
    | AuthDisableRequest
    | AuthToken
    | AuthUserAddRequest
    | AuthUserDeleteRequest
    | AuthUserChangePasswordRequest
    | AuthUserGrantRoleRequest
    | AuthUserRevokeRoleRequest
    | AuthRoleAddRequest
    | AuthRoleDeleteRequest
    | AuthRoleGrantPermissionRequest
    | AuthRoleRevokePermissionRequest
)

BODIES: Final[dict[Kind, type[Body]]] = {
    Kind.PUT: PutRequest,
    Kind.DELETE_RANGE: DeleteRangeRequest,
    Kind.TXN: TxnRequest,
    Kind.COMPACT: CompactionRequest,
    Kind.LEASE_GRANT: LeaseGrantRequest,
    Kind.LEASE_REVOKE: LeaseRevokeRequest,
    Kind.LEASE_EXPIRE: LeaseExpire,
    Kind.LEASE_CHECKPOINT: LeaseCheckpoint,
    Kind.ALARM: AlarmRequest,
    Kind.PUBLISH_MEMBER: PublishMember,
    Kind.CLUSTER_VERSION: ClusterVersion,
    Kind.MEMBERSHIP: MembershipChange,
    Kind.DOWNGRADE: Downgrade,
    Kind.AUTH_ENABLE: AuthEnableRequest,
    Kind.AUTH_DISABLE: AuthDisableRequest,
    Kind.AUTH_TOKEN: AuthToken,
    Kind.USER_ADD: AuthUserAddRequest,
    Kind.USER_DELETE: AuthUserDeleteRequest,
    Kind.USER_CHANGE_PASSWORD: AuthUserChangePasswordRequest,
    Kind.USER_GRANT_ROLE: AuthUserGrantRoleRequest,
    Kind.USER_REVOKE_ROLE: AuthUserRevokeRoleRequest,
    Kind.ROLE_ADD: AuthRoleAddRequest,
    Kind.ROLE_DELETE: AuthRoleDeleteRequest,
    Kind.ROLE_GRANT_PERMISSION: AuthRoleGrantPermissionRequest,
    Kind.ROLE_REVOKE_PERMISSION: AuthRoleRevokePermissionRequest,
}


class Command(msgspec.Struct, array_like=True, gc=False):
    """An envelope whose body is still bytes; ``decode_body`` opens it."""

    format: int
    member: int
    incarnation: int
    sequence: int
    low_watermark: int
    kind: int
    user: str
    auth_revision: int
    body: msgspec.Raw


_encode = msgspec.msgpack.Encoder().encode
_decode_envelope = msgspec.msgpack.Decoder(Command).decode
_decode_body = {int(kind): msgspec.msgpack.Decoder(body).decode for kind, body in BODIES.items()}


def encode(
    member: int,
    incarnation: int,
    sequence: int,
    low_watermark: int,
    kind: Kind,
    body: Body,
    user: str = "",
    auth_revision: int = 0,
) -> bytes:
    """The bytes of a command, as they go into an entry."""
    return _encode(
        (FORMAT, member, incarnation, sequence, low_watermark, kind, user, auth_revision, body)
    )


def decode(data: bytes) -> Command:
    """Open an envelope.

    Raises:
        CommandError: The bytes are no command, or of a format that this version does not know. The
            node must stop: its peers may have understood.
    """
    try:
        command = _decode_envelope(data)
    except msgspec.DecodeError as error:
        raise CommandError(f"an entry holds no command: {error}") from error
    if command.format != FORMAT:
        raise CommandError(
            f"a command has format {command.format}, this version knows {FORMAT}: "
            "upgrade this member"
        )
    return command


def decode_body(command: Command) -> Body:
    """Open the body of a command.

    Raises:
        CommandError: Unknown kind, or a body that is not of its kind.
    """
    decoder = _decode_body.get(command.kind)
    if decoder is None:
        raise CommandError(f"a command has the unknown kind {command.kind}: upgrade this member")
    try:
        return decoder(command.body)
    except msgspec.DecodeError as error:
        raise CommandError(
            f"a command of kind {command.kind} has a broken body: {error}"
        ) from error
