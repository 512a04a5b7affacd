"""Records to messages of Protocol Buffers: fields in the order of their numbers, defaults left out.

These are the bytes that protobuf writes (the tests compare), so that a client cannot tell us from
another server. Small messages are encoded in one go, big ones in slices, so that the loop turns
between them.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from typing import Any, Final

from msgspec import Struct

from kvstore.api.grpc.names import full_name
from kvstore.api.grpc.pb.descriptors import FIELDS
from kvstore.api.v3_json.schema import Field, Kind, fields_of
from kvstore.budget import Budget, Sliced
from kvstore.types import (
    DeleteRangeResponse,
    KeyValue,
    RangeResponse,
    RangeStreamResponse,
    ResponseHeader,
    ResponseOp,
    TxnResponse,
)

SLICE_RECORDS: Final = 64
"""Records between two questions to the budget."""

SLICE_BYTES: Final = 64 * 1024
"""Or bytes of values."""

_WRAP_64: Final = 1 << 64

_Write = Callable[[Any], bytes]


def varint(number: int) -> bytes:
    """An integer in groups of seven bits, the lowest first; a negative one as of 64 bits."""
    if 0 <= number < 0x4000:
        return _SHORT[number]
    if 0 < number < 0x10000000:
        return _PAIR[number & 0x3FFF] + _SHORT[number >> 14]
    return _long(number)


@lru_cache(4096)
def _long(number: int) -> bytes:
    """Numbers of members and leases mostly, the same ones again and again."""
    if number < 0:
        number += _WRAP_64
    groups = bytearray()
    while number > 127:
        groups.append(number & 127 | 128)
        number >>= 7
    groups.append(number)
    return bytes(groups)


_PAIR: Final = tuple(bytes((number & 127 | 128, number >> 7 | 128)) for number in range(0x4000))
"""Two groups of which more follow."""

_SHORT: Final = tuple(
    bytes((number,)) if number < 128 else bytes((number & 127 | 128, number >> 7))
    for number in range(0x4000)
)
"""Whole numbers of one or two groups."""


def delimited(tag: bytes, content: bytes) -> bytes:
    """A field of wire type 2."""
    return tag + varint(len(content)) + content


class _Plan:
    """How to write one message: for each field its name, its writer, and whether zero counts."""

    __slots__ = ("fields",)

    def __init__(self, message: type[Struct]) -> None:
        numbers = FIELDS[full_name(message)]
        self.fields: list[tuple[str, _Write, bool]] = sorted(
            (
                (field.name, _writer(field, numbers[field.name]), field.optional)
                for field in fields_of(message)
            ),
            key=lambda it: numbers[it[0]],
        )


_plan: Final = cache(_Plan)


def encode(message: Struct) -> bytes:
    """A message."""
    special = _SPECIAL.get(type(message))
    return special(message) if special is not None else _fields(message)


def _fields(message: Struct) -> bytes:
    parts: list[bytes] = []
    for name, write, optional in _plan(type(message)).fields:
        value = getattr(message, name)
        if value or (optional and value is not None):
            parts.append(write(value))
    return b"".join(parts)


def encode_header(header: ResponseHeader) -> bytes:
    """A header."""
    if header.cluster_id and header.member_id and header.revision and header.raft_term:
        return b"\x08%b\x10%b\x18%b\x20%b" % (
            varint(header.cluster_id),
            varint(header.member_id),
            varint(header.revision),
            varint(header.raft_term),
        )
    return _fields(header)


def encode_key_value(item: KeyValue) -> bytes:
    """One version of a key: by one format when it is a whole one without a lease."""
    if item.value and item.version and item.create_revision and not item.lease and item.key:
        return b"\x0a%b%b\x10%b\x18%b\x20%b\x2a%b%b" % (
            varint(len(item.key)),
            item.key,
            varint(item.create_revision),
            varint(item.mod_revision),
            varint(item.version),
            varint(len(item.value)),
            item.value,
        )
    return _fields(item)


_SPECIAL: Final[dict[type[Struct], Callable[[Any], bytes]]] = {
    ResponseHeader: encode_header,
    KeyValue: encode_key_value,
}


def _writer(field: Field, number: int) -> _Write:
    is_of_length = field.kind in (Kind.BYTES, Kind.STRING, Kind.MESSAGE)
    tag = varint(number << 3 | (2 if is_of_length else 0))
    if is_of_length:
        content = _CONTENT[field.kind]
        if field.repeated is None:
            return lambda value: delimited(tag, content(value))
        return lambda items: b"".join([delimited(tag, content(item)) for item in items])
    if field.repeated is None:
        return lambda value: tag + varint(value)
    packed = varint(number << 3 | 2)
    return lambda items: delimited(packed, b"".join([varint(item) for item in items]))


_CONTENT: Final[dict[Kind, _Write]] = {
    Kind.BYTES: bytes,
    Kind.STRING: str.encode,
    Kind.MESSAGE: encode,
}


# --- Slices ---------------------------------------------------------------------------------------


def is_big(message: Struct) -> bool:
    """Whether a message should be encoded in slices: by its records, or by their bytes."""
    if isinstance(message, RangeStreamResponse):
        return message.range_response is not None and is_big(message.range_response)
    if isinstance(message, RangeResponse):
        return _is_long(message.kvs)
    if isinstance(message, DeleteRangeResponse):
        return _is_long(message.prev_kvs)
    if isinstance(message, TxnResponse):
        return len(message.responses) > SLICE_RECORDS or any(
            is_big(answer) for op in message.responses if (answer := _answer(op)) is not None
        )
    return any(
        isinstance(value, list) and len(value) > SLICE_RECORDS
        for name in message.__struct_fields__
        if (value := getattr(message, name))
    )


def _answer(op: ResponseOp) -> Struct | None:
    return op.response_range or op.response_put or op.response_delete_range or op.response_txn


def _is_long(items: list[KeyValue]) -> bool:
    return len(items) > SLICE_RECORDS or (
        len(items) > 1 and sum([len(item.value) for item in items]) > SLICE_BYTES
    )


def encode_sliced(message: Struct, budget: Budget) -> Sliced[bytes]:
    """``encode`` in slices."""
    parts: list[bytes] = []
    for name, write, optional in _plan(type(message)).fields:
        value = getattr(message, name)
        if not value and not (optional and value is not None):
            continue
        if isinstance(value, RangeResponse):
            # Of a RangeStreamResponse: field 1.
            parts.append(delimited(b"\x0a", (yield from encode_sliced(value, budget))))
        elif not isinstance(value, list):
            parts.append(write(value))
        elif isinstance(value[0], ResponseOp):
            for op in value:
                parts.append((yield from _op(op, budget)))  # noqa: PERF401
        else:
            yield from _items(parts, write, value, budget)
    return b"".join(parts)


def _items(parts: list[bytes], write: _Write, items: list[Any], budget: Budget) -> Sliced[None]:
    """A long list, a few records at a time."""
    records = size = 0
    start = 0
    for index, item in enumerate(items, 1):
        records += 1
        if type(item) is KeyValue:
            size += len(item.value)
        if records >= SLICE_RECORDS or size >= SLICE_BYTES or index == len(items):
            parts.append(write(items[start:index]))
            start = index
            records = size = 0
            if budget.spent():
                yield


_RESPONSES: Final = b"\x1a"
"""TxnResponse.responses: field 3."""


def _op(op: ResponseOp, budget: Budget) -> Sliced[bytes]:
    """One answer of a transaction, which may itself be big."""
    answer = _answer(op)
    if answer is None or not is_big(answer):
        if budget.spent():
            yield
        return delimited(_RESPONSES, encode(op))
    content = yield from encode_sliced(answer, budget)
    numbers = FIELDS["etcdserverpb.ResponseOp"]
    name = next(name for name in numbers if getattr(op, name) is not None)
    return delimited(_RESPONSES, delimited(varint(numbers[name] << 3 | 2), content))
