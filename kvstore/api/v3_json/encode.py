"""Messages to JSON: proto names, int64 as strings, base64, enums by name, defaults left out.

Small messages are encoded in one go. Big ones come in slices of a bounded number of records, so
that the loop turns between them. What is asked for all the time has a prepared format.
"""

from binascii import b2a_base64
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from kvstore.api.v3_json.schema import Field, Kind, fields_of
from kvstore.types import (
    DeleteRangeResponse,
    Event,
    EventType,
    KeyValue,
    PutResponse,
    RangeResponse,
    ResponseHeader,
    ResponseOp,
    TxnResponse,
)

SLICE_RECORDS: Final = 256
"""Records in a slice: about 0.3 ms of work."""

SLICE_BYTES: Final = 256 * 1024
"""A slice ends earlier when it has this many bytes."""

_Piece = Callable[[Any], bytes]

_text: Final = msgspec.json.Encoder().encode


class _Plan:
    """How to write one message type: for each field its name, writer, and whether zero counts."""

    __slots__ = ("fields",)

    def __init__(self, message: type[Struct]) -> None:
        self.fields: list[tuple[str, bytes, Field, _Piece]] = [
            (field.name, b'"%b":' % field.name.encode(), field, _writer(field))
            for field in fields_of(message)
        ]


_plan: Final = cache(_Plan)


def encode(message: Struct) -> bytes:
    """A message as one JSON object."""
    special = _SPECIAL.get(type(message))
    return special(message) if special is not None else _object(message)


def _object(message: Struct) -> bytes:
    parts: list[bytes] = []
    for name, label, field, write in _plan(type(message)).fields:
        value = getattr(message, name)
        if value or (field.optional and value is not None):
            parts.append(label + write(value))
    return b"{" + b",".join(parts) + b"}"


def encode_header(header: ResponseHeader) -> bytes:
    """A header, in full or with only what is set."""
    if header.cluster_id and header.member_id and header.revision and header.raft_term:
        return b'{"cluster_id":"%d","member_id":"%d","revision":"%d","raft_term":"%d"}' % (
            header.cluster_id,
            header.member_id,
            header.revision,
            header.raft_term,
        )
    return _object(header)


def encode_key_value(item: KeyValue) -> bytes:
    """One version of a key: by one format when it is a whole one without a lease."""
    if item.value and item.version and item.create_revision and not item.lease and item.key:
        return (
            b'{"key":"%b","create_revision":"%d","mod_revision":"%d","version":"%d","value":"%b"}'
            % (
                b2a_base64(item.key, newline=False),
                item.create_revision,
                item.mod_revision,
                item.version,
                b2a_base64(item.value, newline=False),
            )
        )
    return _object(item)


def encode_event(event: Event) -> bytes:
    """One change."""
    if event.prev_kv is None and event.kv is not None:
        if event.type is EventType.PUT:
            return b'{"kv":%b}' % encode_key_value(event.kv)
        return b'{"type":"DELETE","kv":%b}' % encode_key_value(event.kv)
    return _object(event)


_SPECIAL: Final[dict[type[Struct], Callable[[Any], bytes]]] = {
    ResponseHeader: encode_header,
    KeyValue: encode_key_value,
    Event: encode_event,
}


def _writer(field: Field) -> _Piece:
    if field.repeated is not None:
        write = _single(field)
        return lambda items: b"[" + b",".join([write(item) for item in items]) + b"]"
    return _single(field)


def _single(field: Field) -> _Piece:
    kind = field.kind
    if kind is Kind.BYTES:
        return _bytes
    if kind in (Kind.INT64, Kind.UINT64):
        return _big_integer
    if kind is Kind.ENUM:
        return _enum_writer(field)
    if kind is Kind.MESSAGE:
        return encode
    return _text


def _bytes(value: bytes) -> bytes:
    return b'"%b"' % b2a_base64(value, newline=False)


def _big_integer(value: int) -> bytes:
    return b'"%d"' % value


def _enum_writer(field: Field) -> _Piece:
    assert field.enum_type is not None
    names = {member.value: b'"%b"' % member.name.encode() for member in field.enum_type}

    def write(value: int) -> bytes:
        return names.get(value) or b"%d" % value

    return write


# --- Slices ---------------------------------------------------------------------------------------


def is_big(message: Struct) -> bool:
    """Whether a message should be encoded in slices: by its records, or by their bytes."""
    if isinstance(message, PutResponse):
        return False
    if isinstance(message, RangeResponse):
        return _is_long(message.kvs)
    if isinstance(message, DeleteRangeResponse):
        return _is_long(message.prev_kvs)
    if isinstance(message, TxnResponse):
        return len(message.responses) > SLICE_RECORDS or any(
            is_big(answer) for op in message.responses if (answer := _answer(op)) is not None
        )
    return any(
        field.repeated is not None and len(getattr(message, field.name)) > SLICE_RECORDS
        for _, _, field, _ in _plan(type(message)).fields
    )


def _answer(op: ResponseOp) -> Struct | None:
    return op.response_put or op.response_range or op.response_delete_range or op.response_txn


def _is_long(items: list[KeyValue]) -> bool:
    return len(items) > SLICE_RECORDS or (
        len(items) > 1 and sum([len(item.value) for item in items]) > SLICE_BYTES
    )


def encode_slices(message: Struct) -> Iterator[bytes]:
    """A message as one JSON object, in slices of bounded work; joined they are ``encode``'s."""
    waiting: list[bytes] = []
    records = size = 0
    for piece in _pieces(message):
        waiting.append(piece)
        records += 1
        size += len(piece)
        if records >= SLICE_RECORDS or size >= SLICE_BYTES:
            yield b"".join(waiting)
            waiting.clear()
            records = size = 0
    if waiting:
        yield b"".join(waiting)


def _pieces(message: Struct) -> Iterator[bytes]:
    """The object piece by piece: long lists record by record, the rest field by field."""
    opening = b"{"
    for name, label, field, write in _plan(type(message)).fields:
        value = getattr(message, name)
        if not value and not (field.optional and value is not None):
            continue
        if field.repeated is not None:
            yield opening + label + b"["
            yield from _items(field, value)
            yield b"]"
        elif field.kind is Kind.MESSAGE and type(value) not in _SPECIAL:
            yield opening + label
            yield from _pieces(value)
        else:
            yield opening + label + write(value)
        opening = b","
    yield b"{}" if opening == b"{" else b"}"


def _items(field: Field, items: list[Any]) -> Iterator[bytes]:
    whole = field.kind is not Kind.MESSAGE or field.message in _SPECIAL
    write = _single(field)
    comma = b""
    for item in items:
        if whole:
            yield comma + write(item)
        else:
            if comma:
                yield comma
            yield from _pieces(item)
        comma = b","
