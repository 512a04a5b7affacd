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
- ``body`` is the array form of the kind's message. Nothing in it is left to chance or to a clock:
  ids, times and random values are chosen before proposing.
"""

import enum
from typing import Final, TypeAlias

import msgspec

from kvstore.errors import CommandError
from kvstore.types import (
    AlarmRequest,
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

FORMAT: Final = 1


class Kind(enum.IntEnum):
    """What a command does.

    Numbers are on disk for ever; 32 and above are kept for authentication.
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


class LeaseExpire(Record):
    """The leader of ``term`` found these leases run out.

    Refused at apply if the entry carries another term: a leader that was paused must not end a
    lease that its successor has renewed.
    """

    term: Uint64
    ids: list[Int64]


class LeaseCheckpoint(Record):
    """Remaining seconds of leases as the leader of ``term`` measured them.

    So that a new leader does not start them anew.

    A remaining time of 0 clears the checkpoint (the lease was renewed).
    """

    term: Uint64
    ids: list[Int64]
    remaining_seconds: list[Int64]


class PublishMember(Record):
    """A member says its name and where clients reach it."""

    member_id: Uint64
    name: str
    client_urls: list[str]


class ClusterVersion(Record):
    """The lowest version that all members speak, ``major.minor.0``."""

    version: str


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
