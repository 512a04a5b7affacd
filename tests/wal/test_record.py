"""Records read back, and nothing else passes for them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.types import Entry, Seq
from tests.wal.support import entries, mark, state
from wal.queue import WriteQueue
from wal.record import (
    Mark,
    Metadata,
    Record,
    RecordError,
    decode_records,
    encode_hard_state,
    encode_mark,
    encode_metadata,
    encode_run_header,
)
from wal.replay import Replay

WHOLE: list[Record] = [
    Metadata(1, 2, 3, b"bootstrap"),
    state(4, 5, 6),
    entries(7, 9, term=4),
    Mark(mark(8, 4), log_kept=True),
    Mark(mark(9, 5), log_kept=False),
]


def _encode(record: Record) -> bytes:
    if isinstance(record, list):
        encoded = [each.encoded for each in record]
        return encode_run_header(encoded) + b"".join(encoded)
    if isinstance(record, Metadata):
        return encode_metadata(record)
    return encode_mark(record) if isinstance(record, Mark) else encode_hard_state(record)


def test_records_read_back() -> None:
    payload = b"".join(map(_encode, WHOLE))
    assert list(decode_records(payload)) == WHOLE
    assert list(decode_records(b"")) == []


@pytest.mark.parametrize("record", WHOLE, ids=["metadata", "state", "entries", "mark", "reset"])
def test_a_record_that_is_cut_anywhere_is_refused(record: Record) -> None:
    payload = _encode(record)
    for length in range(1, len(payload)):
        with pytest.raises(RecordError):
            list(decode_records(payload[:length]))


@given(st.binary(max_size=80), st.integers(0, 255))
def test_anything_that_is_not_a_record_is_refused_as_such(content: bytes, kind: int) -> None:
    payload = struct.pack("<BxxxI", kind, len(content)) + content
    try:
        (record,) = decode_records(payload)
    except RecordError:
        return
    assert _encode(record) == payload


def test_a_run_whose_entries_do_not_follow_one_another_is_refused() -> None:
    gap = entries(1, 2) + entries(4, 4)
    with pytest.raises(RecordError, match="do not follow one another"):
        list(decode_records(_encode(gap)))


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([entries(1, 2), entries(4, 4)], "entry 4 follows entry 2"),
        ([Mark(mark(5), log_kept=False), entries(5, 5)], "after a snapshot that covers 5"),
        ([Mark(mark(5), log_kept=False), Mark(mark(4), log_kept=True)], "marked after one at 5"),
    ],
    ids=["gap", "covered", "older"],
)
def test_records_that_do_not_fit_together_are_refused(records: list[Record], reason: str) -> None:
    replay = Replay()
    *good, bad = records
    for record in good:
        replay.feed(record)
    with pytest.raises(RecordError, match=reason):
        replay.feed(bad)


@pytest.mark.parametrize("bytes_max", [1, 100, 160, 200, 10_000])
def test_a_queue_hands_out_everything_in_order_whatever_a_batch_may_hold(bytes_max: int) -> None:
    queue = WriteQueue(bytes_max)
    counted = 0
    for seq, first in enumerate(range(1, 13, 3), start=1):
        counted += queue.add(Seq(seq), state(1, 1, first), entries(first, first + 2), None)
    out: list[Entry] = []
    seqs: list[int | None] = []
    while queue:
        batch = queue.assemble(state(0, 0))
        assert batch.length == sum(map(len, batch.parts))
        for record in decode_records(b"".join(batch.parts)):
            if isinstance(record, list):
                out += record
        seqs.append(batch.seq)
        counted -= batch.size
    assert out == entries(1, 12)
    assert [seq for seq in seqs if seq is not None][-1] == 4
    assert counted == 0
