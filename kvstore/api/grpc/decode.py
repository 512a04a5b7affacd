"""Messages of Protocol Buffers to records, by plans made of the descriptors.

```
message := field*
field   := tag value          tag: varint, field number << 3 | wire type
value   := varint             wire type 0: integers, booleans, enums
         | 8 bytes            1: none of ours
         | length bytes       2: bytes, strings, messages, packed enums; length: a varint
         | field* end-group   3: none of ours; 4 ends it
         | 4 bytes            5: none of ours
varint  := up to ten bytes of seven bits, the lowest first, all but the last with the high bit set
```

As the specification has it: of a field that occurs twice the last one counts, but messages merge
and lists grow; unknown fields are skipped, and so are known ones of another wire type; numbers that
an enum does not have are kept.

Our own rather than protobuf's classes, because those would be turned into records field by field,
and because work and depth are bounded here as they are for JSON (docs/decisions, 4). The tests hold
each message against protobuf.
"""

from functools import cache
from typing import Any, Final, NoReturn, TypeVar

from msgspec import Struct

from kvstore.api.grpc.names import full_name
from kvstore.api.grpc.pb.descriptors import FIELDS
from kvstore.api.limits import ApiLimits
from kvstore.api.v3_json.schema import Field, Kind, fields_of
from kvstore.errors import Code, KvError

R = TypeVar("R", bound=Struct)

FIELDS_MAX: Final = ApiLimits().fields_max
"""How many fields a message may hold: two bytes each, they would hold up the loop for long."""
FLAT_FIELDS_MAX: Final = 512
"""The same for a message without lists: far more than any has, unknown ones as well."""

DEPTH_MAX: Final = 400
"""How deep messages may nest, as in JSON: far beyond what a transaction may be nested."""

_BAD_BYTES: Final = "proto: cannot parse invalid wire-format data"
_BAD_TEXT: Final = "string field contains invalid UTF-8"

_MASK_64: Final = (1 << 64) - 1
_SIGN_64: Final = 1 << 63
_MASK_32: Final = (1 << 32) - 1
_SIGN_32: Final = 1 << 31
_LENGTH_MAX: Final = (1 << 31) - 1

_VARINT, _FIXED_64, _LENGTH, _GROUP, _END_GROUP, _FIXED_32 = range(6)

# What to do with a field: first the varints, then what has a length.
_INT64, _BOOL, _INT32, _UINT64, _UINT32, _BYTES, _STRING, _MESSAGE, _PACKED = range(9)

_ACTIONS: Final = {
    Kind.BYTES: _BYTES,
    Kind.INT64: _INT64,
    Kind.BOOL: _BOOL,
    Kind.MESSAGE: _MESSAGE,
    Kind.STRING: _STRING,
    Kind.ENUM: _INT32,
    Kind.UINT64: _UINT64,
    Kind.UINT32: _UINT32,
}
_OF_LENGTH: Final = (Kind.BYTES, Kind.MESSAGE, Kind.STRING)


class Malformed(KvError):
    """A message is none, or is more than anybody needs: INTERNAL, as gRPC's servers answer."""

    def __init__(self, words: str = _BAD_BYTES) -> None:
        super().__init__(Code.INTERNAL, f"grpc: error unmarshalling request: {words}")
        self.words = words


class _Slot:
    """What to do with one tag: which field it is, and how it is read."""

    __slots__ = ("action", "index", "is_plain", "message", "others", "repeated")

    def __init__(self, index: int, field: Field, others: tuple[int, ...]) -> None:
        self.index = index
        self.action = _ACTIONS[field.kind]
        self.repeated = field.repeated is not None
        self.message = field.message
        self.others = others
        """The other members of its oneof, which it ends."""
        self.is_plain = not self.repeated and not others


