"""What protobuf itself makes of our messages, and random ones of them."""

from typing import Any

from google.protobuf import descriptor_pool, message_factory
from hypothesis import strategies as st

from kvstore import types
from kvstore.api.grpc.names import full_name
from kvstore.api.grpc.pb.descriptors import FIELDS, FILES
from kvstore.api.v3_json.schema import Kind, fields_of

POOL = descriptor_pool.DescriptorPool()
for _file in FILES.values():
    POOL.AddSerializedFile(_file)

RECORDS = sorted(
    (
        record
        for record in vars(types).values()
        if isinstance(record, type)
        and issubclass(record, types.Record | types.FrozenRecord)
        and record not in (types.Record, types.FrozenRecord)
    ),
    key=lambda record: record.__name__,
)


def message_class(name):
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


def class_of(record):
    return message_class(full_name(record))


def to_message(record):
    """protobuf's message of a record."""
    message = class_of(type(record))()
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        if field.repeated is not None:
            if field.kind is Kind.MESSAGE:
                getattr(message, field.name).extend([to_message(item) for item in value])
            else:
                getattr(message, field.name).extend(value)
        elif value is None:
            continue
        elif field.kind is Kind.MESSAGE:
            getattr(message, field.name).CopyFrom(to_message(value))
        else:
            setattr(message, field.name, value)
    return message


def to_record(record, message):
    """The record of protobuf's message."""
    values: list[Any] = []
    for field in fields_of(record):
        value = getattr(message, field.name)
        if field.repeated is not None:
            if field.kind is Kind.MESSAGE:
                value = [to_record(field.message, item) for item in value]
            values.append(field.repeated(value))
        elif field.optional and not message.HasField(field.name):
            values.append(None)
        elif field.kind is Kind.MESSAGE:
            values.append(to_record(field.message, value))
        else:
            values.append(value)
    return record(*values)


_EDGES = [0, 1, -1, 127, 128, 16383, 16384, (1 << 28) - 1, 1 << 28, (1 << 63) - 1, -(1 << 63)]
_INT64 = st.sampled_from(_EDGES) | st.integers(-(1 << 63), (1 << 63) - 1)

VALUES = {
    Kind.BYTES: st.binary(max_size=20) | st.binary(min_size=120, max_size=140),
    Kind.STRING: st.text(max_size=10),
    Kind.BOOL: st.booleans(),
    Kind.INT64: _INT64,
    Kind.UINT64: st.integers(0, (1 << 64) - 1),
    Kind.UINT32: st.integers(0, (1 << 32) - 1),
    # Enums are open: numbers that they do not have come through.
    Kind.ENUM: st.integers(0, 4) | st.integers(-(1 << 31), (1 << 31) - 1),
}


def records(record, depth=4):
    """Random records of a type."""
    fields = fields_of(record)
    oneof = [field.name for field in fields if field.oneof is not None]
    values = {}
    for field in fields:
        if field.kind is Kind.MESSAGE:
            deeper = depth > 0 or field.message not in (types.TxnRequest, types.TxnResponse)
            value = records(field.message, depth - 1) if deeper else st.none()
        elif record is types.Event and field.kind is Kind.ENUM:
            value = st.sampled_from(types.EventType)
        else:
            value = VALUES[field.kind]
        if field.repeated is not None:
            value = st.lists(value, max_size=3).map(field.repeated)
        elif field.optional and field.name not in oneof:
            value = st.none() | value
        values[field.name] = value
    if not oneof:
        return st.builds(record, **values)
    plain = {name: value for name, value in values.items() if name not in oneof}
    return st.one_of(
        st.builds(record, **plain),
        *[st.builds(record, **plain, **{name: values[name]}) for name in oneof],
    )


def wire_fields(record):
    """Bytes of random fields: known ones in every form, and unknown ones."""
    varints = st.integers(0, (1 << 64) - 1).map(varint) | st.integers(0, 5).map(varint)
    overlong = st.tuples(st.integers(0, 127), st.integers(1, 3)).map(
        lambda it: bytes([it[0] | 128]) + b"\x80" * (it[1] - 1) + b"\0"
    )
    content = st.binary(max_size=6) | st.lists(varints, max_size=3).map(b"".join)
    of_length = content.map(lambda it: varint(len(it)) + it)
    numbers = [*FIELDS[full_name(record)].values(), 15, 16, 2047, (1 << 29) - 1]
    number = st.sampled_from(numbers)
    group = st.tuples(number, of_length).map(
        lambda it: varint(it[0] << 3 | 3) + b"\x0a" + it[1] + varint(it[0] << 3 | 4)
    )
    return st.one_of(
        st.tuples(number, varints | overlong).map(lambda it: varint(it[0] << 3) + it[1]),
        st.tuples(number, of_length).map(lambda it: varint(it[0] << 3 | 2) + it[1]),
        st.tuples(number, st.binary(min_size=8, max_size=8)).map(
            lambda it: varint(it[0] << 3 | 1) + it[1]
        ),
        st.tuples(number, st.binary(min_size=4, max_size=4)).map(
            lambda it: varint(it[0] << 3 | 5) + it[1]
        ),
        group,
    )


def varint(number):
    """Written once more, so that the codec is not held against itself."""
    groups = []
    while True:
        number, group = divmod(number, 128)
        groups.append(group | (128 if number else 0))
        if not number:
            return bytes(groups)
