"""The rolling hash over effects: members that applied the same entries have the same number, or
one of them is wrong.

It is a CRC32C that goes on from effect to effect::

    a version     revision i64, create_revision i64, version i64, lease i64, length of the key
    u32, key, value an error      revision i64, -1 i64, code i64, text a command     revision i64,
    -2 i64, kind i64, body      (whatever changes more than versions)
"""

import struct
from collections.abc import Callable
from typing import Final

import google_crc32c

from kvstore.errors import KvError
from kvstore.types import KeyValue

_version_head = struct.Struct("<qqqqI").pack
_other_head = struct.Struct("<qqq").pack
_extend: Final[Callable[[int, bytes], int]] = google_crc32c.extend
_ERROR: Final = -1
_COMMAND: Final = -2
_JOINED_BYTES_MAX: Final = 4096
"""A value as small as this is copied behind its key: a second call would cost more."""


def extend_by_version(crc: int, record: KeyValue) -> int:
    """Go on by a version that was written."""
    key = record.key
    head = _version_head(
        record.mod_revision, record.create_revision, record.version, record.lease, len(key)
    )
    value = record.value
    if len(value) <= _JOINED_BYTES_MAX:
        return _extend(crc, head + key + value)
    return _extend(_extend(crc, head + key), value)


def extend_by_error(crc: int, revision: int, error: KvError) -> int:
    """Go on by a refusal."""
    return _extend(crc, _other_head(revision, _ERROR, error.code) + error.message.encode())


def extend_by_command(crc: int, revision: int, kind: int, body: bytes) -> int:
    """Go on by a command as a whole."""
    return _extend(crc, _other_head(revision, _COMMAND, kind) + body)
