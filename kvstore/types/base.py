"""What all messages share: the widths of integers on the wire, records, headers, key-values."""

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


class Record(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages.

    An array on the wire, invisible to the cyclic collector (records never form cycles).
    """


def masked(record: msgspec.Struct, *secrets: str) -> str:
    """What a record looks like, without the fields that nobody may see.

    Logs, tracebacks and the words of an error show records by their ``repr``.
    """
    shown: list[str] = []
    for name in record.__struct_fields__:
        value = getattr(record, name)
        shown.append(f"{name}=***" if value and name in secrets else f"{name}={value!r}")
    return f"{type(record).__name__}({', '.join(shown)})"


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
