"""The revision log against a list, on blocks small enough to fill, thin out and vanish."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.mvcc.log import BLOCK_SLOTS, VERSION_OVERHEAD_BYTES, RevisionLog
from kvstore.types import KeyValue
from tests.kvstore.mvcc.model import small_blocks


def record(revision: int, key: bytes = b"k") -> KeyValue:
    return KeyValue(key, revision, revision, 1, b"v", 0)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 12)),
        st.tuples(st.just("remove"), st.integers(0, 10_000)),
    ),
    max_size=60,
)


@given(steps, st.data())
def test_reads_are_those_of_a_list_whatever_was_removed(steps, data):
    with small_blocks():
        log = RevisionLog()
        slots: list[KeyValue | None] = []
        revision = 1
        for what, n in steps:
            if what == "append":
                revision += 1
                for _ in range(n):
                    row = record(revision)
                    slots.append(row)
                    log.append(row)
            elif slots:
                ordinal = n % len(slots)
                if slots[ordinal] is not None:
                    assert log.remove(ordinal) is slots[ordinal]
                    slots[ordinal] = None
        assert log.end == len(slots)
        assert [log.record(ordinal) for ordinal in range(log.end)] == slots
        kept = [(ordinal, row) for ordinal, row in enumerate(slots) if row is not None]
        assert log.size_bytes == len(kept) * (2 + VERSION_OVERHEAD_BYTES)

        start = data.draw(st.integers(0, log.end))
        stop = data.draw(st.integers(start, log.end))
        count = data.draw(st.integers(1, 20))
        expected = [(o, row) for o, row in kept if start <= o < stop][:count]
        pairs, after = log.walk(start, stop, count)
        assert pairs == expected
        taken, next_ordinal = log.take(start, stop, count)
        assert all(a is b for a, (_, b) in zip(taken, expected, strict=False))
        for position, found in ((after, pairs), (next_ordinal, taken)):
            # Whoever goes on from there misses nothing and sees nothing twice.
            rest = [o for o, _ in kept if start <= o < stop][len(found) :]
            assert [o for o, _ in kept if position <= o < stop] == rest

        wanted = data.draw(st.integers(0, revision + 1))
        position = log.position(wanted)
        assert all((o >= position) == (row.mod_revision >= wanted) for o, row in kept)


def test_walking_on_reaches_every_version_once():
    with small_blocks():
        log = RevisionLog()
        rows = [record(2 + n // 3) for n in range(200)]
        for row in rows:
            log.append(row)
        rng = random.Random(5)
        gone = set(rng.sample(range(200), 170))
        for ordinal in sorted(gone):
            log.remove(ordinal)
        seen: list[int] = []
        ordinal = 0
        while ordinal < log.end:
            pairs, ordinal = log.walk(ordinal, log.end, 7)
            seen += [at for at, _ in pairs]
        assert seen == [n for n in range(200) if n not in gone]


def test_a_version_is_found_near_its_revisions_first_slot():
    log = RevisionLog()
    rows = [record(revision) for revision in range(2, 40) for _ in range(revision % 5 + 1)]
    for row in rows:
        log.append(row)
    for ordinal in range(0, len(rows), 2):
        log.remove(ordinal)
    for ordinal in range(1, len(rows), 2):
        assert log.find(rows[ordinal], 8) == ordinal


def test_looking_for_a_version_is_bounded():
    log = RevisionLog()
    for _ in range(20):
        log.append(record(2))
    last = record(2)
    log.append(last)
    with pytest.raises(AssertionError, match="not near"):
        log.find(last, 20)
    assert log.find(last, 21) == 20


def test_memory_follows_what_is_retained():
    log = RevisionLog()
    for revision in range(2, 2 + 8 * BLOCK_SLOTS):
        log.append(record(revision))
    # One version in a thousand stays: the blocks turn sparse, and the emptied front goes.
    for ordinal in range(7 * BLOCK_SLOTS):
        if ordinal < 2 * BLOCK_SLOTS or ordinal % 1000:
            log.remove(ordinal)
    blocks = log._blocks
    assert log._base == 2
    assert len(blocks) == len(log._firsts) == 6
    for block in blocks[:5]:
        assert block is not None
        assert block.offsets is not None
        assert len(block.records) == len(block.revisions) == len(block.offsets) <= 5
    first_kept = next(o for o in range(2 * BLOCK_SLOTS, log.end) if not o % 1000)
    assert log.position(0) == first_kept
    assert log.walk(0, log.end, 1)[0][0][0] == first_kept
