"""The fast decoder: the hot calls in the forms in which clients send them nearly always.

msgspec reads JSON and base64 into a small struct in one pass. It is used only where it cannot
differ from the exact decoder: unknown names, nulls, unpadded base64 and trailing text it refuses
itself; numbers and enums stay raw and are matched here; and what it would not notice, a field that
comes twice, is caught by counting colons, for nothing that is taken here can contain one. Whatever
is refused is decoded by the exact decoder, which alone says what is an error.
"""

import re
from enum import IntEnum
from typing import Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from kvstore.api.v3_json.decode import VALUES_MAX, decode, exceeds
from kvstore.types import (
    Compare,
    CompareResult,
    CompareTarget,
    DeleteRangeRequest,
    PutRequest,
    RangeRequest,
    Record,
    RequestOp,
    TxnRequest,
)

_INTEGER: Final = re.compile(rb'"?(-?(?:0|[1-9][0-9]{0,17}))"?')
"""A decimal integer, bare or quoted, that fits 64 bits by its length alone."""


class _Unsure(Exception):
    """This may be right or wrong: the exact decoder knows."""


class _Face(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Base of the structs that msgspec fills."""


class _Put(_Face):
    key: bytes | UnsetType = UNSET
    value: bytes | UnsetType = UNSET
    lease: Raw | UnsetType = UNSET
    prev_kv: bool | UnsetType = UNSET


class _Range(_Face):
    key: bytes | UnsetType = UNSET
    range_end: bytes | UnsetType = UNSET
    limit: Raw | UnsetType = UNSET
    revision: Raw | UnsetType = UNSET
    serializable: bool | UnsetType = UNSET
    keys_only: bool | UnsetType = UNSET
    count_only: bool | UnsetType = UNSET


class _DeleteRange(_Face):
    key: bytes | UnsetType = UNSET
    range_end: bytes | UnsetType = UNSET
    prev_kv: bool | UnsetType = UNSET


class _Compare(_Face):
    result: Raw | UnsetType = UNSET
    target: Raw | UnsetType = UNSET
    key: bytes | UnsetType = UNSET
    version: Raw | UnsetType = UNSET
    create_revision: Raw | UnsetType = UNSET
    mod_revision: Raw | UnsetType = UNSET
    value: bytes | UnsetType = UNSET
    lease: Raw | UnsetType = UNSET
    range_end: bytes | UnsetType = UNSET


class _Op(_Face):
    request_range: _Range | UnsetType = UNSET
    request_put: _Put | UnsetType = UNSET
    request_delete_range: _DeleteRange | UnsetType = UNSET


class _Txn(_Face):
    compare: list[_Compare] | UnsetType = UNSET
    success: list[_Op] | UnsetType = UNSET
    failure: list[_Op] | UnsetType = UNSET


_read_put: Final = msgspec.json.Decoder(_Put).decode
_read_range: Final = msgspec.json.Decoder(_Range).decode
_read_delete_range: Final = msgspec.json.Decoder(_DeleteRange).decode
_read_txn: Final = msgspec.json.Decoder(_Txn).decode

_REFUSALS: Final = (msgspec.MsgspecError, _Unsure, UnicodeDecodeError, RecursionError)


def _enum_texts(member: IntEnum) -> tuple[bytes, bytes]:
    return b'"%b"' % member.name.encode(), b"%d" % member.value


_ENUMS: Final[dict[str, type[IntEnum]]] = {"result": CompareResult, "target": CompareTarget}
_ENUM_TEXTS: Final[dict[str, dict[bytes, IntEnum]]] = {
    name: {text: member for member in kind for text in _enum_texts(member)}
    for name, kind in _ENUMS.items()
}


def decode_put(body: bytes) -> PutRequest:
    """A put; raises as ``decode`` does."""
    try:
        face = _read_put(body)
        key, value = face.key, face.value
        colons = body.count(b":")
        if colons == 2 and key is not UNSET and value is not UNSET:
            return PutRequest(key, value)
        request = PutRequest()
        if _fill(request, face) == colons:
            return request
    except _REFUSALS:
        pass
    return decode(PutRequest, body)


def decode_range(body: bytes) -> RangeRequest:
    """A range; raises as ``decode`` does."""
    try:
        face = _read_range(body)
        key = face.key
        colons = body.count(b":")
        if key is not UNSET:
            if colons == 1:
                return RangeRequest(key)
            if colons == 2 and face.serializable is True:
                return RangeRequest(key, serializable=True)
        request = RangeRequest()
        if _fill(request, face) == colons:
            return request
    except _REFUSALS:
        pass
    return decode(RangeRequest, body)


def decode_delete_range(body: bytes) -> DeleteRangeRequest:
    """A delete; raises as ``decode`` does."""
    try:
        request = DeleteRangeRequest()
        if _fill(request, _read_delete_range(body)) == body.count(b":"):
            return request
    except _REFUSALS:
        pass
    return decode(DeleteRangeRequest, body)


def decode_txn(body: bytes, values_max: int = VALUES_MAX) -> TxnRequest:
    """A transaction; raises as ``decode`` does."""
    try:
        if not exceeds(body, values_max):
            request = TxnRequest()
            if _fill_txn(request, _read_txn(body)) == body.count(b":"):
                return request
    except _REFUSALS:
        pass
    return decode(TxnRequest, body, values_max)


def _fill(request: Record, face: _Face) -> int:
    """Move what is set, and count it."""
    found = 0
    for name in face.__struct_fields__:
        value = getattr(face, name)
        if value is not UNSET:
            if type(value) is Raw:
                value = _raw(name, value)
            setattr(request, name, value)
            found += 1
    return found


def _fill_txn(request: TxnRequest, face: _Txn) -> int:
    found = 0
    if face.compare is not UNSET:
        found += 1
        for item in face.compare:
            compare = Compare()
            found += _fill(compare, item)
            if _operands(compare) > 1:
                raise _Unsure
            request.compare.append(compare)
    for ops, into in ((face.success, request.success), (face.failure, request.failure)):
        if ops is not UNSET:
            found += 1
            for op in ops:
                found += _fill_op(op, into)
    return found


def _operands(compare: Compare) -> int:
    operands = (
        compare.version,
        compare.create_revision,
        compare.mod_revision,
        compare.value,
        compare.lease,
    )
    return 5 - operands.count(None)


def _fill_op(op: _Op, into: list[RequestOp]) -> int:
    put, read, delete = op.request_put, op.request_range, op.request_delete_range
    if put is not UNSET and read is UNSET and delete is UNSET:
        request_put = PutRequest()
        into.append(RequestOp(request_put=request_put))
        return 1 + _fill(request_put, put)
    if read is not UNSET and put is UNSET and delete is UNSET:
        request_range = RangeRequest()
        into.append(RequestOp(request_range=request_range))
        return 1 + _fill(request_range, read)
    if delete is not UNSET and put is UNSET and read is UNSET:
        request_delete_range = DeleteRangeRequest()
        into.append(RequestOp(request_delete_range=request_delete_range))
        return 1 + _fill(request_delete_range, delete)
    raise _Unsure


def _raw(name: str, value: Raw) -> int:
    texts = _ENUM_TEXTS.get(name)
    if texts is not None:
        known = texts.get(bytes(value))
        if known is None:
            raise _Unsure
        return known
    match = _INTEGER.fullmatch(value)
    if match is None:
        raise _Unsure
    return int(match[1])
