"""The exact decoder: what protobuf's JSON reader takes and refuses, as etcd 3.7 uses it.

Taken: both forms of a field's name, integers as numbers or strings and integral floats, base64 in
all forms, enums by name or number. Ignored: unknown fields, unknown enum names, nulls for fields,
text after the first value; an empty body is an empty message. Refused: everything else, duplicate
fields and two members of a oneof among it.
"""

import json
import re
from functools import cache
from typing import Any, Final, TypeVar, cast

from msgspec import Struct

from kvstore.api.v3_json import base64
from kvstore.api.v3_json.schema import Field, Kind, fields_of, json_name
from kvstore.api.v3_json.syntax import explain
from kvstore.errors import Code, KvError

R = TypeVar("R", bound=Struct)

VALUES_MAX: Final = 50_000
"""How many JSON values a body may hold: a few bytes each, they would hold up the loop for long."""

DEPTH_MAX: Final = 400
"""How deep messages may nest: a transaction of 128 operations, all nested, needs 384."""

_RANGES: Final = {
    Kind.INT64: (-(1 << 63), (1 << 63) - 1),
    Kind.UINT64: (0, (1 << 64) - 1),
    Kind.UINT32: (0, (1 << 32) - 1),
    Kind.ENUM: (-(1 << 31), (1 << 31) - 1),
}

_NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]{1,4}))?")
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SHOWN_MAX: Final = 40
_ABSENT: Final = object()


class Malformed(KvError):
    """The body is not JSON, or not the JSON of this message."""

    def __init__(self, message: str) -> None:
        super().__init__(Code.INVALID_ARGUMENT, message)