class _Plan:
    """How one message is read."""

    __slots__ = ("defaults", "has_lists", "lists", "record", "slots")

    def __init__(self, record: type[Struct]) -> None:
        numbers = FIELDS[full_name(record)]
        fields = fields_of(record)
        blank = record()
        self.record = record
        self.slots: dict[int, _Slot] = {}
        self.defaults: list[Any] = [getattr(blank, field.name) for field in fields]
        self.lists: list[tuple[int, type[list[Any]] | type[tuple[Any, ...]]]] = []
        for index, field in enumerate(fields):
            others: tuple[int, ...] = ()
            if field.oneof is not None:
                others = tuple(
                    other
                    for other, it in enumerate(fields)
                    if it.oneof == field.oneof and it is not field
                )
            wire = _LENGTH if field.kind in _OF_LENGTH else _VARINT
            number = numbers[field.name] << 3
            self.slots[number | wire] = _Slot(index, field, others)
            if field.repeated is not None:
                self.defaults[index] = None
                self.lists.append((index, field.repeated))
                if wire == _VARINT:
                    packed = self.slots[number | _LENGTH] = _Slot(index, field, others)
                    packed.action = _PACKED
        self.has_lists = _has_lists(record, set())
        """Whether it has lists, or any message within it."""


def _has_lists(record: type[Struct], seen: set[type[Struct]]) -> bool:
    seen.add(record)
    return any(
        field.repeated is not None
        or (
            field.message is not None
            and field.message not in seen
            and _has_lists(field.message, seen)
        )
        for field in fields_of(record)
    )


_plan: Final = cache(_Plan)


class _Work:
    """The fields that may still be read."""

    __slots__ = ("fields_left",)

    def __init__(self, fields_max: int) -> None:
        self.fields_left = fields_max


def decode(record: type[R], data: bytes, fields_max: int = FIELDS_MAX) -> R:
    """Read a message.

    Args:
        record: the type of the message.
        data: its bytes.
        fields_max: how many fields it may hold, those within it and the items of its lists as well;
            a message without lists may hold no more than ``FLAT_FIELDS_MAX``.

    Raises:
        Malformed: it is none, or has too many fields or levels.
    """
    plan = _plan(record)
    values = plan.defaults.copy()
    work = _Work(fields_max if plan.has_lists else min(fields_max, FLAT_FIELDS_MAX))
    try:
        _read(plan, values, data, 0, len(data), work, 0)
    except IndexError:
        raise Malformed from None
    except UnicodeDecodeError:
        raise Malformed(_BAD_TEXT) from None
    made: R = _record(plan, values)
    return made


def _record(plan: _Plan, values: list[Any]) -> Any:
    for index, kind in plan.lists:
        items = values[index]
        if items is None:
            values[index] = kind()
        elif kind is tuple:
            values[index] = tuple(items)
    return plan.record(*values)


def _read(
    plan: _Plan, values: list[Any], data: bytes, at: int, end: int, work: _Work, depth: int
) -> None:
    """Read the fields of a message, from ``at`` to ``end``, into ``values``.

    One loop: a call a field would double its cost.
    """
    slots = plan.slots
    left = work.fields_left
    while at < end:
        tag = data[at]
        at += 1
        if tag > 127:
            tag, at = _long(data, at - 1, 5)
        if not left:
            _too_much("too many fields")
        left -= 1
        slot = slots.get(tag)
        if slot is None:
            work.fields_left = left
            at = _skip(data, at, tag, work, depth)
            left = work.fields_left
            continue
        action = slot.action
        number = data[at]
        at += 1
        if number > 127:
            number, at = _long(data, at - 1, 5 if action >= _BYTES else 10)
        value: Any
        if action >= _BYTES:
            start = at
            at += number
            if at > end:
                raise Malformed
            if action == _BYTES:
                value = data[start:at]
            elif action == _STRING:
                value = data[start:at].decode()
            elif action == _MESSAGE:
                work.fields_left = left
                value = _nested(slot, values, data, start, at, work, depth + 1)
                left = work.fields_left
            else:
                work.fields_left = left
                _unpack(slot, values, data, start, at, work)
                left = work.fields_left
                continue
        elif action == _INT64:
            value = number if number < _SIGN_64 else number - _MASK_64 - 1
        else:
            value = _number(action, number)
        if slot.is_plain:
            values[slot.index] = value
        else:
            _put(slot, values, value)
    if at != end:
        raise Malformed
    work.fields_left = left


