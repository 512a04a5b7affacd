"""What a batch says: records, one behind the other.

All numbers are little endian::

    byte  0      1         4               8
          +------+---------+---------------+--------------------+
          | kind | zeros   | length u32    | content (length)   |
          +------+---------+---------------+--------------------+

    1 metadata       cluster id u64, member id u64, incarnation u64, bootstrap
    2 hard state     term u64, voted for u64, commit index u64
    3 entries        count u32, count lengths u32, then the entries as raft.codec encoded them
    4 snapshot mark  index u64, term u64, log kept u8, configuration as raft.codec encoded it

Entries come in runs of consecutive indexes, because a header for each would cost more time than all
the rest. Where a run has another term than the log at the same index it replaces what stood there
and all that followed; an entry of the same index and term is the same entry, and replaces nothing
(Log Matching, Raft §5.3).

A snapshot mark says whether the log it found agreed with the snapshot's last entry, so that what
follows that entry stays (Raft §7), or not, so that nothing stays. It cannot be told later: the
segment with the entry to compare may be gone by then.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import msgspec

from raft.codec import (  # type: ignore[attr-defined]  # CodecError: its module is none of ours
    CodecError,
    decode_configuration,
    decode_entry,
    encode_configuration,
)
from raft.types import Entry, HardState, Index, NodeId, SnapshotMeta, Term

_METADATA: Final = 1
_HARD_STATE: Final = 2
_ENTRIES: Final = 3
_SNAPSHOT_MARK: Final = 4

_RECORD: Final = struct.Struct("<BxxxI")
_COUNT: Final = struct.Struct("<I")
_METADATA_BODY: Final = struct.Struct("<QQQ")
_HARD_STATE_BODY: Final = struct.Struct("<QQQ")
_MARK_BODY: Final = struct.Struct("<QQ?")

ENTRY_OVERHEAD_BYTES: Final = 4
"""What an entry takes in a run besides its own bytes."""


class Metadata(msgspec.Struct, frozen=True):
    """Whose log it is. ``incarnation`` counts how often it was opened; ``bootstrap`` means nothing
    here.
    """

    cluster_id: int
    member_id: int
    incarnation: int = 0
    bootstrap: bytes = b""


class Mark(msgspec.Struct, frozen=True):
    """A snapshot with this ``meta`` is durable; ``log_kept`` says whether the entries after it
    stay.
    """

    meta: SnapshotMeta
    log_kept: bool


Record: TypeAlias = Metadata | HardState | Mark | list[Entry]
"""What ``decode_records`` yields; a list is a run of entries."""


class RecordError(Exception):
    """A payload that passed its batch's checksum does not hold records; caught by the reader, who
    knows file and offset.
    """


def encode_metadata(metadata: Metadata) -> bytes:
    """Return the record of ``metadata``."""
    body = (
        _METADATA_BODY.pack(metadata.cluster_id, metadata.member_id, metadata.incarnation)
        + metadata.bootstrap
    )
    return _RECORD.pack(_METADATA, len(body)) + body


def encode_hard_state(state: HardState) -> bytes:
    """Return the record of ``state``."""
    return _RECORD.pack(_HARD_STATE, _HARD_STATE_BODY.size) + _HARD_STATE_BODY.pack(
        state.term, state.voted_for, state.commit_index
    )


def encode_mark(mark: Mark) -> bytes:
    """Return the record of ``mark``."""
    meta = mark.meta
    body = _MARK_BODY.pack(meta.index, meta.term, mark.log_kept) + encode_configuration(
        meta.configuration
    )
    return _RECORD.pack(_SNAPSHOT_MARK, len(body)) + body


def encode_run_header(encoded: Sequence[bytes]) -> bytes:
    """Return what goes before these entries' bytes, which follow one behind the other."""
    lengths = [*map(len, encoded)]
    count = len(lengths)
    content = _COUNT.size * (count + 1) + sum(lengths)
    return struct.pack(f"<BxxxII{count}I", _ENTRIES, content, count, *lengths)


def decode_records(payload: bytes) -> Iterator[Record]:
    """Take a payload apart, in order.

    Raises: RecordError: It is not a sequence of whole, known records, or what it holds fails a
        check of its own.
    """
    offset = 0
    end = len(payload)
    while offset < end:
        if end - offset < _RECORD.size:
            raise RecordError("a record's header is cut short")
        kind, length = _RECORD.unpack_from(payload, offset)
        start = offset + _RECORD.size
        offset = start + length
        if offset > end:
            raise RecordError("a record reaches beyond its batch")
        content = payload[start:offset]
        try:
            yield _decode_content(kind, content)
        except struct.error as error:
            raise RecordError(f"a record of kind {kind} is cut short") from error
        except CodecError as error:
            raise RecordError(str(error)) from error


def _decode_content(kind: int, content: bytes) -> Record:
    if kind == _ENTRIES:
        return _decode_run(content)
    if kind == _HARD_STATE:
        term, voted_for, commit_index = _HARD_STATE_BODY.unpack(content)
        return HardState(Term(term), NodeId(voted_for), Index(commit_index))
    if kind == _SNAPSHOT_MARK:
        index, term, log_kept = _MARK_BODY.unpack_from(content)
        configuration = decode_configuration(content[_MARK_BODY.size :])
        return Mark(SnapshotMeta(Index(index), Term(term), configuration), log_kept)
    if kind == _METADATA:
        cluster_id, member_id, incarnation = _METADATA_BODY.unpack_from(content)
        return Metadata(cluster_id, member_id, incarnation, content[_METADATA_BODY.size :])
    # A new kind of record comes with a new format number, so no version that is honest about its
    # format writes one.
    raise RecordError(f"no record is of kind {kind}")


def _decode_run(content: bytes) -> list[Entry]:
    (count,) = _COUNT.unpack_from(content)
    lengths = struct.unpack_from(f"<{count}I", content, _COUNT.size)
    offset = _COUNT.size * (count + 1)
    if offset + sum(lengths) != len(content):
        raise RecordError("a run's lengths do not add up")
    entries = []
    for length in lengths:
        entries.append(decode_entry(content[offset : offset + length]))
        offset += length
    if any(after.index != before.index + 1 for before, after in pairwise(entries)):
        raise RecordError("a run's entries do not follow one another")
    return entries
