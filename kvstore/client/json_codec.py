"""v3 JSON from and to the typed messages, as a client writes and reads it.

Written: proto names, defaults left out, integers as numbers (every server takes them), bytes in
base64. Read: integers as strings or numbers, enums by name or number, unknown fields ignored.
"""

from __future__ import annotations

import binascii
import enum
import functools
import types
from collections.abc import Callable
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from kvstore.errors import Code, KvError

R = TypeVar("R", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    """The JSON bytes of a request."""
    return msgspec.json.encode(to_object(message))


def to_object(message: msgspec.Struct) -> dict[str, Any]:
    """A message as JSON objects; bytes stay bytes, for msgspec writes them as base64."""
    found: dict[str, Any] = {}
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, msgspec.Struct):
            found[name] = to_object(value)
        elif isinstance(value, list | tuple):
            if value:
                found[name] = [
                    to_object(item) if isinstance(item, msgspec.Struct) else item for item in value
                ]
        elif isinstance(value, enum.IntEnum):
            if value:
                found[name] = value.name
        elif value or (value is not None and _is_optional(type(message), name)):
            found[name] = value
    return found


def decode(message: type[R], body: bytes) -> R:
    """Read an answer.

    Raises:
        KvError: INTERNAL; the bytes are no such message.
    """
    try:
        return from_object(message, msgspec.json.decode(body))
    except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise KvError(
            Code.INTERNAL, f"the answer is no {message.__name__}: {error}; is this a v3 API?"
        ) from error


def from_object(message: type[R], found: Any) -> R:
    """Build a message from what JSON decoding gave.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: It is something else.
    """
    values = {}
    for name, convert in _plan(message):
        value = found.get(name)
        if value is not None:
            values[name] = convert(value)
    return message(**values)


@functools.cache
def _is_optional(message: type[msgspec.Struct], name: str) -> bool:
    """Whether a field tells "not given" from its type's zero (the operands of a compare do)."""
    return types.NoneType in get_args(get_type_hints(message)[name])


@functools.cache
def _plan(message: type[msgspec.Struct]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    hints = get_type_hints(message, include_extras=True)
    return tuple((name, _converter(hints[name])) for name in message.__struct_fields__)


def _converter(hint: Any) -> Callable[[Any], Any]:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _converter(get_args(hint)[0])  # X | None
    if origin is Annotated:
        return _annotated(*get_args(hint))
    if origin is list:
        item = _converter(get_args(hint)[0])
        return lambda values: [item(value) for value in values]
    if origin is tuple:
        item = _converter(get_args(hint)[0])
        return lambda values: tuple(item(value) for value in values)
    if hint is bytes:
        return _from_base64
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return lambda value: hint[value] if isinstance(value, str) else hint(value)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return functools.partial(from_object, hint)
    assert hint in (int, str, bool), f"no rule to read {hint}"
    plain: Callable[[Any], Any] = hint
    return plain


def _annotated(plain: Any, meta: msgspec.Meta) -> Callable[[Any], Any]:
    """An integer, or an open enum: names become numbers, numbers are kept, known or not."""
    wire = (meta.extra or {}).get("wire")
    if not isinstance(wire, type):
        return _converter(plain)
    names: type[enum.IntEnum] = wire
    numbers = {member.value: member for member in names}
    return lambda value: names[value] if isinstance(value, str) else numbers.get(value, value)


def _from_base64(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)