def _number(action: int, number: int) -> int:
    """What a varint means in a field that is no int64."""
    if action == _BOOL:
        return number != 0
    if action == _INT32:
        return _int32(number)
    return number if action == _UINT64 else number & _MASK_32


def _put(slot: _Slot, values: list[Any], value: Any) -> None:
    """Add to a list, or end the other members of a oneof."""
    if not slot.repeated:
        for other in slot.others:
            values[other] = None
        values[slot.index] = value
        return
    items = values[slot.index]
    if items is None:
        values[slot.index] = [value]
    else:
        items.append(value)


def _nested(
    slot: _Slot, values: list[Any], data: bytes, at: int, end: int, work: _Work, depth: int
) -> Any:
    """A message within a message; merged with what is there already."""
    if depth > DEPTH_MAX:
        _too_much("nested too deep")
    assert slot.message is not None
    plan = _plan(slot.message)
    before = None if slot.repeated else values[slot.index]
    if before is None:
        inner = plan.defaults.copy()
    else:
        inner = [getattr(before, name) for name in plan.record.__struct_fields__]
        for index, _ in plan.lists:
            # A copy each time: what merges often counts often.
            inner[index] = list(inner[index])
            work.fields_left -= len(inner[index])
        if work.fields_left < 0:
            _too_much("too many fields")
    _read(plan, inner, data, at, end, work, depth)
    return _record(plan, inner)


def _unpack(slot: _Slot, values: list[Any], data: bytes, at: int, end: int, work: _Work) -> None:
    """Add enums that came packed into one field."""
    items = values[slot.index]
    if items is None:
        items = values[slot.index] = []
    if end - at > work.fields_left:
        _too_much("too many values")
    work.fields_left -= end - at
    while at < end:
        number = data[at]
        at += 1
        if number > 127:
            number, at = _long(data, at - 1, 10)
        items.append(_int32(number))
    if at != end:
        raise Malformed


def _int32(number: int) -> int:
    number &= _MASK_32
    return number if number < _SIGN_32 else number - _MASK_32 - 1


def _long(data: bytes, at: int, bytes_max: int) -> tuple[int, int]:
    """A varint of several bytes, and where it ends.

    Raises:
        Malformed: it is too long, or too large a number.
        IndexError: it is cut off.
    """
    number = shift = 0
    for at in range(at, at + bytes_max):  # noqa: B020
        byte = data[at]
        number |= (byte & 127) << shift
        if byte < 128:
            if bytes_max == 10:
                # What the tenth byte has beyond 64 bits is dropped, as protobuf does.
                return number & _MASK_64, at + 1
            if number > _MASK_32:
                raise Malformed
            return number, at + 1
        shift += 7
    raise Malformed


def _skip(data: bytes, at: int, tag: int, work: _Work, depth: int) -> int:
    """Where an unknown field ends.

    Raises:
        Malformed: it is no field.
        IndexError: it is cut off, perhaps.
    """
    wire = tag & 7
    if tag < 8:
        raise Malformed
    if wire == _VARINT:
        return _long(data, at, 10)[1]
    if wire == _FIXED_64:
        return at + 8
    if wire == _FIXED_32:
        return at + 4
    if wire == _LENGTH:
        length, at = _long(data, at, 5)
        if length > _LENGTH_MAX:
            raise Malformed
        return at + length
    if wire == _GROUP:
        return _skip_group(data, at, tag, work, depth)
    raise Malformed


def _skip_group(data: bytes, at: int, tag: int, work: _Work, depth: int) -> int:
    """Where an unknown group ends, which may hold others; what is in it counts as fields do."""
    open_groups = [tag]
    while open_groups:
        if depth + len(open_groups) > DEPTH_MAX:
            _too_much("nested too deep")
        if not work.fields_left:
            _too_much("too many fields")
        work.fields_left -= 1
        tag, at = _long(data, at, 5)
        if tag & 7 == _GROUP and tag >= 8:
            open_groups.append(tag)
        elif tag & 7 == _END_GROUP:
            if tag != open_groups.pop() + 1:
                raise Malformed
        else:
            at = _skip(data, at, tag, work, depth)
    return at


def _too_much(words: str) -> NoReturn:
    raise Malformed(f"{_BAD_BYTES} ({words}, more than this server takes)")