class _Misfit(Exception):
    """A value does not fit; the path to it grows on the way out.

    Args:
        words: what is wrong; the path follows.
        value: the value that is wrong, to be shown after the path.
    """

    def __init__(self, words: str, value: str | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.value = value
        self.path = ""

    def __str__(self) -> str:
        if self.value is not None:
            return f"{self.words} field {self.path}: {self.value}"
        return f"{self.words} in field {self.path}" if self.path else self.words


class _Number(str):
    """A JSON number as it stands in the text: no precision is lost before its type is known."""

    __slots__ = ()


def _no_constant(name: str) -> Any:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


# An object becomes a tuple of pairs, an array a list: duplicate names are still there to be seen.
_scan: Final = json.JSONDecoder(
    object_pairs_hook=tuple,
    parse_int=_Number,
    parse_float=_Number,
    parse_constant=_no_constant,
).raw_decode


class _Plan:
    """How to read one message type."""

    __slots__ = ("by_name", "message")

    def __init__(self, message: type[Struct]) -> None:
        self.message = message
        self.by_name: dict[str, Field] = {}
        for field in fields_of(message):
            self.by_name[field.name] = field
            self.by_name[json_name(field.name)] = field


_plan: Final = cache(_Plan)


def decode(message: type[R], body: bytes, values_max: int = VALUES_MAX) -> R:
    """Read the first JSON value of a body as a message.

    Args:
        message: the type of the message.
        body: UTF-8; whatever follows the first value is ignored.
        values_max: how many values it may hold.

    Raises:
        Malformed: with the first thing that is wrong, and where.
    """
    if exceeds(body, values_max):
        raise Malformed(f"kvstore: more than {values_max} JSON values in one request")
    # A byte that is not UTF-8 becomes a lone surrogate, which no valid text contains: it is an
    # error within the first value and nothing after it.
    text = body.decode("utf-8", "surrogateescape")
    start = _SPACE.match(text).end()  # type: ignore[union-attr]  # it matches the empty text too
    if start == len(text):
        return message()
    try:
        tree, end = _scan(text, start)
    except json.JSONDecodeError:
        raise Malformed(explain(text)) from None
    except RecursionError:
        raise Malformed("exceeded max depth") from None
    if not text.isascii():
        _check_unicode(text[start:end])
    try:
        return cast(R, _message(_plan(message), tree, 0))
    except _Misfit as misfit:
        raise Malformed(f"proto: {misfit}") from None


def exceeds(body: bytes, values_max: int) -> bool:
    """Whether a body holds more values than allowed: base64 contains none of the counted bytes."""
    if len(body) <= values_max:
        return False
    return body.count(b",") + body.count(b"{") + body.count(b"[") > values_max


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed("proto: invalid UTF-8 in string") from None


def _message(plan: _Plan, pairs: Any, depth: int) -> Struct:
    if type(pairs) is not tuple:
        raise _Misfit(f"unexpected token {_shown(pairs)}")
    if depth > DEPTH_MAX:
        raise _Misfit("exceeded max depth")
    values: dict[str, Any] = {}
    seen: set[str] = set()
    oneof: str | None = None
    for name, value in pairs:
        field = plan.by_name.get(name)
        if field is None:
            continue
        if field.name in seen:
            raise _Misfit(f'duplicate field "{name}"')
        seen.add(field.name)
        if value is None:
            continue
        if field.oneof is not None:
            if oneof is not None:
                raise _Misfit(f'error parsing "{name}", oneof {field.oneof} is already set')
            oneof = name
        try:
            found = _field(field, value, depth)
        except _Misfit as misfit:
            joint = "." if misfit.path and not misfit.path.startswith("[") else ""
            misfit.path = name + joint + misfit.path
            raise
        if found is not _ABSENT:
            values[field.name] = found
    return plan.message(**values)


def _field(field: Field, value: Any, depth: int) -> Any:
    if field.repeated is None:
        if field.message is not None:
            return _message(_plan(field.message), value, depth + 1)
        return _scalar(field, value)
    if type(value) is not list:
        raise _Misfit(f"unexpected token {_shown(value)}")
    items: list[Any] = []
    for position, item in enumerate(value):
        try:
            if field.message is not None:
                items.append(_message(_plan(field.message), item, depth + 2))
                continue
            found = _scalar(field, item)
        except _Misfit as misfit:
            misfit.path = f"[{position}].{misfit.path}" if misfit.path else f"[{position}]"
            raise
        if found is not _ABSENT:
            items.append(found)
    return field.repeated(items)


def _scalar(field: Field, value: Any) -> Any:
    kind = field.kind
    if kind is Kind.BYTES:
        if type(value) is str:
            try:
                return base64.decode(value)
            except ValueError:
                pass
    elif kind is Kind.STRING:
        if type(value) is str:
            _check_unicode(value)
            return value
    elif kind is Kind.BOOL:
        if type(value) is bool:
            return value
    elif kind is Kind.ENUM:
        return _enum(field, value)
    elif (number := _integer(value, kind)) is not None:
        return number
    raise _Misfit(f"invalid value for {kind.value}", _shown(value))


def _enum(field: Field, value: Any) -> Any:
    assert field.enum_type is not None
    if type(value) is str:
        known = field.enum_type.__members__.get(value)
        return _ABSENT if known is None else known
    number = _integer(value, Kind.ENUM) if type(value) is _Number else None
    if number is None:
        raise _Misfit("invalid value for enum", _shown(value))
    try:
        return field.enum_type(number)
    except ValueError:
        # Enums of proto3 are open: an unknown number is kept, and judged by whoever needs it.
        return number


def _integer(value: Any, kind: Kind) -> int | None:
    """An integer of a kind from a number, or from a string that holds one; None if it is not."""
    if not isinstance(value, str):
        return None
    match = _NUMBER.fullmatch(value)
    if match is None:
        return None
    sign, whole, fraction, exponent = match.groups()
    # "1e3", "1.0" and "1200e-2" are integers; digits shift about the point until that shows. A
    # longer text than any integer of 64 bits and its zeros is none, and not worth arithmetic.
    digits, shift = whole + (fraction or "").rstrip("0"), int(exponent or 0)
    shift -= len(digits) - len(whole)
    digits = digits.lstrip("0") or "0"
    if digits == "0":
        return 0
    if shift < 0:
        if len(digits) <= -shift or digits[shift:].strip("0"):
            return None
        digits, shift = digits[:shift], 0
    if len(digits) + shift > 20:
        return None
    number = int(sign + digits) * 10**shift
    low, high = _RANGES[kind]
    return number if low <= number <= high else None


def _shown(value: Any) -> str:
    if type(value) is tuple:
        return "{"
    if type(value) is list:
        return "["
    if value is None or type(value) is bool:
        return json.dumps(value)
    text = str(value) if type(value) is _Number else json.dumps(value)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"
