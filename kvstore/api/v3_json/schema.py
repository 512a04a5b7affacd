"""The shape of each message, read once from the annotations of ``kvstore.types``.

Codecs walk these plans, so that a field added to a message is a field on the wire, and nowhere
else to be written down.
"""

import enum
import types
from typing import Annotated, Any, Final, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from kvstore import types as messages


class Kind(enum.Enum):
    """How a value is written in JSON."""

    BYTES = "bytes"
    STRING = "string"
    BOOL = "bool"
    INT64 = "int64"
    UINT64 = "uint64"
    UINT32 = "uint32"
    ENUM = "enum"
    MESSAGE = "message"


_WIRE: Final = {"int64": Kind.INT64, "uint64": Kind.UINT64, "uint32": Kind.UINT32}

_ONEOFS: Final[dict[type[Struct], str]] = {
    messages.RequestOp: "request",
    messages.ResponseOp: "response",
    messages.WatchRequest: "request_union",
    messages.Compare: "target_union",
}
"""Messages with a oneof, and its name: all their optional fields belong to it."""


class Field:
    """One field of a message.

    Args:
        name: the proto name, which is the attribute's name and the one emitted.
        kind: how one value is written.
        repeated: list or tuple, or None for a single value.
        optional: None means absent, and whatever else is present, zero included.
        enum_type: for ENUM, its values.
        message: for MESSAGE, its type.
        oneof: the oneof it belongs to, or None.
    """

    __slots__ = ("enum_type", "kind", "message", "name", "oneof", "optional", "repeated")

    def __init__(self, name: str, kind: Kind) -> None:
        self.name = name
        self.kind = kind
        self.repeated: type[list[Any]] | type[tuple[Any, ...]] | None = None
        self.optional = False
        self.enum_type: type[enum.IntEnum] | None = None
        self.message: type[Struct] | None = None
        self.oneof: str | None = None


def json_name(name: str) -> str:
    """protobuf's JSON name: each ``_`` dropped and the letter after it capitalised."""
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def fields_of(message: type[Struct]) -> list[Field]:
    """The fields of a message, in the order in which they are emitted."""
    hints = get_type_hints(message, include_extras=True)
    fields = [_field(name, hints[name]) for name in message.__struct_fields__]
    for field in fields:
        if field.optional:
            field.oneof = _ONEOFS.get(message)
    return fields


def _field(name: str, hint: Any) -> Field:
    origin = get_origin(hint)
    if origin is list or origin is tuple:
        field = _field(name, get_args(hint)[0])
        field.repeated = origin
        return field
    if origin is Union or origin is types.UnionType:
        choices = get_args(hint)
        field = _field(name, choices[0])
        field.optional = type(None) in choices
        return field
    if origin is Annotated:
        base, *notes = get_args(hint)
        if base is not int:
            return _field(name, base)
        wire = next(n.extra["wire"] for n in notes if isinstance(n, msgspec.Meta) and n.extra)
        # An open enum is an int whose note is the enum.
        return _plain_field(name, wire) if isinstance(wire, type) else Field(name, _WIRE[wire])
    return _plain_field(name, hint)


def _plain_field(name: str, hint: type) -> Field:
    if hint is bytes:
        return Field(name, Kind.BYTES)
    if hint is str:
        return Field(name, Kind.STRING)
    if hint is bool:
        return Field(name, Kind.BOOL)
    if issubclass(hint, enum.IntEnum):
        field = Field(name, Kind.ENUM)
        field.enum_type = hint
        return field
    assert issubclass(hint, Struct), f"{name}: no JSON form for {hint}"
    field = Field(name, Kind.MESSAGE)
    field.message = hint
    return field
